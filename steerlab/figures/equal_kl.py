"""The effect of every method at one KL divergence from the unsteered model, the same for all: a row a method."""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.figures.comparison import TASKS
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.comparison import EQUAL

FIGURE = "equal_kl"
COLUMNS = [
    "task", "method", "ours", "value", "low", "high", "rank", "rank_low", "rank_high", "p_base", "beats",
    "kl_level", "beyond", "n", "metric", "scorer", "control", "data",
]  # fmt: skip


def table(compared: pd.DataFrame, compared_pairs: pd.DataFrame, *, model: str) -> pd.DataFrame:
    """One row a task and method that reaches the divergence, with COLUMNS, ranked methods first, in the style's order.

    beats: the ranked methods that it is told from after Holm's correction, and is better than.
    compared, compared_pairs: the two tables of steerlab.metrics.comparison.compare, of all tasks, with task, metric,
    scorer, data and ours. Raises ValueError where no divergence was measured.
    """
    rows = compared[(compared.setting == EQUAL) & (compared.model == model)]
    if rows.empty:
        raise ValueError(f"figure {FIGURE}: no KL divergence of {model} was measured; compute the comparison first")
    short = _short(compared[compared.model == model])
    pairs = compared_pairs[(compared_pairs.setting == EQUAL) & (compared_pairs.model == model)]
    beaten = [_beaten(pairs[pairs.task == task], method) for task, method in zip(rows.task, rows.method)]
    rows = rows.rename(columns={"effect": "value", "effect_low": "low", "effect_high": "high"}).assign(
        beats=beaten,
        beyond=rows.task.map(short),
        place=rows.method.map(style.rank),
        column=rows.metric.map(list(TASKS).index),
    )
    return rows.sort_values(["column", "control", "place"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    rows = table.assign(
        group=table.control.map({False: "methods", True: "controls"}),
        label=table.method.map(style.label),
        seed="all",
    )
    rows = rows.assign(place=rows.method.map(style.rank)).sort_values(["control", "place"], kind="stable")
    panels = {metric: label for metric, label in TASKS.items() if metric in set(rows.metric)}
    return marks.points_in_rows(rows, panels, large="effect at the same KL divergence, with interval")[0]


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """level: the divergence by task; beyond: the methods that do not reach it; leaders: the methods of rank 1 with what
    they beat; prompts, interval, scorers; controls; empty where there is nothing to say."""
    by_task = [(str(task), rows) for task, rows in table.groupby("task", sort=False)]
    ranked = [(task, rows) for task, rows in by_task if not rows.control.all()]
    return {
        "level": "; ".join(f"{task}: {rows.kl_level.iloc[0]:.3g}" for task, rows in by_task),
        "leaders": "; ".join(_leader(task, rows) for task, rows in ranked),
        "beyond": "; ".join(f"{task}: {rows.beyond.iloc[0]}" for task, rows in by_task if _said(rows.beyond.iloc[0])),
        "prompts": "; ".join(f"{task}: {selection.counted(rows.n, 'prompt')}" for task, rows in by_task),
        "interval": selection.interval(confidence, "prompts"),
        "scorers": "; ".join(f"{task} by {rows.scorer.iloc[0]}" for task, rows in by_task),
        "controls": "yes" if table.control.any() else "",
    }


def _beaten(pairs: pd.DataFrame, method: str, level: float = 1 - CONFIDENCE) -> str:
    """The others that a method is better than, of those told apart from it."""
    told = pairs[pairs.p_holm < level]
    ahead = told[(told.method == method) & (told.difference > 0)].other
    behind = told[(told.other == method) & (told.difference < 0)].method
    return ", ".join(style.label(name) for name in [*ahead, *behind])


def _short(rows: pd.DataFrame) -> dict[str, str]:
    """The ranked methods of each task that do not reach its divergence."""
    found = {}
    for task, of_task in rows[~rows.control].groupby("task"):
        there = set(of_task[of_task.setting == EQUAL].method)
        found[task] = ", ".join(style.label(name) for name in dict.fromkeys(of_task.method) if name not in there)
    return found


def _said(text: object) -> bool:
    """False for no text, which a CSV gives back as a missing value."""
    return isinstance(text, str) and bool(text)


def _leader(task: str, rows: pd.DataFrame) -> str:
    best = rows[rows["rank"] == 1].iloc[0]
    value, low, high = (f"{best[end]:+.3g}".replace("-", "−") for end in ("value", "low", "high"))
    beats = f", told from {best['beats']}" if _said(best["beats"]) else ", told from no other"
    return f"on {task} {style.label(best['method'])} ({value} [{low}, {high}]{beats})"
