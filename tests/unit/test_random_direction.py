"""Random controls of the baselines: their edits are as large as the learnt ones', and the search for that."""

import dataclasses
from collections.abc import Callable
from math import atan, inf, nan, sin
from typing import Any

import pytest
import torch

from steerlab import sites
from steerlab.methods.protocol import Origin
from steerlab.methods.random_direction import factor_to, mean_edit, randomised
from steerlab.models import encode
from steerlab.sites import Site
from tests.laws.subjects import fitted, handle

PROMPTS = ("You are", "I think that", "What a", "no", "The people in this town are")
METHODS = pytest.mark.parametrize("method", ["caa", "iti", "lora", "hpr"])
EVERY_FAMILY = pytest.mark.parametrize("family", ["gpt2", "llama"])


def control_of(steer: Any, family: str, strength: float = 1.0, seed: int = 0) -> Any:
    return randomised(handle(family), Origin({"toxicity": steer}, handle(family), PROMPTS, strength, seed))


@METHODS
@EVERY_FAMILY
@pytest.mark.parametrize("strength", [1.0, 0.5])  # far above 1 an angle is cut at pi, and HPR has no control
def test_the_controls_mean_edit_is_the_learnt_one_within_a_percent(method: str, family: str, strength: float) -> None:
    steer = fitted(method, family)
    control = control_of(steer, family, strength)
    sizes = [mean_edit(handle(family), each, strength, PROMPTS) for each in (steer, control)]
    assert sizes[0] > 0 and sizes[1] == pytest.approx(sizes[0], rel=0.01)


@METHODS
def test_a_control_is_another_steer_for_another_seed_and_says_that_it_is_random(method: str) -> None:
    steer, model = fitted(method, "llama"), handle("llama").load()
    logits = []
    for each in (steer, *(control_of(steer, "llama", seed=seed) for seed in (0, 0, 1))):
        with each.attached(model), torch.no_grad():
            logits.append(model(torch.tensor([[1, 2, 3]])).logits)
    learnt, first, again, other = logits
    assert torch.equal(first, again)
    assert not any(torch.allclose(*pair, atol=1e-3) for pair in ((learnt, first), (learnt, other), (first, other)))
    assert control_of(steer, "llama").record.config["random"] is True


@METHODS
def test_the_size_of_an_edit_does_not_depend_on_the_batch(method: str) -> None:
    model, steer = handle("gpt2"), fitted(method, "gpt2")
    alone, together = (mean_edit(model, steer, 1.0, PROMPTS, batch_texts=size) for size in (1, 16))
    assert alone == pytest.approx(together, rel=1e-4)


def test_an_edit_from_the_last_prompt_token_on_has_the_size_of_that_token_in_all_of_them() -> None:
    steer, tokens = fitted("caa", "llama"), sum(len(encode(handle("llama").info.tokenizer, text)) for text in PROMPTS)
    expected = float(steer.vector.norm()) * len(PROMPTS) / tokens  # pyright: ignore[reportAttributeAccessIssue]
    assert mean_edit(handle("llama"), steer, -1.0, PROMPTS) == pytest.approx(expected, rel=1e-4)


def test_an_edit_at_no_site_is_measured_after_the_final_norm() -> None:
    model, site, changes = handle("llama").load(), Site("lm_head_input"), []
    for text in PROMPTS:
        with sites.capture(model, [site]) as states, torch.no_grad():
            model(torch.tensor([encode(handle("llama").info.tokenizer, text)]))
            before = states[site]
            with fitted("lora", "llama").attached(model, 2.0):
                model(torch.tensor([encode(handle("llama").info.tokenizer, text)]))
        changes.append((states[site] - before)[0].norm(dim=1))
    measured = mean_edit(handle("llama"), fitted("lora", "llama"), 2.0, PROMPTS)
    assert measured == pytest.approx(float(torch.cat(changes).mean()), rel=1e-4)


@pytest.mark.parametrize("wanted", [1e-4, 0.3, 1.0, 1.9])
@pytest.mark.parametrize(
    "size",
    [
        lambda factor: 7 * factor,
        lambda factor: 2 * sin(min(0.4 * factor, 3.14159) / 2),  # a rotation by an angle
        lambda factor: 1.3 * atan(factor**1.5),  # saturates
        lambda factor: 0.01 * factor + 0.5 * factor**3,
        lambda factor: 1e-3 * factor**0.4,
    ],
)
def test_the_factor_is_found_for_sizes_that_grow_by_any_law(size: Callable[[float], float], wanted: float) -> None:
    tried = []

    def counted(factor: float) -> float:
        tried.append(factor)
        return size(factor)

    assert size(factor_to(wanted, counted)) == pytest.approx(wanted, rel=0.01)
    assert len(tried) <= 16


def test_an_edit_that_its_factor_scales_is_measured_twice() -> None:
    tried = []
    assert factor_to(3.0, lambda factor: tried.append(factor) or 1.5 * factor) == pytest.approx(2.0)
    assert len(tried) == 2


@pytest.mark.parametrize("wanted", [0.0, nan, inf])
def test_a_learnt_edit_without_a_size_has_no_control(wanted: float) -> None:
    with pytest.raises(ValueError, match="the learnt edit's size is"):
        factor_to(wanted, lambda factor: factor)


def test_a_size_out_of_reach_is_refused_naming_the_share() -> None:
    with pytest.raises(ValueError, match=r"is 0\.500 of the learnt one's"):
        factor_to(2.0, lambda factor: min(factor, 1.0))
    with pytest.raises(ValueError, match="has size 0"):
        factor_to(2.0, lambda factor: 0.0)


def test_a_gated_steer_that_edits_no_dev_prompt_has_a_control_as_it_was_drawn(caplog: pytest.LogCaptureFixture) -> None:
    steer = fitted("slim", "llama")
    shut = dataclasses.replace(steer, tensors={**steer.tensors, "bias": torch.full_like(steer.tensors["bias"], -1e6)})
    assert mean_edit(handle("llama"), shut, 1.0, PROMPTS) == 0
    control = control_of(shut, "llama")
    assert "direction" in control.tensors and "edits no dev prompt" in caplog.text
