"""LLaMA-Adapter in chosen blocks: prompts that a block's attention looks at beside its tokens, through a gate from 0.

Source: Zhang et al. 2023, "LLaMA-Adapter", eq. 5 to 8; the layers are peft's, each around the attention of one block.
Their own rules pick the topmost blocks; here it is any. In GPT-2 peft adds the prompts' values behind the attention's
output projection, in the others before it.
"""

from collections.abc import Sequence
from typing import cast

import torch
from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG
from peft.tuners.adaption_prompt.layer import AdaptedAttention, AdaptedAttentionGPT
from torch import nn
from transformers import PreTrainedModel

from steerlab import sites


def make(
    model: PreTrainedModel, layers: Sequence[int], *, length: int = 10, generator: torch.Generator
) -> dict[str, nn.Module]:
    """path -> module for `sites.modules`: the attention of these blocks, each with prompts of its own.

    length: tokens of the prompts. At the start the gates are 0 and the model is as without.
    Raises SiteError for a family that peft has no such layer for, or whose heads do not fill the hidden states.
    """
    config = model.config
    if config.model_type not in TRANSFORMERS_MODEL_CONFIG:
        known = ", ".join(TRANSFORMERS_MODEL_CONFIG)
        raise sites.SiteError(f"peft has no adaption prompts for {config.model_type!r}, only for {known}; use a prefix")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size * config.num_attention_heads != config.hidden_size:
        raise sites.SiteError(
            f"peft's adaption prompts need heads that fill the hidden states, these are {config.num_attention_heads} "
            f"of {size} in {config.hidden_size}; use a prefix"
        )
    kind = AdaptedAttentionGPT if config.model_type == "gpt2" else AdaptedAttention
    made: dict[str, nn.Module] = {}
    for layer in layers:
        path = sites.adapter_paths(model, layer)[0].rpartition(".")[0]
        with torch.random.fork_rng(devices=[]):  # peft's initial prompts, which are written over, are drawn globally
            adapted = kind(config.model_type, length, model.get_submodule(path))
        drawn = torch.randn(adapted.adaption_prompt.shape, generator=generator)
        adapted.adaption_prompt.data.copy_(drawn)
        made[path] = adapted
    return made


def trained(replacements: dict[str, nn.Module]) -> list[nn.Parameter]:
    """What is learnt, in the order of the blocks: prompts and gate."""
    layers = [cast(AdaptedAttention, module) for module in replacements.values()]
    return [each for layer in layers for each in (layer.adaption_prompt, layer.adaption_gate)]
