"""What steers do to the norms of hidden states: where they edit them, and in the stream behind their edits.

All runs read the same tokens: a prompt and what the unsteered model, taking the likeliest token each time, writes after
it. Counted are the last token of the prompt and all after it, which every method steers, whichever its scope. At an
edit the state x' that it leaves is compared with the state x that it was given, in the steered run; in the stream the
output of each block with that of the unsteered model at the same token. Ratios are of means over tokens, their
intervals over prompts. Source: HPR, the figure of activation norms.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from steerlab import sites
from steerlab.analyses.steered import Steered
from steerlab.generations import Decoding, generate
from steerlab.metrics import bootstrap
from steerlab.models import ModelHandle, encode, pad, token_ends
from steerlab.progress import progress
from steerlab.sites import Site

COLUMNS = [
    "kind", "method", "seed", "strength", "site", "layer", "norm", "base_norm", "ratio", "low", "high", "deviation",
    "changed", "size", "prompts", "tokens",
]  # fmt: skip
EDIT, STREAM = "edit", "stream"
NEW_TOKENS = 8  # that the unsteered model writes

_BATCH_TEXTS = 16


@dataclass(frozen=True)
class _Batch:
    """Texts of tokens ids, (batch, seq), padded on the right; lengths: of their prompts; owner: each counted token's
    prompt, in the order of `counted`, (batch, seq) bool."""

    ids: Tensor
    mask: Tensor
    lengths: Tensor
    counted: Tensor
    owner: np.ndarray


@dataclass(frozen=True)
class _Norms:
    """Norms at one site of the counted tokens, (tokens,) float64: before, after; changed: whether the state did;
    distance: of the two states, NaN where they are of two runs."""

    before: np.ndarray
    after: np.ndarray
    changed: np.ndarray
    distance: np.ndarray


def norms(
    model: ModelHandle,
    steered: Sequence[Steered],
    prompts: Sequence[tuple[str, str]],
    *,
    new_tokens: int = NEW_TOKENS,
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a steer and place, with COLUMNS: kind "edit" at each site that the steer edits (layer is NaN at one that
    is no layer's), of attention heads the ones it changes; kind "stream" at the output of every block.

    prompts: (id, text). norm, base_norm: means over tokens of |x'| and |x|; ratio: of the two; deviation: mean over
    tokens of | |x'| / |x| - 1 |, which shows what a mean of larger and smaller ones hides; changed: share of tokens
    with x' other than x; size: mean over tokens of |x' - x|, over that of |x|, NaN in the stream. A steer that changes
    weights and edits no states (LoRA) has rows of the stream alone.
    seed: the bootstrap's, not the steer's.
    """
    batches = _batches(model, prompts, new_tokens)
    owner = np.concatenate([batch.owner for batch in batches])
    stream = [Site("block_output", layer) for layer in range(sites.number_of_layers(model.info.config))]
    plain = _stream_norms(model, batches, stream)
    intervals = {"resamples": resamples, "confidence": confidence, "seed": seed}
    rows = []
    for one in progress(steered, total=len(steered), desc="norms", unit="steer"):
        edits, after = _steered_norms(model, batches, one, stream)
        behind = {site: _in_stream(plain[site], after[site]) for site in stream}
        for kind, places in ((EDIT, edits), (STREAM, behind)):
            rows += [
                (kind, one.method, one.steer.record.seed, one.strength, site.name, site.layer)
                + _numbers(found, owner, intervals)
                for site, found in places.items()
            ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _in_stream(before: np.ndarray, after: np.ndarray) -> _Norms:
    return _Norms(before, after, before != after, np.full(len(before), np.nan))


def _numbers(found: _Norms, owner: np.ndarray, intervals: Mapping[str, Any]) -> tuple[float, ...]:
    """norm, base_norm, ratio, low, high, deviation, changed, size, prompts, tokens."""
    after, before = (np.bincount(owner, weights=norm) for norm in (found.after, found.before))
    ratio = bootstrap.ratio(after, before, **intervals)
    means = (float(found.after.mean()), float(found.before.mean()))
    shares = (float(np.abs(found.after / found.before - 1).mean()), float(found.changed.mean()))
    size = float(found.distance.mean() / found.before.mean())
    return (*means, ratio.value, ratio.low, ratio.high, *shares, size, ratio.n, len(owner))


# ---- running the model ----


def _batches(model: ModelHandle, prompts: Sequence[tuple[str, str]], new_tokens: int) -> list[_Batch]:
    """The prompts with the unsteered model's continuations, in their order."""
    tokenizer, device = model.info.tokenizer, model.device
    greedy = Decoding(max_new_tokens=new_tokens, min_new_tokens=new_tokens, temperature=0.0)
    batches = []
    for start in range(0, len(prompts), _BATCH_TEXTS):
        part = prompts[start : start + _BATCH_TEXTS]
        written = generate(model.load(), tokenizer, part, greedy, seed=0).set_index("id")["text"]
        texts = [text + written[name] for name, text in part]
        ids, mask = pad(
            [encode(tokenizer, text) for text in texts], side="right", pad_id=tokenizer.pad_token_id or 0, device=device
        )
        # A token over the border belongs to what was written, as everywhere.
        inside = [sum(end <= len(text) for end in token_ends(tokenizer, all)) for (_, text), all in zip(part, texts)]
        lengths = torch.tensor(inside, device=device).clamp(min=1)
        counted = (mask.cumsum(1) >= lengths[:, None]) & mask.bool()
        owner = start + counted.nonzero()[:, 0].cpu().numpy()
        batches.append(_Batch(ids, mask, lengths, counted, owner))
    return batches


@torch.no_grad()
def _run(model: ModelHandle, batch: _Batch) -> None:
    loaded = model.load()
    with sites.prompt(loaded, batch.lengths, batch.mask):
        loaded(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=(batch.mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )


def _stream_norms(model: ModelHandle, batches: Sequence[_Batch], stream: Sequence[Site]) -> dict[Site, np.ndarray]:
    """|x| at the output of each block, (tokens,), of the unsteered model."""
    found: dict[Site, list[np.ndarray]] = {site: [] for site in stream}
    for batch in batches:
        with sites.without_head(model.load()), sites.capture(model.load(), stream) as states:
            _run(model, batch)
        for site in stream:
            found[site].append(_norm(_of(states[site], batch)))
    return {site: np.concatenate(parts) for site, parts in found.items()}


def _steered_norms(
    model: ModelHandle, batches: Sequence[_Batch], one: Steered, stream: Sequence[Site]
) -> tuple[dict[Site, _Norms], dict[Site, np.ndarray]]:
    """What the edits do at their own sites, and |x'| at the output of each block."""
    edited = list(one.steer.sites)
    edits: dict[Site, list[_Norms]] = {site: [] for site in edited}
    after: dict[Site, list[np.ndarray]] = {site: [] for site in stream}
    for batch in batches:
        attached = one.steer.attached(model.load(), one.strength)
        headless = nullcontext() if Site("logits") in edited else sites.without_head(model.load())
        with headless, sites.capture_around(model.load(), edited, attached, stream) as (given, left):
            _run(model, batch)
        for site in edited:
            edits[site].append(_compared(_of(given[site], batch), _of(left[site], batch)))
        for site in stream:
            after[site].append(_norm(_of(left[site], batch)))
    return (
        {site: _Norms(*map(np.concatenate, zip(*map(_fields, parts)))) for site, parts in edits.items()},
        {site: np.concatenate(parts) for site, parts in after.items()},
    )


def _of(states: Tensor, batch: _Batch) -> Tensor:
    """The states of the tokens that count, (tokens, ...)."""
    return states[batch.counted.to(states.device)]


def _compared(before: Tensor, after: Tensor) -> _Norms:
    """States (tokens, hidden) or (tokens, heads, head size); of the heads those count that are changed at all."""
    differs = before != after
    if before.ndim == 3 and differs.any():
        heads = differs.any(0).any(-1)
        before, after = before[:, heads], after[:, heads]
    changed, distance = differs.flatten(1).any(1).cpu().numpy(), _norm(after.double() - before.double())
    return _Norms(_norm(before), _norm(after), changed, distance)


def _norm(states: Tensor) -> np.ndarray:
    return states.flatten(1).double().norm(dim=1).cpu().numpy()


def _fields(found: _Norms) -> tuple[np.ndarray, ...]:
    return found.before, found.after, found.changed, found.distance
