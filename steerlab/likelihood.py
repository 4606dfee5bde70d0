"""Log-likelihoods of continuations: what a model, steered or not, thinks of given texts.

What texts have in common is computed once, through the KV cache: the trunk with which all contexts of a batch begin
(the same examples before every question), then each context, then its continuations. Log-probabilities are taken only
of the tokens asked about.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from steerlab import sites
from steerlab.models import Tokenizer, opens_with_bos, pad


def log_likelihoods(
    model: Any, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, tokens_a_batch: int
) -> list[tuple[float, int]]:
    """(negative log-likelihood in nats, summed over the scored tokens; their number) of each (context, continuation).

    The two texts are tokenised as one; scored are the tokens that end beyond the context, so a token that straddles the
    border counts for the continuation. The first token of a text is predicted by nothing and never scored: an empty
    context leaves it out, unless the tokenizer begins every text with a token of its own.
    Inside `sites.edit` the scores are the steered model's; the prompt is the tokens before the first scored one.
    tokens_a_batch: tokens of a forward pass; at most so many rows of logits, (tokens, vocab), are held at a time.
    Raises FloatingPointError if the log-probabilities of a continuation are not finite.
    """
    texts = [_tokenise(tokenizer, context, continuation) for context, continuation in pairs]
    results, kept = [(0.0, 0)] * len(pairs), None
    to_score = [index for index, text in enumerate(texts) if len(text.ids) > text.first]
    for batch in _batches(
        [pairs[index][0] for index in to_score], [texts[index] for index in to_score], tokens_a_batch
    ):
        members = [[to_score[place] for place in group] for group in batch]
        groups = [_Group([texts[index] for index in group]) for group in members]
        trunk = _trunk(model, groups, kept)
        kept = trunk or kept
        scored = _score(model, tokenizer.pad_token_id, groups, trunk, tokens_a_batch)
        for index, nll in zip([index for group in members for index in group], scored.tolist(), strict=True):
            results[index] = nll, len(texts[index].ids) - texts[index].first
            if not math.isfinite(nll):
                raise FloatingPointError(f"the log-likelihood of {pairs[index][1]!r} is {-nll}; use a lower strength")
    return results


@dataclass(frozen=True)
class _Text:
    """Token ids of context and continuation together; scored from index `first` on, which is the prompt's length."""

    ids: list[int]
    first: int


class _Group:
    """Texts of one context. `shared`: leading tokens that all have in common, none of which predicts a scored one."""

    def __init__(self, texts: list[_Text]):
        self.texts = texts
        self.shared = min(_common([text.ids for text in texts]), min(text.first for text in texts) - 1)


def _tokenise(tokenizer: Tokenizer, context: str, continuation: str) -> _Text:
    whole = context + continuation
    encoded = tokenizer(whole, return_offsets_mapping=True, add_special_tokens=not opens_with_bos(tokenizer, whole))
    ends = [end for _, end in encoded["offset_mapping"]]
    # Special tokens at the end have an empty span; they are no part of the text.
    ids = encoded["input_ids"][: max((index + 1 for index, end in enumerate(ends) if end), default=0)]
    first = next((index for index, end in enumerate(ends) if end > len(context)), len(ids))
    return _Text(ids, max(1, first))


def _batches(contexts: Sequence[str], texts: Sequence[_Text], tokens_a_batch: int) -> list[list[list[int]]]:
    """Batches of groups of indices: contexts of like length together, the texts of one context side by side.

    Order and cut depend on the texts alone. A batch holds at most tokens_a_batch tokens, or one text.
    """
    longest: dict[str, int] = {}
    for context, text in zip(contexts, texts, strict=True):
        longest[context] = max(longest.get(context, 0), len(text.ids))
    order = sorted(range(len(texts)), key=lambda i: (longest[contexts[i]], contexts[i], len(texts[i].ids), i))
    batches: list[list[int]] = []
    for index in order:
        if batches and _cost([*batches[-1], index], contexts, texts) <= tokens_a_batch:
            batches[-1].append(index)
        else:
            batches.append([index])
    return [[list(group) for _, group in groupby(batch, key=contexts.__getitem__)] for batch in batches]


