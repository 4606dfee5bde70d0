"""CogSteer's formula, its training and where it acts; the stream and the laws are tested elsewhere."""

import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steerlab import models, sites
from steerlab.methods import bottleneck
from steerlab.methods.cogsteer import CogSteer, _blocks, _Judged, _trained, contrasted, placed
from steerlab.sites import Site, SiteError
from tests.laws.subjects import LAYERS, handle, training_texts
from tests.unit.test_streams import adapters, whole

DATA = training_texts()
PROMPTS = [[10, 20, 30, 40, 50, 60, 70], [80, 90, 100]]
CONFIG: Any = handle("llama").info.config


def fit(family: str = "llama", **more: Any) -> CogSteer:
    settings = {"seed": 0, "updates": 20, "learning_rate": 1e-2, "reduction": 4, "held_out": 0.0, "block_tokens": 8}
    return CogSteer.fit(handle(family), DATA, **(settings | more))


def logits_of(family: str, steer: CogSteer | None = None, strength: float = 1.0) -> Tensor:
    """Logits of the last token of each prompt, (prompts, vocab)."""
    model: Any = handle(family).load()
    ids, mask = models.pad(PROMPTS, side="left", pad_id=0)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), steer.attached(model, strength) if steer else sites.prompt(model, [7, 3], mask):
        return model(ids, attention_mask=mask, position_ids=positions).logits[:, -1]


def with_large_adapters(steer: CogSteer, family: str = "llama") -> CogSteer:
    """The same steer with the adapters that `test_streams` gives a whole second model."""
    blocks = steer.record.config["blocks"]
    made = adapters(handle(family).load(), range(blocks[0], blocks[-1] + 1))
    return CogSteer(bottleneck.tensors(made), steer.record)


# ---- the formula ----


def test_the_contrast_is_the_formula_head_by_head() -> None:
    generator = torch.Generator().manual_seed(0)
    v, t = torch.randn(2, 2, 4, 6, generator=generator).double()
    expected = torch.empty_like(v)
    for row in range(2):
        turned = torch.stack(
            [v[row, head] - 0.7 * (1 + (d := t[row, head] - v[row, head]).norm()) ** 0.4 * d for head in range(4)]
        )
        expected[row] = turned * v[row].norm() / turned.norm()
    torch.testing.assert_close(contrasted(v, t - v, 0.7), expected)


@given(st.integers(0, 1000), st.floats(-3, 3))
def test_the_norm_over_all_heads_is_kept(seed: int, strength: float) -> None:
    v, delta = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    norm = contrasted(v, delta, strength).flatten(-2).norm(dim=-1)
    torch.testing.assert_close(norm, v.flatten(-2).norm(dim=-1), rtol=1e-6, atol=0)


def test_no_difference_changes_nothing_bit_for_bit() -> None:
    v = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(contrasted(v, torch.zeros_like(v), 2.0), v)


def test_a_state_of_zeros_stays_one() -> None:
    zeros = torch.zeros(3, 4, 6)
    assert torch.equal(contrasted(zeros, zeros, 1.0), zeros)


# ---- where ----


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"adapter_layer": 0}, ([0], [1])),
        ({"adapter_layer": 0.5}, ([1], [2])),
        ({"adapter_layer": 0, "contrast_layer": 2}, ([0], [2])),
        ({"adapter_layer": "picked", "picked": 1}, ([1], [2])),
        ({"adapter_layer": 2}, ([2], [])),
        ({"adapter_layer": "all"}, ([0, 1, 2], [1, 2])),
    ],
    ids=str,
)
def test_the_blocks_are_those_asked_for(asked: dict, expected: tuple) -> None:
    found = placed(LAYERS, CONFIG, **({"contrast_layer": None, "picked": None, "seed": 0} | asked))
    assert found == expected


