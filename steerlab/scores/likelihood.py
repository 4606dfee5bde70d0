"""Log-likelihoods of continuations: what a model, steered or not, thinks of given texts.

Continuations of one context share its forward pass through the KV cache, and log-probabilities are taken only of the
tokens asked about.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

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
    results = [(0.0, 0)] * len(pairs)
    to_score = [index for index, text in enumerate(texts) if len(text.ids) > text.first]
    for batch in _batches(
        [pairs[index][0] for index in to_score], [texts[index] for index in to_score], tokens_a_batch
    ):
        members = [[to_score[place] for place in group] for group in batch]
        groups = [_Group([texts[index] for index in group]) for group in members]
        scored = _score(model, tokenizer.pad_token_id, groups, tokens_a_batch)
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
    """Tokens, pads included, of the batch's larger forward pass."""
    prefixes = len({contexts[index] for index in batch}) * max(texts[index].first for index in batch)
    return max(prefixes, len(batch) * max(len(texts[index].ids) - texts[index].first for index in batch))


def _common(sequences: list[list[int]]) -> int:
    """Length of the longest common prefix."""
    shortest, longest = min(sequences), max(sequences)
    for place, (one, other) in enumerate(zip(shortest, longest)):
        if one != other:
            return place
    return min(len(shortest), len(longest))


def _score(model: Any, pad_id: int, groups: list[_Group], tokens_a_batch: int) -> Tensor:
    """Negative log-likelihoods, (rows,) float64 on the CPU, of all texts of the groups in order.

    Columns of a batch: the groups' shared prefixes, padded on the left, then each text's rest, padded on the right.
    """
    texts = [text for group in groups for text in group.texts]
    owner = [number for number, group in enumerate(groups) for _ in group.texts]
    prefixes, prefix_mask = pad(
        [group.texts[0].ids[: group.shared] for group in groups], side="left", pad_id=pad_id, device=model.device
    )
    rests, rest_mask = pad(
        [text.ids[groups[number].shared :] for text, number in zip(texts, owner)],
        side="right",
        pad_id=pad_id,
        device=model.device,
    )
    width = prefixes.shape[1]
    mask = torch.cat([prefix_mask[owner], rest_mask], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    first = torch.tensor([text.first for text in texts], device=model.device)
    cache = None
    with torch.no_grad():
        if width:
            # A row for each group: its first text's, of which this forward sees the prefix.
            head = [owner.index(number) for number in range(len(groups))]
            with sites.prompt(model, first[head], mask[head]):
                cache = model(
                    input_ids=prefixes,
                    attention_mask=prefix_mask,
                    position_ids=positions[head, :width],
                    use_cache=True,
                    logits_to_keep=1,
                ).past_key_values
            cache.batch_select_indices(torch.tensor(owner, device=model.device))
        nll = torch.zeros(len(texts), dtype=torch.float64, device=model.device)
        columns = max(1, tokens_a_batch // len(texts))
        with sites.prompt(model, first, mask):
            last = rests.shape[1] - 1  # the last column predicts nothing
            for start in range(0, last, columns):
                stop = min(start + columns, last)
                output = model(
                    input_ids=rests[:, start:stop],
                    attention_mask=mask[:, : width + stop],
                    position_ids=positions[:, width + start : width + stop],
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = output.past_key_values
                # The logits at a column predict the next column's token.
                targets = rests[:, start + 1 : stop + 1]
                ahead = slice(width + start + 1, width + stop + 1)
                wanted = (positions[:, ahead] >= first[:, None]) & mask[:, ahead].bool()
                rows, places = wanted.nonzero(as_tuple=True)
                nll.index_add_(0, rows, -_log_probabilities(output.logits, rows, places, targets[rows, places]))
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
