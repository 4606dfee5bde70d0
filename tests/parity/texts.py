"""What the tests here share: texts to fit on, a function put before a module, and decoding that keeps its logits."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pandas as pd
import torch
from torch import Tensor

WORDS = {1.0: ("thank you", "how kind", "well done", "a lovely day"), -1.0: ("go away", "you fool", "I hate it", "no")}


def texts(rows: int = 60) -> pd.DataFrame:
    """Texts of both classes in turn; columns id, label, text."""
    draw = random.Random(0)
    labels = [1.0, -1.0] * (rows // 2)
    made = [f"{draw.choice(WORDS[label])}, {draw.choice(WORDS[label])} {row}" for row, label in enumerate(labels)]
    return pd.DataFrame({"id": [f"id{row}" for row in range(rows)], "label": labels, "text": made})


@contextmanager
def in_front_of(modules: Mapping[str, Any], change: Callable[[Tensor, str], Tensor]) -> Iterator[None]:
    """Inside the `with`, each module by its name is given change(input, name), as official hooks do it."""
    with ExitStack() as hooks:
        for name, module in modules.items():

            def hook(_: Any, given: tuple[Tensor, ...], name: str = name) -> tuple[Tensor, ...]:
                return (change(given[0].clone(), name), *given[1:])

            hooks.callback(module.register_forward_pre_hook(hook).remove)
        yield


def decoded(model: Any, ids: Tensor, tokens: int = 8) -> Tensor:
    """The logits, (tokens, rows, vocab), by which so many tokens are drawn, the likeliest each, with a cache."""
    how = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    told = model.generate(
        ids, attention_mask=torch.ones_like(ids), output_logits=True, return_dict_in_generate=True, **how
    )
    return torch.stack(told.logits)


def rearrange(x: Tensor, pattern: str, h: int | None = None) -> Tensor:
    """einops' for the two patterns of the official edits of heads."""
    return x.unflatten(-1, (h or 1, -1)) if pattern == "b s (h d) -> b s h d" else x.flatten(-2)
