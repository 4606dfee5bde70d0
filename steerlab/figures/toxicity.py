"""Toxicity and perplexity of each method at each strength: one row each, dev and test prompts one above the other.

A large point is the value over all seeds with its interval, the small points are the seeds. Drawn from the metrics
tables of any number of methods and splits, one below the other.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from steerlab.figures import style

PANELS = {
    "average_max_toxicity": "Average max toxicity\n(score, 0 to 1)",
    "perplexity": "Perplexity\n(per token)",
}
_FILLED = {"dev": False, "test": True}  # the split's marker
_LINE = 0.2  # inches a line of the figure
_BETWEEN_STRENGTHS, _BETWEEN_METHODS = 0.25, 0.9  # gaps, lines
_LOG_FROM = 10  # largest over smallest perplexity from which its axis is logarithmic


def plot(metrics: pd.DataFrame) -> Figure:
    """metrics: the columns of steerlab.metrics.toxicity.metrics, one toxicity scorer, splits dev and test.

    Raises ValueError if there is nothing to draw or two scorers would be mixed on one axis.
    """
    table = drawn(metrics)
    lines = _lines(table)
    with style.context():
        figure, axes = style.panels(len(PANELS), height=1.25 + _LINE * (max(lines.values()) + 1.5))
        for panel, (metric, label) in zip(axes, PANELS.items(), strict=True):
            shown = table[table.metric == metric]
            for key, rows in shown.groupby(["method", "strength", "split"]):
                _draw_line(panel, rows, lines[key])  # pyright: ignore[reportArgumentType]
            _finish(panel, label, shown)
        rows = list(dict.fromkeys(key[:2] for key in lines))
        heights = [np.mean([y for key, y in lines.items() if key[:2] == row]) for row in rows]
        axes[0].set_yticks(heights, [style.row_label(*row) for row in rows])
        axes[0].set_ylim(max(lines.values()) + 0.75, -0.75)
        _legend(figure, table)
    return figure


def drawn(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows that the figure shows, in its order: base first, then methods in the style's order, strengths up."""
    table = metrics[metrics.metric.isin(list(PANELS))].astype({"seed": str})
    missing = set(PANELS) - set(table[table.seed == "all"].metric)
    if missing:
        raise ValueError(f"figure toxicity: no pooled rows of {sorted(missing)}; compute the metrics first")
    for metric, scorers in table.groupby("metric")["scorer"].unique().items():
        if len(scorers) > 1:
            raise ValueError(
                f"figure toxicity: {metric} comes from {sorted(scorers)}, which share no axis; pass one scorer's rows"
            )
    keys = table.assign(rank=table.method.map(style.rank), run=pd.to_numeric(table["seed"], errors="coerce"))
    keys = keys.sort_values(["rank", "method", "strength", "split", "metric", "run"], ignore_index=True)
    return keys[list(metrics.columns)]


def _lines(table: pd.DataFrame) -> dict[tuple[str, float, str], float]:
    """Each (method, strength, split)'s place from the top, in lines: close within a method, apart between methods."""
    places, last, y = {}, None, 0.0
    for method, strength, split in table[["method", "strength", "split"]].drop_duplicates().itertuples(index=False):
        if last is not None:
            y += 1.0
            y += _BETWEEN_METHODS if method != last[0] else _BETWEEN_STRENGTHS if strength != last[1] else 0.0
        places[method, strength, split] = y
        last = (method, strength)
    return places


def _draw_line(panel: Axes, rows: pd.DataFrame, y: float) -> None:
    method, split = rows.iloc[0][["method", "split"]]
    colour = style.colour(method)
    pooled, seeds = rows[rows.seed == "all"], rows[rows.seed != "all"]
    panel.hlines([y] * len(pooled), pooled.low, pooled.high, color=colour, linewidth=1.4, zorder=2)
    panel.plot(
        pooled.value, [y] * len(pooled), "o", zorder=3, color=colour, markersize=style.POOLED_SIZE,
        markerfacecolor=colour if _FILLED[split] else "white", markeredgewidth=1.2,
    )  # fmt: skip
    # Below the line, not on it: the interval is of the pooled value, not of the seeds.
    panel.plot(
        seeds.value, [y + 0.42] * len(seeds), "o", zorder=1, color=colour, alpha=0.6,
        markersize=style.SEED_SIZE, markeredgewidth=0,
    )  # fmt: skip


def _finish(panel: Axes, label: str, shown: pd.DataFrame) -> None:
    panel.set_xlabel(label)
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    largest, smallest = shown[["value", "high"]].max().max(), shown[["value", "low"]].min().min()
    if label.startswith("Perplexity") and largest > _LOG_FROM * smallest:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlim(smallest / 1.1, largest * 1.1)
    elif largest > 0:
        # From 0, so that lengths compare; a little below, so that a point at 0 is whole.
        panel.set_xlim(-0.03 * largest, 1.06 * largest)
        panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)


def _legend(figure: Figure, table: pd.DataFrame) -> None:
    def marker(**look: object) -> Line2D:
        return Line2D([], [], **({"marker": "o", "color": "#444444", "linestyle": "none"} | look))  # pyright: ignore

    handles = [
        marker(
            linestyle="-", markersize=style.POOLED_SIZE, markeredgewidth=1.2,
            markerfacecolor="#444444" if _FILLED[split] else "white", label=f"{split} prompts, all seeds",
        )
        for split in ("dev", "test") if split in set(table.split)
    ]  # fmt: skip
    handles.append(marker(markersize=style.SEED_SIZE, alpha=0.55, markeredgewidth=0, label="one seed"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.6, columnspacing=1.5)
