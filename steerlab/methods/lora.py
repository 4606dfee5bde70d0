"""LoRA: W -> W + s (alpha / r) B A at the attention's linear projections, fine-tuned on texts of the wished class.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", eq. 3; the layers are peft's. As there, A
begins at random and B at 0, and the base weights never change. Only the tokens of the answer (the characters start to
end of a text, all where the table has no such columns) count in the loss, and no end of text is learnt.
Unlike there, the learning rate stays as it is, every projection of the attention is adapted and not only queries and
values (`targets`), and the strength s scales the change, so that 0 is the base model.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
import torch

from steerlab import low_rank, sites
from steerlab.data.splits import fitted_and_judging
from steerlab.language_modelling import Text, batches, mean_loss
from steerlab.low_rank import Layers, adapted_paths
from steerlab.methods import steer_files
from steerlab.methods.low_rank_steer import LowRankSteer
from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle, Tokenizer, encode, token_ends
from steerlab.progress import progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoRA(LowRankSteer):
    """See `LowRankSteer` for what it holds, and how it is attached."""

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations | None = None,
        *,
        seed: int,
        rank: int = 8,
        alpha: float = 16.0,
        targets: Sequence[str] | None = None,
        updates: int = 60,
        batch_texts: int = 8,
        learning_rate: float = 2e-4,
        max_tokens: int = 256,
        held_out: float = 0.1,
    ) -> Self:
        """See `Steer.fit`. data: `id`, `label`, `text`, `start` and `end` where only a part counts; no activations.

        alpha: the change is alpha / rank times B A at strength 1. targets: last names of the adapted linear modules
        (["q_proj", "v_proj"]), None for all in the attention. updates: training steps. batch_texts, learning_rate: of
        AdamW, without weight decay. max_tokens: a text's first so many. held_out: share of the texts left out, drawn by
        the seed.
        Raises ValueError for targets that the model has not, without a wished text, and where training diverges.
        """
        texts = _texts(model.info.tokenizer, data, fitted_and_judging(data, seed, held_out)[0], max_tokens)
        loaded: Any = model.load()
        generator = torch.Generator().manual_seed(seed)
        layers = low_rank.fresh(loaded, adapted_paths(loaded, targets), rank, alpha, generator)
        _train(loaded, layers, texts, updates, batch_texts, learning_rate, generator, seed)
        tensors = low_rank.tensors_of(layers)
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise ValueError(f"LoRA's weights are not finite after {updates} updates; lower its learning_rate")
        record = steer_files.Record.of_fit(
            cls, model, data,
            seed=seed,
            config={
                "rank": rank, "alpha": alpha, "targets": targets and list(targets),
                "updates": updates, "batch_texts": batch_texts, "learning_rate": learning_rate,
                "max_tokens": max_tokens, "held_out": held_out,
            },
            sites=(),
        )  # fmt: skip
        return cls(tensors, record)


# ---- training ----


def _texts(tokenizer: Tokenizer, data: pd.DataFrame, rows: list[int], max_tokens: int) -> list[Text]:
    """The wished texts among the rows, as this model reads them; raises ValueError where there is none to learn."""
    chosen = data.iloc[rows]
    chosen = chosen[chosen["label"] > 0]
    whole = [0] * len(chosen), [len(text) for text in chosen["text"]]
    starts, ends = (chosen.get(name, default) for name, default in zip(("start", "end"), whole))
    texts = []
    for text, start, end in zip(chosen["text"], starts, ends, strict=True):
        stops = token_ends(tokenizer, text)[:max_tokens]
        asked = [place for place in range(1, len(stops)) if stops[place] > start and stops[place - 1] < end]
        if asked:
            texts.append(Text(encode(tokenizer, text)[:max_tokens], asked))
    if len(texts) < len(chosen):
        log.warning(
            "LoRA: %d of %d texts are longer than max_tokens and say nothing", len(chosen) - len(texts), len(chosen)
        )
    if not texts:
        raise ValueError("LoRA has no wished text to train on; give some, hold fewer out or raise max_tokens")
    return texts


def _train(
    model: Any,
    layers: Layers,
    texts: Sequence[Text],
    steps: int,
    batch_texts: int,
    learning_rate: float,
    generator: torch.Generator,
    seed: int,
) -> None:
    """AdamW on the mean loss of the tokens asked for; changes the layers' A and B."""
    embeddings, losses = model.get_output_embeddings().weight, []
    factors = [factor for layer in layers.values() for factor in low_rank.factors(layer)]
    adam = torch.optim.AdamW(factors, lr=learning_rate, weight_decay=0.0)
    with sites.modules(model, layers):
        order = batches(len(texts), batch_texts, steps, generator)
        for batch in progress(order, total=steps, desc=f"LoRA, seed {seed}", unit="step"):
            loss = mean_loss(model, embeddings, [texts[place] for place in batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.detach())
    if losses:
        log.info("LoRA: loss %.3f at the first of %d steps, %.3f at the last", losses[0], steps, losses[-1])
