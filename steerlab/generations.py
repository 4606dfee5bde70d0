"""Generations: continuations of prompts, drawn so that a text hardly depends on what else is in its batch.

Each token is drawn with one uniform number of its own, keyed by (seed, prompt, sample, step), by inverting the
cumulative distribution. A prompt is computed once for all its samples, and no row is sorted unless its nucleus is wide.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from steerlab import sites
from steerlab.data import tables
from steerlab.decoding import prefill
from steerlab.methods.settings import at_settings
from steerlab.models import ModelHandle, Tokenizer, encode, pad
from steerlab.store import WHOLE, Share

COLUMNS = ["id", "sample", "steps", "strength", "text", "tokens"]


@dataclass(frozen=True)
class Decoding:
    """How continuations are drawn. Lengths in tokens; temperature 0 takes the likeliest token; top_p 1 keeps all."""

    samples: int = 1
    max_new_tokens: int = 20
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "samples": self.samples >= 1,
            "max_new_tokens": self.max_new_tokens >= 1,
            "min_new_tokens": 0 <= self.min_new_tokens <= self.max_new_tokens,
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
        }
        for name, holds in limits.items():
            if not holds:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; need samples and max_new_tokens >= 1, "
                    "0 <= min_new_tokens <= max_new_tokens, temperature >= 0, 0 < top_p <= 1"
                )


def of_cell(
    model: Path,
    table: Path,
    steer: Path | None,
    settings: Sequence[tuple[int, float]],
    spec: Mapping[str, Any],
    work: Path,
    share: Share = WHOLE,
) -> pd.DataFrame:
    """All continuations of one cell, batch by batch; finished batches lie in `work` and are not drawn again.

    model: model folder; table: the task's table; steer: a steer's folder, None for the model as it is; settings: its
    training steps (0 where it has none) and strength, one after the other.
    spec: device, dtype, attention, split, rendering, prompts (a class, None for all), seed, decoding and
    has_checkpoints (of the steer, by steps), as the experiment gives them. share: those of the
    batches, of all settings together, that are asked for; the rows are theirs alone.
    Returns a row a continuation: id, sample, steps, strength, text, tokens; sorted by steps, strength, id, sample.
    """
    handle = ModelHandle.of(model, spec)
    drawn = dict(spec["decoding"])
    batch_rows, decoding = drawn.pop("batch_rows"), Decoding(**drawn)
    prompts = tables.prompts(table, split=spec["split"], rendering=spec["rendering"], limit=spec["prompts"])
    tokenizer = handle.info.tokenizer
    lengths = [len(encode(tokenizer, text)) for _, text in prompts]
    cuts = batches(lengths, [name for name, _ in prompts], batch_rows, decoding.samples)

    def compute(cut: list[int]) -> pd.DataFrame:
        return generate(handle.load(), tokenizer, [prompts[i] for i in cut], decoding, spec["seed"])

    how = {"work": work, "share": share, "desc": f"generations, seed {spec['seed']}", "unit": "batch"}
    how |= {"has_checkpoints": spec["has_checkpoints"], "columns": COLUMNS}
    rows = at_settings(steer, handle, settings, cuts, compute, **how)
    return rows.sort_values(["steps", "strength", "id", "sample"], ignore_index=True)[COLUMNS]


def batches(lengths: Sequence[int], ids: Sequence[str], rows_a_batch: int, samples: int) -> list[list[int]]:
    """Indices of the prompts of each batch: all prompts sorted by (length, id), cut into fixed slices.

    lengths: tokens a prompt; rows_a_batch: rows of a decoding step, prompts times samples; a batch has one prompt at
    least. The cut depends on nothing else, so however the batches are spread over shards, the texts are the same bytes.
    """
    order = sorted(range(len(ids)), key=lambda index: (lengths[index], ids[index]))
    prompts = max(1, rows_a_batch // samples)
    return [order[start : start + prompts] for start in range(0, len(order), prompts)]


def generate(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[tuple[str, str]], decoding: Decoding, seed: int
) -> pd.DataFrame:
    """Continue one batch of prompts, `decoding.samples` times each. Inside `sites.edit` the continuations are steered.

    prompts: (id, text). Returns a row a continuation, in the order of the prompts, then samples: id, sample (int), text
    (without the prompt), tokens (list[int], up to and without the end of the sequence). Raises ValueError for a prompt
    without tokens and FloatingPointError if the logits cease to be finite.
    """
    sequences = [encode(tokenizer, text) for _, text in prompts]
    empty = [name for (name, _), sequence in zip(prompts, sequences) if not sequence]
    if empty:
        raise ValueError(f"prompt {empty[0]!r} has no tokens; a continuation needs at least one to go on from")
    drawn = uniforms(seed, [name for name, _ in prompts], decoding.samples, decoding.max_new_tokens)
    tokens, lengths = _decode(model, tokenizer, sequences, decoding, torch.from_numpy(drawn).to(model.device))
    rows = []
    for row, (new, length) in enumerate(zip(tokens.tolist(), lengths.tolist())):
        prompt, sample = divmod(row, decoding.samples)
        text = _continuation(tokenizer, sequences[prompt], new[:length])
        rows.append({"id": prompts[prompt][0], "sample": sample, "text": text, "tokens": new[:length]})
    return pd.DataFrame(rows, columns=["id", "sample", "text", "tokens"])


def uniforms(seed: int, ids: Sequence[str], samples: int, steps: int) -> np.ndarray:
    """The numbers in [0, 1) that decide the draws, (prompts * samples, steps) float64, samples of a prompt together.

    The number of (seed, id, sample, step) is the step-th of a Philox stream keyed by the SHA-256 of the other three: it
    depends on nothing else, neither on the other prompts nor on how many samples and steps are asked for.
    """
    numbers = np.empty((len(ids) * samples, steps))
    for row in range(len(numbers)):
        key = json.dumps([seed, ids[row // samples], row % samples]).encode()
        words = np.frombuffer(hashlib.sha256(key).digest()[:16], dtype="<u8")
        numbers[row] = np.random.Generator(np.random.Philox(key=words)).random(steps)
    return numbers


def sample_tokens(logits: Tensor, u: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at u.

    logits: (rows, vocab), any float dtype; u: (rows,) float64 in [0, 1). Returns (rows,) int64.
    top_p = 1 accumulates in the order of token ids. Below 1 the nucleus is the smallest set of likeliest tokens whose
    probability reaches top_p (the set of transformers' TopPLogitsWarper; equally likely tokens by ascending id),
    accumulated from the likeliest on. Sums are taken in float64. temperature = 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    if logits.dtype != torch.float64:
        logits = logits.float()
    weights = (logits - logits.amax(-1, keepdim=True)).div_(temperature).exp_()
    if top_p >= 1:
        return _invert(weights, u)
    return _invert_nucleus(logits, weights, u, top_p)


# ---- decoding ----


def _decode(
    model: Any, tokenizer: Tokenizer, sequences: list[list[int]], decoding: Decoding, drawn: Tensor
) -> tuple[Tensor, Tensor]:
    """New tokens (rows, max_new_tokens) int64 and how many of each row count (rows,), on the CPU."""
    stops = torch.tensor(stop_ids(model, tokenizer), dtype=torch.int64, device=model.device)
    ids, mask = pad(sequences, side="left", pad_id=tokenizer.pad_token_id, device=model.device)
    steps, rows = decoding.max_new_tokens, len(ids) * decoding.samples
    tokens = torch.full((rows, steps), -1, device=model.device)  # -1: not drawn, all rows had ended
    finite = torch.ones(rows, dtype=torch.bool, device=model.device)
    going = torch.ones_like(finite)

    with torch.no_grad(), sites.prompt(model, mask.sum(-1), mask):
        logits, after = prefill(model, ids, mask, samples=decoding.samples, new_tokens=steps)
        for step in range(steps):
            finite &= logits.amax(-1).isfinite()
            if step < decoding.min_new_tokens:
                logits = logits.index_fill(1, stops, -torch.inf)
            tokens[:, step] = sample_tokens(
                logits, drawn[:, step], temperature=decoding.temperature, top_p=decoding.top_p
            )
            going &= ~torch.isin(tokens[:, step], stops)
            # Asking whether all rows have ended waits for the device, so it is asked now and then.
            asked = step >= decoding.min_new_tokens and step % STEPS_BETWEEN_QUESTIONS == 0
            if step == steps - 1 or (asked and not going.any()):
                break
            logits = after(tokens[:, step])
    if not finite.all():
        raise FloatingPointError(
            f"{int((~finite).sum())} of {rows} rows gave logits that are not finite; use a lower strength"
        )
    counted = ((tokens >= 0) & ~torch.isin(tokens, stops)).long().cumprod(-1).sum(-1)
    return tokens.cpu(), counted.cpu()


STEPS_BETWEEN_QUESTIONS = 4


def stop_ids(model: Any, tokenizer: Tokenizer) -> list[int]:
    """All tokens that end a sequence: what the model's generation config and the tokenizer call so."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return sorted({*named, tokenizer.eos_token_id} - {None})


