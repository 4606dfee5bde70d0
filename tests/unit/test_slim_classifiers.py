"""SLIM's classifiers and vote: their losses by hand, what bl weighs, and the rules for the threshold."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlab.methods import slim_classifiers
from steerlab.methods.slim_classifiers import Classifiers, rates, threshold, train

ROWS, HEADS, SIZE = 120, 3, 4


def planted(seed: int = 0, distance: float = 1.5) -> tuple[Tensor, Tensor]:
    """States whose unwished half lies further along the first axis, the less the higher the head."""
    generator = torch.Generator().manual_seed(seed)
    unwished = torch.arange(ROWS) % 3 == 0
    states = torch.randn(ROWS, HEADS, SIZE, generator=generator)
    states[unwished, :, 0] += distance / (1 + torch.arange(HEADS))
    return states, unwished


def trained(parts: Sequence[tuple[Tensor, Tensor]] = (planted(0), planted(1)), **more: object) -> Classifiers:
    settings = {"loss": "fpr_fnr", "bl": 1.0, "epochs": 300, "learning_rate": 2e-2, "official_code": False}
    return train(*parts[0], *parts[1], generator=torch.Generator().manual_seed(0), **(settings | more))  # pyright: ignore


@pytest.mark.parametrize("loss", ["fpr_fnr", "l2", "cross_entropy"])
def test_the_losses_are_those_of_the_paper(loss: str) -> None:
    logits, y = torch.tensor([[0.3, -1.2, 2.0, 0.1]], dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0, 1.0]).double()
    p = 1 / (1 + np.exp(-logits.numpy()[0]))
    expected = {
        "fpr_fnr": (p[1] + p[2]) / 2 + 2.5 * ((1 - p[0]) + (1 - p[3])) / 2,
        "l2": np.mean((p - y.numpy()) ** 2),
        "cross_entropy": -np.mean(np.log(np.where(y.numpy() > 0, p, 1 - p))),
    }[loss]
    assert float(slim_classifiers._loss(loss, 2.5, y)(logits)[0]) == pytest.approx(expected, rel=1e-12)  # pyright: ignore


@pytest.mark.parametrize("loss", ["fpr_fnr", "l2", "cross_entropy"])
def test_every_loss_finds_what_was_planted(loss: str) -> None:
    states, unwished = planted(2)
    fpr, fnr = rates(trained(loss=loss).logits(states) > 0, unwished)
    assert float((fpr + fnr)[0]) < 0.7 < float((fpr + fnr)[2])


def test_a_heads_classifier_does_not_depend_on_other_heads() -> None:
    parts = [(states.clone(), unwished) for states, unwished in (planted(0), planted(1))]
    for states, _ in parts:
        states[:, 1:] = 100 * states[:, 1:].flip(0)
    one, other = trained(), trained(parts=parts)
    assert torch.allclose(one.weight[0], other.weight[0], atol=1e-6)
    assert torch.allclose(one.bias[0], other.bias[0], atol=1e-6)
    assert not torch.allclose(one.weight[1], other.weight[1], atol=1e-2)


def test_a_larger_bl_misses_less_and_alarms_more() -> None:
    states, unwished = planted(2)
    found = [rates(trained(bl=bl).logits(states)[:, 0] > 0, unwished) for bl in (0.3, 1.0, 3.0, 10.0)]
    alarms, misses = ([float(each[place]) for each in found] for place in (0, 1))
    assert alarms == sorted(alarms) and alarms[0] < alarms[-1]
    assert misses == sorted(misses, reverse=True) and misses[0] > misses[-1]


def test_the_best_judging_epoch_is_kept_and_the_last_one_under_official_code() -> None:
    states, unwished = planted(1)

    def judged(found: Classifiers) -> Tensor:
        return slim_classifiers._loss("fpr_fnr", 1.0, unwished.float())(found.logits(states).T)

    best, last = trained(epochs=2000, learning_rate=0.2), trained(epochs=2000, learning_rate=0.2, official_code=True)
    assert (judged(best) <= judged(last)).all() and (judged(best) < judged(last)).any()


def test_the_threshold_weighs_alarms_and_misses() -> None:
    votes, unwished = torch.tensor([0, 1, 1, 2, 1, 3, 3, 2]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]).bool()
    assert threshold(votes, unwished, 4, bl=1.0, official_code=False) == 2
    assert threshold(votes, unwished, 4, bl=10.0, official_code=False) == 1


def test_under_official_code_no_miss_comes_first_and_bl_never_matters() -> None:
    votes, unwished = torch.tensor([0, 1, 1, 2, 1, 3, 3, 2]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]).bool()
    assert {threshold(votes, unwished, 4, bl=bl, official_code=True) for bl in (0.1, 1.0, 10.0)} == {1}
    votes[4] = 0  # one unwished row without a vote: only tau 0 misses nothing, and the gate is always open
    assert threshold(votes, unwished, 4, bl=1.0, official_code=True) == 0
