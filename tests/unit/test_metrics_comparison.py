"""All methods side by side on one task: against plain computations, and what no order of rows may change."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.metrics import bootstrap, comparison
from steerlab.metrics.comparison import COLUMNS, EQUAL, OTHER, PAIRS, PICKED, REACHED_BY, SETTING

HOW = {"resamples": 200, "confidence": 0.9}
BASE = ("base", 0, 0.0)
IDS = ["p0", "p1", "p2", "p3"]
Setting = tuple[str, int, float]


def rows(of: Mapping[Setting, Sequence[float]], *, ids: Sequence[str] = IDS, seeds: Sequence[int] = (0,)):
    """One metric of every prompt at every setting, the same for all seeds."""
    return pd.DataFrame(
        [
            (*name, seed, id, value, 1.0)
            for name, column in of.items()
            for seed in seeds
            for id, value in zip(ids, column)
        ],
        columns=[*SETTING, "seed", "id", "numerator", "denominator"],
    )


def effect(of: Mapping[Setting, Sequence[float]]) -> pd.DataFrame:
    """Effects as they are given, from an unsteered model at 0."""
    n = len(next(iter(of.values())))
    ids = [f"p{place:03d}" for place in range(n)]
    return comparison.effects(rows({BASE: [0.0] * n} | dict(of), ids=ids), "raise")


def divergence(of: Mapping[Setting, Sequence[float]], tokens: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        [(*name, f"p{place:03d}", tokens, kl * tokens) for name, kls in of.items() for place, kl in enumerate(kls)],
        columns=[*SETTING, "id", "tokens", "kl"],
    )


def at(table: pd.DataFrame, method: str, setting: str = PICKED) -> pd.Series:
    (place,) = np.flatnonzero((table.method == method) & (table.setting == setting))
    return table.iloc[place]


ONE = {("a", 0, 1.0): [0.1, 0.2, 0.3, 0.4]}
TWO = ONE | {("b", 0, 1.0): [0.0, 0.3, 0.1, 0.1]}
OWN = {"a": (0, 1.0), "b": (0, 1.0)}


# ---- effects ----


def test_an_effect_is_the_change_from_the_unsteered_model_turned_by_the_goal():
    values = rows({BASE: [0.5, 0.25, 0.5, 1.0], ("a", 0, 1.0): [0.25, 0.75, 0.5, 0.5]})
    lowered, raised = (comparison.effects(values, goal)["a", 0, 1.0].to_list() for goal in ("lower", "raise"))
    assert raised == [-0.25, 0.5, 0.0, -0.5]
    assert lowered == [0.25, -0.5, 0.0, 0.5]


def test_a_prompts_value_is_the_mean_over_seeds_of_its_quotients():
    values = rows({BASE: [0.0], ("a", 0, 1.0): [0.0]}, ids=["p"], seeds=[0, 1])
    steered = values.method == "a"
    values.loc[steered, "numerator"], values.loc[steered, "denominator"] = [3.0, 1.0], [4.0, 4.0]
    assert comparison.effects(values, "raise").to_numpy().tolist() == [[0.5]]


def test_only_prompts_that_all_were_asked_and_that_count_are_compared():
    values = rows({BASE: [0.0] * 4, ("a", 0, 1.0): [0.1, 0.2, 0.3, 0.4], ("b", 0, 1.0): [0.1, 0.2, 0.3, 0.4]})
    lacking = values[~((values.method == "b") & (values.id == "p1"))].copy()
    lacking.loc[(lacking.method == "a") & (lacking.id == "p3"), ["numerator", "denominator"]] = 0.0
    found = comparison.effects(lacking, "raise")
    assert found.index.to_list() == ["p0", "p2"] and found.columns.to_list() == [("a", 0, 1.0), ("b", 0, 1.0)]


@pytest.mark.parametrize(
    "values",
    [rows(ONE), rows({BASE: [0.0]}, ids=["p"]).iloc[:0], pd.concat([rows({BASE: [0.0]}, ids=["q"]), rows(ONE)])],
    ids=["no unsteered model", "nothing", "no common prompt"],
)
def test_methods_without_a_common_prompt_or_the_unsteered_model_are_refused(values):
    with pytest.raises(ValueError, match="^comparison: no prompt was asked of all methods and the unsteered model; "):
        comparison.effects(values, "raise")


# ---- settings, effects and their intervals ----


def test_a_row_is_the_pick_or_another_setting_and_prices_that_were_not_measured_are_missing():
    settings = TWO | {("a", 0, 2.0): [0.1] * 4, ("a", 5, 1.0): [0.2] * 4}
    table, pairs = comparison.compare(effect(settings), OWN, **HOW)
    assert list(table.columns) == COLUMNS and list(pairs.columns) == PAIRS
    found = dict(zip(zip(table.method, table.steps, table.strength), table.setting))
    other = dict.fromkeys([("a", 0, 2.0), ("a", 5, 1.0)], OTHER)
    assert found == other | dict.fromkeys(TWO, PICKED)
    prices = [
        column for column in COLUMNS if column.startswith(("perplexity", "kl", "accuracy")) or "seconds" in column
    ]
    assert table[prices].isna().all(axis=None) and not table.control.any()
    for name, column in settings.items():
        row = table[(table[SETTING] == list(name)).all(axis=1)].iloc[0]
        plain = bootstrap.mean(column, **HOW)
        assert (row.effect, row.effect_low, row.effect_high, row.n) == (plain.value, plain.low, plain.high, 4)


def test_only_rows_of_the_pick_have_a_rank():
    table, _ = comparison.compare(effect(TWO | {("a", 0, 2.0): [0.9] * 4}), OWN, **HOW)
    assert at(table, "a", OTHER)[["rank", "rank_low", "rank_high", "p_base"]].isna().all()


# ---- ranks and pairs ----

COLUMN = st.lists(st.integers(-4, 4).map(lambda value: value / 4), min_size=4, max_size=4)
SOME = st.lists(COLUMN, min_size=1, max_size=5)


def compared(columns: Sequence[Sequence[float]], **how):
    names = [(f"m{place}", 0, 1.0) for place in range(len(columns))]
    picks = {name: (steps, strength) for name, steps, strength in names}
    return comparison.compare(effect(dict(zip(names, columns))), picks, **HOW | how)


@given(SOME)
@settings(max_examples=40, deadline=None)
def test_a_rank_counts_the_methods_with_a_larger_effect_and_lies_in_its_interval(columns):
    table, _ = compared(columns)
    means = [sum(column) for column in columns]
    assert table["rank"].to_list() == [1 + sum(other > mean for other in means) for mean in means]
    assert (table.rank_low <= table["rank"]).all() and (table["rank"] <= table.rank_high).all()
    assert table[["rank_low", "rank_high"]].isin(range(1, len(columns) + 1)).all(axis=None)


def test_a_method_that_wins_on_every_prompt_is_first_in_every_resample_and_equal_ones_share_a_rank():
    table, _ = compared([[0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.1, 0.2], [0.1, 0.2, 0.1, 0.2]])
    assert table[["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [[1, 1, 1], [2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize("one", [[0.5, -0.25, 0.25, 0.25], [-0.5, -0.5, 0.25, 0.125], [0.0, 0.0, 0.0, 0.0]])
def test_a_p_value_is_that_of_all_resamples(one):
    other = [0.125, -0.125, 0.25, 0.0]
    _, pairs = compared([one, other], resamples=40_000)
    for named, difference in (("m1", np.subtract(one, other)), ("base", np.array(one))):
        drawn = np.array([difference[list(places)].mean() for places in itertools.product(range(4), repeat=4)])
        exact = min(1.0, 2 * min((drawn <= 0).mean(), (drawn >= 0).mean()))
        found = pairs[(pairs.method == "m0") & (pairs.other == named)].iloc[0]
        assert found.p == pytest.approx(exact, abs=0.015)
        assert found.difference == pytest.approx(difference.mean()) and found.n == 4
        low, high = found.difference_low, found.difference_high
        assert (drawn < low).mean() < 0.055 and (drawn <= low).mean() > 0.045, "the ends are quantiles of all resamples"
        assert (drawn > high).mean() < 0.055 and (drawn >= high).mean() > 0.045


@given(SOME)
@settings(max_examples=40, deadline=None)
def test_p_values_are_held_by_holm_over_all_pairs_and_the_unsteered_model(columns):
    table, pairs = compared(columns)
    names = [f"m{place}" for place in range(len(columns))]
    assert [*zip(pairs.method, pairs.other)] == [
        (one, other) for place, one in enumerate(names) for other in [*names[place + 1 :], "base"]
    ]
    p, held, largest = pairs.p.to_numpy(), {}, 0.0
    for done, place in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, p[place] * (len(p) - done))
        held[place] = min(largest, 1.0)
    assert pairs.p_holm.to_list() == [held[place] for place in range(len(p))]
    assert table.p_base.to_list() == pairs[pairs.other == "base"].p_holm.to_list()


def test_no_p_value_is_below_what_the_resamples_can_tell():
    _, pairs = compared([[0.5, 0.6, 0.7, 0.8]], resamples=999)
    assert pairs.p.to_list() == [0.002]


@pytest.mark.parametrize("methods", [1, 4, 12])
def test_few_resamples_tell_methods_apart_however_many_there_are(methods):
    _, pairs = compared([[0.5 + place, 0.6 + place] for place in range(methods)], resamples=10, confidence=0.95)
    assert (pairs.p_holm < 0.05 / 9).all()


def test_one_prompt_says_nothing_about_others():
    table, pairs = compared([[0.5], [0.1]])
    assert table["rank"].to_list() == [1, 2] and table[["rank_low", "rank_high"]].isna().all(axis=None)
    assert (pairs.p_holm == 1).all() and pairs[["difference_low", "difference_high"]].isna().all(axis=None)


def test_controls_are_shown_and_never_ranked():
    settings = TWO | {("random_a", 0, 1.0): [0.9] * 4}
    kls = divergence(dict.fromkeys(settings, [1.0] * 4))
    picks = OWN | {"random_a": (0, 1.0)}
    table, pairs = comparison.compare(effect(settings), picks, controls=frozenset(["random_a"]), divergence=kls, **HOW)
    for setting in (PICKED, EQUAL):
        control = at(table, "random_a", setting)
        assert control.control and control[["rank", "rank_low", "rank_high", "p_base"]].isna().all()
        assert control.effect == pytest.approx(0.9)
        assert at(table, "a", setting)["rank"] == 1
    assert "random_a" not in {*pairs.method, *pairs.other}


# ---- one divergence for all ----


def curve(name: str, strengths: Sequence[float], slopes: Sequence[float], spread: float = 1.0):
    """Effects that grow with the strength, and divergences with its square."""
    effects = {(name, 0, strength): [slope * strength for slope in slopes] for strength in strengths}
    return effects, {(name, 0, strength): [spread * strength**2] * len(slopes) for strength in strengths}


STRENGTHS = st.lists(st.integers(1, 40).map(lambda value: value / 8), min_size=1, max_size=5, unique=True)
SLOPES = st.lists(st.floats(-2, 2), min_size=4, max_size=4)


@given(STRENGTHS, SLOPES, st.floats(0.01, 1.0), st.floats(0.1, 4.0))
@settings(max_examples=60, deadline=None)
def test_an_effect_that_grows_with_the_root_of_the_divergence_is_read_off_exactly(strengths, slopes, share, spread):
    effects, kls = curve("a", strengths, slopes, spread)
    strength = share * max(strengths)
    level = spread * strength**2
    table, _ = comparison.compare(effect(effects), {}, divergence=divergence(kls), kl=level, **HOW)
    row = at(table, "a", EQUAL)
    assert (row.steps, row.kl_level, row.n) == (-1, level, 4) and np.isnan(row.strength)
    assert row.effect == pytest.approx(np.mean(slopes) * strength, abs=1e-9)


def test_at_a_point_of_the_curve_the_effect_is_that_points_whatever_the_others_are():
    effects = effect({("a", 0, 1.0): [0.1, 0.2], ("a", 0, 2.0): [0.7, -0.2], ("a", 0, 3.0): [0.3, 0.4]})
    kls = divergence({("a", 0, 1.0): [0.3, 0.1], ("a", 0, 2.0): [0.4, 0.6], ("a", 0, 3.0): [1.0, 2.0]}, tokens=5)
    for strength, level in ((1.0, 0.2), (2.0, 0.5), (3.0, 1.5)):
        table, _ = comparison.compare(effects, {}, divergence=kls, kl=level, **HOW)
        expected = effects["a", 0, strength].mean()
        assert at(table, "a", EQUAL).effect == pytest.approx(expected, abs=1e-12)
        own = table[table.strength == strength].iloc[0]
        assert own.kl == pytest.approx(level) and own.kl_low <= own.kl <= own.kl_high


def test_a_curve_is_never_carried_on_beyond_its_largest_divergence():
    effects, kls = curve("a", [1.0], [0.5] * 4)
    more, further = curve("b", [1.0, 2.0], [0.5] * 4)
    of = {"divergence": divergence(kls | further)}
    for level, there in ((1.0, ["a", "b"]), (np.nextafter(1.0, 2.0), ["b"]), (4.0, ["b"]), (4.1, [])):
        table, _ = comparison.compare(effect(effects | more), {}, kl=level, **of, **HOW)
        assert table[table.setting == EQUAL].method.to_list() == there


def test_a_strength_below_0_is_no_point_of_the_curve():
    effects, kls = curve("a", [-2.0, 1.0], [0.5] * 4)
    table, _ = comparison.compare(effect(effects), {}, divergence=divergence(kls), **HOW)
    row = at(table, "a", EQUAL)
    assert (row.kl_level, row.effect) == (1.0, pytest.approx(0.5))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_the_level_is_the_largest_that_the_share_of_the_ranked_methods_reach(largest):
    parts = [curve(f"m{place}", [strength / 2, strength], [1.0] * 4) for place, strength in enumerate(largest)]
    effects = {name: column for part, _ in parts for name, column in part.items()}
    kls = {name: column for _, part in parts for name, column in part.items()}
    faint, hardly = curve("random_m", [0.01], [1.0] * 4)
    table, _ = comparison.compare(
        effect(effects | faint), {}, controls=frozenset(["random_m"]), divergence=divergence(kls | hardly), **HOW
    )
    level = table[table.setting == EQUAL].kl_level.iloc[0]
    reached = [sum(one**2 >= other**2 for one in largest) / len(largest) for other in largest]
    assert level == max(other**2 for other, share in zip(largest, reached) if share >= REACHED_BY)
    there = table[table.setting == EQUAL].method.to_list()
    assert there == [f"m{place}" for place, strength in enumerate(largest) if strength**2 >= level]


def test_without_divergences_nothing_stands_at_an_equal_one():
    table, pairs = comparison.compare(effect(TWO), OWN, **HOW)
    assert EQUAL not in {*table.setting, *pairs.setting}


def test_the_ranks_at_equal_divergence_are_those_of_the_effects_there():
    weak, near = curve("a", [1.0, 2.0], [0.5] * 4)
    strong, far = curve("b", [4.0], [0.4] * 4)  # more effect at its own strength, less at the same divergence
    table, _ = comparison.compare(
        effect(weak | strong), {"a": (0, 2.0), "b": (0, 4.0)}, divergence=divergence(near | far), **HOW
    )
    assert [at(table, name)["rank"] for name in "ab"] == [2, 1]
    assert [at(table, name, EQUAL)["rank"] for name in "ab"] == [1, 2]


# ---- prices ----


def test_the_ratio_of_perplexities_is_of_means_over_the_prompts_that_both_have():
    perplexity = rows({BASE: [10.0, 20.0, 30.0, 40.0], ("a", 0, 1.0): [20.0, 20.0, 30.0, 90.0]}, seeds=[0, 1])
    perplexity.loc[perplexity.id == "p0", ["numerator", "denominator"]] *= 3  # it weighs as much as it has texts
    perplexity = perplexity[~((perplexity.method == "base") & (perplexity.id == "p3"))]
    table, _ = comparison.compare(effect(TWO), OWN, perplexity=perplexity, **HOW)
    a, b = at(table, "a"), at(table, "b")
    assert a.perplexity_ratio == pytest.approx((60 + 20 + 30) / (30 + 20 + 30))
    assert a.perplexity_ratio_low <= a.perplexity_ratio <= a.perplexity_ratio_high
    assert np.isnan(b.perplexity_ratio)


def test_a_perplexity_of_which_nothing_counts_is_missing():
    perplexity = rows({BASE: [10.0] * 4, ("a", 0, 1.0): [0.0] * 4})
    perplexity.loc[perplexity.method == "a", "denominator"] = 0.0
    table, _ = comparison.compare(effect(ONE), OWN, perplexity=perplexity, **HOW)
    assert np.isnan(at(table, "a").perplexity_ratio)


def test_accuracy_and_its_change_are_means_over_questions_at_the_methods_own_setting():
    own, base = [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]
    asked = [("a", 1.0, f"q{place}", one, other) for place, (one, other) in enumerate(zip(own, base))]
    asked += [("a", 2.0, f"q{place}", 0.0, 1.0) for place in range(4)]
    questions = pd.DataFrame(asked, columns=["method", "strength", "question", "acc", "base_acc"])
    table, _ = comparison.compare(effect(TWO | {("a", 0, 2.0): [0.9] * 4}), OWN, questions=questions, **HOW)
    a = at(table, "a")
    assert (a.accuracy, a.accuracy_change) == (0.5, -0.25)
    plain = bootstrap.mean_difference(own, base, **HOW)
    assert (a.accuracy_change_low, a.accuracy_change_high) == (plain.low, plain.high)
    for row in (at(table, "b"), at(table, "a", OTHER)):
        assert row[["accuracy", "accuracy_change"]].isna().all()


def test_times_stand_beside_the_methods_own_setting_alone():
    speed = pd.DataFrame({"method": ["a"], "seconds_a_token": [0.2], "base_seconds_a_token": [0.1]})
    speed = speed.assign(training_seconds=30.0)
    table, _ = comparison.compare(effect(TWO | {("a", 0, 2.0): [0.9] * 4}), OWN, speed=speed, **HOW)
    times = ["seconds_a_token", "base_seconds_a_token", "training_seconds"]
    assert at(table, "a")[times].to_list() == [0.2, 0.1, 30.0]
    assert at(table, "a", OTHER)[times].isna().all() and at(table, "b")[times].isna().all()


# ---- no order ----


def everything(generator: np.random.Generator | None = None) -> list[bytes]:
    """Both tables of a comparison with all prices, as CSV; its rows in another order with a generator."""
    drawn = np.random.default_rng(0)
    names = [BASE, *((method, 0, strength) for method in ("a", "b", "random_a") for strength in (0.5, 1.0))]

    def some() -> pd.DataFrame:
        table = rows({name: drawn.random(4) for name in names}, seeds=[0, 1, 2])
        return table.assign(numerator=drawn.random(len(table)), denominator=drawn.integers(1, 4, len(table)))

    values, perplexity = some(), some()
    kls = divergence({name: drawn.random(4) for name in names[1:]}, tokens=3)
    questions = pd.DataFrame(
        [
            (method, 1.0, seed, f"q{place}", *drawn.random(2))
            for method in "ab"
            for seed in range(3)
            for place in range(5)
        ],
        columns=["method", "strength", "seed", "question", "acc", "base_acc"],
    )
    tables = [values, perplexity, kls, questions]
    if generator is not None:
        tables = [table.iloc[generator.permutation(len(table))] for table in tables]
    values, perplexity, kls, questions = tables
    picks = dict.fromkeys(("a", "b", "random_a"), (0, 1.0))
    prices = {"perplexity": perplexity, "divergence": kls, "questions": questions}
    controls = frozenset(["random_a"])
    found = comparison.compare(comparison.effects(values, "lower"), picks, controls=controls, **prices, **HOW)
    return [table.to_csv(index=False).encode() for table in found]


@given(st.integers(0, 10**6))
@settings(max_examples=5, deadline=None)
def test_no_order_of_rows_changes_a_byte(seed):
    assert everything(np.random.default_rng(seed)) == everything()
