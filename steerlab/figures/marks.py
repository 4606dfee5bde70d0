"""The marks that several figures share: curves with bands, points with intervals in labelled rows, and their axes.

A large point is the value over all seeds, the band or line through it its interval, small points are the seeds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from steerlab.figures import style

MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "#444444"

_LINE = 0.24  # inches a row of points
_ENTRY, _LETTER = 0.48, 0.068  # inches: a legend's line with its gaps, and a letter of its names
_DECADES_FROM = 50  # and from which powers of ten alone are told on it
_LOG_FROM = 5  # largest over smallest perplexity from which its axis is logarithmic


def stacked(panels: int, *, height: float, ratios: Sequence[float] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of the standard width with panels one above the other that share the horizontal axis."""
    figure = Figure(figsize=(style.WIDTH, height), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=ratios)
    return figure, list(axes[:, 0])


def shade(colour: str, place: int, places: int) -> tuple[float, float, float]:
    """The place-th of several tints of a colour, from pale to the colour itself, told apart by lightness alone."""
    strength = 1.0 if places < 2 else 0.4 + 0.6 * place / (places - 1)
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def curve(
    panel: Axes,
    rows: pd.DataFrame,
    x: str,
    *,
    colour: object,
    marker: str = "o",
    linestyle: str = "-",
    filled: np.ndarray | None = None,
) -> None:
    """One line of values against the column x, with its band and the seeds. rows: x, seed, value, low, high.

    filled: one truth value a pooled row, in order of x, for its marker; all are filled by default.
    """
    rows = rows.sort_values(x)
    pooled, seeds = rows[rows.seed == "all"], rows[rows.seed != "all"]
    low, high = (pooled[end].to_numpy(dtype=float) for end in ("low", "high"))
    at, value = pooled[x].to_numpy(dtype=float), pooled.value.to_numpy(dtype=float)
    if len(pooled) > 1:
        panel.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1)  # pyright: ignore
    panel.vlines(at, low, high, color=colour, linewidth=1.0, alpha=0.7, zorder=2)  # pyright: ignore
    panel.plot(at, value, linestyle, color=colour, linewidth=1.4, zorder=3)
    faces = np.ones(len(at), dtype=bool) if filled is None else filled
    for full in (True, False):
        panel.plot(
            at[faces == full], value[faces == full], marker, color=colour, linestyle="none", zorder=4,
            markersize=style.POOLED_SIZE, markeredgewidth=1.2, markerfacecolor=colour if full else "white",
        )  # fmt: skip
    panel.plot(
        seeds[x], seeds.value, "o", color=colour, alpha=0.6, zorder=2, markersize=style.SEED_SIZE, markeredgewidth=0
    )


def level(panel: Axes, rows: pd.DataFrame, *, colour: object) -> None:
    """A value that does not depend on the horizontal axis: a line across, with its band."""
    for row in rows[rows.seed == "all"].itertuples():
        panel.axhline(row.value, color=colour, linewidth=1.2, linestyle=(0, (5, 2)), zorder=2)  # pyright: ignore
        if np.isfinite([row.low, row.high]).all():  # pyright: ignore[reportArgumentType, reportCallIssue]
            panel.axhspan(row.low, row.high, color=colour, alpha=0.1, linewidth=0, zorder=0)  # pyright: ignore


def points_in_rows(
    table: pd.DataFrame,
    panels: Mapping[str, str],
    *,
    headings: bool = False,
    height: float = 1.15,
    large: str = "all seeds, with interval",
    small: str = "one seed",
    more: Sequence[Line2D] = (),
) -> tuple[Figure, list[Axes]]:
    """One labelled row a point, one panel a metric; rows stand in the table's order.

    table: group, label, method, metric, seed, value, low, high; panels: the axis label of each metric. With headings
    a group's name stands above its rows. Otherwise groups are only set apart. large, small: what the legend calls the
    points whose seed is "all", and the others; more: further entries of it, of what the caller draws.
    """
    places, titles = _places(table, headings)
    bottom = max(places.values())
    with style.context():
        figure, axes = style.panels(len(panels), height=height + _LINE * (bottom + 1))
        for panel, (metric, label) in zip(axes, panels.items(), strict=True):
            shown = table[table.metric == metric]
            for key, rows in shown.groupby(["group", "label"], sort=False):
                _row_of_points(panel, rows, places[key])  # pyright: ignore[reportArgumentType]
            _across(panel, shown, label, places)
        axes[0].set_yticks(list(places.values()), [label for _, label in places])
        for title, y in titles.items():
            # Over the panel, where the row is empty: beside it a long name would leave the panels no room.
            written = axes[0].annotate(
                title, (0, y), xycoords=axes[0].get_yaxis_transform(), xytext=(3, 0), textcoords="offset points",
                va="center", fontweight="bold", annotation_clip=False,
            )  # fmt: skip
            written.set_in_layout(False)
        axes[0].set_zorder(1)  # so that a heading may run on over the next panel
        axes[0].patch.set_visible(False)
        axes[0].set_ylim(bottom + 0.75, -0.75)
        legend(figure, [pooled_handle(large), *seed_handle(table, small), *more])
    return figure, axes


