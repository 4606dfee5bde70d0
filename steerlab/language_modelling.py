"""Teaching new modules of a frozen model to predict texts: texts as tokens, their loss, the order of batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steerlab import sites
from steerlab.losses import linear_cross_entropy
from steerlab.models import pad
from steerlab.sites import Site


@dataclass(frozen=True)
class Text:
    """Token ids of a text; asked: places (from 1) of the tokens that count in the loss; positions: what the model is
    told of where each token stands, None to count from 0."""

    ids: list[int]
    asked: list[int]
    positions: list[int] | None = field(default=None, kw_only=True)


def mean_loss(model: Any, embeddings: Tensor, texts: Sequence[Text]) -> Tensor:
    """Mean cross-entropy in nats of the tokens asked for; logits are made of their states alone.

    embeddings: (vocab, hidden), of the model's head.
    """
    states, targets = _asked(model, texts)
    return linear_cross_entropy(states, embeddings, targets)


@torch.no_grad()
def text_losses(model: Any, embeddings: Tensor, texts: Sequence[Text]) -> Tensor:
    """Each text's mean cross-entropy in nats of its tokens asked for, (texts,) float32 on the CPU; see `mean_loss`."""
    states, targets = _asked(model, texts)
    counts = [len(text.asked) for text in texts]
    parts = zip(states.split(counts), targets.split(counts))
    return torch.stack([linear_cross_entropy(each, embeddings, wanted) for each, wanted in parts]).float().cpu()


def _asked(model: Any, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """The states, (tokens, hidden) float32, that predict the tokens asked for, and these tokens."""
    ids, mask = pad([text.ids for text in texts], side="right", pad_id=0, device=model.device)
    positions, site = position_ids(texts, mask), Site("lm_head_input")
    with sites.without_head(model), sites.capture(model, [site]) as states:
        model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    rows = torch.tensor([row for row, text in enumerate(texts) for _ in text.asked], device=model.device)
    places = torch.tensor([place for text in texts for place in text.asked], device=model.device)
    return states[site].to(ids.device)[rows, places - 1].float(), ids[rows, places]


def position_ids(texts: Sequence[Text], mask: Tensor) -> Tensor:
    """The texts' own positions, or counted from each row's first real token; (batch, seq) int64 like the mask."""
    counted = (mask.cumsum(1) - 1).clamp(min=0)
    if any(text.positions for text in texts):
        told = [place for text in texts for place in text.positions or range(len(text.ids))]
        counted[mask.bool()] = torch.tensor(told, device=mask.device)
    return counted


def batches(rows: int, batch_rows: int, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of places for so many steps, shuffled anew in every epoch; the last of an epoch may be smaller."""
    left: list[int] = []
    for _ in range(steps):
        left = left or torch.randperm(rows, generator=generator).tolist()
        batch, left = left[:batch_rows], left[batch_rows:]
        yield batch


def bucketed(lengths: Sequence[int], batch_rows: int, steps: int, generator: torch.Generator) -> list[list[int]]:
    """Batches of places for so many steps, each of texts of like length, so that few pads are computed.

    In every epoch the texts are shuffled, pools of some batches sorted by length and cut, and the batches shuffled.
    """
    found: list[list[int]] = []
    while len(found) < steps:
        order = torch.randperm(len(lengths), generator=generator).tolist()
        pool = POOL * batch_rows
        pools = [sorted(order[start : start + pool], key=lengths.__getitem__) for start in range(0, len(order), pool)]
        cut = [each[start : start + batch_rows] for each in pools for start in range(0, len(each), batch_rows)]
        found += [cut[place] for place in torch.randperm(len(cut), generator=generator).tolist()]
    return found[:steps]


POOL = 16  # batches whose texts are sorted by length together
