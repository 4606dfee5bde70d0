"""How far a steered model is from the unsteered one: KL divergence over the unsteered model's own continuations.

At each token of a continuation both models tell what comes next, given the same words before; the divergence is of the
unsteered model from the steered one, in nats, over the whole vocabulary. All steers are held to the same continuations,
so that one that talks about other things pays where the unsteered model would have talked. A method that changes the
prompt alone is a steered model, too: the one that reads its own rendering.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import pandas as pd
import torch
from torch import Tensor

from steerlab import sites
from steerlab.analyses.steered import Steered
from steerlab.models import ModelHandle, batches, encode, pad
from steerlab.progress import progress

COLUMNS = ["method", "steps", "strength", "id", "tokens", "kl"]

Prompts = Mapping[str, str]  # text by id


def divergence(
    model: ModelHandle,
    steered: Sequence[Steered],
    prompts: Prompts,
    continuations: Mapping[str, Sequence[int]],
    *,
    rendered: Mapping[str, Prompts] | None = None,
    tokens_a_batch: int,
) -> pd.DataFrame:
    """One row a steered model and prompt, with COLUMNS; kl: the sum over the tokens of the continuation, in nats.

    prompts: what the unsteered model was asked, by id; continuations: its token ids, by id, none of them empty.
    rendered: by method, other renderings of the same prompts, for methods whose steer is None.
    tokens_a_batch: of a forward pass; the logits of two, at the continuations' tokens, are held at a time.
    Raises FloatingPointError for a steered model whose numbers are not finite.
    """
    tokenizer = model.info.tokenizer
    asked = {name: [encode(tokenizer, texts[id]) for id in continuations] for name, texts in (rendered or {}).items()}
    plain = [encode(tokenizer, prompts[id]) for id in continuations]
    new = [list(ids) for ids in continuations.values()]
    rows = []
    cuts = list(batches([len(one) + len(other) for one, other in zip(plain, new)], tokens_a_batch))
    for cut in progress(cuts, total=len(cuts), desc="divergence", unit="batch"):
        answers = [new[index] for index in cut]
        base = _next_tokens(model, [plain[index] for index in cut], answers)
        for one in steered:
            read = asked[one.method] if one.steer is None else plain
            with one.steer.attached(model.load(), one.strength) if one.steer else nullcontext():
                own = _next_tokens(model, [read[index] for index in cut], answers)
            rows += [
                (one.method, one.steps, one.strength, list(continuations)[index], len(new[index]), _summed(*each))
                for index, *each in zip(cut, base, own)
            ]
    return _checked(pd.DataFrame(rows, columns=COLUMNS))


@torch.no_grad()
def _next_tokens(model: ModelHandle, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[Tensor]:
    """A text's logits at the tokens that its continuation's are drawn after, (tokens, vocab), by the model as it is."""
    loaded, pad_id = model.load(), model.info.tokenizer.pad_token_id
    whole = [prompt + answer for prompt, answer in zip(prompts, answers)]
    ids, mask = pad(whole, side="left", pad_id=pad_id, device=loaded.device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=loaded.device)
    kept = max(map(len, answers)) + 1  # the last one predicts what follows the continuation
    with sites.prompt(loaded, lengths, mask):
        logits = loaded(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=kept,
        ).logits
    return [of_text[kept - len(answer) - 1 : -1] for of_text, answer in zip(logits, answers)]


def _summed(base: Tensor, own: Tensor) -> float:
    """Sum over tokens of KL(base || own). base, own: logits, (tokens, vocab)."""
    base, own = base.float().log_softmax(-1), own.float().log_softmax(-1)
    return (base.exp() * (base - own)).sum(-1).clamp(min=0).double().sum().item()  # below 0 by rounding alone


def _checked(rows: pd.DataFrame) -> pd.DataFrame:
    broken = rows[~rows.kl.map(math.isfinite)]
    if len(broken):
        one = broken.iloc[0]
        raise FloatingPointError(
            f"{one.method} at strength {one.strength:g}: the KL divergence on prompt {one.id} is {one.kl}; "
            "use a lower strength"
        )
    return rows
