"""Correlations of many columns at once: the same as scipy's one by one, and draws that keep sentences together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from steerlab.metrics import bootstrap, ranks

WHOLE = st.integers(-3, 3)  # so that there are ties


@st.composite
def tables(draw):
    """x: (n, 3), y: (n, 2) with ties, and sentences of 1 to 4 words."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=3, max_size=12))
    n = sum(lengths)
    rows = draw(st.lists(st.tuples(*[WHOLE] * 5), min_size=n, max_size=n))
    table = np.array(rows, dtype=float)
    return table[:, :3], table[:, 3:], np.repeat(np.arange(len(lengths)), lengths)


def one_by_one(x, y, statistic):
    found = [[statistic(one, other)[0] if len(set(one)) * len(set(other)) > 1 and len(set(one)) > 1 < len(set(other))
              else 0.0 for other in y.T] for one in x.T]  # fmt: skip
    return np.array(found)


@given(tables())
@settings(max_examples=60, deadline=None)
def test_coefficients_are_those_of_scipy(table):
    x, y, _ = table
    for ours, theirs in (
        (ranks.pearson, stats.pearsonr), (ranks.spearman, stats.spearmanr), (ranks.kendall, stats.kendalltau)
    ):  # fmt: skip
        assert_allclose(ours(x, y), one_by_one(x, y, theirs), atol=1e-9)


@given(tables(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_draw_of_sentences_is_ranked_as_if_its_words_were_written_out(table, seed):
    x, y, sentence = table
    found = ranks.bootstrapped(x, y, sentence, resamples=3, seed=seed)
    counts = np.concatenate(list(bootstrap.draws(sentence.max() + 1, 3, seed))).astype(int)
    for row, times in zip(found, counts, strict=True):
        drawn = np.repeat(np.arange(len(x)), times[sentence])
        assert_allclose(row, np.abs(ranks.spearman(x[drawn], y[drawn])).mean(1), atol=1e-9)


@given(tables(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_permuted_sentences_keep_their_words_in_order(table, seed):
    _, _, sentence = table
    (orders,) = ranks._orders(sentence, 4, seed, 10)
    for order in orders:
        assert sorted(order) == list(range(len(sentence)))
        moved = sentence[order]
        starts = np.flatnonzero(np.diff(moved, prepend=-1))
        assert len(starts) == sentence.max() + 1
        for run in np.split(order, starts[1:]):
            assert run.tolist() == np.flatnonzero(sentence == sentence[run[0]]).tolist()


def test_the_null_distribution_is_that_of_the_permuted_correlations():
    random = np.random.default_rng(0)
    x, y, sentence = random.normal(size=(40, 3)), random.normal(size=(40, 2)), np.repeat(np.arange(10), 4)
    null = ranks.permuted(x, y, sentence, permutations=5, seed=3)
    (orders,) = ranks._orders(sentence, 5, 3, 10)
    for row, order in zip(null, orders, strict=True):
        assert_allclose(row, np.abs(ranks.pearson(x, y[order])).mean(1))


def test_a_partial_coefficient_is_that_of_the_formula_for_one_given_variable():
    random = np.random.default_rng(1)
    given_one = random.normal(size=(200, 1))
    x, y = given_one + random.normal(size=(200, 1)), given_one + random.normal(size=(200, 1))
    xy, xz, yz = (ranks.spearman(a, b)[0, 0] for a, b in ((x, y), (x, given_one), (y, given_one)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert ranks.pearson(ranks.without(x, given_one), ranks.without(y, given_one)) == pytest.approx(expected)


def test_what_is_given_leaves_nothing_of_itself():
    column = np.random.default_rng(2).normal(size=(50, 1))
    other = np.random.default_rng(3).normal(size=(50, 1))
    assert_allclose(ranks.pearson(ranks.without(column**3, column), other), 0, atol=1e-9)


def test_what_is_given_twice_or_never_varies_takes_no_more_away():
    random = np.random.default_rng(4)
    x, given_one = random.normal(size=(50, 2)), random.normal(size=(50, 1))
    again = np.hstack([given_one, given_one, np.ones((50, 1))])
    assert_allclose(ranks.without(x, again), ranks.without(x, given_one), atol=1e-9)


def test_holms_correction_by_hand():
    assert_allclose(ranks.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert_allclose(ranks.holm([0.9, 0.8]), [1.0, 1.0])


def test_a_p_value_counts_what_was_observed():
    null = np.array([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]])
    assert_allclose(ranks.p_values(np.array([0.25, 0.6]), null), [2 / 4, 1 / 4])
