"""SLIM's third stage: how far each of several layers moves the states, so that what is flagged by mistake stays itself.

The README's title alone names the stage ("aggregate layer-wise interventions to minimize the semantic shifts of the
false detection, aligned on semantic preference data"); neither paper nor code has it. This is the project's reading of
it: weights w in [0, 1], one a layer, under which the model prefers the text as it was, o, to what the edited model
would have said in its place, e, no less than the base model does:

    - log sigmoid(beta ((log p_w(o) - log p(o)) - (log p_w(e) - log p(e))))

over texts of the wished class that the vote flags. The weights begin at 1 and follow the loss for a few updates.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from steerlab import sites
from steerlab.models import ModelHandle, Tokenizer, encode, pad, token_ends
from steerlab.progress import progress

log = logging.getLogger(__name__)

TEXTS, BATCH_TEXTS, EPOCHS = 64, 8, 2
BETA, LEARNING_RATE = 0.1, 0.05
LONGEST = 32  # tokens of a continuation

Editing = Callable[[Tensor], AbstractContextManager[None]]
Pair = tuple[list[int], list[int], list[int]]  # token ids of a prompt, of what follows it, and of what would have


def fitted_weights(model: ModelHandle, texts: Sequence[tuple[str, int]], layers: int, editing: Editing) -> Tensor:
    """w, (layers,) float32 in [0, 1].

    texts: (text, character at which what follows the prompt begins) of wished texts that were flagged; of one without a
    prompt, at 0, the first half is taken for it. The first TEXTS count. editing(w): the edit with these weights, by
    which gradients flow back to w. Where the edited model would have said what was there every weight stays 1.
    """
    weights = torch.ones(layers)
    pairs = [pair for batch in _batches(list(texts[:TEXTS])) for pair in _pairs(model, batch, editing(weights))]
    pairs = [pair for pair in pairs if pair[1] != pair[2]]
    if not pairs:
        log.warning("SLIM: of %d texts flagged by mistake no continuation changes; every weight stays 1", len(texts))
        return weights
    body = model.load()
    body.requires_grad_(False)
    with torch.no_grad():
        base = [_preferences(body, batch, nullcontext()) for batch in _batches(pairs)]
    weights.requires_grad_()
    adam = torch.optim.Adam([weights], lr=LEARNING_RATE)
    plan = [(batch, of_base) for _ in range(EPOCHS) for batch, of_base in zip(_batches(pairs), base)]
    for batch, of_base in progress(plan, total=len(plan), desc="SLIM's weights", unit="update"):
        adam.zero_grad()
        margin = _preferences(body, batch, editing(weights)) - of_base
        (-functional.logsigmoid(BETA * margin).mean()).backward()
        adam.step()
        with torch.no_grad():
            weights.clamp_(0.0, 1.0)
    return weights.detach()


def _batches(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + BATCH_TEXTS] for start in range(0, len(items), BATCH_TEXTS)]


def _pairs(model: ModelHandle, texts: Sequence[tuple[str, int]], edited: AbstractContextManager[None]) -> list[Pair]:
    """Each prompt with what follows it, at most LONGEST tokens, and as many that the edited model says, greedily."""
    body: Any = model.load()
    tokenizer = model.info.tokenizer
    cut = [ids for ids in (_cut(tokenizer, *text) for text in texts) if ids[1]]
    if not cut:
        return []
    prompts, own = (list(ids) for ids in zip(*cut))
    ids, mask = pad(prompts, side="left", pad_id=tokenizer.pad_token_id or 0, device=model.device)
    longest = max(map(len, own))
    with torch.no_grad(), edited:
        said = body.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=longest, min_new_tokens=longest, do_sample=False
        )
    ours = said[:, ids.shape[1] :].tolist()
    return [(prompt, text, other[: len(text)]) for prompt, text, other in zip(prompts, own, ours)]


def _cut(tokenizer: Tokenizer, text: str, start: int) -> tuple[list[int], list[int]]:
    """Ids of the prompt, and of what follows it. A token belongs to what follows if it ends behind `start`."""
    ids, ends = encode(tokenizer, text), token_ends(tokenizer, text)
    first = next((place for place, end in enumerate(ends) if end > start), len(ids)) if start else len(ids) // 2
    first = max(1, first)
    return ids[:first], ids[first:][:LONGEST]


def _preferences(body: Any, pairs: Sequence[Pair], edited: AbstractContextManager[None]) -> Tensor:
    """log p(o) - log p(e) of each pair, (pairs,), the prompt given."""
    rows = [prompt + text for prompt, text, _ in pairs] + [prompt + other for prompt, _, other in pairs]
    lengths = [len(prompt) for prompt, _, _ in pairs] * 2
    ids, mask = pad(rows, side="right", pad_id=0, device=body.device)
    with edited, sites.prompt(body, lengths, mask):
        logits = body(input_ids=ids, attention_mask=mask, use_cache=False).logits
    nll = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    columns = torch.arange(1, ids.shape[1], device=ids.device)
    counts = (columns >= torch.tensor(lengths, device=ids.device)[:, None]) & mask[:, 1:].bool()
    own, other = (nll.view(len(rows), -1) * counts).sum(1).chunk(2)
    return other - own
