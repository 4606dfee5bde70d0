"""All methods on one task, side by side: effect, price, rank, and the effect at one KL divergence for all.

The effect is the change of the task's metric from the unsteered model, turned so that more is better, prompt by prompt
on the prompts that every method was asked; a prompt's value is the mean over its samples and seeds. Two methods are
compared on the same prompts, and the bootstrap draws prompts for all of them together.

A stronger edit has more effect and costs more, so that methods at strengths of their own are hard to compare. The
effect at equal KL is read off each method's curve from the unsteered model (no effect, no divergence) through its
settings, at one divergence for all. Divergence grows with the square of a small edit and effect with the edit itself,
so the curve is drawn over the root of the divergence, straight between its points; it is never carried on beyond them.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16, for intervals and p-values
of paired differences; Holm 1979, Scandinavian Journal of Statistics 6.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.metrics import bootstrap
from steerlab.metrics.ranks import holm

Array = NDArray[np.float64]

SETTING = ["method", "steps", "strength"]
PICKED, OTHER, EQUAL = "picked", "other", "equal KL"  # what a row's setting is
EFFECT, PRICES = "effect", ("perplexity_ratio", "kl", "accuracy", "accuracy_change")
ENDS = ("", "_low", "_high")
COLUMNS = [
    *SETTING, "setting", "control", "n",
    *(f"{name}{end}" for name in (EFFECT, *PRICES) for end in ENDS),
    "kl_level", "rank", "rank_low", "rank_high", "p_base",
    "seconds_a_token", "base_seconds_a_token", "training_seconds",
]  # fmt: skip
FINER = 10  # times: the finest p-value after Holm's correction than one that tells two methods apart
REACHED_BY = 0.75  # of the methods; one that hardly does anything would hold all others to nothing
PAIRS = ["setting", "method", "other", "difference", "difference_low", "difference_high", "p", "p_holm", "n"]


def effects(values: pd.DataFrame, goal: Literal["lower", "raise"]) -> pd.DataFrame:
    """(prompts, settings): each prompt's change from the unsteered model, turned so that more is better.

    values: method, steps, strength, seed, id, numerator, denominator, one metric; method "base" is the unsteered model.
    The columns are (method, steps, strength), the prompts those that every setting has.
    Raises ValueError where there is no such prompt, or no unsteered model.
    """
    counted = values[values.denominator > 0].sort_values([*SETTING, "id", "seed"])  # sums go by the order
    of_prompt = (counted.numerator / counted.denominator).groupby([counted[name] for name in (*SETTING, "id")]).mean()
    table = of_prompt.unstack(SETTING).dropna()
    if table.empty or "base" not in table.columns.get_level_values("method"):
        raise ValueError("comparison: no prompt was asked of all methods and the unsteered model; give them the same")
    base = table["base"].iloc[:, 0]  # pyright: ignore[reportCallIssue, reportArgumentType]
    change = table.drop(columns="base", level="method").sub(base, axis=0)
    return change if goal == "raise" else -change


def compare(
    effect: pd.DataFrame,
    picks: Mapping[str, tuple[int, float]],
    *,
    controls: frozenset[str] = frozenset(),
    perplexity: pd.DataFrame | None = None,
    divergence: pd.DataFrame | None = None,
    questions: pd.DataFrame | None = None,
    speed: pd.DataFrame | None = None,
    kl: float | None = None,
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(one row a method and setting with COLUMNS, one row a pair of methods with PAIRS).

    effect: as from `effects`; picks: the (steps, strength) of each method that is its own; controls: methods that are
    shown and not ranked. perplexity: as `values` of `effects`, the unsteered model's beside the others'; divergence:
    SETTING, id, tokens, kl; questions: SETTING without steps, question, acc, base_acc; speed: method,
    seconds_a_token, base_seconds_a_token, training_seconds. What is None, or lacks a method, is NaN in its columns.
    kl: the divergence of the rows EQUAL, nats a token; None takes the largest that REACHED_BY of the ranked methods
    reach. A method that does not reach it has no such row.
    """
    how = {"resamples": resamples, "confidence": confidence, "seed": seed}
    apart = _divergences(divergence, how)
    rows = [_row(name, effect[name], picks, how) | apart.get(name, {}) for name in effect.columns]  # pyright: ignore
    level, equal = _at_equal_divergence(effect, apart, controls, kl)
    rows += [
        _estimated(EFFECT, bootstrap.mean(column, **how))
        | dict(zip(SETTING, (name, -1, np.nan)))
        | {"setting": EQUAL, "n": len(column), "kl_level": level}
        for name, column in equal.items()
    ]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS).assign(control=lambda rows: rows.method.isin(controls))
    own = effect[[(name, *pick) for name, pick in picks.items() if (name, *pick) in effect.columns]]
    own.columns = own.columns.get_level_values("method")
    pairs = []
    for setting, of_methods in ((PICKED, own), (EQUAL, equal)):
        ranked = of_methods[[name for name in of_methods if name not in controls]]
        table, found = _with_ranks(table, ranked, setting, how)
        pairs.append(found)
    table = _with_perplexity(table, perplexity, how)
    table = _with_accuracy(table, questions, how)
    if speed is not None:
        times = speed.set_index("method")
        for name in ("seconds_a_token", "base_seconds_a_token", "training_seconds"):
            table[name] = table.method.map(times[name]).where(table.setting == PICKED)
    return table[COLUMNS], pd.concat(pairs, ignore_index=True)


