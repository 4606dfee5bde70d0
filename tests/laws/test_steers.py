"""The laws of the steers themselves, for every registered method."""

from pathlib import Path

import pytest
import torch

from steerlab import methods
from steerlab.methods.steer_files import SteerMismatch
from tests.laws.subjects import METHOD_FAMILIES, STEERS, fit, fitted, handle
from tests.laws.test_laws import PROMPTS, generate

pytestmark = [pytest.mark.parametrize("family", METHOD_FAMILIES), pytest.mark.parametrize("method", STEERS)]


def test_zero_strength_gives_base_logits_bit_for_bit(method: str, family: str) -> None:
    model = handle(family).load()
    _, base = generate(model, PROMPTS)
    with fitted(method, family).attached(model, 0.0):
        assert torch.equal(generate(model, PROMPTS)[1], base)


def test_a_loaded_steer_gives_the_outputs_of_the_saved_one(method: str, family: str, tmp_path: Path) -> None:
    model, steer = handle(family).load(), fitted(method, family)
    steer.save(tmp_path)
    loaded = methods.load(tmp_path, handle(family))
    assert loaded.sites == steer.sites
    with steer.attached(model, 0.7):
        _, saved_logits = generate(model, PROMPTS)
    with loaded.attached(model, 0.7):
        assert torch.equal(generate(model, PROMPTS)[1], saved_logits)


def test_one_seed_gives_one_steer_byte_for_byte(method: str, family: str, tmp_path: Path) -> None:
    for run in ("first", "second"):
        fit(method, family, seed=3).save(tmp_path / run)
    first, second = (
        {path.relative_to(tmp_path / run): path.read_bytes() for path in (tmp_path / run).rglob("*.*")}
        for run in ("first", "second")
    )
    assert first == second


def test_a_steer_is_refused_by_another_model_naming_both(method: str, family: str, tmp_path: Path) -> None:
    other = handle(family, seed=1)
    fitted(method, family).save(tmp_path)
    for refused in (lambda: fitted(method, family).attached(other.load()), lambda: methods.load(tmp_path, other)):
        with pytest.raises(SteerMismatch) as error:
            refused()
        assert handle(family).info.revision[:12] in str(error.value)
        assert other.info.revision[:12] in str(error.value)


def test_a_strength_out_of_range_is_refused(method: str, family: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        fitted(method, family).attached(handle(family).load(), float("nan"))
