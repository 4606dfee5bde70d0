"""Numbers over folds: means weighed by questions, errors added in squares, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from steerlab.metrics import bootstrap
from steerlab.metrics.continuations import COLUMNS
from steerlab.metrics.folds import pooled

ROW = ["model", "method", "prompts", "seed", "metric"]


def fold(value: float, half: float, n: int, *, task: str = "truthfulness", methods: tuple[str, ...] = ("base", "slim")):
    rows = []
    for method in methods:
        gain = 0.1 if method == "slim" else np.nan
        cell = ("tiny", method, task, "test", "all", 0, 1.0, "all", "mc1")
        beside = (value - 0.1, gain, gain - half, gain + half)
        rows.append((*cell, value, value - half, value + half, *beside, n, 1, "log-likelihood", "real"))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_folds_are_weighed_by_their_questions_and_their_errors_added_in_squares():
    one, other = fold(0.2, 0.03, 100), fold(0.5, 0.04, 300, task="truthfulness_swapped")
    found = pooled([one, other], ROW)
    assert list(found.columns) == COLUMNS and found.method.tolist() == ["base", "slim"]
    slim = found.iloc[1]
    half = np.hypot(0.25 * 0.03, 0.75 * 0.04)
    assert (slim.n, slim.value, slim.base) == (400, pytest.approx(0.425), pytest.approx(0.325))
    assert (slim.low, slim.high) == (pytest.approx(0.425 - half), pytest.approx(0.425 + half))
    assert (slim.difference_low, slim.difference_high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))
    assert np.isnan(found.iloc[0].difference)


def test_two_halves_give_the_interval_of_all_questions_at_once():
    values = np.random.default_rng(0).random(400)

    def of(part):
        found = bootstrap.mean(part, resamples=4000)
        return fold(found.value, 0.0, len(part), methods=("slim",)).assign(low=found.low, high=found.high)

    both, whole = pooled([of(values[:150]), of(values[150:])], ROW).iloc[0], bootstrap.mean(values, resamples=4000)
    assert both.value == pytest.approx(whole.value)
    assert both.high - both.low == pytest.approx(whole.high - whole.low, rel=0.1)


def test_a_row_that_a_fold_lacks_or_has_twice_is_refused():
    one = fold(0.2, 0.03, 100)
    with pytest.raises(ValueError, match="'slim', 'all', 'all', 'mc1'\\) is not in every fold"):
        pooled([one, fold(0.5, 0.04, 300, methods=("base",))], ROW)
    with pytest.raises(ValueError, match="method base.* stands twice in a fold"):
        pooled([pd.concat([one, one]), one], ROW)
    with pytest.raises(ValueError, match="a number comes from several scorers"):
        pooled([one, one.assign(scorer="another")], ROW)
