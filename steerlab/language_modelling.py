"""Teaching new modules of a frozen model to predict texts: texts as tokens, their loss, the order of batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steerlab import sites
from steerlab.losses import linear_cross_entropy
from steerlab.models import pad
from steerlab.sites import Site


@dataclass(frozen=True)
class Text:
    """Token ids of a text; asked: places (from 1) of the tokens that count in the loss."""

    ids: list[int]
    asked: list[int]


def mean_loss(model: Any, embeddings: Tensor, texts: Sequence[Text]) -> Tensor:
    """Mean cross-entropy in nats of the tokens asked for; logits are made of their states alone.

    embeddings: (vocab, hidden), of the model's head.
    """
    ids, mask = pad([text.ids for text in texts], side="right", pad_id=0, device=model.device)
    positions, site = (mask.cumsum(1) - 1).clamp(min=0), Site("lm_head_input")
    with sites.without_head(model), sites.capture(model, [site]) as states:
        model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    rows = torch.tensor([row for row, text in enumerate(texts) for _ in text.asked], device=model.device)
    places = torch.tensor([place for text in texts for place in text.asked], device=model.device)
    return linear_cross_entropy(states[site][rows, places - 1].float(), embeddings, ids[rows, places])


def batches(rows: int, batch_rows: int, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of places for so many steps, shuffled anew in every epoch; the last of an epoch may be smaller."""
    left: list[int] = []
    for _ in range(steps):
        left = left or torch.randperm(rows, generator=generator).tolist()
        batch, left = left[:batch_rows], left[batch_rows:]
        yield batch
