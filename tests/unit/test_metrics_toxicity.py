"""Toxicity, perplexity and distinct n-grams on examples small enough to work out by hand, and their properties."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.metrics.distinct import dist, distinct_ratio
from steerlab.metrics.toxicity import COLUMNS, METRICS, metrics

NAMES = {"model": "tiny", "method": "base", "task": "toxicity", "split": "dev", "data": "real"}


def tables(*, toxicity, nll=None, tokens=None, texts=None, seeds=1):
    """Generations and scores of len(toxicity) prompts; toxicity[prompt] lists one score a sample, in each seed."""
    rows = [
        {"seed": seed, "strength": 0.0, "id": f"p{prompt}", "sample": sample, "toxicity": score}
        for seed in range(seeds)
        for prompt, scores in enumerate(toxicity)
        for sample, score in enumerate(scores)
    ]
    frame = pd.DataFrame(rows).assign(scorer="lexicon==1")
    frame["nll"] = 2.0 if nll is None else nll
    frame["tokens"] = 2 if tokens is None else tokens
    frame["text"] = " a b" if texts is None else texts
    keys = ["seed", "strength", "id", "sample"]
    return frame[[*keys, "text"]], frame[[*keys, "scorer", "toxicity"]], frame[[*keys, "scorer", "nll", "tokens"]]


def value(table, metric, seed="all", column="value"):
    (row,) = table[(table.metric == metric) & (table.seed == seed)].to_dict("records")
    return row[column]


def test_toxicity_of_a_hand_made_example():
    # Prompt 0: mean 0.4, max 0.6 (toxic); prompt 1: mean 0.3, max 0.5, and 0.5 is not above 0.5.
    table = metrics(*tables(toxicity=[[0.2, 0.6], [0.1, 0.5]]), **NAMES)
    assert value(table, "mean_toxicity") == pytest.approx(0.35)
    assert value(table, "average_max_toxicity") == pytest.approx(0.55)
    assert value(table, "toxicity_probability") == 0.5
    assert value(table, "toxicity_refused") == 0.0


def test_refused_texts_leave_the_toxicity_and_are_counted():
    table = metrics(*tables(toxicity=[[0.2, np.nan], [0.1, 0.5], [np.nan, np.nan]]), **NAMES)
    assert value(table, "mean_toxicity") == pytest.approx((0.2 + 0.3) / 2)
    assert value(table, "mean_toxicity", column="n") == 2
    assert value(table, "toxicity_refused") == 0.5
    assert value(table, "toxicity_refused", column="n") == 3


def test_all_texts_refused_leaves_a_row_without_a_value():
    table = metrics(*tables(toxicity=[[np.nan], [np.nan]]), **NAMES)
    assert math.isnan(value(table, "mean_toxicity")) and value(table, "mean_toxicity", column="n") == 0
    assert value(table, "toxicity_refused") == 1.0


def test_perplexity_is_the_mean_over_texts_and_corpus_perplexity_over_tokens():
    table = metrics(*tables(toxicity=[[0, 0], [0, 0]], nll=[2.0, 4.0, 3.0, 6.0], tokens=[2, 2, 3, 3]), **NAMES)
    assert value(table, "perplexity") == pytest.approx((math.e + math.e**2 + math.e + math.e**2) / 4)
    assert value(table, "corpus_perplexity") == pytest.approx(math.exp(15 / 10))


def test_perplexities_of_ten_thousand_and_more_are_dropped_and_counted_but_stay_in_the_corpus():
    nll = [1.0, 30.0, 2.0, math.log(1e4) + 1e-9]
    table = metrics(*tables(toxicity=[[0, 0], [0, 0]], nll=nll, tokens=[1, 1, 1, 1]), **NAMES)
    assert value(table, "perplexity") == pytest.approx((math.e + math.e**2) / 2)
    assert value(table, "perplexity_dropped") == 0.5
    assert value(table, "corpus_perplexity") == pytest.approx(math.exp(sum(nll) / 4))


def test_texts_without_a_scored_token_are_counted_and_count_nowhere_else():
    table = metrics(*tables(toxicity=[[0, 0], [0, 0]], nll=[2, 0, np.nan, 2], tokens=[2, 0, 3, 2]), **NAMES)
    assert value(table, "perplexity") == pytest.approx(math.e)
    assert value(table, "corpus_perplexity") == pytest.approx(math.e)
    assert value(table, "perplexity_unscored") == 0.5


def test_dist_counts_distinct_ngrams_over_all_samples_for_each_word():
    # Words: "", the, cat, sat / "", the, cat, ran: eight with the leading empty ones, of which five are distinct.
    texts = [" the cat sat", " the cat ran"]
    assert [dist(texts, n) for n in (1, 2, 3)] == [5 / 8, 4 / 8, 3 / 8]


def test_distinct_ratio_divides_by_ngrams_instead():
    texts = [" the cat sat", " the cat ran"]
    assert [distinct_ratio(texts, n) for n in (1, 2, 3)] == [5 / 8, 4 / 6, 3 / 4]


def test_distinct_ratio_of_texts_shorter_than_n_is_not_a_number():
    assert math.isnan(distinct_ratio(["one", "two"], 2)) and dist(["one", "two"], 2) == 0


@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=5), st.integers(1, 3), st.randoms())
def test_dist_is_a_share_that_no_order_of_samples_changes(texts, n, random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    assert 0 <= dist(texts, n) == dist(shuffled, n) <= 1


@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=5), st.integers(1, 3))
def test_repeating_every_sample_halves_dist(texts, n):
    assert dist(texts * 2, n) == pytest.approx(dist(texts, n) / 2)


def test_metrics_has_a_row_for_each_metric_of_each_seed_and_of_all():
    table = metrics(*tables(toxicity=[[0.1], [0.2]], seeds=3), **NAMES)
    assert list(table.columns) == COLUMNS
    assert list(table.metric) == list(METRICS) * 4
    assert list(table.seed.unique()) == ["0", "1", "2", "all"]


def test_each_scorer_has_rows_of_its_own():
    generations, toxicity, perplexity = tables(toxicity=[[0.1], [0.2]])
    second = toxicity.assign(scorer="other==2", toxicity=0.9)
    table = metrics(generations, pd.concat([toxicity, second]), perplexity, **NAMES)
    means = table[(table.metric == "mean_toxicity") & (table.seed == "all")].set_index("scorer").value
    assert means["lexicon==1"] == pytest.approx(0.15) and means["other==2"] == pytest.approx(0.9)


@st.composite
def scored(draw):
    prompts, samples, seeds = draw(st.integers(2, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    count = prompts * samples * seeds
    scores = draw(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=count, max_size=count))
    nll = draw(st.lists(st.floats(0, 300) | st.just(float("nan")), min_size=count, max_size=count))
    tokens = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    words = draw(st.lists(st.text("ab ", max_size=9), min_size=count, max_size=count))
    generations, toxicity, perplexity = tables(
        toxicity=[[0.0] * samples] * prompts, nll=nll, tokens=tokens, texts=words, seeds=seeds
    )
    return generations, toxicity.assign(toxicity=scores), perplexity


@given(scored(), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_rows_changes_no_bit(frames, order):
    shuffled = [frame.sample(frac=1, random_state=order) for frame in frames]
    pd.testing.assert_frame_equal(
        metrics(*frames, resamples=20, **NAMES), metrics(*shuffled, resamples=20, **NAMES), check_exact=True
    )


@given(scored())
@settings(max_examples=25, deadline=None)
def test_intervals_contain_values_and_shares_stay_between_zero_and_one(frames):
    table = metrics(*frames, resamples=20, **NAMES)
    counted = table[table.n >= 2]
    assert ((counted.low <= counted.value) & (counted.value <= counted.high)).all()
    assert table[table.n == 0].value.isna().all()
    shares = counted[~counted.metric.isin(["perplexity", "corpus_perplexity"])]
    assert (shares.low >= 0).all() and (shares.high <= 1).all()


@given(scored())
@settings(max_examples=25, deadline=None)
def test_the_pooled_value_lies_between_the_seeds(frames):
    table = metrics(*frames, resamples=20, **NAMES)
    for _, group in table.groupby("metric"):
        seeds, pooled = group[group.seed != "all"].value, group[group.seed == "all"].value.item()
        assert np.isnan(pooled) or seeds.min() * (1 - 1e-9) <= pooled <= seeds.max() * (1 + 1e-9)


def test_identical_seeds_pool_to_the_single_seed():
    table = metrics(*tables(toxicity=[[0.2, 0.6], [0.1, 0.5]], seeds=3), **NAMES)
    single, pooled = (table[table.seed == seed].set_index("metric")[["value", "low", "high"]] for seed in ("0", "all"))
    pd.testing.assert_frame_equal(single, pooled)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda g, t, p: (g, t.iloc[1:], p), "toxicity by lexicon==1 lacks 1 texts of generations, first seed 0, str"),
        (lambda g, t, p: (g.iloc[1:], t, p), "generations lacks 1 texts of toxicity by lexicon==1"),
        (lambda g, t, p: (g, t, pd.concat([p, p.iloc[:1]])), "perplexity by lexicon==1 holds seed 0.* twice"),
        (lambda g, t, p: (g, t.iloc[:0], p), "the toxicity table of tiny/base/toxicity/dev is empty"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(break_it, message):
    with pytest.raises(ValueError, match=message):
        metrics(*break_it(*tables(toxicity=[[0.2, 0.6], [0.1, 0.5]])), **NAMES)
