"""Patching is exact: on either side padded, in any batch, with and without a cache, and differentiable."""

import pytest
import torch
from torch import Tensor

from steerlab import sites
from steerlab.models import pad
from steerlab.patching import patched
from steerlab.sites import Site
from tests.laws.subjects import tiny_model

EVERY_FAMILY = pytest.mark.parametrize("family", ["gpt2", "llama"])
GIVEN = [list(b"ab????cd"), list(b"a longer one ???? and on"), list(b"?????x")]
FIRSTS, COUNTS = [2, 13, 0], [4, 4, 5]


def states(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(count, 16, generator=generator) for count in COUNTS]


def forward(family: str, rows: list[int], side: str = "right", wanted: Site | None = None) -> list[Tensor]:
    """Logits, or the states at a site, of the real tokens of some of the texts."""
    model = tiny_model(family)
    ids, mask = pad([GIVEN[row] for row in rows], side=side, pad_id=0)  # pyright: ignore
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), sites.capture(model, [wanted or Site("logits")]) as found:
        model(input_ids=ids, attention_mask=mask, position_ids=positions)
    return [each[real.bool()] for each, real in zip(found[wanted or Site("logits")], mask)]


@EVERY_FAMILY
def test_patching_tokens_with_their_own_output_changes_nothing(family: str) -> None:
    own = forward(family, [0, 1, 2], wanted=Site("block_output", 0))
    parts = [each[first : first + count] for each, first, count in zip(own, FIRSTS, COUNTS)]
    base = forward(family, [0, 1, 2])
    with patched(tiny_model(family), 0, FIRSTS, parts):
        for found, expected in zip(forward(family, [0, 1, 2]), base):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@EVERY_FAMILY
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_states_lie_at_their_places_and_nowhere_else(family: str, side: str) -> None:
    given, site, model = states(), Site("block_output", 1), tiny_model(family)
    base = forward(family, [0, 1, 2], side, site)
    with patched(model, 1, FIRSTS, given):
        found = forward(family, [0, 1, 2], side, site)
    for row, (first, count) in enumerate(zip(FIRSTS, COUNTS)):
        inside = torch.zeros(len(GIVEN[row]), dtype=torch.bool)
        inside[first : first + count] = True
        assert torch.equal(found[row][inside], given[row])
        torch.testing.assert_close(found[row][~inside], base[row][~inside], rtol=1e-5, atol=1e-5)


@EVERY_FAMILY
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_gives_what_each_row_gives_alone(family: str, side: str) -> None:
    model, given = tiny_model(family), states()
    with patched(model, 0, FIRSTS, given):
        together = forward(family, [0, 1, 2], side)
    for row in range(3):
        with patched(model, 0, FIRSTS[row : row + 1], given[row : row + 1]):
            (alone,) = forward(family, [row], side)
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-4)


@EVERY_FAMILY
@pytest.mark.parametrize("beams", [1, 3])
def test_a_patched_prefill_with_a_cache_is_a_patch_at_every_step_without(family: str, beams: int) -> None:
    model = tiny_model(family)
    ids, mask = pad(GIVEN, side="left", pad_id=0)
    how = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    written = {}
    for use_cache in (True, False):
        with patched(model, 0, FIRSTS, states()):
            written[use_cache] = model.generate(input_ids=ids, attention_mask=mask, use_cache=use_cache, **how)
    base = model.generate(input_ids=ids, attention_mask=mask, **how)
    assert torch.equal(written[True], written[False])
    assert not torch.equal(written[True], base)


@EVERY_FAMILY
def test_the_gradient_reaches_the_states(family: str) -> None:
    model, given = tiny_model(family), states()
    ids, mask = pad(GIVEN, side="left", pad_id=0)
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def value(of: list[Tensor]) -> Tensor:
        with patched(model, 0, FIRSTS, of):
            return model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1].square().mean()

    leaves = [each.clone().requires_grad_() for each in given]
    value(leaves).backward()
    row, place, dimension, step = 1, 2, 5, 1e-2
    moved = [[each.clone() for each in given] for _ in range(2)]
    moved[0][row][place, dimension] += step
    moved[1][row][place, dimension] -= step
    with torch.no_grad():
        slope = (value(moved[0]) - value(moved[1])) / (2 * step)
    assert all(leaf.grad is not None and leaf.grad.abs().amax(-1).min() > 0 for leaf in leaves)
    torch.testing.assert_close(leaves[row].grad[place, dimension], slope, rtol=0.05, atol=1e-4)  # pyright: ignore


def test_rows_without_states_are_refused() -> None:
    with (
        pytest.raises(ValueError, match="3 rows were named and states of 2"),
        patched(tiny_model("llama"), 0, FIRSTS, states()[:2]),
    ):
        pass
