"""What stands for a CUDA graph without a card: the kernels of a call on a tape, to be run again on live tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

# Kernels whose answer Python waits for, or whose result has a shape that the values decide.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique2", "bincount")


class Waited(RuntimeError):
    """Something asked for the values of a tensor."""


class Watched(TorchDispatchMode):
    """Inside the `with`, what would wait for a card raises Waited."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or masked:
            raise Waited(f"{name} waits for the device")
        return self.ran(func, args, kwargs or {})

    def ran(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)


class Tape(Watched):
    """Every kernel that ran inside the `with`, in order. Tensors that were there before are those that a replay reads
    and changes, the others are made anew. A card's recording runs nothing, so afterwards all is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def ran(self, func: Any, args: Any, kwargs: Any) -> Any:
        for declared, given in zip(func._schema.arguments, args, strict=False):
            if declared.alias_info is not None and declared.alias_info.is_write:
                self._before.append((given, given.clone()))
        made = func(*args, **kwargs)
        self.kernels.append((func, args, kwargs, made))
        return made

    def put_back(self) -> None:
        for tensor, before in reversed(self._before):
            tensor.copy_(before)

    def replay(self, result: Tensor) -> Tensor:
        """Run the kernels again; returns what `result`, which one of them made, is now."""
        now: dict[int, Tensor] = {}
        for func, args, kwargs, made in self.kernels:
            given = tree_map_only(Tensor, lambda each: now.get(id(each), each), (args, kwargs))
            again = func(*given[0], **given[1])
            for old, new in zip(tree_flatten(made)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and new is not old:  # a kernel that works in place returns what it was given
                    now[id(old)] = new
        return now[id(result)]


def record_on_tape(step: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """`decoding.record_on_card` for a CPU."""
    with Tape() as tape:
        made = step()
    tape.put_back()
    return lambda: tape.replay(made)
