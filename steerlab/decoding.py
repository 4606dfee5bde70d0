"""The forwards of decoding: one over the prompts, then one a token, over keys and values that are kept.

On a card the launches of a step take longer than its work. There the keys and values lie in a cache of fixed size, and
a step is recorded once, with all that is attached to the model, as a CUDA graph, and replayed. A replay runs no Python,
so what is attached may depend on tensors alone, and may not wait for the card; the laws hold every method to it.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

from steerlab import sites

log = logging.getLogger(__name__)

COLUMNS = 64  # the length of a fixed cache is a multiple, so that batches of nearly one length share a recording

Step = Callable[[], Tensor]


def prefill(
    model: Any, ids: Tensor, mask: Tensor, *, samples: int, new_tokens: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The logits (rows, vocab) after the prompts, and a function from the next token of each row to those after it.

    ids, mask: (prompts, seq) int64, padded on the left; rows: prompts times samples, samples of a prompt together. The
    function takes (rows,) int64 and is called fewer than new_tokens times; what it returns holds until the next call.
    To be called inside `sites.prompt`.
    """
    rows, lengths = len(ids) * samples, mask.sum(-1)
    # Before the forward, as it frees the memory of another shape's.
    fixed = _fixed(model, rows, mask.shape[1] + new_tokens) if _is_recordable(model) else None
    output = model(
        input_ids=ids,
        attention_mask=mask,
        # Positions are always passed: GPT-2 counts padding as text without them.
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    past, logits = output.past_key_values, output.logits[:, -1].repeat_interleave(samples, 0)
    mask, position = mask.repeat_interleave(samples, 0), lengths.repeat_interleave(samples)[:, None]
    if fixed and all(type(layer) is DynamicLayer for layer in past.layers):  # others have a window
        fixed.fill(past, mask, position, samples)
        return logits, functools.partial(fixed.after, model)
    past.batch_repeat_interleave(samples)
    return logits, _growing(model, past, mask, position)


def _growing(model: Any, past: Cache, mask: Tensor, position: Tensor) -> Callable[[Tensor], Tensor]:
    def after(tokens: Tensor) -> Tensor:
        nonlocal mask, position
        mask = functional.pad(mask, (0, 1), value=1)
        with sites.continuing(model):
            output = model(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=position,
                past_key_values=past,
                use_cache=True,
            )
        position = position + 1
        return output.logits[:, -1]

    return after


# ---- on a card ----


def record_on_card(step: Step, device: torch.device) -> Step:
    """The step as a CUDA graph: each call replays its kernels on the tensors that it was recorded on, and returns the
    one that it returned then, with new values. The step itself must have run before, and does not run here."""
    with torch.cuda.device(device):
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph):
                made = step()
        except BaseException:
            torch.cuda.set_stream(stream)  # a spoilt recording leaves its own behind
            raise

    def replay() -> Tensor:
        graph.replay()
        return made

    return replay


RECORDERS: dict[str, Callable[[Step, torch.device], Step]] = {"cuda": record_on_card}  # by the kind of device


def _is_recordable(model: Any) -> bool:
    """False on a CPU, over several cards or inside `sites.forwards`, and where transformers states that the family does
    not serve a cache of fixed size."""
    serves_fixed_cache = getattr(model, "_can_compile_fullgraph", False)
    return model.device.type in RECORDERS and "forward" not in vars(model) and serves_fixed_cache


def _fixed(model: Any, rows: int, columns: int) -> "_Fixed":
    """The fixed step of this shape: the one before, if nothing was attached to the model, taken off or moved since."""
    columns = -(-columns // COLUMNS) * COLUMNS
    found = rows, columns, _fingerprint(model)
    kept = sites.kept(model)
    if kept.get("for") != found:
        kept.clear()  # the memory of the one before first
        kept |= {"for": found, "step": _Fixed(rows, columns, model.device)}
    return kept["step"]


def _fingerprint(model: Any) -> tuple[object, ...]:
    """What changes if someone else, who does not go through `sites`, moves the model or puts hooks into it."""
    inside = [each for each in model.modules() if each is not model]
    hooks = tuple((*each._forward_pre_hooks, *each._forward_hooks) for each in inside)
    return tuple(each.data_ptr() for each in model.parameters()), hooks


class _Fixed:
    """A step whose tensors stay where they are; the second one of a shape is recorded. It holds no model."""

    def __init__(self, rows: int, columns: int, device: torch.device):
        self._cache: Any = None
        self._tokens = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._position = torch.zeros_like(self._tokens)
        self._mask = torch.ones(rows, columns, dtype=torch.int64, device=device)
        self._replay: Step | None = None
        self._has_run = self._was_tried = False

    def fill(self, past: Cache, mask: Tensor, position: Tensor, samples: int) -> None:
        """Begin with the keys and values of prompts, each for its samples; the columns after them are tokens to come,
        which causality hides until they are there."""
        if self._cache is None:
            # As many as the prompts' forward left: further ones are those of a second stream.
            self._cache = Cache(layers=[StaticLayer(self._mask.shape[1]) for _ in past.layers])
        for fixed, grown in zip(self._cache.layers, past.layers):
            keys, values = (each.repeat_interleave(samples, 0) for each in (grown.keys, grown.values))  # pyright: ignore
            if not fixed.is_initialized:
                fixed.lazy_initialization(keys, values)
            fixed.cumulative_length.fill_(keys.shape[2])
            for to, of in ((fixed.keys, keys), (fixed.values, values)):
                to.zero_()[:, :, : of.shape[2]] = of
        self._mask.fill_(1)[:, : mask.shape[1]] = mask
        self._position.copy_(position)

    def after(self, model: Any, tokens: Tensor) -> Tensor:
        """See `prefill`."""
        step = functools.partial(self._step, model)
        self._tokens.copy_(tokens[:, None])
        if self._has_run and not self._was_tried:
            self._was_tried, self._replay = True, _recorded(step, model.device)
        logits = (self._replay or step)()
        self._has_run = True
        self._position += 1
        return logits

    def _step(self, model: Any) -> Tensor:
        with sites.continuing(model):
            output = model(
                input_ids=self._tokens,
                attention_mask=self._mask,
                position_ids=self._position,
                past_key_values=self._cache,
                use_cache=True,
            )
        return output.logits[:, -1]


def _recorded(step: Step, device: torch.device) -> Step | None:
    """None, and a warning, where the card refuses: the steps then go on one by one."""
    try:
        return RECORDERS[device.type](step, device)
    except RuntimeError as error:
        first: BaseException = error
        while first.__context__ is not None:  # what spoilt it; the last one says only that it was spoilt
            first = first.__context__
        reason = (str(first) or repr(first)).splitlines()[0]
        log.warning("a step of decoding cannot be recorded, and decoding is slower for it: %s", reason)
        return None
