"""The random control of a steer: its own edit, with random directions of equal size in place of the learnt ones.

What a learnt steer does beyond this control is due to its directions, and not to the states being changed at all.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from steerlab import sites
from steerlab.methods.protocol import Origin
from steerlab.models import ModelHandle, encode, pad

TOLERANCE, ATTEMPTS = 1e-3, 8


def randomised(model: ModelHandle, origin: Origin) -> Any:
    """The one steer of `origin` with seeded random directions, scaled so that the mean |edit| over the tokens of the
    dev prompts is the learnt one's at the picked strength.

    The steer has `with_random_directions(generator)` and `scaled(factor)`. Raises ValueError where no scale gets within
    0.1 % of the learnt edit, and where it has no size: without prompts, or at strength 0.
    """
    (learnt,) = origin.steers.values()
    if not (origin.prompts and origin.strength):
        found = f"{len(origin.prompts)} dev prompts at strength {origin.strength}"
        raise ValueError(f"no size for a random control from {found}; derive it on a task where a strength is picked")
    control = learnt.with_random_directions(torch.Generator().manual_seed(origin.seed))
    wanted, share = mean_edit(model, learnt, origin.strength, origin.prompts), 0.0
    for _ in range(ATTEMPTS):
        share = mean_edit(model, control, origin.strength, origin.prompts) / wanted
        if abs(share - 1) < TOLERANCE:
            return control
        control = control.scaled(1 / share)  # at once for an edit that its scale is a factor of
    raise ValueError(f"the random control's edit is {share:.3f} of the learnt one's; use another strength")


@torch.no_grad()
def mean_edit(model: ModelHandle, steer: Any, strength: float, texts: Sequence[str], batch_texts: int = 16) -> float:
    """Mean over the tokens of the texts and the steer's sites of |x' - x|, x' the state that the steer makes of x."""
    loaded, tokenizer = model.load(), model.info.tokenizer
    total, tokens = 0.0, 0
    for start in range(0, len(texts), batch_texts):
        sequences = [encode(tokenizer, text) for text in texts[start : start + batch_texts]]
        ids, mask = pad(sequences, side="right", pad_id=tokenizer.pad_token_id or 0, device=model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with ExitStack() as stack:
            # A capture sees what the edits that were opened before it made of the states.
            before = stack.enter_context(sites.capture(loaded, steer.sites))
            stack.enter_context(steer.attached(loaded, strength))
            after = stack.enter_context(sites.capture(loaded, steer.sites))
            loaded(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
            for site in steer.sites:
                change = (after[site] - before[site]).float().flatten(2).norm(dim=-1)
                total, tokens = total + float((change * mask).sum()), tokens + int(mask.sum())
    return total / tokens