def _continuation(tokenizer: Tokenizer, prompt: list[int], new: list[int]) -> str:
    """The text that the new tokens add. Decoded alone, a token may lose the space that it begins with."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = tokenizer.decode(prompt, **options)
    whole = tokenizer.decode(prompt + new, **options)
    if not whole.startswith(before):
        raise ValueError(f"the tokenizer rewrites {before[-20:]!r} when tokens follow; it cannot tell what was added")
    return whole[len(before) :]


# ---- inverse of the cumulative distribution ----

BLOCK = 256  # two levels of sums: first over blocks of tokens, then inside one block
CANDIDATES = 512  # tokens that are sorted at first; most nuclei of a trained model lie within


def _invert(weights: Tensor, u: Tensor) -> Tensor:
    """First token whose cumulative weight exceeds u times the total; weights (rows, vocab) need not sum to 1."""
    blocks = _blocks(weights)
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = (u * ends[:, -1])[:, None]
    block = _first_beyond(ends, target)
    before = functional.pad(ends, (1, 0)).gather(-1, block)
    inside = blocks[torch.arange(len(u), device=u.device), block[:, 0]].double().cumsum(-1)
    return (block * BLOCK + _first_beyond(inside, target - before))[:, 0]


def _first_beyond(cumulative: Tensor, target: Tensor) -> Tensor:
    """Index (rows, 1) of the first entry beyond the target; where rounding leaves none, of the last with any weight."""
    beyond = (cumulative <= target).sum(-1, keepdim=True)
    return beyond.minimum((cumulative < cumulative[:, -1:]).sum(-1, keepdim=True))


def _invert_nucleus(logits: Tensor, weights: Tensor, u: Tensor, top_p: float) -> Tensor:
    """Draw from each row's nucleus. Sorts CANDIDATES tokens a row, and all tokens of the rows that need more."""
    # By blocks, because a float64 sum over whole rows is thirty times slower: torch converts all of them first.
    mass = top_p * _blocks(weights).sum(-1, dtype=torch.float64).sum(-1, keepdim=True)
    top, ids = logits.topk(min(CANDIDATES, logits.shape[-1]), sorted=False)
    least = top.amin(-1, keepdim=True)
    ids, order = ids.sort(-1)
    top, order = top.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(-1, order)
    cumulative = weights.gather(-1, ids).double().cumsum(-1)
    tokens = _draw(cumulative, ids, mass, u)
    # Tokens as likely as the least candidate may have been left out, so the mass must be reached before those.
    sure = cumulative.gather(-1, ((top > least).sum(-1, keepdim=True) - 1).clamp(min=0)) >= mass
    sure &= top[:, :1] > least
    wide = (~sure[:, 0]).nonzero()[:, 0]
    if len(wide) and top.shape[-1] < logits.shape[-1]:
        ids = logits[wide].sort(dim=-1, descending=True, stable=True).indices
        cumulative = weights[wide].gather(-1, ids).double().cumsum(-1)
        tokens[wide] = _draw(cumulative, ids, mass[wide], u[wide])
    return tokens


def _draw(cumulative: Tensor, ids: Tensor, mass: Tensor, u: Tensor) -> Tensor:
    """Tokens (rows,) at the share u of the nucleus: the likeliest up to the one that reaches `mass` (rows, 1)."""
    last = (cumulative < mass).sum(-1, keepdim=True).clamp(max=cumulative.shape[-1] - 1)
    place = (cumulative <= u[:, None] * cumulative.gather(-1, last)).sum(-1, keepdim=True).minimum(last)
    return ids.gather(-1, place)[:, 0]


def _blocks(weights: Tensor) -> Tensor:
    """The rows as blocks, (rows, blocks, BLOCK), the last one filled up with zeros."""
    return functional.pad(weights, (0, -weights.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