def _cost(batch: list[int], contexts: Sequence[str], texts: Sequence[_Text]) -> int:
    """Tokens, pads included, of the forward passes of trunk, one row, and prefixes; the rests are cut by `_parts`."""
    trunk = _worthwhile(min(_common([texts[index].ids for index in batch]), min(texts[i].first for i in batch) - 1))
    prefixes = len({contexts[index] for index in batch}) * (max(texts[index].first for index in batch) - trunk)
    return max(trunk, prefixes)


def _common(sequences: list[list[int]]) -> int:
    """Length of the longest common prefix."""
    shortest, longest = min(sequences), max(sequences)
    for place, (one, other) in enumerate(zip(shortest, longest)):
        if one != other:
            return place
    return min(len(shortest), len(longest))


@dataclass(frozen=True)
class _Trunk:
    """The first tokens of some contexts and, in one row, what the model made of them: keys and values by layer."""

    ids: list[int]
    states: list[tuple[Tensor, Tensor]]

    def expanded(self, pads: Sequence[int]) -> DynamicCache:
        """The cache of rows that begin with so many pads and then the trunk, cut at the trunk's length.

        Shifted to the right like this, the trunk stands where the rows' padded prefixes have it, so that no pad comes
        between it and the rest: the distance of two tokens in columns, which a sliding window counts, stays theirs.
        """
        cache, device = DynamicCache(), self.states[0][0].device  # of a model over several cards, the first layer's
        columns = torch.arange(len(self.ids), device=device) - torch.tensor(pads, device=device)[:, None]
        columns = columns.clamp(min=0)  # what stands at a pad is never read
        for layer, states in enumerate(self.states):
            keys, values = (state[0][:, columns.to(state.device)].transpose(0, 1).contiguous() for state in states)
            cache.update(keys, values, layer)
        return cache


WORTHWHILE = 8  # tokens; a shorter trunk is not taken apart


def _worthwhile(tokens: int) -> int:
    return tokens if tokens >= WORTHWHILE else 0


