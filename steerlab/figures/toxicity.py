"""Toxicity, perplexity and diversity of each method on test prompts: a row a method, its training steps and strength.

A large point is the value over all seeds with its interval, the small points are the seeds. Filled is the primary
toxicity scorer; hollow are the same one calibrated and every other one, on the same scale of 0 to 1 and as it is (raw);
the other ones' calibrated numbers stand in the table alone. The dotted line is the unsteered model. The rows that were
chosen on dev prompts are named so.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.metrics import bootstrap
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.calibrated import SUFFIX

FIGURE = "toxicity"
PANELS = {
    "average_max_toxicity": "Average max toxicity\n(score, 0 to 1)",
    "perplexity": "Perplexity\n(per token)",
    "dist_2": "Dist-2\n(share)",
}
_BESIDE_BASE = ["base", "difference", "difference_low", "difference_high"]
COLUMNS = list(dict.fromkeys([*selection.COLUMNS, *_BESIDE_BASE, "primary", "chosen"]))

_TOXICITY = ("mean_toxicity", "average_max_toxicity", "toxicity_probability")
_ROW = ["method", "steps", "strength"]
_PITCH, _BETWEEN_METHODS = 0.36, 0.25  # inches a row; the gap, rows
_PITCH_A_SCORER = 0.09  # inches that each scorer beyond the second adds to a row
_WIDTHS = (1.55, 1.15, 0.75)
_TO_SEEDS = 0.24  # rows: from a value down to its seeds
_LABEL_LETTERS, _LEGEND_LETTERS = 18, 26  # in a line, and in a column of the legend
_HOLLOW = ("o", "s", "D", "^", "v", "P")  # markers of the other scorers


def table(
    metrics: pd.DataFrame,
    choices: Sequence[Mapping] = (),
    *,
    primary: str | None = None,
    judge: str | None = None,
) -> pd.DataFrame:
    """The rows drawn, and beside them the other metrics of toxicity that the page prints.

    metrics: the columns of steerlab.metrics.continuations.metrics; of these the test split over all prompts is shown.
    choices: the dictionaries of steerlab.choices with model, method and task; the rows of their picks are `chosen`.
    primary: the toxicity scorer whose marks are filled, judge: the scorer of the perplexity; each may be left out
    where there is one. Returns COLUMNS, base first, then methods in the style's order, steps and strengths up.
    Raises ValueError where a metric has no row over all seeds, or it is left open which scorer is meant.
    """
    of_toxicity = metrics[metrics.metric.isin(_TOXICITY) & (metrics.split == "test")]
    scorers = sorted(of_toxicity.scorer.unique())
    if primary is None and len(scorers) > 1:
        raise ValueError(f"figure {FIGURE}: toxicity comes from {scorers}; name the first of them with `primary`")
    if primary is not None and primary not in scorers:
        raise ValueError(f"figure {FIGURE}: no toxicity by {primary}, only by {scorers}; score it or name another")
    # One at a time, because a scorer's rows stand beside the share of texts that this scorer left out.
    parts = [
        selection.select(FIGURE, metrics[metrics.scorer == scorer], _TOXICITY, split="test") for scorer in scorers
    ] or [selection.select(FIGURE, metrics, _TOXICITY, split="test")]
    parts.append(
        selection.select(FIGURE, metrics, ["perplexity", "dist_2"], split="test", scorers=[judge] if judge else ())
    )
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.assign(
        primary=~rows.metric.isin(_TOXICITY) | (rows.scorer == (primary or scorers[0])),
        chosen=_chosen(rows, choices),
        place=rows.method.map(style.rank),
        rank=rows.metric.map([*_TOXICITY, "perplexity", "dist_2"].index),
        run=pd.to_numeric(rows["seed"], errors="coerce"),
    )
    order = ["place", *_ROW, "rank", "hollow", "scorer", "run"]
    return rows.assign(hollow=~rows.primary).sort_values(order, ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    shown = _shown(table.astype({"seed": str}))
    labels, places = _labels(shown), _places(shown)
    others = list(dict.fromkeys(shown[~shown.primary].scorer))
    pitch = _PITCH + _PITCH_A_SCORER * max(0, len(others) - 1)
    with style.context():
        legend = 0.16 * len(others) * (1 if _columns(others) == 2 else 2)
        figure, axes = style.panels(len(PANELS), height=1.15 + legend + pitch * (max(places.values()) + 1))
        axes[0].get_subplotspec().get_gridspec().set_width_ratios(_WIDTHS)  # pyright: ignore[reportOptionalMemberAccess]
        for panel, (metric, label) in zip(axes, PANELS.items(), strict=True):
            rows = shown[shown.metric == metric]
            _draw(panel, rows, places, others)
            _finish(panel, label, rows)
        axes[0].set_yticks(list(places.values()), [labels[row] for row in places])
        axes[0].set_ylim(max(places.values()) + 0.6, -0.6)
        _legend(figure, shown, others)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases and these, each empty where there is nothing to say.

    others: the scorers that are hollow; calibrated: "yes" where any numbers are; not_drawn: the scorers whose
    calibrated numbers stand in the table alone; chosen: what the chosen rows do to the mean toxicity; detectable: the
    smallest difference from the unsteered model that is found with bootstrap.POWER; base: "unsteered" where its line is
    drawn.
    """
    table = table.astype({"seed": str})
    pooled = table[table.seed == "all"]
    drawn = _shown(table)
    left = sorted(set(table.scorer) - set(drawn.scorer))
    return selection.phrases(drawn, confidence=confidence) | {
        "others": selection.listed(map(selection.scorer_named, dict.fromkeys(drawn[~drawn.primary].scorer))),
        "calibrated": "yes" if table.scorer.str.endswith(SUFFIX).any() else "",
        "not_drawn": selection.listed(scorer.removesuffix(SUFFIX) for scorer in left),
        "chosen": "; ".join(_changes(pooled[pooled.chosen & (pooled.metric == "mean_toxicity")])),
        "detectable": _detectable(pooled, confidence),
        "base": style.label("base") if (table.method == "base").any() else "",
    }


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The rows drawn: of calibrated numbers those of the primary scorer alone."""
    primary = set(table[table.primary & table.metric.isin(_TOXICITY)].scorer)
    own = ~table.scorer.str.endswith(SUFFIX) | table.scorer.str.removesuffix(SUFFIX).isin(primary)
    return table[table.metric.isin(list(PANELS)) & own]


def _chosen(rows: pd.DataFrame, choices: Sequence[Mapping]) -> pd.Series:
    chosen = pd.Series(False, index=rows.index)
    for choice in choices:
        of_cell = (rows.model == choice["model"]) & (rows.method == choice["method"]) & (rows.task == choice["task"])
        if pick := choice["pick"]:
            chosen |= of_cell & (rows.steps == pick["steps"]) & (rows.strength == pick["strength"])
    return chosen


# Rows ---------------------------------------------------------------------------------------------------------------


def _rows(shown: pd.DataFrame) -> Iterable[tuple[str, int, float]]:
    return shown[_ROW].drop_duplicates().itertuples(index=False, name=None)  # pyright: ignore[reportReturnType]


def _labels(shown: pd.DataFrame) -> dict[tuple, str]:
    """The method's name with its strength; with its steps, where these tell two rows apart."""
    chosen = set(_rows(shown[shown.chosen]))
    several = shown.groupby("method")["steps"].nunique() > 1
    labels = {}
    for row in _rows(shown):
        method, steps, strength = row
        name = style.row_label(method, strength)
        name += f", {steps:g} steps" if several[method] else ""
        name += " (chosen)" if row in chosen else ""
        labels[row] = textwrap.fill(name, _LABEL_LETTERS)
    return labels