def pooled_handle(label: str = "all seeds, with interval", **look: object) -> Line2D:
    """The legend's entry of a value over all seeds."""
    return Line2D([], [], **({"marker": "o", "color": GREY, "markersize": style.POOLED_SIZE, "label": label} | look))  # pyright: ignore


def seed_handle(table: pd.DataFrame, label: str = "one seed") -> list[Line2D]:
    """The legend's entry of a seed's point, where there is one."""
    if not (table.seed != "all").any():
        return []
    return [pooled_handle(label, linestyle="none", markersize=style.SEED_SIZE, alpha=0.6, markeredgewidth=0)]


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """The legend above the panels, in as many columns as its words leave room for."""
    names = [len(str(handle.get_label())) for handle in handles]

    def fits(columns: int) -> bool:
        widest = [max(column) for column in np.array_split(names, columns)]  # as matplotlib fills its columns
        return sum(_ENTRY + _LETTER * width for width in widest) <= style.WIDTH

    columns = next((count for count in range(len(names), 1, -1) if fits(count)), 1)
    figure.legend(handles=list(handles), loc="outside upper center", ncols=columns, columnspacing=1.2)


def from_zero(panel: Axes, rows: pd.DataFrame, *, spare: float = 1.08) -> None:
    """Let the vertical axis begin at 0, so that heights compare, and end above the highest mark."""
    top = rows[["value", "high"]].max().max()
    if top > 0:
        panel.set_ylim(0, spare * top)
        panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def log_where_wide(panel: Axes, rows: pd.DataFrame) -> None:
    """A logarithmic vertical axis for perplexities that differ much, one from 0 for others."""
    marks = rows[["value", "low", "high"]]
    top, bottom = marks.max().max(), marks.where(marks > 0).min().min()
    if not top > _LOG_FROM * bottom:
        from_zero(panel, rows)
        return
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=12))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_ylim(bottom / 1.15, top * 1.15)


def is_wide(largest: float, smallest: float) -> bool:
    """True for perplexities that differ so much that their axis is logarithmic."""
    return largest > _LOG_FROM * smallest > 0


def log_across(panel: Axes, largest: float, smallest: float) -> None:
    """A logarithmic horizontal axis from the smallest to the largest value; a wide one tells powers of ten alone."""
    between = (1, 3) if largest < _DECADES_FROM * smallest else (1,)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(10, subs=between, numticks=6))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(smallest / 1.2, largest * 1.2)


def log_ticks_at(panel: Axes, places: Sequence[float], labels: Sequence[str], *, spare: float = 1.5) -> None:
    """A logarithmic horizontal axis with ticks at the places alone, and room on both sides also for a single one."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(list(places)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(list(places), list(labels))
    panel.set_xlim(min(places) / spare, max(places) * spare)


def _places(table: pd.DataFrame, headings: bool) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Each row's and each heading's place from the top, in lines."""
    places, titles, y, last = {}, {}, -1.0, None
    for group, label in table[["group", "label"]].drop_duplicates().itertuples(index=False):
        if group != last:
            y += 0.0 if last is None else 0.4
            if headings:
                y += 1.0
                titles[group] = y
        y += 1.0
        places[group, label], last = y, group
    return places, titles


def _row_of_points(panel: Axes, rows: pd.DataFrame, y: float) -> None:
    colour = style.colour(rows.iloc[0].method)
    pooled, seeds = rows[rows.seed == "all"], rows[rows.seed != "all"]
    panel.hlines([y] * len(pooled), pooled.low, pooled.high, color=colour, linewidth=1.4, zorder=2)
    panel.plot(pooled.value, [y] * len(pooled), "o", color=colour, markersize=style.POOLED_SIZE, zorder=3)
    # Below the line, not on it: the interval is of the pooled value, not of the seeds.
    panel.plot(
        seeds.value, [y + 0.36] * len(seeds), "o", color=colour, alpha=0.6, zorder=1,
        markersize=style.SEED_SIZE, markeredgewidth=0,
    )  # fmt: skip


def _across(panel: Axes, shown: pd.DataFrame, label: str, places: Mapping[tuple[str, str], float]) -> None:
    panel.set_xlabel(label)
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    valued = set(shown[shown.value.notna()][["group", "label"]].itertuples(index=False, name=None))
    for y in (y for key, y in places.items() if key not in valued):  # in their order: a set's is another each time
        panel.text(
            0.06, y, "none", transform=panel.get_yaxis_transform(), va="center", fontsize=8, color=GREY,
            fontstyle="italic",
        )  # fmt: skip
    largest, smallest = shown[["value", "high"]].max().max(), shown[["value", "low"]].min().min()
    if label.startswith("Perplexity") and is_wide(largest, smallest):
        log_across(panel, largest, smallest)
    elif largest > 0 or smallest < 0:
        low, high = min(smallest, 0), max(largest, 0)
        spare = 0.06 * (high - low)
        panel.set_xlim(low - (spare if low else 0.03 * high), high + spare)
        panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)
