"""The bottleneck adapter: x + U relu(D x + d) + u, after the attention and after the MLP of a block.

Source: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1, where CogSteer's toxic
adapter comes from. As in its common implementations the width is the hidden size over `reduction` (16), the activation
a ReLU, and the adapter sits on what the block adds to the residual stream. U and both biases begin at 0, so that an
untrained adapter changes nothing, bit for bit.
"""

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlab import sites

NAMES = ("down.weight", "down.bias", "up.weight", "up.bias")


class Adapted(nn.Module):
    """A module of a block and the bottleneck behind it: (..., in) -> (..., hidden)."""

    def __init__(self, module: nn.Module, hidden: int, reduction: int):
        """Raises ValueError for a reduction that leaves no width."""
        super().__init__()
        if not 1 <= reduction <= hidden:
            raise ValueError(f"bottleneck: reduction {reduction} of {hidden} states; give 1 to {hidden}")
        self.module = module
        self.down = nn.Linear(hidden, hidden // reduction)
        self.up = nn.Linear(hidden // reduction, hidden)
        self.in_features = getattr(module, "in_features", getattr(module, "nx", None))  # what the site of heads asks

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in). Returns (..., hidden), in the dtype of the module's own output."""
        own = self.module(x)
        return own + self.up(self.down(own.to(self.down.weight.dtype)).relu()).to(own.dtype)


def make(
    model: PreTrainedModel, layers: Iterable[int], *, reduction: int = 16, generator: torch.Generator | None = None
) -> dict[str, nn.Module]:
    """Untrained adapters for these blocks: path -> module, as `sites.modules` puts them in; weights are float32.

    D is drawn from the generator (He, uniform); without one it is 0, to be filled by `fill`.
    """
    adapted: dict[str, nn.Module] = {}
    for layer in layers:
        for path in sites.adapter_paths(model, layer):
            with sites.device_of(model, sites.Site("block_output", layer)):
                adapted[path] = module = Adapted(model.get_submodule(path), model.config.hidden_size, reduction)
            for name, parameter in parameters(module):
                parameter.data.zero_()
                if name == "down.weight" and generator is not None:
                    nn.init.kaiming_uniform_(drawn := torch.empty(parameter.shape), a=sqrt(5), generator=generator)
                    parameter.data.copy_(drawn)
    return adapted


def parameters(adapted: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The adapter's own weights by NAMES, without those of the module that it stands behind."""
    return [(name, adapted.get_parameter(name)) for name in NAMES]


def trained(adapters: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """All weights that training changes."""
    return [parameter for adapted in adapters.values() for _, parameter in parameters(adapted)]


def tensors(adapters: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The weights as they are saved: `<path>.<name>`, float32 on the CPU."""
    return {
        f"{path}.{name}": parameter.detach().float().cpu().clone()
        for path, adapted in adapters.items()
        for name, parameter in parameters(adapted)
    }


def fill(adapters: Mapping[str, nn.Module], saved: Mapping[str, Tensor], dtype: Any = None) -> None:
    """Put saved weights into adapters, in this dtype, fixed."""
    for path, adapted in adapters.items():
        for name, parameter in parameters(adapted):
            parameter.requires_grad_(False).copy_(saved[f"{path}.{name}"])
            parameter.data = parameter.data.to(dtype or parameter.dtype)
