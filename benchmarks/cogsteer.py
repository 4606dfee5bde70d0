"""CogSteer: what the second stream costs in decoding and memory, beside two whole models as in the official code."""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.decoding import GREEDY, PROMPTS, compared, edited
from benchmarks.memory import peak_mib
from benchmarks.pairs import Ratio, ratio_of
from steerlab import sites
from steerlab.generations import generate
from steerlab.methods import bottleneck
from steerlab.methods.cogsteer import CogSteer, contrasted
from steerlab.models import ModelHandle
from steerlab.sites import Site

TEXTS = pd.DataFrame({"id": [name for name, _ in PROMPTS], "label": -1.0, "text": [text for _, text in PROMPTS]})


def decoding_under_cogsteer(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding with one block adapted and contrasted over plain decoding."""
    return edited("CogSteer, one block / plain", 0.90, _attached(handle, "one block"), handle, pairs)


def decoding_under_cogsteer_everywhere(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding with every block adapted and contrasted over plain decoding."""
    return edited("CogSteer, every block / plain", 0.45, _attached(handle, "every block"), handle, pairs)


def decoding_by_two_models(handle: ModelHandle, pairs: int) -> Ratio:
    """One block's contrast by the partial stream over the same by two whole models."""
    around = [_attached(handle, which) for which in ("one block", "two models")]
    return compared("CogSteer, one block / two whole models", 1.0, around, handle, pairs)


def memory_of_one_block(handle: ModelHandle, pairs: int) -> Ratio:
    """The peak of a process that decodes, one block adapted; the ratio is to 1.05 of plain decoding's."""
    return _memory(handle, "one block", 1.05, pairs)


def memory_of_every_block(handle: ModelHandle, pairs: int) -> Ratio:
    """The same with every block adapted; the ratio is to 1.6 of plain decoding's."""
    return _memory(handle, "every block", 1.6, pairs)


def memory_of_two_models(handle: ModelHandle, pairs: int) -> Ratio:
    """The same for two whole models over one block's partial stream."""
    ours, theirs = (peak_mib(decode, handle, which) for which in ("one block", "two models"))
    return ratio_of(
        "peak memory, two whole models / one block", 1.0, np.array([theirs / ours]), np.array([[ours, theirs]]), "MiB"
    )


def _memory(handle: ModelHandle, which: str, allowed: float, pairs: int) -> Ratio:
    taken = np.array([[peak_mib(decode, handle, each) for each in (which, "plain")] for _ in range(min(pairs, 3))])
    name = f"peak memory, {allowed:g} x plain / CogSteer, {which}"
    return ratio_of(name, 1.0, allowed * taken[:, 1] / taken[:, 0], taken, unit="MiB")


# ---- the ways to decode ----


def decode(handle: ModelHandle, which: str) -> None:
    """Decode once, in the way of `which`."""
    with _attached(handle, which)():
        generate(handle.load(), handle.info.tokenizer, PROMPTS, GREEDY, seed=0)


def _attached(handle: ModelHandle, which: str) -> Callable[[], AbstractContextManager[None]]:
    """What to enter before decoding. The adapters are untrained: how fast they are does not depend on their weights."""
    if which == "plain":
        return nullcontext
    if which == "two models":
        return functools.partial(_two_models, handle)
    layer: Any = "all" if which == "every block" else 0.4
    steer = CogSteer.fit(handle, TEXTS, seed=0, adapter_layer=layer, updates=0, held_out=0.0, judging_blocks=1)
    return lambda: steer.attached(handle.load())


@contextmanager
def _two_models(handle: ModelHandle) -> Iterator[None]:
    """A whole second model with the adapter runs before every forward of the first, on a cache of its own."""
    model: Any = handle.load()
    layer = sites.layer_index(model.config, 0.4)
    second = copy.deepcopy(model)
    for path, adapted in bottleneck.make(second, [layer]).items():
        second.set_submodule(path, adapted)
    site, cache, rows_before = Site("attention_heads", layer + 1), None, 0

    def forward(original: Callable[..., Any], **kwargs: Any) -> Any:
        nonlocal cache, rows_before
        rows = kwargs["input_ids"].shape[0]
        if kwargs.get("past_key_values") is None:
            cache = None
        elif rows > rows_before:  # several samples a prompt
            cache.batch_repeat_interleave(rows // rows_before)  # pyright: ignore[reportOptionalMemberAccess]
        cache = second(**kwargs | {"past_key_values": cache}).past_key_values
        rows_before = rows
        return original(**kwargs)

    with sites.capture(second, [site]) as toxic, sites.forwards(model, forward):
        edits = {site: lambda x, where: contrasted(x, toxic[site] - x, 1.0)}
        with sites.edit(model, edits, scope="from_last_prompt_token"):
            yield