def _trunk(model: Any, groups: list[_Group], kept: _Trunk | None) -> _Trunk | None:
    """What the groups' prefixes have in common, steered as they are; None where they have next to nothing.

    kept: an earlier batch's, which serves as far as it goes unless that costs more than a new one.
    """
    length = min(_common([group.texts[0].ids for group in groups]), *(group.shared for group in groups))
    ids = groups[0].texts[0].ids[:length]
    known = _worthwhile(_common([kept.ids, ids])) if kept else 0
    if kept and known and (length - known) * len(groups) <= length:
        return _Trunk(ids[:known], [(keys[:, :, :known], values[:, :, :known]) for keys, values in kept.states])
    if not _worthwhile(length):
        return None
    row = torch.tensor([ids], device=model.device)
    cache: Any = DynamicCache()  # without a config: it keeps every token, also where attention slides
    # Told as a prompt that goes on for one more token: the last one, where scopes begin, is never in the trunk.
    with torch.no_grad(), sites.prompt(model, [length + 1], row.new_ones(1, length + 1)):
        model(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            position_ids=torch.arange(length, device=model.device)[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    return _Trunk(ids, [(layer.keys, layer.values) for layer in cache.layers])


def _score(model: Any, pad_id: int, groups: list[_Group], trunk: _Trunk | None, tokens_a_batch: int) -> Tensor:
    """Negative log-likelihoods, (rows,) float64 on the CPU, of all texts of the groups in order.

    The groups' shared prefixes, padded on the left, are computed once, a row a group; their first columns come from the
    trunk, which all prefixes begin with. What is left of the texts follows in parts of like length.
    """
    texts = [text for group in groups for text in group.texts]
    owner = [number for number, group in enumerate(groups) for _ in group.texts]
    rests = [text.ids[groups[number].shared :] for text, number in zip(texts, owner)]
    prefixes, prefix_mask = pad(
        [group.texts[0].ids[: group.shared] for group in groups], side="left", pad_id=pad_id, device=model.device
    )
    first = torch.tensor([text.first for text in texts], device=model.device)
    done, width = len(trunk.ids) if trunk else 0, prefixes.shape[1]
    # Without a config a cache keeps every token, also where attention slides.
    cache = trunk.expanded([width - group.shared for group in groups]) if trunk else DynamicCache()
    nll = torch.zeros(len(texts), dtype=torch.float64)
    with torch.no_grad():
        if width > done:
            # Each group's first text, of which this forward sees the prefix.
            head = [owner.index(number) for number in range(len(groups))]
            whole, positions = _columns(prefix_mask, [rests[row] for row in head], pad_id)[1:]
            with sites.prompt(model, first[head], whole):
                model(
                    input_ids=prefixes[:, done:],
                    attention_mask=prefix_mask,
                    position_ids=positions[:, done:width],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
        for part in _parts([len(rest) for rest in rests], tokens_a_batch):
            owners = [owner[row] for row in part]
            ids, mask, positions = _columns(prefix_mask[owners], [rests[row] for row in part], pad_id)
            with sites.prompt(model, first[part], mask):
                nll[part] = _continue(model, _rows_of(cache, owners), ids, mask, positions, first[part], tokens_a_batch)
    return nll


ALIKE = 0.75  # of the longest of a part is the shortest at least, so that little of a forward pass is pads


def _parts(lengths: Sequence[int], tokens_a_batch: int) -> list[list[int]]:
    """Indices of texts of like length, the longest first: at most tokens_a_batch tokens a part, or one text."""
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        longest = lengths[parts[-1][0]] if parts else 0
        if parts and lengths[index] >= ALIKE * longest and (len(parts[-1]) + 1) * longest <= tokens_a_batch:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def _columns(prefix_mask: Tensor, rests: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids of the rests, padded on the right; mask and positions of all columns, those of the prefixes in front."""
    ids, rest_mask = pad(rests, side="right", pad_id=pad_id, device=prefix_mask.device)
    mask = torch.cat([prefix_mask, rest_mask], dim=1)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def _rows_of(cache: Any, rows: list[int]) -> DynamicCache:
    """A cache of its own with these rows of another, in their order."""
    picked = DynamicCache()
    for number, layer in enumerate(cache.layers):
        picked.update(layer.keys[rows], layer.values[rows], number)
    return picked


def _continue(
    model: Any, cache: Any, ids: Tensor, mask: Tensor, positions: Tensor, first: Tensor, tokens_a_batch: int
) -> Tensor:
    """Negative log-likelihoods, (rows,) float64 on the CPU, of the tokens from `first` (rows,) on.

    ids: (rows, rest), what follows the cached columns; mask, positions: (rows, all columns).
    """
    rows, width = len(ids), mask.shape[1] - ids.shape[1]
    nll = torch.zeros(rows, dtype=torch.float64, device=ids.device)
    columns = max(1, tokens_a_batch // rows)
    last = ids.shape[1] - 1  # the last column predicts nothing
    for start in range(0, last, columns):
        stop = min(start + columns, last)
        logits = model(
            input_ids=ids[:, start:stop],
            attention_mask=mask[:, : width + stop],
            position_ids=positions[:, width + start : width + stop],
            past_key_values=cache,
            use_cache=True,
        ).logits
        # The logits at a column predict the next column's token.
        targets = ids[:, start + 1 : stop + 1]
        ahead = slice(width + start + 1, width + stop + 1)
        wanted = (positions[:, ahead] >= first[:, None]) & mask[:, ahead].bool()
        of, places = wanted.nonzero(as_tuple=True)
        nll.index_add_(0, of, -_log_probabilities(logits, of, places, targets[of, places]))
    return nll.cpu()


ROWS_AT_A_TIME = 128


def _log_probabilities(logits: Tensor, rows: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits[row, place])[target], (scored,) float64, without a second tensor of the logits' size."""
    parts = [
        chosen.gather(-1, target[:, None])[:, 0].double() - chosen.logsumexp(-1).double()
        for row, place, target in zip(*(each.split(ROWS_AT_A_TIME) for each in (rows, places, targets)))
        for chosen in [logits[row, place].float()]
    ]
    return torch.cat(parts) if parts else logits.new_zeros(0, dtype=torch.float64)