def test_a_random_block_is_drawn_by_the_seed_and_is_never_the_picked_one() -> None:
    drawn = {placed(LAYERS, CONFIG, "random", None, 1, seed)[0][0] for seed in range(20)}
    assert drawn == {0, 2}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"adapter_layer": "picked"}, "but none was picked"),
        ({"adapter_layer": 1, "contrast_layer": 1}, "does not lie after the adapted block 1"),
        ({"adapter_layer": 2, "contrast_layer": 1}, "the last block, 2, is adapted"),
        ({"adapter_layer": "all", "contrast_layer": 1}, "leave contrast_layer out"),
        ({"adapter_layer": 3}, "no block of this model"),
    ],
    ids=str,
)
def test_blocks_that_show_nothing_are_refused_before_training(asked: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(**asked)


# ---- what it does to the model ----


@pytest.mark.parametrize("adapter_layer", [0, 2, "all"])
def test_untrained_adapters_in_one_block_change_nothing(adapter_layer: Any) -> None:
    steer = fit(adapter_layer=adapter_layer, updates=0)
    changed = not torch.equal(logits_of("llama", steer), logits_of("llama"))
    assert changed == (adapter_layer != 0)  # where the logits are taken off, those are the model's own


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_with_the_last_block_adapted_a_tenth_of_the_adapted_logits_is_taken_off(family: str) -> None:
    steer = with_large_adapters(fit(family, adapter_layer=LAYERS - 1, updates=0), family)
    second = whole(handle(family).load(), range(LAYERS - 1, LAYERS))
    ids, mask = models.pad(PROMPTS, side="left", pad_id=0)
    with torch.no_grad():
        adapted = second(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits[:, -1]
    for strength in (1.0, -2.0):
        expected = logits_of(family) - 0.1 * strength * adapted
        torch.testing.assert_close(logits_of(family, steer, strength), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keep", [1, 2, torch.tensor([-3, -1])], ids=str)
def test_logits_kept_in_part_are_those_of_all(keep: Any) -> None:
    model: Any = handle("llama").load()
    steer = with_large_adapters(fit(adapter_layer=LAYERS - 1, updates=0))
    ids = torch.tensor([PROMPTS[0]])
    everything, lengths = torch.ones_like(ids), [1]  # from the first token on
    with torch.no_grad(), steer.attached(model), sites.prompt(model, lengths, everything):
        whole_logits, part = (model(ids, logits_to_keep=kept).logits for kept in (0, keep))
    columns = slice(-keep, None) if isinstance(keep, int) else keep
    torch.testing.assert_close(part, whole_logits[:, columns])


def test_the_edited_heads_are_the_contrast_with_a_whole_second_model() -> None:
    model: Any = handle("llama").load()
    steer, second, site = with_large_adapters(fit(adapter_layer=0, updates=0)), None, Site("attention_heads", 1)
    second = whole(model, range(1))
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad(), sites.capture(second, [site]) as theirs:
        second(ids)
    with torch.no_grad(), sites.capture_around(model, [site], steer.attached(model, 0.5)) as (before, after):
        model(ids)
    v, t = before[site][:, -1], theirs[site][:, -1]
    torch.testing.assert_close(after[site][:, -1], contrasted(v, t - v, 0.5), rtol=1e-4, atol=1e-4)
    assert torch.equal(after[site][:, :-1], before[site][:, :-1])


def test_strengths_of_opposite_sign_move_apart() -> None:
    steer = with_large_adapters(fit(adapter_layer=0, updates=0))
    base, away, towards = (logits_of("llama", *each) for each in ((), (steer, 0.1), (steer, -0.1)))
    assert torch.cosine_similarity((away - base).flatten(), (towards - base).flatten(), dim=0) < -0.5


# ---- training ----


@pytest.mark.parametrize("adapter_layer", [0, "all"])
def test_training_lowers_the_loss_of_the_unwished_texts(adapter_layer: Any) -> None:
    untrained, trained = (_judged(fit(adapter_layer=adapter_layer, updates=updates)) for updates in (0, 20))
    assert trained < untrained - 0.1


def test_the_model_itself_gets_no_gradient_and_keeps_its_weights() -> None:
    model: Any = handle("gpt2").load()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    fit("gpt2")
    for name, parameter in model.named_parameters():
        assert parameter.grad is None and not parameter.requires_grad
        assert torch.equal(parameter, before[name])


def test_weights_are_kept_of_the_chosen_block_alone_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "steerlab.methods.cogsteer"):
        steer = fit(adapter_layer=1)
    assert {name.split(".")[2] for name in steer.tensors} == {"1"}
    assert f"{sum(each.numel() for each in steer.tensors.values())} trained weights" in caplog.text


class _Said:
    """Judges that say given losses one after the other, and note the weights that were judged."""

    def __init__(self, adapters: dict, losses: list[float]):
        self.adapters, self.losses, self.seen = adapters, iter(losses), []

    def loss(self) -> float:
        self.seen.append(bottleneck.tensors(self.adapters))
        return next(self.losses)


@pytest.mark.parametrize(("losses", "best", "level"), [([9, 3, 1, 2], 2, "INFO"), ([1, 3, 2, 4], 2, "WARNING")])
def test_the_weights_kept_are_the_best_of_those_judged_after_training_began(
    losses: list[float], best: int, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = handle("llama").load()
    made = bottleneck.make(model, [0], reduction=4, generator=torch.Generator().manual_seed(0))
    said, texts = _Said(made, losses), _blocks(handle("llama"), DATA, 8)
    with caplog.at_level(logging.INFO, "steerlab.methods.cogsteer"):
        kept = _trained(model, made, iter([texts] * 3), said, 3, 1, 0.01, 0.0)  # pyright: ignore
    assert all(torch.equal(kept[name], said.seen[best][name]) for name in kept)
    assert [record.levelname for record in caplog.records] == [level]  # a warning where training made it worse


def _judged(steer: CogSteer) -> float:
    """The loss of the texts that judge, with the steer's adapters in the model."""
    model: Any = handle("llama").load()
    trained = bottleneck.make(model, steer.record.config["blocks"], reduction=4)
    bottleneck.fill(trained, steer.tensors)
    with sites.modules(model, trained):
        return _Judged(model, _blocks(handle("llama"), DATA, 8), 4).loss()


def test_texts_are_cut_into_blocks_behind_one_another() -> None:
    unwished = DATA[DATA.label < 0].text
    ids = [token for text in unwished for token in (*text.encode(), 256)]
    found = _blocks(handle("llama"), DATA, 8)
    assert [text.ids for text in found] == [ids[start : start + 8] for start in range(0, len(ids) - 7, 8)]
    assert all(text.asked == list(range(1, 8)) for text in found)


def test_a_fit_without_an_unwished_text_is_refused() -> None:
    with pytest.raises(ValueError, match="no unwished text"):
        CogSteer.fit(handle("llama"), DATA[DATA.label > 0], seed=0)


# ---- the control ----


def test_the_control_keeps_every_size_and_has_one_direction_a_head() -> None:
    steer = with_large_adapters(fit(adapter_layer="all", updates=0))
    control = steer.with_random_directions(torch.Generator().manual_seed(3))
    states = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    one, other = (control._directed(states * size, "directions.1") for size in (1.0, 2.0))
    torch.testing.assert_close(one.norm(dim=-1), states.norm(dim=-1))
    torch.testing.assert_close(2 * one, other)
    torch.testing.assert_close(control.scaled(3.0)._directed(states, "directions.1"), 3 * one)


# ---- the official code's ways ----


def test_the_official_way_holds_every_token_twice_and_draws_from_the_unedited_pass() -> None:
    model: Any = handle("llama").load()
    steer = with_large_adapters(fit(adapter_layer=0, updates=0, official_code=True))
    ids = torch.tensor([[42]])
    with torch.no_grad(), steer.attached(model):
        first = model(input_ids=ids, use_cache=True)
        assert first.past_key_values.get_seq_length() == 2
        second = model(input_ids=torch.tensor([[43]]), past_key_values=first.past_key_values, use_cache=True)
        assert second.past_key_values.get_seq_length() == 4
        assert len(second.past_key_values.layers) == LAYERS
    # By hand: an edited pass, then the model as it is, on one cache; the adapted stream goes on from that cache.
    with torch.no_grad():
        plain = CogSteer(steer.tensors, steer.record)
        stream = plain.stream(model)
        edits = {Site("attention_heads", 1): lambda x, where: plain._edited(stream, 1.0, x, where)}
        cache, logits = None, []
        for token in (42, 43):
            at = {"position_ids": torch.tensor([[token - 42]]), "use_cache": True}
            with stream.following(), sites.edit(model, edits):
                cache = model(torch.tensor([[token]]), past_key_values=cache, **at).past_key_values
            logits.append(model(torch.tensor([[token]]), past_key_values=cache, **at).logits)
    torch.testing.assert_close(first.logits, logits[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second.logits, logits[1], rtol=1e-5, atol=1e-5)


def test_the_official_way_decodes_a_padded_batch_as_its_prompts_one_by_one() -> None:
    model: Any = handle("gpt2").load()
    steer = with_large_adapters(fit("gpt2", adapter_layer=0, updates=0, official_code=True), "gpt2")
    options = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5}
    ids, mask = models.pad(PROMPTS, side="left", pad_id=model.config.pad_token_id)
    with torch.no_grad(), steer.attached(model):
        both = model.generate(ids, attention_mask=mask, **options)
        for row, prompt in enumerate(PROMPTS):
            alone = model.generate(torch.tensor([prompt]), **options)
            assert torch.equal(both[row, -5:], alone[0, -5:])


def test_the_official_way_without_a_cache_is_refused() -> None:
    model: Any = handle("llama").load()
    steer = fit(adapter_layer=0, updates=0, official_code=True)
    with steer.attached(model), pytest.raises(SiteError, match="official_code decodes with a cache"):
        model(torch.tensor([[1]]), use_cache=False)