def _estimated(name: str, estimate: bootstrap.Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _row(name: tuple[str, int, float], column: pd.Series, picks: Mapping, how: Mapping) -> dict:
    about = dict(zip(SETTING, name)) | {"setting": PICKED if picks.get(name[0]) == name[1:] else OTHER}
    return about | {"n": len(column)} | _estimated(EFFECT, bootstrap.mean(column, **how))


def _divergences(rows: pd.DataFrame | None, how: Mapping) -> dict[tuple, dict[str, float]]:
    """Mean divergence a token of each setting, with its interval over prompts."""
    groups = [] if rows is None else rows.groupby(SETTING)
    return {name: _estimated("kl", bootstrap.ratio(group.kl, group.tokens, **how)) for name, group in groups}


# ---- one divergence for all ----


def _at_equal_divergence(
    effect: pd.DataFrame, apart: Mapping[tuple, Mapping[str, float]], controls: frozenset[str], level: float | None
) -> tuple[float, pd.DataFrame]:
    """The level, and (prompts, methods that reach it) effects there."""
    curves = {name: _curve(effect[name], name, apart) for name in dict.fromkeys(effect.columns.get_level_values(0))}
    reach = {name: points[-1][0] for name, points in curves.items() if len(points) > 1}
    asked = sorted(most for name, most in reach.items() if name not in controls)
    if level is None:
        level = asked[int((1 - REACHED_BY) * len(asked))] if asked else float("nan")
    there = {name: _between(curves[name], level) for name, most in reach.items() if most >= level}
    return level, pd.DataFrame(there, index=effect.index)


def _curve(settings: pd.DataFrame, name: str, apart: Mapping) -> list[tuple[float, Array]]:
    """(divergence, effects of all prompts) from the unsteered model on, of the strengths that are not below 0."""
    points = [(0.0, np.zeros(len(settings)))]
    for steps, strength in settings.columns:
        if (found := apart.get((name, steps, strength))) and strength >= 0:  # pyright: ignore[reportOperatorIssue]
            points.append((found["kl"], settings[steps, strength].to_numpy()))
    return sorted(points, key=lambda point: point[0])


def _between(points: list[tuple[float, Array]], level: float) -> Array:
    """The curve at a divergence that it reaches, straight over the root between two points."""
    (left, low), (right, high) = next(pair for pair in zip(points, points[1:]) if level <= pair[1][0])
    if left == right:
        return low
    return low + (level**0.5 - left**0.5) / (right**0.5 - left**0.5) * (high - low)


# ---- ranks ----


def _with_ranks(table: pd.DataFrame, ranked: pd.DataFrame, setting: str, how: Mapping) -> tuple[pd.DataFrame, ...]:
    """The table with ranks from 1 (the largest effect) and their intervals in the rows of a setting; and the pairs.

    p-values are of the paired difference being on the other side of 0, both sides, corrected by Holm's procedure over
    all pairs and the comparisons with the unsteered model.
    """
    names, values = list(ranked), ranked.to_numpy(dtype=float)
    if not names:
        return table, pd.DataFrame(columns=PAIRS)
    drawn = _means(values, _enough(len(names), how))
    tail = (1 - how["confidence"]) / 2
    ranks = _ranks(values.mean(0)[None])[0]
    low, high = np.quantile(_ranks(drawn), [tail, 1 - tail], axis=0, method="inverted_cdf")
    low, high = np.minimum(low, ranks), np.maximum(high, ranks)  # what was observed is a resample
    zero = np.zeros((len(drawn), 1))
    beside, all_drawn = [*names, "base"], np.hstack([drawn, zero])
    all_values = np.hstack([values, np.zeros((len(values), 1))])
    rows = []
    for one in range(len(names)):
        for other in range(one + 1, len(beside)):
            apart = all_drawn[:, one] - all_drawn[:, other]
            ends = np.quantile(apart, [tail, 1 - tail])
            value = float((all_values[:, one] - all_values[:, other]).mean())
            rows.append((setting, beside[one], beside[other], value, *ends, _p(apart)))
    pairs = pd.DataFrame(rows, columns=PAIRS[:-2])
    pairs = pairs.assign(p_holm=holm(pairs.p), n=len(values))
    of_base = pairs[pairs.other == "base"].set_index("method").p_holm
    here = table.setting == setting
    for column, of_method in {
        "rank": dict(zip(names, ranks)),
        "rank_low": dict(zip(names, low)),
        "rank_high": dict(zip(names, high)),
        "p_base": of_base.to_dict(),
    }.items():
        table.loc[here, column] = table.method[here].map(of_method)
    return table, pairs


def _enough(methods: int, how: Mapping) -> dict[str, Any]:
    """The same with so many resamples that the finest p-value tells methods apart though it is held by all pairs."""
    pairs = methods * (methods + 1) // 2
    return {**how, "resamples": max(how["resamples"], math.ceil(FINER * 2 * pairs / (1 - how["confidence"])))}


def _means(values: Array, how: Mapping) -> Array:
    """(resamples, methods): means over prompts that are drawn for all methods together.

    One row of NaN where there is one prompt, which says nothing about other prompts.
    """
    n = len(values)
    if n == 1:
        return np.full_like(values, np.nan)
    # einsum, not a product of matrices: its sums do not depend on the number of threads.
    parts = [np.einsum("rn,nm->rm", times, values) / n for times in bootstrap.draws(n, how["resamples"], how["seed"])]
    return np.concatenate(parts)


def _ranks(means: Array) -> Array:
    """Ranks from 1, the largest first, along the last axis; equal ones share the better rank."""
    return np.where(np.isnan(means), np.nan, 1.0 + (means[:, None, :] > means[:, :, None]).sum(-1))


def _p(apart: Array) -> float:
    """Two-sided: twice the share of resamples on the rarer side of 0; what was observed counts as one of them."""
    sides = [(1 + (apart <= 0).sum()) / (1 + len(apart)), (1 + (apart >= 0).sum()) / (1 + len(apart))]
    return float(min(1.0, 2 * min(sides)))


# ---- prices ----


def _with_perplexity(table: pd.DataFrame, values: pd.DataFrame | None, how: Mapping) -> pd.DataFrame:
    """The perplexity over the unsteered model's on the same prompts; both are sums over prompts, drawn together."""
    if values is None or values.empty:
        return table
    counts = ["numerator", "denominator"]
    ordered = values.sort_values([*SETTING, "id", "seed"])  # sums go by the order
    base = ordered[ordered.method == "base"].groupby("id")[counts].sum()
    sums = {name: rows.groupby("id")[counts].sum() for name, rows in ordered.groupby(SETTING)}
    for row in table.index[table.setting != EQUAL]:
        own = sums.get(tuple(table.loc[row, SETTING]))
        if own is not None:
            both = own.join(base.add_suffix("_base"), how="inner")
            columns = [both[f"{count}{of}"] for of in ("", "_base") for count in counts]
            _put(table, row, _estimated("perplexity_ratio", bootstrap.of_sums(columns, _ratio, **how)))
    return table


def _ratio(sums: Array) -> Array:
    """Of two quotients. sums: (..., 4), the numerators and denominators of both."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample in which nothing counts has no value
        return sums[..., 0] / sums[..., 1] / (sums[..., 2] / sums[..., 3])


def _with_accuracy(table: pd.DataFrame, questions: pd.DataFrame | None, how: Mapping) -> pd.DataFrame:
    """Accuracy on questions that no steer has to do with, and its change from the unsteered model's."""
    if questions is None:
        return table
    for row in table.index[table.setting == PICKED]:
        own = questions[(questions.method == table.method[row]) & np.isclose(questions.strength, table.strength[row])]
        if len(own):
            by_question = own.groupby("question")[["acc", "base_acc"]].mean()
            change = bootstrap.mean_difference(by_question.acc, by_question.base_acc, **how)
            _put(table, row, _estimated("accuracy", bootstrap.mean(by_question.acc, **how)))
            _put(table, row, _estimated("accuracy_change", change))
    return table


def _put(table: pd.DataFrame, row: object, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        table.loc[row, name] = value  # pyright: ignore[reportArgumentType, reportCallIssue]
