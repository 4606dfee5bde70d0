"""Low-rank changes of a model's linear modules, W -> W + (alpha / rank) B A, as layers that are put in from outside.

The layers are peft's; `sites.modules` puts them in and takes them out, so the model's own weights stay one copy and
never change. Factors are named `<path>.A`, (rank, in), and `<path>.B`, (out, rank).
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Literal, cast

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from steerlab import sites

ADAPTER = "default"  # peft names each set of weights that a layer holds; a layer here holds one
ATTENTION = {"attn", "self_attn", "attention"}  # what the families call the module that holds the projections
# What makes queries and values; of families where one product makes both, that one, which makes keys as well.
QUERIES_AND_VALUES = {"q_proj", "v_proj", "c_attn", "query_key_value"}
Part = Literal["attention", "queries_and_values", "mlp", "blocks"]

Layers = dict[str, lora.Linear]


def adapted_paths(
    model: Any, targets: Sequence[str] | None = None, part: Part = "attention", layers: Sequence[int] | None = None
) -> list[str]:
    """Paths of the linear modules with these last names, or of all in that part of every block.

    layers: of these blocks alone. Raises ValueError where the model has none, and for the head, which gives the logits
    that the loss is about.
    """
    linear = {path: path.split(".") for path, each in model.named_modules() if isinstance(each, nn.Linear | Conv1D)}
    if targets is not None:
        found = [path for path, names in linear.items() if names[-1] in targets]
    else:
        blocks = sites.family(model).blocks + "."
        inside = {path: names for path, names in linear.items() if path.startswith(blocks)}
        found = [path for path, names in inside.items() if _is_of(part, names)]
    if layers is not None:
        starts = tuple(f"{sites.family(model).blocks}.{layer}." for layer in layers)
        found = [path for path in found if path.startswith(starts)]
    if not found or "lm_head" in found:
        known = ", ".join(sorted({names[-1] for names in linear.values()} - {"lm_head"}))
        raise ValueError(f"LoRA's targets {targets or part} do not serve in {type(model).__name__}; choose of {known}")
    return found


def _is_of(part: Part, names: Sequence[str]) -> bool:
    """Whether the linear module with these names on its path is of that part of its block."""
    in_attention = bool(ATTENTION & set(names[:-1]))
    if part == "queries_and_values":
        return in_attention and names[-1] in QUERIES_AND_VALUES
    return part == "blocks" or in_attention == (part == "attention")


def fresh(
    model: nn.Module,
    paths: Sequence[str],
    rank: int,
    alpha: float,
    generator: torch.Generator,
    *,
    dropout: float = 0.0,
) -> Layers:
    """Layers to be trained, in float32 whatever the model's dtype, as small steps vanish in half precision.

    A begins at random, drawn path by path, and B at 0. Dropout acts on what A reads, from torch's global generator.
    """
    layers = {}
    for path in paths:
        layers[path] = made = layer(model.get_submodule(path), rank, alpha, dropout)
        for factor in factors(made):
            factor.data = factor.data.float()
        A = factors(made)[0]  # drawn on the CPU, where the generator is
        A.data.copy_(nn.init.kaiming_uniform_(torch.empty(A.shape), a=sqrt(5), generator=generator))
    set_dropout(layers, True)
    return layers


def set_dropout(layers: Layers, enabled: bool) -> None:
    """Whether dropout acts."""
    for made in layers.values():
        made.lora_dropout.train(enabled)


def filled(model: nn.Module, tensors: Mapping[str, Tensor], rank: int, alpha: float) -> Layers:
    """Layers with these factors, frozen, in the dtype and on the device of the modules that they are put around."""
    layers = {path: layer(model.get_submodule(path), rank, alpha) for path in paths_of(tensors)}
    for path, made in layers.items():
        for part, factor in zip("AB", factors(made)):
            factor.requires_grad_(False).copy_(tensors[f"{path}.{part}"])
    return layers


def fit_in(layers: Layers, model: nn.Module) -> bool:
    """Whether the layers stand around the modules that the model has now, in their dtype and on their device."""
    return all(_fits(layer, model.get_submodule(path)) for path, layer in layers.items())


def tensors_of(layers: Layers) -> dict[str, Tensor]:
    """Copies of the factors, on the CPU."""
    return {name: factor.detach().cpu().clone() for name, factor in named(layers).items()}


def named(layers: Layers) -> dict[str, nn.Parameter]:
    """The factors themselves."""
    return {f"{path}.{part}": each for path, made in layers.items() for part, each in zip("AB", factors(made))}


def redirected(tensors: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Factors of changes B A with random directions on both sides and the singular values of the given ones."""
    found = {}
    for path in paths_of(tensors):
        found[f"{path}.A"] = _redirected(tensors[f"{path}.A"].T, generator).T.contiguous()
        found[f"{path}.B"] = _redirected(tensors[f"{path}.B"], generator)
    return found


def _redirected(factor: Tensor, generator: torch.Generator) -> Tensor:
    """Q' R for factor = Q R, (size, rank), with Q' random and orthonormal."""
    R = torch.linalg.qr(factor.double()).R
    drawn = torch.randn(len(factor), len(R), generator=generator, dtype=torch.float64)
    return (torch.linalg.qr(drawn).Q @ R).float()


def paths_of(tensors: Mapping[str, Tensor]) -> list[str]:
    """The adapted modules."""
    return [name.removesuffix(".A") for name in tensors if name.endswith(".A")]


def layer(module: nn.Module, rank: int, alpha: float, dropout: float = 0.0) -> lora.Linear:
    """peft's layer around a module, which stays as it is; in its dtype and on its device."""
    is_conv = isinstance(module, Conv1D)
    settings: Any = {"r": rank, "lora_alpha": alpha}
    config = LoraConfig(**settings, lora_dropout=dropout, fan_in_fan_out=is_conv)
    with torch.random.fork_rng(devices=[]):  # peft's initial weights, which are put aside, are drawn globally
        made = lora.Linear(module, ADAPTER, config, **settings, is_target_conv_1d_layer=is_conv)
    made.lora_dropout.eval()
    return made


def factors(layer: lora.Linear) -> tuple[nn.Parameter, nn.Parameter]:
    """A, (rank, in), and B, (out, rank)."""
    A, B = (part[ADAPTER].weight for part in (layer.lora_A, layer.lora_B))
    return cast(nn.Parameter, A), cast(nn.Parameter, B)


def _fits(layer: lora.Linear, module: nn.Module) -> bool:
    own, ours = layer.get_base_layer().weight, factors(layer)[0]
    return layer.base_layer is module and (own.device, own.dtype) == (ours.device, ours.dtype)
