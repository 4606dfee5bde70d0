"""What steers cost on ordinary text: cross-entropy, and KL divergence of the unsteered model from the steered one.

Both are taken of the first tokens of texts that no steer has to do with. A text's first token is its whole prompt, so
that a steer of either scope edits every token. KL counts the next-token distribution after each token, cross-entropy
all tokens but the first, which nothing predicts. The unsteered model runs once a batch, for all steers.
Source: the code of ITI, which SLIM's follows (100 texts of OpenWebText, 128 tokens, edited from position 0).
"""

import logging
import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from steerlab import sites
from steerlab.analyses.steered import Steered
from steerlab.data.splits import first_by_hash, row_id
from steerlab.models import ModelHandle, Tokenizer, encode
from steerlab.progress import progress

log = logging.getLogger(__name__)

COLUMNS = ["method", "seed", "strength", "text", "tokens", "ce", "base_ce", "kl"]


def chosen(texts: Sequence[str], n: int | None) -> list[str]:
    """The first n texts in hash order, all where n is None, each once; raises ValueError where there are fewer."""
    there = list(dict.fromkeys(texts))
    if n is not None and n > len(there):
        raise ValueError(
            f"ordinary_text: {n} texts are asked for, the source has {len(there)}; lower analyses.ordinary_text.texts "
            "or name another door in data.sources.ordinary_text"
        )
    return first_by_hash(there, n)


def ordinary_text(
    model: ModelHandle, steered: Sequence[Steered], texts: Sequence[str], *, tokens: int, tokens_a_batch: int
) -> pd.DataFrame:
    """One row a steer and text, with COLUMNS; nothing is pooled here, as seeds are pooled text by text.

    tokens: how many of a text count; a text with fewer is left out. text: its id (splits.row_id). ce, base_ce: mean
    cross-entropy under the steered and the unsteered model; kl: mean KL(unsteered || steered); in nats a token.
    tokens_a_batch: of a forward pass; the logits of two passes, (tokens, vocab), are held at a time.
    Raises ValueError where no text is long enough, FloatingPointError for a steered model whose numbers are not finite.
    """
    names, ids = _cut(model.info.tokenizer, texts, tokens)
    parts = ids.to(model.device).split(max(1, tokens_a_batch // tokens))
    base_ce: list[float] = []
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in steered]
    for part in progress(parts, total=len(parts), desc="ordinary text", unit="batch"):
        base = _logits(model, part).float().log_softmax(-1)
        base_ce += [_cross_entropy(*text) for text in zip(base, part)]
        for one, (ce, kl) in zip(steered, found):
            with one.steer.attached(model.load(), one.strength):
                logits = _logits(model, part)
            for unsteered, text, own in zip(base, part, logits):
                of_text = own.float().log_softmax(-1)
                ce.append(_cross_entropy(of_text, text))
                kl.append(_divergence(unsteered, of_text))
    tables = [_rows(one, names, tokens, base_ce, *values) for one, values in zip(steered, found)]
    return pd.concat(tables, ignore_index=True)


def _rows(
    one: Steered, names: list[str], tokens: int, base_ce: list[float], ce: list[float], kl: list[float]
) -> pd.DataFrame:
    for name, *values in zip(names, ce, kl):
        if not all(map(math.isfinite, values)):
            raise FloatingPointError(
                f"{one.method} at strength {one.strength:g}: cross-entropy {values[0]} and KL divergence {values[1]} "
                f"on text {name}; use a lower strength"
            )
    about = {"method": one.method, "seed": one.steer.record.seed, "strength": one.strength}
    return pd.DataFrame(about | {"text": names, "tokens": tokens, "ce": ce, "base_ce": base_ce, "kl": kl})[COLUMNS]


def _cut(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> tuple[list[str], Tensor]:
    """Of the texts that have so many tokens, ids and first tokens, (texts, tokens)."""
    encoded = {row_id(text): encode(tokenizer, text)[:tokens] for text in texts}
    long = {name: ids for name, ids in encoded.items() if len(ids) == tokens}
    if short := len(encoded) - len(long):
        log.info("%d of %d texts are left out, which have fewer than %d tokens", short, len(encoded), tokens)
    if not long:
        raise ValueError(
            f"ordinary_text: none of {len(encoded)} texts has {tokens} tokens; lower analyses.ordinary_text.tokens"
        )
    return list(long), torch.tensor(list(long.values()))


@torch.no_grad()
def _logits(model: ModelHandle, ids: Tensor) -> Tensor:
    """(texts, tokens, vocab) of the model as it stands, the first token of each text being its prompt."""
    loaded, mask = model.load(), torch.ones_like(ids)
    with sites.prompt(loaded, [1] * len(ids), mask):
        return loaded(input_ids=ids, attention_mask=mask, position_ids=mask.cumsum(1) - 1, use_cache=False).logits


def _cross_entropy(log_probabilities: Tensor, ids: Tensor) -> float:
    """Mean over a text's tokens but the first. log_probabilities: (tokens, vocab); ids: (tokens,)."""
    return -log_probabilities[:-1].gather(-1, ids[1:, None]).double().mean().item()


def _divergence(base: Tensor, own: Tensor) -> float:
    """Mean over a text's tokens of KL(base || own). base, own: log-probabilities, (tokens, vocab)."""
    of_tokens = (base.exp() * (base - own)).sum(-1)
    return of_tokens.clamp(min=0).double().mean().item()  # below 0 by rounding alone
