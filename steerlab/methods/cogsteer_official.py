"""What CogSteer's published generation loop does, for `official_code: true`: every forward is run twice.

The first pass is edited; the second, whose logits are the ones that tokens are drawn from, is not, and its keys and
values are appended to the same cache behind the first's. The edit is felt only through the cache, which holds every
token twice. The adapted stream has no past of its own but the model's (`Stream`'s base_history).

Source: the `_sample` loops of tox/gpt2 and of the Mistral folder of PostMindLab/cogsteer. Unlike there, the mask covers
both copies of each token, so that a batch of prompts of unlike lengths is each prompt alone.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerlab import sites
from steerlab.sites import SiteError
from steerlab.streams import Stream


def two_passes(model: PreTrainedModel, stream: Stream) -> AbstractContextManager[None]:
    """Inside the `with`, a call of the model is an edited pass and an unedited one on the same growing cache.

    Calls need keyword arguments, a cache (use_cache) that grows, and a 2-D mask, and they raise SiteError without.
    """
    parts: list[int] = []  # columns of each call so far; the cache holds each twice

    def forward(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if args:
            kwargs["input_ids"] = args[0]
        if len(args) > 1 or kwargs.get("use_cache") is False or kwargs.get("input_ids") is None:
            raise SiteError("official_code decodes with a cache, and with arguments by name; other calls do not work")
        cache, seq = kwargs.get("past_key_values"), kwargs["input_ids"].shape[1]
        if cache is None or not int(cache.get_seq_length()):
            parts.clear()
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones(kwargs["input_ids"].shape[0], sum(parts) + seq, device=model.device, dtype=torch.long)
        kwargs |= {"use_cache": True, "position_ids": kwargs.get("position_ids", _positions(mask, seq))}
        edited = original(**kwargs | {"attention_mask": _doubled(mask, parts, seq, copies=1)})
        parts.append(seq)
        again = {"past_key_values": edited.past_key_values, "attention_mask": _doubled(mask, parts, seq, copies=2)}
        with stream.paused():
            return original(**kwargs | again)

    return sites.forwards(model, forward)


def _positions(mask: Tensor, seq: int) -> Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)[:, -seq:]


def _doubled(mask: Tensor, parts: list[int], seq: int, *, copies: int) -> Tensor:
    """The mask (rows, columns) over a cache that holds earlier calls twice, and the latest `copies` times."""
    earlier = parts if copies == 1 else parts[:-1]
    pieces, start = [], 0
    for width in earlier:
        pieces += [mask[:, start : start + width]] * 2
        start += width
    return torch.cat([*pieces, *[mask[:, start : start + seq]] * copies], 1)
