"""Classifying texts with a frozen model that an intervention in chosen blocks bends, and a linear head on top.

The head reads the last token's state after the final norm. Head and intervention are learnt together; the model's own
weights never change, and the blocks below the lowest intervention keep nothing for the gradient.
Source: CogSteer, section on GLUE: one block's intervention against all blocks'. Unlike there, dropout is off.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from steerlab import sites
from steerlab.data import glue
from steerlab.methods import adaption_prompt, attention_prefix, bottleneck
from steerlab.models import ModelHandle, Tokenizer, encode, pad
from steerlab.progress import progress

log = logging.getLogger(__name__)

Make = Callable[..., dict[str, nn.Module]]
# name -> (modules that go into a model, what of them is learnt)
INTERVENTIONS: dict[str, tuple[Make, Callable[[dict[str, nn.Module]], list[nn.Parameter]]]] = {
    "bottleneck": (bottleneck.make, bottleneck.trained),
    "prefix": (attention_prefix.make, attention_prefix.trained),
    "adaption_prompt": (adaption_prompt.make, adaption_prompt.trained),
}
LARGEST_GRADIENT = 1.0  # norm to which gradients are cut, as the official code's trainer does
SORTED_BATCHES = 8  # whose rows are sorted by length: fewer pads are computed
HEAD_STD = 0.02  # of the head's weights at the start


@dataclass(frozen=True)
class Training:
    """learning_rate: of AdamW; batch_rows; epochs; warmup: share of the steps in which the rate rises from 0, after
    which it falls as a cosine; weight_decay; max_tokens: of a text or pair; updates: steps at most, None for all."""

    learning_rate: float
    batch_rows: int = 32
    epochs: int = 2
    warmup: float = 0.1
    weight_decay: float = 1e-4
    max_tokens: int = 128
    updates: int | None = None


@dataclass(frozen=True)
class Recipe:
    """How a classifier is made, but for its layers and seed. intervention: a name in INTERVENTIONS, or "head" for none,
    which has no layers; classes: 0 for a score; settings: the intervention's own, such as reduction or length."""

    intervention: str
    classes: int
    settings: Mapping[str, Any]
    training: Training

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Self:
        """From a spec with the keys intervention, classes, settings, training (the fields of Training)."""
        named = {key: spec[key] for key in ("intervention", "classes", "settings")}
        return cls(**named, training=Training(**spec["training"]))


@dataclass(frozen=True)
class Classifier:
    """An intervention (path -> module, as for `sites.modules`; empty for none) and a head on one model.

    classes: of the head's outputs; 0 for one that is a score. losses: of each step; seconds: of each step.
    """

    model: PreTrainedModel
    replacements: dict[str, nn.Module]
    parameters: list[nn.Parameter]
    head: nn.Linear
    classes: int
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Learnt numbers of the intervention, the head's not counted."""
        return sum(parameter.numel() for parameter in self.parameters)


def make(model: PreTrainedModel, recipe: Recipe, layers: Sequence[int], generator: torch.Generator) -> Classifier:
    """A classifier as it is before training.

    Raises ValueError for an unknown intervention, SiteError for a layer that is not there.
    """
    intervention, classes = recipe.intervention, recipe.classes
    if intervention != "head" and intervention not in INTERVENTIONS:
        raise ValueError(f"no intervention {intervention!r}; choose one of head, {', '.join(INTERVENTIONS)}")
    head = cast(nn.Linear, nn.utils.skip_init(nn.Linear, model.config.hidden_size, max(classes, 1)))
    nn.init.normal_(head.weight, std=HEAD_STD, generator=generator)
    nn.init.zeros_(head.bias)
    replacements: dict[str, nn.Module] = {}
    learnt: list[nn.Parameter] = []
    if intervention != "head":
        fresh, trained = INTERVENTIONS[intervention]
        replacements = fresh(model, layers, generator=generator, **recipe.settings)
        learnt = trained(replacements)
    return Classifier(model, replacements, learnt, head.to(model.device), classes)


def train(
    classifier: Classifier,
    tokenizer: Tokenizer,
    rows: pd.DataFrame,
    training: Training,
    *,
    generator: torch.Generator,
    desc: str,
) -> None:
    """Learn from the rows (text, second, label), in place; losses and seconds are noted in the classifier.

    Raises ValueError where the loss is not finite.
    """
    texts, labels = _encoded(tokenizer, rows, training.max_tokens), _targets(classifier, rows)
    batches = list(_batches([len(text) for text in texts], training, generator))
    learnt = [*classifier.parameters, *classifier.head.parameters()]
    adam = torch.optim.AdamW(learnt, lr=training.learning_rate, weight_decay=training.weight_decay)
    rate = get_cosine_schedule_with_warmup(adam, round(training.warmup * len(batches)), len(batches))
    with sites.modules(classifier.model, classifier.replacements):
        for batch in progress(batches, total=len(batches), desc=desc, unit="step"):
            began = time.perf_counter()
            outputs = _outputs(classifier, [texts[place] for place in batch])
            loss = _loss(classifier, outputs, labels[batch])
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learnt, LARGEST_GRADIENT)
            adam.step()
            rate.step()
            classifier.losses.append(float(loss.detach()))
            classifier.seconds.append(time.perf_counter() - began)
            if not loss.isfinite():
                raise ValueError(f"{desc}: the loss is {float(loss.detach())}; lower the learning rate")
    first, last = classifier.losses[0], sum(classifier.losses[-10:]) / len(classifier.losses[-10:])
    log.info("%s: %d parameters, loss %.3f at first, %.3f at last", desc, classifier.count, first, last)


