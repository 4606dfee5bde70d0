"""A second stream of states beside a model's own: the same blocks with some modules changed, on the same tokens.

It runs through the blocks that matter and no others, while the model computes. Below the first block both streams are
one, and so is that block's attention, which is recalled and not computed again. The stream's keys and values lie as
further layers behind the model's own in the model's cache, and so are cropped, repeated, reordered and thrown away
with it. The blocks are twins: the model's own parameters in modules without its hooks, so that no edit is felt there.
"""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from steerlab import sites
from steerlab.sites import Site, SiteError

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
HOOKS += ("_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks")


def bare(module: nn.Module, changed: Mapping[str, nn.Module] | None = None, path: str = "") -> nn.Module:
    """A twin of a module: the same parameters and buffers, no hooks, and other modules at the paths below it.

    changed: path -> module, which is taken bare as well; path: of `module` itself.
    """
    changed = changed or {}
    twin = copy.copy(changed.get(path, module))
    twin.__dict__ |= {name: OrderedDict() for name in HOOKS}
    below = changed if path not in changed else {}
    children = twin._modules.items()
    twin._modules = {name: child and bare(child, below, f"{path}.{name}" if path else name) for name, child in children}
    return twin


class Stream:
    """The stream of one model through blocks `first` to `last`; nothing runs before `following` is entered.

    changed: module path -> module in its stead, in blocks of the stream.
    to_end: the stream goes on through the last block, and so gives `lm_head_input` too; else it stops at the heads of
    the last block's attention. base_history: past tokens are those of the model's own stream, and the stream keeps
    nothing (CogSteer's official code); else the stream has its own past.
    Raises SiteError for blocks that the model does not have, for a model that lies on several cards, and for a stream
    of one block that is not to go to the end: its heads are the model's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        first: int,
        last: int,
        changed: Mapping[str, nn.Module],
        *,
        to_end: bool = False,
        base_history: bool = False,
    ):
        layers = sites.number_of_layers(model.config)
        if not 0 <= first <= last < layers or (first == last and not to_end):
            raise SiteError(f"no stream from block {first} to the heads of {last}; give two of the {layers} in order")
        if to_end and last != layers - 1:
            raise SiteError(f"a stream to the end ends at block {layers - 1}, got {last}")
        devices = {sites.device_of(model, Site("block_output", layer)) for layer in range(layers)}
        if len(devices) > 1:  # it runs in hooks, before accelerate has taken to a block's card what enters it
            raise SiteError("a second stream runs on one card, and this model lies on several; set its cards to 1")
        self._model, self._parts = model, sites.family(model)
        self._first, self._last, self._to_end, self._base_history = first, last, to_end, base_history
        self._head_count = model.config.num_attention_heads
        self._recalled: dict[Site, Tensor] = {}
        self._heads: dict[int, _Heads] = {}
        self._twins = {layer: self._twin(layer, changed) for layer in range(first, last + 1)}
        self._norm = bare(model.get_submodule(self._parts.final_norm)) if to_end else None
        self._is_paused = False
        self._begin(None, None)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Inside the `with`, the stream is computed along with every forward of the model."""
        first = Site("attention_heads", self._first)
        with (
            sites.before_blocks(self._model, range(self._first, self._last + 1), self._visit),
            sites.capture(self._model, [first]) as self._recalled,
        ):
            try:
                yield
            finally:
                self._begin(None, None)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the `with`, the stream does not follow."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    @property
    def is_paused(self) -> bool:
        """Whether forwards pass the stream by, inside `paused`."""
        return self._is_paused

    def heads(self, layer: int) -> Tensor:
        """The stream's heads in a block's attention, (batch, seq, heads, head size), of the forward that runs now: to
        be called from that block's attention on, for a block after the first."""
        return self._heads[layer].states.unflatten(-1, (self._head_count, -1))

    def lm_head_input(self) -> Tensor:
        """The stream's states after the final norm, (batch, seq, hidden), of the forward that runs now."""
        assert self._norm is not None, "the stream does not go to the end"
        if self._first == self._last and self._states is None:
            self._run(self._last)
        return self._norm(self._states)

    # ---- running ----

    def _begin(self, args: tuple[Any, ...] | None, kwargs: dict[str, Any] | None) -> None:
        self._entered = args, kwargs
        self._states: Any = None

    def _visit(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._is_paused:
            return
        if layer == self._first:
            self._begin(args, kwargs)
            return
        if layer == self._first + 1:
            self._run(self._first)
        self._run(layer, args[1:], kwargs)

    def _run(self, layer: int, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> None:
        """Take the stream through one block; the first goes by what it was called with before."""
        if layer == self._first:
            entered, kwargs = self._entered
            states, args = entered[0], entered[1:]  # pyright: ignore[reportOptionalSubscript]
        else:
            states = self._states
        args = tuple(self._past(each, layer) for each in args)
        kwargs = {name: self._past(each, layer) for name, each in (kwargs or {}).items()}
        try:
            output = self._twins[layer](states, *args, **kwargs)
        except _Reached:
            return
        self._states = output if isinstance(output, Tensor) else output[0]

    def _past(self, argument: Any, layer: int) -> Any:
        """The same argument, but of a cache what holds the stream's past."""
        if not isinstance(argument, Cache):
            return argument
        if self._base_history:
            return _BasePast(argument, layer)
        return _OwnPast(argument, layer, sites.number_of_layers(self._model.config) + layer - self._first - 1)

    # ---- twins ----

    def _twin(self, layer: int, changed: Mapping[str, nn.Module]) -> nn.Module:
        twin = bare(sites.block(self._model, layer), changed, f"{self._parts.blocks}.{layer}")
        projection = twin.get_submodule(self._parts.output_projection)
        if layer == self._first:
            twin.set_submodule(self._parts.attention, _Recalled(self, projection))
        else:
            stops = layer == self._last and not self._to_end
            self._heads[layer] = _Heads(None if stops else projection)
            twin.set_submodule(self._parts.output_projection, self._heads[layer])
        return twin

    def recalled_heads(self) -> Tensor:
        """The model's own heads in the first block, (batch, seq, heads * head size)."""
        return self._recalled[Site("attention_heads", self._first)].flatten(-2)


class _Reached(Exception):
    """The stream is where it ends."""


class _Heads(nn.Module):
    """Keeps what the attention's output projection is given; without a projection the stream ends here."""

    states: Tensor

    def __init__(self, projection: nn.Module | None):
        super().__init__()
        self.projection = projection

    def forward(self, states: Tensor) -> Tensor:
        self.states = states
        if self.projection is None:
            raise _Reached
        return self.projection(states)


class _Recalled(nn.Module):
    """Stands for an attention whose heads the model has computed already."""

    def __init__(self, stream: Stream, projection: nn.Module):
        super().__init__()
        self.heads, self.projection = stream.recalled_heads, projection

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return self.projection(self.heads()), None


class _OwnPast:
    """A block's view of the model's cache in which its keys and values lie in a layer of the stream's own."""

    def __init__(self, cache: Cache, layer: int, own: int):
        self._cache, self._layer, self._own = cache, layer, own

    def update(self, keys: Tensor, values: Tensor, layer_index: int, *args: Any, **kwargs: Any) -> Any:
        layers: list[Any] = self._cache.layers
        while len(layers) <= self._own:
            kind = self._cache.layer_class_to_replicate
            layers.append(kind() if kind else _empty_like(layers[self._layer]))
        before, own = self._cache.get_seq_length(0), layers[self._own].get_seq_length()
        if isinstance(before, int) and isinstance(own, int) and before != own + keys.shape[-2]:
            raise SiteError(
                f"the cache holds {before} tokens, of which the second stream saw {own}; begin with an empty cache"
            )
        return self._cache.update(keys, values, self._own, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


class _BasePast(_OwnPast):
    """A block's view of the model's cache in which its past is the model's own and nothing is kept."""

    def __init__(self, cache: Cache, layer: int):
        super().__init__(cache, layer, layer)

    def update(self, keys: Tensor, values: Tensor, layer_index: int, *args: Any, **kwargs: Any) -> Any:
        if len(self._cache.layers) <= self._layer:
            return keys, values
        past: Any = copy.copy(self._cache.layers[self._layer])  # a dynamic layer grows by new tensors: this one stays
        return past.update(keys, values, *args, **kwargs)


def _empty_like(layer: Any) -> Any:
    """A new layer of a cache, of the same kind as this one."""
    length = layer.get_max_length()
    known = {"max_cache_len": length, "sliding_window": getattr(layer, "sliding_window", length)}
    asked = inspect.signature(type(layer).__init__).parameters
    return type(layer)(**{name: value for name, value in known.items() if name in asked})
