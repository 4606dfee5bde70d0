"""The cross-entropy of a head on given states, against a softmax in numpy, finite differences and gradcheck."""

import numpy as np
import pytest
import torch

from steerlab.losses import linear_cross_entropy
from tests.unit.largest import Largest

TOKENS, HIDDEN, VOCABULARY, STEERS = 11, 5, 17, 2


def numbers(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


STATES, EMBEDDINGS = numbers(TOKENS, HIDDEN, seed=0), numbers(VOCABULARY, HIDDEN, seed=1)
VALUES, OFFSETS = numbers(TOKENS, STEERS, seed=2), numbers(STEERS, VOCABULARY, seed=3)
TARGETS = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(4))


def softmax_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean of -log(exp(logit of the target) / sum of exp(logits)), from the formula."""
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-np.mean([np.log(shares[token, target]) for token, target in enumerate(targets)]))


def by_formula(states: torch.Tensor, offsets: torch.Tensor | None = None) -> float:
    logits = states.numpy() @ EMBEDDINGS.numpy().T
    if offsets is not None:
        logits = logits + VALUES.numpy() @ offsets.numpy()
    return softmax_cross_entropy(logits, TARGETS.numpy())


@pytest.mark.parametrize("chunk", [1, 4, 11, 1000])
def test_the_loss_is_that_of_a_full_softmax(chunk: int) -> None:
    assert linear_cross_entropy(STATES, EMBEDDINGS, TARGETS, chunk=chunk).item() == pytest.approx(
        by_formula(STATES), rel=1e-13
    )


@pytest.mark.parametrize("chunk", [1, 4, 11, 1000])
def test_offsets_are_added_to_the_logits_by_each_tokens_own_values(chunk: int) -> None:
    loss = linear_cross_entropy(STATES, EMBEDDINGS, TARGETS, values=VALUES, offsets=OFFSETS, chunk=chunk)
    assert loss.item() == pytest.approx(by_formula(STATES, OFFSETS), rel=1e-13)


def test_the_gradient_passes_gradcheck_in_states_and_offsets() -> None:
    def loss(states: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(states, EMBEDDINGS, TARGETS, values=VALUES, offsets=offsets, chunk=4)

    inputs = (STATES.clone().requires_grad_(), OFFSETS.clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradcheck(
        lambda states: linear_cross_entropy(states, EMBEDDINGS, TARGETS, chunk=4), inputs[0]
    )


def test_the_gradient_is_the_finite_difference_of_the_formula() -> None:
    states, offsets = STATES.clone().requires_grad_(), OFFSETS.clone().requires_grad_()
    linear_cross_entropy(states, EMBEDDINGS, TARGETS, values=VALUES, offsets=offsets, chunk=4).backward()

    def slope(variable: torch.Tensor, place: tuple[int, int], other: dict[str, torch.Tensor], name: str) -> float:
        ends = []
        for step in (1e-5, -1e-5):
            moved = variable.clone()
            moved[place] += step
            ends.append(by_formula(**(other | {name: moved})))
        return (ends[0] - ends[1]) / 2e-5

    for place in np.ndindex(*STATES.shape):
        expected = slope(STATES, place, {"offsets": OFFSETS}, "states")
        assert states.grad[place].item() == pytest.approx(expected, abs=1e-9)
    for place in np.ndindex(*OFFSETS.shape):
        expected = slope(OFFSETS, place, {"states": STATES}, "offsets")
        assert offsets.grad[place].item() == pytest.approx(expected, abs=1e-9)


def test_a_factor_on_the_loss_is_a_factor_on_its_gradient() -> None:
    gradients = []
    for factor in (1.0, 3.0):
        states, offsets = STATES.clone().requires_grad_(), OFFSETS.clone().requires_grad_()
        (factor * linear_cross_entropy(states, EMBEDDINGS, TARGETS, values=VALUES, offsets=offsets)).backward()
        gradients.append(torch.cat([states.grad.flatten(), offsets.grad.flatten()]))
    torch.testing.assert_close(gradients[1], 3 * gradients[0])


def test_the_embeddings_and_the_values_get_no_gradient() -> None:
    states, embeddings, values = (each.clone().requires_grad_() for each in (STATES, EMBEDDINGS, VALUES))
    linear_cross_entropy(states, embeddings, TARGETS, values=values, offsets=OFFSETS).backward()
    assert states.grad is not None
    assert embeddings.grad is None and values.grad is None


def test_logits_in_the_ten_thousands_overflow_nothing() -> None:
    states = (1e4 * STATES).float().requires_grad_()
    loss = linear_cross_entropy(states, EMBEDDINGS.float(), TARGETS)
    loss.backward()
    logits = 1e4 * STATES @ EMBEDDINGS.T
    assert loss.item() == pytest.approx((logits.logsumexp(1) - logits[range(TOKENS), TARGETS]).mean().item(), rel=1e-5)
    assert states.grad.isfinite().all()


def test_half_precision_embeddings_give_a_float32_loss_near_the_exact_one() -> None:
    states, offsets = STATES.float().requires_grad_(), OFFSETS.float().requires_grad_()
    loss = linear_cross_entropy(states, EMBEDDINGS.bfloat16(), TARGETS, values=VALUES.float(), offsets=offsets)
    loss.backward()
    assert loss.dtype == states.grad.dtype == offsets.grad.dtype == torch.float32
    assert loss.item() == pytest.approx(by_formula(STATES, OFFSETS), rel=0.02)


def test_no_tensor_is_as_large_as_tokens_times_vocabulary() -> None:
    states = STATES.clone().requires_grad_()
    with Largest() as largest:
        linear_cross_entropy(states, EMBEDDINGS, TARGETS, chunk=2).backward()
    assert largest.elements == max(2 * VOCABULARY, VOCABULARY * HIDDEN) < TOKENS * VOCABULARY