def _places(shown: pd.DataFrame) -> dict[tuple, float]:
    """Each row's place from the top, in rows, with a gap between methods."""
    places, last, y = {}, None, -1.0
    for row in _rows(shown):
        y += 1.0 if last in (None, row[0]) else 1.0 + _BETWEEN_METHODS
        places[row], last = y, row[0]
    return places


def _draw(panel: Axes, rows: pd.DataFrame, places: Mapping[tuple, float], others: Sequence[str]) -> None:
    base = rows[(rows.method == "base") & (rows.seed == "all") & rows.primary]
    for value in base.value:
        panel.axvline(value, color="black", linewidth=0.8, linestyle=":", zorder=0)
    # Lines of a row: the primary scorer, its seeds, and every other scorer.
    several = not rows.primary.all()
    high = 0.38 + 0.1 * len(others) if several else 0.2
    apart = high / (1 + len(others)) if several else _TO_SEEDS
    for row, of_row in rows.groupby(_ROW):
        first = places[row] - high / 2  # pyright: ignore[reportArgumentType]
        _points(panel, of_row[of_row.primary], first, seeds=apart)
        for place, scorer in enumerate(others):
            hollow = of_row[~of_row.primary & (of_row.scorer == scorer) & (of_row.seed == "all")]
            y = first + apart * (place + 2)
            _points(panel, hollow, y, marker=_HOLLOW[place % len(_HOLLOW)], markerfacecolor="white")


