"""All methods on every task: the effect of each against each of its prices, at the setting that is its own.

A column is a task, its horizontal axis the effect (right is better); a row is a price (down is cheaper). The line joins
the methods that no other beats in both, beginning at the unsteered model. Random controls are hollow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.comparison import PICKED

FIGURE = "comparison"
TASKS = {  # what the effect is, for the axis of a task's column
    "mean_toxicity": "less\ntoxicity",
    "mean_sentiment": "more\nsentiment",
    "mc2": "more\ntruth (MC2)",
}
_NUMBERS = ("effect", "perplexity_ratio", "kl", "accuracy_change")
COLUMNS = [
    "task", "method", "ours", "strength", "rank", "rank_low", "rank_high", "p_base",
    *(f"{name}{end}" for name in _NUMBERS for end in ("", "_low", "_high")),
    "time_ratio", "seconds_a_token", "training_seconds", "n", "metric", "scorer", "judge", "control", "data",
]  # fmt: skip


@dataclass(frozen=True)
class Price:
    """One row of panels. unsteered: the unsteered model's price, None where it pays none; sign: −1 for a price that is
    shown turned round, because more of it is better; scale: of its axis."""

    column: str
    label: str
    unsteered: float | None
    sign: int = 1
    scale: Literal["linear", "root", "log"] = "linear"


PRICES = (
    Price("perplexity_ratio", "Perplexity\n(× unsteered)", 1.0, scale="log"),
    Price("kl", "KL divergence\n(nats a token)", 0.0, scale="root"),
    Price("accuracy_change", "Accuracy lost\n(share)", 0.0, sign=-1),
    Price("time_ratio", "Time a token\n(× unsteered)", 1.0),
    Price("training_seconds", "Training\n(seconds)", 0.0, scale="root"),
)
_ROW, _LEGEND = 1.1, 0.17  # inches: a row of panels, a line of the legend


def table(compared: pd.DataFrame, *, model: str) -> pd.DataFrame:
    """One row a task and method at its own setting, with COLUMNS, ranked methods first, in the style's order.

    compared: the rows of steerlab.metrics.comparison.compare with task, metric, scorer, judge, data and ours: whether
    the method is shown on a task that its paper does not have. Raises ValueError without any row.
    """
    rows = compared[(compared.setting == PICKED) & (compared.model == model)]
    if rows.empty:
        raise ValueError(f"figure {FIGURE}: no methods of {model} were compared; compute the comparison first")
    rows = rows.assign(
        time_ratio=rows.seconds_a_token / rows.base_seconds_a_token,
        place=rows.method.map(style.rank),
        column=rows.metric.map(list(TASKS).index),
    )
    return rows.sort_values(["column", "control", "place"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    tasks = list(dict.fromkeys(table.metric))
    prices = [price for price in PRICES if table[price.column].notna().any()]
    methods = sorted(table[~table.control].method.unique(), key=style.rank)
    entries = [_entry(method) for method in methods]
    if table.control.any():
        entries.append(marks.pooled_handle("its control", linestyle="none", markerfacecolor="white"))
    lines = -(-len(entries) // 3)
    with style.context():
        size = (style.WIDTH, _ROW * len(prices) + 0.55 + _LEGEND * lines)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(prices), len(tasks), sharex="col", sharey="row", squeeze=False)
        for row, price in zip(axes, prices, strict=True):
            for panel, task in zip(row, tasks, strict=True):
                _draw(panel, table[table.metric == task], price)
            _price_axis(row[0], table, price)
        for panel, task in zip(axes[-1], tasks, strict=True):
            panel.set_xlabel(TASKS[task])
            panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        figure.legend(handles=entries, loc="outside upper center", ncols=3, columnspacing=1.2, handletextpad=0.3)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """prompts, interval, scorers, judge; effects: of the methods that are told from the unsteered model after Holm's
    correction; ours: those on tasks that their paper does not have; controls, timed; empty where there is nothing to
    say."""
    by_task = list(table.groupby("task", sort=False))
    ranked = table[~table.control]
    told = ranked[ranked.p_base < 1 - confidence]
    return {
        "prompts": "; ".join(f"{task}: {selection.counted(rows.n, 'prompt')}" for task, rows in by_task),
        "interval": selection.interval(confidence, "prompts"),
        "scorers": "; ".join(f"{task} by {rows.scorer.iloc[0]}" for task, rows in by_task),
        "judge": selection.listed(table.judge.unique()),
        "effects": "; ".join(_effect(row) for row in told.to_dict("records")),
        "ours": "; ".join(
            f"{task}: {selection.listed(map(style.label, rows.method))}"
            for task, rows in ranked[ranked.ours].groupby("task", sort=False)
        ),
        "controls": "yes" if table.control.any() else "",
        "timed": "yes" if table.time_ratio.notna().any() else "",
    }


def _effect(row: Mapping) -> str:
    value, low, high = (f"{row[f'effect{end}']:+.3f}".replace("-", "−") for end in ("", "_low", "_high"))
    return f"{style.label(row['method'])} on {row['task']} {value} [{low}, {high}]"


def _entry(method: str) -> Line2D:
    look = {"marker": style.marker(method), "color": style.colour(method)}
    return marks.pooled_handle(style.label(method), linestyle="none", **look)


def _draw(panel: Axes, rows: pd.DataFrame, price: Price) -> None:
    panel.grid()
    panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    rows = rows[rows[price.column].notna()]
    if rows.empty:
        panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", va="center", fontsize=8)
        return
    if price.unsteered is not None:
        panel.plot(0, price.unsteered, "+", color="black", markersize=style.POOLED_SIZE + 1, zorder=4)
    front = _front(rows[~rows.control], price)
    panel.plot(front[:, 0], front[:, 1], color="#888888", linewidth=0.9, zorder=1)
    for row in rows.to_dict("records"):
        colour, at = style.colour(row["method"]), price.sign * row[price.column]
        panel.hlines(at, row["effect_low"], row["effect_high"], color=colour, linewidth=0.8, alpha=0.6, zorder=2)
        panel.plot(
            row["effect"], at, style.marker(row["method"]), color=colour, linestyle="none",
            markersize=style.POOLED_SIZE - 1, markeredgewidth=1.0, zorder=2 if row["control"] else 3,
            markerfacecolor="white" if row["control"] else colour,
        )  # fmt: skip


def _front(rows: pd.DataFrame, price: Price) -> np.ndarray:
    """(points, 2): effects and prices of what nothing beats in both, by effect, from the unsteered model on."""
    points = [(0.0, price.unsteered)] if price.unsteered is not None else []
    points += list(zip(rows.effect, price.sign * rows[price.column]))
    kept = [
        (effect, cost)
        for effect, cost in points
        if not any((x >= effect and y <= cost) and (x, y) != (effect, cost) for x, y in points)
    ]
    return np.array(sorted(kept), dtype=float).reshape(-1, 2)


def _price_axis(panel: Axes, table: pd.DataFrame, price: Price) -> None:
    panel.set_ylabel(price.label)
    if price.scale == "log":
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(10, subs=(1, 3), numticks=6))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        return
    if price.scale == "root":
        panel.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
        panel.set_ylim(0, 1.1 * table[price.column].max() or 1.0)
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
