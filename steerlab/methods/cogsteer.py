"""CogSteer: one block learns the unwished texts, and what it would have done is taken off where the model decides.

A bottleneck adapter (`bottleneck`) in block l is trained to predict unwished texts, the model's weights fixed. At
inference the adapted stream runs beside the model's own (`streams`), on its own past. In the attention of block c, at
the last prompt token and all after it, with v and t the heads' outputs of the two streams and delta = t - v:
v' = v - s (1 + |delta|)^0.4 delta, |delta| a head's, and v' is then scaled to the norm that v has over all heads.
s > 0 turns away from the unwished texts, s < 0 towards them.

Source: CogSteer, the section on toxicity, and tox/gpt2 of its code, PostMindLab/cogsteer. As there, c is l + 1, and
where every block is adapted, or the last one, 0.1 of the adapted logits is taken off as well; with a linear head that
is a change of the states before it. In the last block no later attention shows what its adapter did, and there the
logits alone are changed. (A head's bias stays as it is, and what bends logits afterwards, Gemma 2's soft cap, acts
after the change.) Unlike there (`official_code` keeps its ways, see `cogsteer_official`) tokens are drawn from
the edited forward, and the adapted stream has a past of its own.
"""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import cos, inf, pi
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerlab import layer_choices, sites
from steerlab.data.splits import fitted_and_judging
from steerlab.language_modelling import Text, batches, mean_loss
from steerlab.methods import bottleneck, cogsteer_official, steer_files
from steerlab.methods.protocol import Activations, check_strength
from steerlab.models import ModelHandle, encode, identity
from steerlab.progress import progress
from steerlab.sites import Site, Where
from steerlab.streams import Stream

log = logging.getLogger(__name__)

NORM_EXPONENT = 0.4  # norm_exp of the official code
LOGITS_SHARE = 0.1  # of the adapted logits, taken off where every block is adapted, or the last
HEAD = Site("lm_head_input")


