"""Patching: hidden states from elsewhere take the place of a block's output at chosen tokens of a prompt.

Tokens are counted from a row's first real one, as everywhere (`positions`), so a patch is exact on either side padded
and in any batch. Later tokens have other positions: with a cache the patch acts at the prefill and never again,
without one it acts anew at every step, to the same effect.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from steerlab import sites
from steerlab.language_modelling import Text, position_ids
from steerlab.models import Tokenizer, pad
from steerlab.sites import Site, Where


@contextmanager
def patched(model: PreTrainedModel, layer: int, firsts: Sequence[int], states: Sequence[Tensor]) -> Iterator[None]:
    """Inside the `with`, block `layer` gives, in each row, the row's states from position firsts[row] on.

    states: one (count, hidden) a row, of any count, on the model's device; differentiable in them. A forward of n times
    as many rows has n neighbouring rows a prompt. Raises ValueError where rows differ in number.
    """
    if len(firsts) != len(states):
        raise ValueError(f"{len(firsts)} rows were named and states of {len(states)} given; give one for each")
    site = Site("block_output", layer)
    given = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)  # (rows, most, hidden)
    given = given.to(sites.device_of(model, site))
    counts = torch.tensor([len(each) for each in states]).to(given.device)
    begins = torch.tensor(list(firsts)).to(given.device)

    def put(x: Tensor, where: Where) -> Tensor:
        times = len(x) // len(given)
        row = torch.arange(len(given), device=given.device).repeat_interleave(times)[:, None]
        place = where.position - begins[row]
        inside = (place >= 0) & (place < counts[row]) & ~where.is_pad
        return torch.where(inside[..., None], given[row, place.clamp(0, given.shape[1] - 1)].to(x.dtype), x)

    with sites.edit(model, {site: put}):
        yield


@torch.no_grad()
def greedy(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Text],
    end: int,
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    use_cache: bool = True,
) -> list[str]:
    """The likeliest continuation of each prompt, up to the token `end` or the end of text, as text."""
    ids, mask = pad([prompt.ids for prompt in prompts], side="left", pad_id=end, device=model.device)
    stops = {end, tokenizer.eos_token_id} - {None}
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        use_cache=use_cache,
        eos_token_id=sorted(stops),
        pad_token_id=end,
    )
    told = {"position_ids": position_ids(prompts, mask)} if any(prompt.positions for prompt in prompts) else {}
    found = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, **told)
    found = found[:, ids.shape[1] :].tolist()
    kept = [next((new[:place] for place, token in enumerate(new) if token in stops), new) for new in found]
    return [tokenizer.decode(new, skip_special_tokens=True) for new in kept]
