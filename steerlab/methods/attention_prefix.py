"""Prefix tuning of chosen blocks: learnt keys and values that every token of a block's attention may look at.

Source: Li and Liang 2021, "Prefix-Tuning". CogSteer gives one block a prefix of 30 and the others none, which peft
cannot, as it keeps all prefixes in one cache. As in the library that CogSteer uses, and unlike peft, the tokens keep
the positions that they have without a prefix.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlab import sites

STD = 0.02  # of the keys and values at the start, small beside those of tokens

Cache = Any  # transformers' caches, of which the attention calls `update` alone


class PrefixedAttention(nn.Module):
    """A block's attention whose keys and values begin with learnt ones.

    attention: the model's own, which stays as it is. keys, values: (length, key-value heads, head size), float32; with
    a hidden size they are W tanh(V e + a) + b of a learnt e, (length, width), as CogSteer has it.
    """

    def __init__(self, attention: nn.Module, config: Any, length: int, hidden: int | None, generator: torch.Generator):
        super().__init__()
        self.attention = attention
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.shape = (2, length, heads, int(getattr(attention, "head_dim")))  # noqa: B009
        self.eager = config._attn_implementation == "eager"
        width = self.shape[2] * self.shape[3]
        if hidden is None:
            self.states, self.made = nn.Parameter(torch.empty(self.shape)), None
        else:
            self.states = nn.Parameter(torch.empty(length, config.hidden_size))
            self.made = nn.Sequential(nn.Linear(config.hidden_size, hidden), nn.Tanh(), nn.Linear(hidden, 2 * width))
        for parameter in self.own_parameters():
            nn.init.normal_(parameter, std=STD, generator=generator)
        if self.made is not None:
            nn.init.normal_(self.states, generator=generator)  # e is an embedding: the layers over it make it small

    def own_parameters(self) -> list[nn.Parameter]:
        """What is learnt: the prefix, or what it is made of."""
        return [self.states, *(self.made.parameters() if self.made is not None else ())]

    def prefix(self) -> tuple[Tensor, Tensor]:
        """Keys and values, (1, key-value heads, length, head size) each."""
        both = self.states
        if self.made is not None:
            both = self.made(both).unflatten(-1, (2, *self.shape[2:])).movedim(1, 0)
        keys, values = both.transpose(1, 2).unsqueeze(1)
        return keys, values

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The attention's own outputs, with the prefix before all keys. hidden_states: (batch, seq, hidden).

        The mask is widened by the prefix's columns; where none is passed one is made.
        """
        mask, cache = kwargs.pop("attention_mask", None), kwargs.pop("past_key_values", None)
        if mask is None:
            known = 0 if cache is None else int(cache.get_seq_length(getattr(self.attention, "layer_idx", 0)))
            mask = _causal(hidden_states, known, self.eager)
        # The prefix's columns: True, or 0 on the logits, for every query.
        kwargs["attention_mask"] = nn.functional.pad(mask, (self.shape[1], 0), value=mask.dtype == torch.bool)
        return self.attention(hidden_states, *args, past_key_values=_PrefixFirst(self.prefix(), cache), **kwargs)


class _PrefixFirst:
    """What an attention takes for its cache: it puts the prefix before the keys and values of the real one, if any."""

    def __init__(self, prefix: tuple[Tensor, Tensor], cache: Cache | None):
        self.prefix, self.cache = prefix, cache

    def update(self, keys: Tensor, values: Tensor, layer: int, *more: Any) -> tuple[Tensor, Tensor]:
        found = (keys, values) if self.cache is None else self.cache.update(keys, values, layer, *more)
        first = [each.to(states.dtype).expand(len(states), -1, -1, -1) for each, states in zip(self.prefix, found)]
        return torch.cat([first[0], found[0]], dim=2), torch.cat([first[1], found[1]], dim=2)


def _causal(states: Tensor, known: int, eager: bool) -> Tensor:
    """The mask (1, 1, queries, keys) that a kernel takes as given where it is passed none: by itself it would count the
    prefix among the keys that lie after a query. known: cached keys, which all queries see."""
    tokens = states.shape[1]
    seen = torch.ones(tokens, known + tokens, dtype=torch.bool, device=states.device).tril(known)[None, None]
    if not eager:
        return seen
    return torch.zeros_like(seen, dtype=states.dtype).masked_fill(~seen, torch.finfo(states.dtype).min)


def make(
    model: PreTrainedModel,
    layers: Sequence[int],
    *,
    length: int = 30,
    hidden: int | None = None,
    generator: torch.Generator,
) -> dict[str, nn.Module]:
    """path -> module for `sites.modules`: the attention of these blocks, each behind a prefix of its own.

    length: of the prefix, positions; hidden: see PrefixedAttention, None learns keys and values themselves.
    Raises SiteError for a layer that the model has not.
    """
    made: dict[str, nn.Module] = {}
    for layer in layers:
        path = sites.adapter_paths(model, layer)[0].rpartition(".")[0]
        attention = model.get_submodule(path)
        takes = inspect.signature(type(attention).forward).parameters
        if not hasattr(attention, "head_dim") or "past_key_values" not in takes:
            raise sites.SiteError(f"{type(attention).__name__} cannot be given a prefix; use the bottleneck")
        with torch.random.fork_rng(devices=[]):  # torch's own initial weights, which are written over
            made[path] = PrefixedAttention(attention, model.config, length, hidden, generator).to(
                sites.device_of(model, sites.Site("block_output", layer))
            )
    return made


def trained(replacements: dict[str, nn.Module]) -> list[nn.Parameter]:
    """What is learnt, in the order of the blocks."""
    return [each for module in replacements.values() for each in module.own_parameters()]  # pyright: ignore
