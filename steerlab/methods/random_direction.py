"""The random control of a steer: its own edit, with random directions of equal size in place of the learnt ones.

What a learnt steer does beyond this control is due to its directions, and not to the states being changed at all.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from math import exp, expm1, inf, isfinite, log
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerlab import sites
from steerlab.methods.protocol import Origin
from steerlab.models import ModelHandle, encode, pad
from steerlab.sites import Site

TOLERANCE, LIMIT, ATTEMPTS = 1e-3, 1e-2, 16  # the search ends at the first; what is left after it may differ by 1 %


def randomised(model: ModelHandle, origin: Origin) -> Any:
    """The one steer of `origin` with seeded random directions, scaled so that the mean |edit| over the tokens of the
    dev prompts is the learnt one's at the picked strength, within 1 % and mostly within 0.1 %.

    The steer has `with_random_directions(generator)` and `scaled(factor)`, under which its edit grows, by whatever law.
    One that edits only some states may edit no dev prompt, learnt and drawn alike: then it is left as it was drawn.
    Raises ValueError where no scale gets there, and where the edit has no size: without prompts, or at strength 0.
    """
    (learnt,) = origin.steers.values()
    if not (origin.prompts and origin.strength):
        found = f"{len(origin.prompts)} dev prompts at strength {origin.strength}"
        raise ValueError(f"no size for a random control from {found}; derive it on a task where a strength is picked")
    drawn = learnt.with_random_directions(torch.Generator().manual_seed(origin.seed))

    def scaled(factor: float) -> Any:
        return drawn if factor == 1 else drawn.scaled(factor)

    def size(steer: Any) -> float:
        return mean_edit(model, steer, origin.strength, origin.prompts)

    wanted = size(learnt)
    if wanted == 0 == size(drawn):
        message = "%s edits no dev prompt, and neither does its random control, which stays as it was drawn"
        logging.getLogger(__name__).warning(message, learnt.record.method)
        return drawn
    return scaled(factor_to(wanted, lambda factor: size(scaled(factor))))


def factor_to(wanted: float, size: Callable[[float], float]) -> float:
    """The factor > 0 at which size(factor), which grows with it, is `wanted` within 1 % (TOLERANCE if ATTEMPTS do).

    Secant steps between the logarithms, from the factor 1, kept between the factors known to be too small and too
    large. Raises ValueError, with the nearest share that was found, where no factor gets there.
    """
    if not (isfinite(wanted) and wanted > 0):
        raise ValueError(f"the learnt edit's size is {wanted}, which no random control has; use another strength")
    tried: list[tuple[float, float]] = []  # log factor, log of the size as a share of the wanted one
    while len(tried) < ATTEMPTS and not (tried and abs(expm1(tried[-1][1])) < TOLERANCE):
        at = _next(tried)
        found = size(exp(at))
        if not (isfinite(found) and found > 0):
            raise ValueError(f"the random control's edit has size {found}, not {wanted:.3g}; use another strength")
        tried.append((at, log(found / wanted)))
    at, off = min(tried, key=lambda each: abs(each[1]))
    if abs(expm1(off)) > LIMIT:
        raise ValueError(f"the random control's edit is {exp(off):.3f} of the learnt one's; use another strength")
    return exp(at)


def _next(tried: Sequence[tuple[float, float]]) -> float:
    """The log factor to try next."""
    if not tried:
        return 0.0
    at, off = tried[-1]
    slope = 1.0  # of an edit that its factor is a factor of
    if len(tried) > 1 and at != tried[-2][0]:
        slope = min(max((off - tried[-2][1]) / (at - tried[-2][0]), 0.2), 5.0)
    to = at - min(max(off / slope, -2.0), 2.0)
    low = max((place for place, off in tried if off < 0), default=-inf)
    high = min((place for place, off in tried if off > 0), default=inf)
    return to if low < to < high or not low < high or high - low == inf else (low + high) / 2


@torch.no_grad()
def mean_edit(model: ModelHandle, steer: Any, strength: float, texts: Sequence[str], batch_texts: int = 16) -> float:
    """Mean over the tokens of the texts and the steer's sites of |x' - x|, x' the state that the steer makes of x.

    Each text is a prompt: a steer that edits from its last token on leaves the other tokens, which count as 0. Of a
    steer without sites x and x' are the states at `lm_head_input` of the base model and of the steered one.
    """
    loaded, tokenizer = model.load(), model.info.tokenizer
    total, tokens = 0.0, 0
    for start in range(0, len(texts), batch_texts):
        sequences = [encode(tokenizer, text) for text in texts[start : start + batch_texts]]
        ids, mask = pad(sequences, side="right", pad_id=tokenizer.pad_token_id or 0, device=model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        for before, after in _states(loaded, steer, strength, inputs):
            change = (after - before).float().flatten(2).norm(dim=-1)
            total, tokens = total + float((change * mask.to(change.device)).sum()), tokens + int(mask.sum())
    return total / tokens


def _states(
    model: PreTrainedModel, steer: Any, strength: float, inputs: dict[str, Any]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The states (batch, seq, ...) before and after the edit at each site."""
    if not steer.sites:
        site = Site("lm_head_input")
        with sites.without_head(model), sites.capture(model, [site]) as states:
            model(**inputs)
            before = states[site]
            with steer.attached(model, strength):
                model(**inputs)
        yield before, states[site]
        return
    headless = nullcontext() if Site("logits") in steer.sites else sites.without_head(model)
    with headless, sites.capture_around(model, steer.sites, steer.attached(model, strength)) as (before, after):
        model(**inputs)
    for site in steer.sites:
        yield before[site], after[site]