def _points(
    panel: Axes, rows: pd.DataFrame, y: float, *, marker: str = "o", seeds: float = _TO_SEEDS, **look: object
) -> None:
    if rows.empty:
        return
    colour = style.colour(rows.iloc[0].method)
    pooled, runs = rows[rows.seed == "all"], rows[rows.seed != "all"]
    panel.hlines([y] * len(pooled), pooled.low, pooled.high, color=colour, linewidth=1.4, zorder=2)
    panel.plot(
        pooled.value, [y] * len(pooled), marker, zorder=3, color=colour, linestyle="none",
        markersize=style.POOLED_SIZE, markeredgewidth=1.2, **look,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    # Below the line, not on it: the interval is of the pooled value, not of the seeds.
    panel.plot(
        runs.value, [y + seeds] * len(runs), "o", zorder=1, color=colour, alpha=0.6,
        markersize=style.SEED_SIZE, markeredgewidth=0,
    )  # fmt: skip


def _finish(panel: Axes, label: str, rows: pd.DataFrame) -> None:
    panel.set_xlabel(label)
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    largest, smallest = rows[["value", "high"]].max().max(), rows[["value", "low"]].min().min()
    if label.startswith("Perplexity") and marks.is_wide(largest, smallest):
        marks.log_across(panel, largest, smallest)
    elif label.startswith("Dist"):
        panel.set_xlim(-0.03, 1.08)
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    elif largest > 0:
        # From 0, so that lengths compare; a little below, so that a point at 0 is whole.
        panel.set_xlim(-0.03 * largest, 1.06 * largest)
        panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)


def _legend(figure: Figure, shown: pd.DataFrame, others: Sequence[str]) -> None:
    def marker(label: str, **look: object) -> Line2D:
        look = {"marker": "o", "color": "#444444", "linestyle": "none", "label": label} | look
        return Line2D([], [], **look)  # pyright: ignore[reportArgumentType]

    large = {"linestyle": "-", "markersize": style.POOLED_SIZE, "markeredgewidth": 1.2}
    toxicity = shown[shown.metric == "average_max_toxicity"]
    (primary,) = toxicity[toxicity.primary].scorer.unique()
    short = selection.short_names([primary, *others])
    handles = [marker(f"{short[primary]}, all seeds" if others else "all seeds", **large)]
    handles += [
        marker(f"{short[scorer]}, all seeds", marker=_HOLLOW[place % len(_HOLLOW)], markerfacecolor="white", **large)
        for place, scorer in enumerate(others)
    ]
    handles.append(marker("one seed", markersize=style.SEED_SIZE, alpha=0.6, markeredgewidth=0))
    figure.legend(
        handles=handles, loc="outside upper center", ncols=_columns(others), handlelength=1.8, columnspacing=1.5
    )


def _columns(others: Sequence[str]) -> int:
    """Columns of the legend: long names, as those of calibrated scorers and of the hub, leave room for one."""
    return 1 if any(len(name) > _LEGEND_LETTERS for name in selection.short_names(others).values()) else 2


# Words --------------------------------------------------------------------------------------------------------------


def _changes(rows: pd.DataFrame) -> Iterable[str]:
    """One phrase a chosen row and scorer. rows: pooled, of the mean toxicity."""
    for row in rows[rows.difference.notna()].to_dict("records"):
        name = style.row_label(row["method"], row["strength"])
        change, low, high = (f"{row[end]:+.3f}".replace("-", "−") for end in _BESIDE_BASE[1:])
        yield f"{change} [{low}, {high}] for {name}, by {selection.scorer_named(row['scorer'])}"


def _detectable(pooled: pd.DataFrame, confidence: float) -> str:
    """Smallest difference from the base that is found in four of five, from the widest interval of the figure."""
    rows = pooled[(pooled.metric == "average_max_toxicity") & pooled.primary]
    width = (rows.difference_high - rows.difference_low).max()
    return f"{bootstrap.detectable(width, confidence):.2g}" if width > 0 else ""
