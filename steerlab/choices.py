"""Choosing a steer's strength and training steps, from the metrics of dev prompts alone.

The pick is the largest drop (or rise) of the objective among the candidates whose perplexity stays within a multiple of
the unsteered model's on the same prompts, or among all where no texts were generated. All candidates are kept beside
it, so that a reader sees what it was chosen from.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

PERPLEXITY_LIMIT = 1.3  # multiple of the unsteered model's
# Over all tokens: the mean over texts is ruled by a few hopeless ones, and dev prompts are few.
PERPLEXITY = "corpus_perplexity"

_CELL = ["model", "method", "task"]
_SETTING = ["steps", "strength"]


def choose(
    metrics: pd.DataFrame,
    *,
    objective: str = "mean_toxicity",
    goal: Literal["lower", "raise"] = "lower",
    scorer: str,
    perplexity_limit: float | None = PERPLEXITY_LIMIT,
    judge: str | None = None,
    selections: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The candidates, their figures and the pick, ready for JSON (null where a candidate has no value).

    metrics: the columns of steerlab.metrics.continuations.metrics of one model, method and task on dev prompts; the
    rows over all seeds and prompts count. objective: the metric to move towards the goal, by its scorer; judge: the
    scorer of the perplexity (over all tokens), which may be left out where there is one. Of equal values the smaller
    |strength| is picked, then the fewer steps; where no candidate is within the limit, the one with the smallest ratio,
    whose within_limit is false. perplexity_limit None asks for no perplexity at all, and the candidates have none.
    selections: what the steers picked when they were fitted, by seed (steer_files.Record.selection); kept beside the
    choice as "selected", which is empty without.

    Raises ValueError for rows of another split than dev (a choice must not see a test prompt), for several cells, for
    missing rows or base values, and where no candidate has a value.
    """
    _check(metrics)
    table = metrics.astype({"seed": str})
    table = table[(table.seed == "all") & (table.prompts == "all")]
    aims = _by_setting(table, objective, scorer)
    prices = None if perplexity_limit is None else _by_setting(table, PERPLEXITY, judge)
    if prices is not None and set(aims.index) != set(prices.index):
        odd = sorted(set(aims.index) ^ set(prices.index))[0]
        raise ValueError(f"choices: steps {odd[0]}, strength {odd[1]} lacks {objective} or {PERPLEXITY}; compute both")
    candidates = []
    for (steps, strength), aim in aims.iterrows():  # pyright: ignore[reportGeneralTypeIssues]
        candidates.append({"steps": int(steps), "strength": float(strength), objective: float(aim["value"])})
        if prices is not None and perplexity_limit is not None:
            candidates[-1] |= _price(prices.loc[(steps, strength)], perplexity_limit)
    base = {objective: _of_base(aims, objective)}
    if prices is not None:
        base["perplexity"] = _of_base(prices, PERPLEXITY)
    pick = _pick(candidates, objective, goal)
    return {
        "objective": objective,
        "goal": goal,
        "scorer": scorer,
        "perplexity": None if prices is None else PERPLEXITY,
        "perplexity_limit": perplexity_limit,
        "base": base,
        "candidates": [{name: _or_none(value) for name, value in one.items()} for one in candidates],
        "pick": {name: pick[name] for name in _SETTING},
        "selected": dict(selections or {}),
    }


def _price(row: pd.Series, limit: float) -> dict[str, Any]:
    ratio = float(row["value"] / row["base"])
    return {"perplexity": float(row["value"]), "perplexity_ratio": ratio, "within_limit": ratio <= limit}


def _pick(candidates: list[dict[str, Any]], objective: str, goal: str) -> dict[str, Any]:
    # The base's value is one number for all, so the largest drop is the smallest value.
    sign = {"lower": 1.0, "raise": -1.0}[goal]
    asked = [name for name in (objective, "perplexity_ratio") if name in candidates[0]]
    valued = [one for one in candidates if not any(math.isnan(one[name]) for name in asked)]
    if not valued:
        what = f"both {objective} and a perplexity" if len(asked) > 1 else f"a value of {objective}"
        raise ValueError(f"choices: none of {len(candidates)} candidates has {what}")
    within = [one for one in valued if one.get("within_limit", True)]

    def rank(one: dict[str, Any]) -> tuple[float, ...]:
        aim = sign * one[objective] if within else one["perplexity_ratio"]
        return aim, abs(one["strength"]), one["steps"], -one["strength"]

    return min(within or valued, key=rank)


def _by_setting(table: pd.DataFrame, metric: str, scorer: str | None) -> pd.DataFrame:
    """The rows of a metric by (steps, strength), in order."""
    rows = table[table.metric == metric]
    scorers = sorted(rows.scorer.unique())
    if scorer is None and len(scorers) > 1:
        raise ValueError(f"choices: {metric} comes from {scorers}; name one of them as judge")
    rows = rows if scorer is None else rows[rows.scorer == scorer]
    if rows.empty:
        raise ValueError(f"choices: no {metric} by {scorer or 'any scorer'} over all seeds, only by {scorers}")
    if rows.duplicated(_SETTING).any():
        raise ValueError(f"choices: {metric} of one setting stands twice; pass each table once")
    return rows.set_index(_SETTING).sort_index()


def _of_base(rows: pd.DataFrame, metric: str) -> float:
    """The unsteered model's value, the same beside every candidate as they were asked the same."""
    low, high = rows["base"].min(skipna=False), rows["base"].max(skipna=False)
    if math.isnan(low):
        raise ValueError(f"choices: {metric} of the unsteered model is missing; compute the metrics with its texts")
    if not math.isclose(low, high, rel_tol=1e-9):
        raise ValueError(
            f"choices: the unsteered {metric} is {low:g} beside one candidate and {high:g} beside another; "
            "generate all candidates for the same prompts, seeds and samples"
        )
    return float(low)


def _check(metrics: pd.DataFrame) -> None:
    others = sorted(set(metrics["split"]) - {"dev"})
    if others:
        raise ValueError(f"choices: got metrics of split {others[0]}; choose from dev metrics alone")
    cells = metrics[_CELL].drop_duplicates()
    if len(cells) != 1:
        raise ValueError(f"choices: got metrics of {len(cells)} cells; pass those of one model, method and task")


def _or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