@dataclass(frozen=True, eq=False)
class CogSteer:
    """tensors: float32, the adapters' weights as `bottleneck.tensors` names them; of a random control also
    `directions.<layer>`, (heads, head size), and `directions.lm_head_input`, (hidden,), unit vectors."""

    tensors: Mapping[str, Tensor]
    record: steer_files.Record

    strengths: ClassVar[tuple[float, float]] = (-inf, inf)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The heads of the contrasted blocks, and the last states where the logits are contrasted."""
        return self.record.sites

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations | None = None,
        *,
        seed: int,
        adapter_layer: float | Literal["picked", "random", "all"] = 0.5,
        contrast_layer: float | None = None,
        picked: int | None = None,
        reduction: int = 16,
        updates: int = 40,
        batch_blocks: int = 16,
        block_tokens: int = 50,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        evaluations: int = 4,
        judging_blocks: int = 32,
        held_out: float = 0.1,
        official_code: bool = False,
    ) -> Self:
        """See `Steer.fit`. data: `id`, `label`, `text`; no activations.

        adapter_layer: the adapted block, an index or a share of the depth below 1; "picked", by the layer choice, which
        `picked` says; "random", any other, drawn by the seed; or "all". contrast_layer: whose attention is edited, None
        for the block after the adapted one. reduction: hidden size over the adapter's width. updates, batch_blocks,
        block_tokens: training steps of so many runs of so many tokens. learning_rate (falling to 0 as a cosine),
        weight_decay: of AdamW. evaluations: how often the loss is taken on the first judging_blocks blocks of texts
        held out (a share, drawn by the seed); the weights with the lowest are kept.
        Raises ValueError for blocks that the model does not have or that show nothing, for "picked" without a choice,
        without texts, and where training diverges.
        """
        config = model.info.config
        blocks, contrasts = placed(sites.number_of_layers(config), config, adapter_layer, contrast_layer, picked, seed)
        parts = [_blocks(model, data.iloc[rows], block_tokens) for rows in fitted_and_judging(data, seed, held_out)]
        fitted, judging = parts[0], parts[1][:judging_blocks]
        if not fitted:
            raise ValueError("CogSteer has no unwished text to train on; give some, or hold fewer out")
        loaded: Any = model.load()
        generator = torch.Generator().manual_seed(seed)
        adapters = bottleneck.make(loaded, blocks, reduction=reduction, generator=generator)
        log.info(
            "CogSteer: %d trained weights in blocks %s", sum(w.numel() for w in bottleneck.trained(adapters)), blocks
        )
        steps = progress(
            batches(len(fitted), batch_blocks, updates, generator),
            total=updates,
            desc=f"CogSteer, seed {seed}",
            unit="step",
        )
        drawn = ([fitted[place] for place in batch] for batch in steps)
        judged = _Judged(loaded, judging or fitted[:judging_blocks], batch_blocks)
        every = max(1, -(-updates // evaluations))
        tensors = _trained(loaded, adapters, drawn, judged, updates, every, learning_rate, weight_decay)
        record = steer_files.Record.of_fit(
            cls, model, data,
            seed=seed,
            config={
                "blocks": blocks, "contrasts": contrasts, "reduction": reduction, "official_code": official_code,
                "heads": list(_head_shape(config)), "hidden": [config.hidden_size],
                "updates": updates, "batch_blocks": batch_blocks, "block_tokens": block_tokens,
                "learning_rate": learning_rate, "weight_decay": weight_decay, "evaluations": evaluations,
                "judging_blocks": judging_blocks, "held_out": held_out,
            },
            sites=(*(Site("attention_heads", layer) for layer in contrasts), *_head_site(config, blocks)),
        )  # fmt: skip
        return cls(tensors, record)

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`; a second stream runs beside the model, contrasted from the last prompt token on."""
        check_strength(strength, self.strengths)
        steer_files.check_model(self.record, identity(model))
        return self._attached(model, strength) if strength else nullcontext()

    @contextmanager
    def _attached(self, model: PreTrainedModel, strength: float) -> Iterator[None]:
        stream, near = self.stream(model), self._near(model)
        edits = {
            site: functools.partial(near._head_edited if site == HEAD else near._edited, stream, strength)
            for site in self.sites
        }
        official = self.record.config["official_code"]
        twice = cogsteer_official.two_passes(model, stream) if official else nullcontext()
        with stream.following(), twice, sites.edit(model, edits, scope="from_last_prompt_token"):
            yield

    def stream(self, model: PreTrainedModel) -> Stream:
        """The adapted stream of a model, through the blocks that matter; to be entered with `following`."""
        settings = self.record.config
        blocks, to_end = settings["blocks"], HEAD in self.sites
        adapters = bottleneck.make(model, blocks, reduction=settings["reduction"])
        bottleneck.fill(adapters, self.tensors, model.dtype)
        last = sites.number_of_layers(model.config) - 1 if to_end else max(settings["contrasts"])
        return Stream(model, min(blocks), last, adapters, to_end=to_end, base_history=settings["official_code"])

    def _near(self, model: PreTrainedModel) -> Self:
        """The same with a random control's directions where the states are: an edit that copies waits for a card."""
        drawn = {name: each.to(model.device) for name, each in self.tensors.items() if name.startswith("directions.")}
        return type(self)({**self.tensors, **drawn}, self.record)

    def _edited(self, stream: Stream, strength: float, x: Tensor, where: Where) -> Tensor:
        if stream.is_paused:
            return x
        delta = self._directed(stream.heads(where.layer or 0) - x, f"directions.{where.layer}")
        return contrasted(x, delta, strength)

    def _head_edited(self, stream: Stream, strength: float, x: Tensor, where: Where) -> Tensor:
        adapted = stream.lm_head_input()[:, where.columns]
        return x - strength * LOGITS_SHARE * self._directed(adapted, f"directions.{HEAD.name}")

    def _directed(self, states: Tensor, name: str) -> Tensor:
        """Of a random control the states' sizes in its own directions, else the states as they are."""
        if name not in self.tensors:
            return states
        size = self.record.config["factor"] * states.norm(dim=-1, keepdim=True)
        return size * self.tensors[name].to(states.device, states.dtype)

    def save(self, folder: Path) -> None:
        """See `Steer.save`; the tensors are the adapters'."""
        steer_files.save(folder, self.record, dict(self.tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, tensors = steer_files.read(folder)
        return cls(tensors, record)

    def with_random_directions(self, generator: torch.Generator) -> Self:
        """The control: at each token and head delta keeps its size and points in one random direction a head."""
        settings = self.record.config
        shapes = {f"directions.{layer}": settings["heads"] for layer in settings["contrasts"]}
        if HEAD in self.sites:
            shapes[f"directions.{HEAD.name}"] = settings["hidden"]
        drawn = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
        units = {name: each / each.norm(dim=-1, keepdim=True) for name, each in drawn.items()}
        return type(self)({**self.tensors, **units}, self.record.with_config(random=True, factor=1.0))

    def scaled(self, factor: float) -> Self:
        """The control whose delta is `factor` times this one's."""
        return type(self)(self.tensors, self.record.with_config(factor=self.record.config["factor"] * factor))


def contrasted(v: Tensor, delta: Tensor, strength: float) -> Tensor:
    """v - s (1 + |delta|)^0.4 delta, scaled to the norm of v over heads and head size together.

    v, delta: (..., heads, head size), any float dtype; |delta| is taken a head. Returns a tensor like v.
    Source: CogSteer's toxicity section; `reversal_func` of the official innerdetox_hook.py (norm_exp 0.4, renorm).
    """
    scale = (1 + delta.norm(dim=-1, keepdim=True)) ** NORM_EXPONENT
    turned = v - strength * scale * delta
    size, new = (each.flatten(-2).norm(dim=-1)[..., None, None] for each in (v, turned))
    return turned * (size / new.clamp(min=torch.finfo(v.dtype).tiny))


def placed(
    layers: int,
    config: Any,
    adapter_layer: float | str,
    contrast_layer: float | None,
    picked: int | None,
    seed: int,
) -> tuple[list[int], list[int]]:
    """The adapted blocks, and those whose attention is edited, of a model with so many layers; see `CogSteer.fit`."""
    if isinstance(adapter_layer, str):
        blocks = layer_choices.named(adapter_layer, layers, picked, seed=seed)
    else:
        blocks = [sites.layer_index(config, adapter_layer)]
    if len(blocks) > 1:
        if contrast_layer is not None:
            raise ValueError("CogSteer with every block adapted edits every block; leave contrast_layer out")
        return blocks, blocks[1:]
    (block,) = blocks
    if block == layers - 1:
        if contrast_layer is not None and sites.layer_index(config, contrast_layer) != block:
            raise ValueError(f"the last block, {block}, is adapted, after which none is left; leave contrast_layer out")
        return [block], []
    contrast = block + 1 if contrast_layer is None else sites.layer_index(config, contrast_layer)
    if contrast <= block:
        raise ValueError(
            f"contrast_layer {contrast} does not lie after the adapted block {block}; nothing differs there"
        )
    return [block], [contrast]


def _head_site(config: Any, blocks: Sequence[int]) -> tuple[Site, ...]:
    """The head's input, where the adapted logits are taken off as well."""
    return (HEAD,) if sites.number_of_layers(config) - 1 in blocks else ()


def _head_shape(config: Any) -> tuple[int, int]:
    """(heads, head size), as the site of heads shows them."""
    heads = config.num_attention_heads
    return heads, getattr(config, "head_dim", None) or config.hidden_size // heads


# ---- training ----


def _blocks(model: ModelHandle, data: pd.DataFrame, block_tokens: int) -> list[Text]:
    """The unwished texts behind one another, each with an end of text where the model has one, cut into blocks; what is
    left over, too short for a block, is kept only where there is no other."""
    tokenizer, ids = model.info.tokenizer, []
    for text in data[data["label"] < 0]["text"]:
        ids += encode(tokenizer, text) + ([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])
    starts = range(0, max(len(ids) - block_tokens, 0) + 1, block_tokens)
    found = [ids[start : start + block_tokens] for start in starts]
    return [Text(block, list(range(1, len(block)))) for block in found if len(block) > 1]


@dataclass(frozen=True)
class _Judged:
    """The mean loss on texts held out, in batches."""

    model: Any
    texts: list[Text]
    batch_rows: int

    @torch.no_grad()
    def loss(self) -> float:
        embeddings, total, tokens = self.model.get_output_embeddings().weight, 0.0, 0
        for start in range(0, len(self.texts), self.batch_rows):
            part = self.texts[start : start + self.batch_rows]
            asked = sum(len(text.asked) for text in part)
            total, tokens = total + asked * float(mean_loss(self.model, embeddings, part)), tokens + asked
        return total / tokens


def _trained(
    model: Any,
    adapters: dict[str, torch.nn.Module],
    drawn: Iterator[list[Text]],
    judged: _Judged,
    updates: int,
    every: int,
    learning_rate: float,
    weight_decay: float,
) -> dict[str, Tensor]:
    """The weights with the lowest loss on texts held out, among those after each `every` updates and the last."""
    weights, embeddings = bottleneck.trained(adapters), model.get_output_embeddings().weight
    adam = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=weight_decay)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: (1 + cos(pi * step / max(updates, 1))) / 2)
    best, kept = inf, bottleneck.tensors(adapters)
    with sites.modules(model, adapters):
        first = judged.loss()
        for step, texts in enumerate(drawn, 1):
            loss = mean_loss(model, embeddings, texts)
            adam.zero_grad()
            loss.backward()
            adam.step()
            falling.step()
            if step % every == 0 or step == updates:
                found = judged.loss()
                if found < best:
                    best, kept = found, bottleneck.tensors(adapters)
    if not updates:
        return kept
    if best == inf:
        raise ValueError(f"CogSteer's loss is not finite after {updates} updates; lower its learning_rate")
    level = logging.INFO if best < first else logging.WARNING  # an adapter that learnt nothing is no contrast
    log.log(level, "CogSteer: loss on texts held out %.3f before training, %.3f at its best", first, best)
    return kept
