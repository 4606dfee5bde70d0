"""The second stream against a whole second model, on every family and in every way of decoding it lives through."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlab import models, sites
from steerlab.methods import bottleneck
from steerlab.sites import Site, SiteError, Where
from steerlab.streams import Stream, bare
from steerlab.tiny_models import FAMILIES
from tests.laws.subjects import LAYERS, tiny_model

PROMPTS = [[10, 20, 30, 40, 50, 60, 70], [80, 90, 100]]
TOKENS = 4
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def adapters(model: PreTrainedModel, layers: range) -> dict[str, nn.Module]:
    """Adapters that change a lot."""
    made = bottleneck.make(model, layers, reduction=4, generator=torch.Generator().manual_seed(1))
    drawn = torch.Generator().manual_seed(2)
    for weight in bottleneck.trained(made):
        weight.requires_grad_(False).add_(torch.randn(weight.shape, generator=drawn))
    return made


def whole(model: PreTrainedModel, layers: range) -> PreTrainedModel:
    """A second model with the same adapters, every module its own."""
    second = copy.deepcopy(model)
    for path, module in adapters(second, layers).items():
        second.set_submodule(path, module)
    return second


@contextmanager
def seen(model: PreTrainedModel, stream: Stream, site: Site) -> Iterator[list[Tensor]]:
    """Inside the `with`, what the stream has at a site is noted of each forward, the last token's."""
    noted: list[Tensor] = []

    def note(x: Tensor, where: Where) -> Tensor:
        states = stream.heads(where.layer) if where.layer is not None else stream.lm_head_input()
        noted.append(states[:, -1].clone())
        return x

    with stream.following(), sites.edit(model, {site: note}):
        yield noted


@torch.no_grad()
def decode(model: PreTrainedModel, **options: object) -> Tensor:
    ids, mask = models.pad(PROMPTS, side="left", pad_id=model.config.pad_token_id)
    options = {"do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS} | options
    return model.generate(ids, attention_mask=mask, **options)  # pyright: ignore


@torch.no_grad()
def last_states(second: PreTrainedModel, site: Site, tokens: Tensor) -> list[Tensor]:
    """What a whole model has at a site at each of the TOKENS decoded places, all recomputed."""
    mask = torch.ones_like(tokens)
    mask[1, : len(PROMPTS[0]) - len(PROMPTS[1])] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with sites.capture(second, [site]) as states:
        second(tokens, attention_mask=mask, position_ids=positions, use_cache=False)
    first = len(PROMPTS[0]) - 1
    return [states[site][:, place] for place in range(first, first + TOKENS)]


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    size = max(each.abs().max().item() for each in theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * size)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=str)
@EVERY_FAMILY
def test_the_partial_stream_is_a_whole_second_model(family: str, options: dict) -> None:
    model = tiny_model(family)
    stream = Stream(model, 0, 1, adapters(model, range(1)))
    with seen(model, stream, Site("attention_heads", 1)) as ours:
        tokens = decode(model, **options)
    assert_close(ours, last_states(whole(model, range(1)), Site("attention_heads", 1), tokens))


@pytest.mark.parametrize("layers", [range(LAYERS), range(LAYERS - 1, LAYERS), range(1, LAYERS)], ids=str)
@EVERY_FAMILY
def test_a_stream_to_the_end_gives_the_states_before_the_head(family: str, layers: range) -> None:
    model = tiny_model(family)
    stream = Stream(model, layers[0], LAYERS - 1, adapters(model, layers), to_end=True)
    with seen(model, stream, Site("lm_head_input")) as ours:
        tokens = decode(model)
    assert_close(ours, last_states(whole(model, layers), Site("lm_head_input"), tokens))


def test_a_stream_may_skip_blocks_between_the_adapted_and_the_last() -> None:
    model = tiny_model("llama")
    stream = Stream(model, 0, 2, adapters(model, range(1)))
    with seen(model, stream, Site("attention_heads", 2)) as ours:
        tokens = decode(model)
    assert_close(ours, last_states(whole(model, range(1)), Site("attention_heads", 2), tokens))


def test_the_stream_does_not_feel_edits_of_the_model_after_its_first_block() -> None:
    model = tiny_model("llama")
    stream = Stream(model, 0, 2, adapters(model, range(1)))
    edits = {Site("attention_heads", 1): lambda x, where: 2 * x, Site("block_output", 1): lambda x, where: x + 1}
    with seen(model, stream, Site("attention_heads", 2)) as ours, sites.edit(model, edits):
        tokens = decode(model)
    assert_close(ours, last_states(whole(model, range(1)), Site("attention_heads", 2), tokens))


def test_with_base_history_each_step_goes_on_from_the_models_own_past() -> None:
    model, site = tiny_model("llama"), Site("attention_heads", 1)
    second = whole(model, range(1))
    stream = Stream(model, 0, 1, adapters(model, range(1)), base_history=True)
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad(), seen(model, stream, site) as ours:
        cache = model(ids, use_cache=True).past_key_values
        token = torch.tensor([[42]])
        copied = copy.deepcopy(cache)
        model(token, past_key_values=cache)
    with torch.no_grad(), sites.capture(second, [site]) as states:
        second(token, past_key_values=copied)
    assert_close([ours[1]], [states[site][:, -1]])
    assert len(cache.layers) == LAYERS


def test_the_streams_past_lies_behind_the_models_own_and_is_repeated_with_it() -> None:
    model = tiny_model("gpt2")
    with torch.no_grad(), Stream(model, 0, 1, adapters(model, range(1))).following():
        cache = model(torch.tensor([PROMPTS[0]]), use_cache=True).past_key_values
        assert len(cache.layers) == LAYERS + 1
        cache.batch_repeat_interleave(3)
        assert model(torch.tensor([[7]] * 3), past_key_values=cache).logits.shape[0] == 3
        assert {layer.get_seq_length() for layer in cache.layers} == {len(PROMPTS[0]) + 1}


def test_a_cache_that_the_stream_has_not_seen_is_refused() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        cache = model(torch.tensor([PROMPTS[0]]), use_cache=True).past_key_values
        stream = Stream(model, 0, 1, adapters(model, range(1)))
        with stream.following(), pytest.raises(SiteError, match="holds 8 tokens, of which the second stream saw 0"):
            model(torch.tensor([[7]]), past_key_values=cache)


@pytest.mark.parametrize("blocks", [(1, 1), (2, 1), (0, LAYERS), (-1, 1)])
def test_blocks_that_make_no_stream_are_refused(blocks: tuple[int, int]) -> None:
    with pytest.raises(SiteError, match="no stream from block"):
        Stream(tiny_model("llama"), *blocks, {})


def test_a_twin_shares_every_parameter_and_no_hook() -> None:
    block = sites.block(tiny_model("llama"), 0)
    handle = block.self_attn.register_forward_hook(lambda *_: pytest.fail("the twin called a hook"))  # pyright: ignore
    try:
        twin = bare(block)
    finally:
        handle.remove()
    assert [id(each) for each in twin.parameters()] == [id(each) for each in block.parameters()]
    assert not any(module._forward_hooks for module in twin.modules())