@torch.no_grad()
def predict(
    classifier: Classifier, tokenizer: Tokenizer, rows: pd.DataFrame, *, batch_rows: int, max_tokens: int
) -> pd.DataFrame:
    """One row a row of `rows` (id, text, second, label), in their order: id, label, prediction (a class or a score)."""
    texts = _encoded(tokenizer, rows, max_tokens)
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    predicted = torch.empty(len(texts))
    with sites.modules(classifier.model, classifier.replacements):
        for start in range(0, len(by_length), batch_rows):
            batch = by_length[start : start + batch_rows]
            outputs = _outputs(classifier, [texts[place] for place in batch])
            predicted[batch] = (outputs.argmax(-1) if classifier.classes else outputs[:, 0]).float().cpu()
    return pd.DataFrame({"id": rows.id, "label": rows.label, "prediction": predicted.double().numpy()})


def fit_and_predict(
    model: ModelHandle, fitted: pd.DataFrame, asked: pd.DataFrame, recipe: Recipe, *, layers: Sequence[int], seed: int
) -> pd.DataFrame:
    """The predictions for the rows `asked` of a classifier that learnt from the rows `fitted`: as `predict`, and
    parameters, the count of what the intervention learnt. The seed sets what is drawn at the start and the order."""
    tokenizer, training = model.info.tokenizer, recipe.training
    generator = torch.Generator().manual_seed(seed)
    classifier = make(model.load(), recipe, layers, generator)
    where = "" if not layers else f", block {layers[0]}" if len(layers) == 1 else f", {len(layers)} blocks"
    what = f"{recipe.intervention}{where}, seed {seed}"
    train(classifier, tokenizer, fitted, training, generator=generator, desc=what)
    read = {"batch_rows": 2 * training.batch_rows, "max_tokens": training.max_tokens}
    return predict(classifier, tokenizer, asked, **read).assign(parameters=classifier.count)


# ---- helpers ----


def _outputs(classifier: Classifier, texts: Sequence[Sequence[int]]) -> Tensor:
    """The head's outputs, (texts, classes), float32; the intervention is in the model already."""
    model, site = classifier.model, sites.Site("lm_head_input")
    ids, mask = pad(texts, side="right", pad_id=0, device=model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with sites.without_head(model), sites.capture(model, [site]) as states:
        model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    last = states[site].to(model.device)[torch.arange(len(ids), device=model.device), mask.sum(1) - 1]
    return classifier.head(last.float())


def _loss(classifier: Classifier, outputs: Tensor, targets: Tensor) -> Tensor:
    if classifier.classes:
        return nn.functional.cross_entropy(outputs, targets)
    return nn.functional.mse_loss(outputs[:, 0], targets)


def _targets(classifier: Classifier, rows: pd.DataFrame) -> Tensor:
    labels = torch.tensor(rows.label.to_numpy(), device=classifier.model.device)
    return labels.long() if classifier.classes else labels.float()


def _encoded(tokenizer: Tokenizer, rows: pd.DataFrame, max_tokens: int) -> list[list[int]]:
    """Token ids of each row; of a pair that is too long the longer text loses its end, token by token."""
    seconds = [None if pd.isna(second) else second for second in rows.second]
    encoded = []
    for text, second in zip(rows.text, seconds):
        first, then = glue.parts(text, second)
        a, b = encode(tokenizer, first), tokenizer(then, add_special_tokens=False)["input_ids"] if then else []
        while len(a) + len(b) > max_tokens:
            (a if len(a) >= len(b) else b).pop()
        encoded.append(a + b)
    return encoded


def _batches(lengths: Sequence[int], training: Training, generator: torch.Generator) -> Iterator[list[int]]:
    """Places of the rows of each step, shuffled anew in every epoch.

    The rows of so many batches are sorted by length among themselves, as a batch costs what its longest row costs.
    """
    size, done = training.batch_rows, 0
    for _ in range(training.epochs):
        order = torch.randperm(len(lengths), generator=generator).tolist()
        batches = []
        for start in range(0, len(order), SORTED_BATCHES * size):
            window = sorted(order[start : start + SORTED_BATCHES * size], key=lambda place: lengths[place])
            batches += [window[begin : begin + size] for begin in range(0, len(window), size)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            if done == training.updates:
                return
            yield batches[place]
            done += 1
