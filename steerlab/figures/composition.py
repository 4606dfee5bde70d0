"""Two steers at once: toxicity, sentiment and perplexity on the grid of their strengths, as maps with written values.

The same maps (`heat_maps`) serve the figure official_grid, of continuations that the official code generated.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from steerlab.figures import selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "composition"
COLUMNS = ["detoxification", "sentiment", *selection.COLUMNS, "seeds"]

PLACE = ["detoxification", "sentiment"]
_ROW = 0.27  # inches a row of cells
_SMALL = 0.1  # a map whose values are all smaller has a third decimal
_SMALLEST_REACH = 0.2  # of a diverging scale to either side
_PALE = 0.75  # the share of a colour map that is used, so that values stay readable on it


@dataclass(frozen=True)
class Map:
    """How one metric is drawn: its title, its colours, and the value in the middle of a diverging scale."""

    title: str
    colours: str
    middle: float | None = None
    logarithmic: bool = False
    written: Callable[[float], str] = "{:.2f}".format
    darkest: float = _PALE


MAPS = {
    "mean_toxicity": Map("Mean toxicity (score, 0 to 1)", "Oranges"),
    "average_max_toxicity": Map("Average max toxicity (score, 0 to 1)", "Oranges"),
    "toxicity_probability": Map("Toxicity probability (share of prompts)", "Oranges"),
    "mean_sentiment": Map("Mean sentiment (score, −1 to 1)", "PRGn", 0.0, written="{:+.2f}".format),
    "positive_share": Map("Positive texts (share, 0 to 1)", "PRGn", 0.5),
    "perplexity": Map(
        "Perplexity (per token)",
        "Greys",
        logarithmic=True,
        written=lambda value: f"{value:.{1 if value < 100 else 0}f}",
    ),
    "dist_2": Map("dist-2 (distinct bigrams per word)", "Greys", darkest=0.4),
}
PANELS = ("mean_toxicity", "mean_sentiment", "perplexity")


def table(
    metrics: pd.DataFrame,
    weights: Mapping[str, Mapping[str, float]],
    *,
    split: str = "test",
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """One pooled row a point of the grid and metric of PANELS; base is (0, 0).

    metrics: the project's metrics columns, of base and of the methods that weights names; others are left out.
    weights: {method: {"toxicity": a, "sentiment": b}}: at strength s its place is (s a, s b), an absent one being 0.
    scorers: the toxicity and the sentiment scorer to draw where there are several.
    Returns COLUMNS; seeds is the number of seeds pooled. Raises ValueError where two points share a place, base is
    missing, or two models, tasks or scorers would be mixed.
    """
    rows = selection.select(
        FIGURE, metrics[metrics.method.isin(["base", *weights])], PANELS, split=split, scorers=scorers
    )
    if rows.model.nunique() > 1:
        raise ValueError(f"figure {FIGURE}: got models {sorted(rows.model.unique())}; pass the metrics of one")
    is_base = rows.method == "base"
    if not is_base.any():
        raise ValueError(f"figure {FIGURE}: no rows of method base; pass its metrics too")
    if is_base.all():
        raise ValueError(f"figure {FIGURE}: no rows of {sorted(weights)}; pass the metrics of the composed steers")
    rows = selection.on_the_same_texts(rows[is_base | (rows.strength != 0)])
    for axis, task in zip(PLACE, ("toxicity", "sentiment"), strict=True):
        weight = rows.method.map({method: parts.get(task, 0.0) for method, parts in weights.items()}).fillna(0.0)
        rows = rows.assign(**{axis: (rows.strength * weight).astype(float).round(9) + 0.0})
    seeds = rows[rows.seed != "all"].groupby([*PLACE, "metric"])["seed"].nunique()
    pooled = rows[rows.seed == "all"]
    check_places(FIGURE, pooled)
    places = pd.MultiIndex.from_frame(pooled[[*PLACE, "metric"]])
    pooled = pooled.assign(seeds=seeds.reindex(places).fillna(0).astype(int).to_numpy())
    order = pooled.assign(rank=pooled.metric.map(PANELS.index)).sort_values(["rank", *PLACE], ignore_index=True)
    return order[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns."""
    return heat_maps(table, PANELS, rows="Detoxification\n(strength)", columns="Sentiment (strength)")


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: points, how many the grid has; half_width, the widest interval's half in each map."""
    counts = selection.phrases(table.assign(seed="all"), confidence=confidence)
    return counts | {
        "seeds": selection.counted(table.seeds, "seed"),
        "points": str(len(table[PLACE].drop_duplicates())),
        "half_width": half_widths(table, PANELS),
    }


def heat_maps(table: pd.DataFrame, metrics: Collection[str], *, rows: str, columns: str) -> Figure:
    """One map a metric, one above the other: detoxification upwards, sentiment to the right, (0, 0) framed."""
    up, right = (sorted(table[axis].unique()) for axis in PLACE)
    with style.context():
        height = 0.75 + len(metrics) * (0.35 + _ROW * len(up))
        figure = Figure(figsize=(style.WIDTH, height), layout="constrained")
        axes = list(figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0])
        for panel, metric in zip(axes, metrics, strict=True):
            values = table[table.metric == metric].pivot(index=PLACE[0], columns=PLACE[1], values="value")
            _heat_map(panel, values.reindex(index=up, columns=right), MAPS[metric])
            panel.set_ylabel(rows, fontsize=8)
        axes[-1].set_xlabel(columns)
    return figure


def _heat_map(panel: Axes, values: pd.DataFrame, look: Map) -> None:
    numbers = values.to_numpy(dtype=float)
    colours, norm = _colours(numbers, look)
    in_words = "{:.3f}".format if look.middle is None and np.nanmax(numbers, initial=0) < _SMALL else look.written
    panel.set_facecolor("white")
    panel.pcolormesh(np.ma.masked_invalid(numbers), cmap=colours, norm=norm, edgecolors="white", linewidth=1)
    for (row, column), value in np.ndenumerate(numbers):
        known = bool(np.isfinite(value))
        red, green, blue, _ = colours(norm(value)) if known else (1, 1, 1, 1)
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
        written = in_words(value).replace("-", "−") if known else "–"
        panel.text(
            column + 0.5, row + 0.5, written, ha="center", va="center", fontsize=8, color="white" if dark else "black"
        )
    for axis, names in ((panel.xaxis, values.columns), (panel.yaxis, values.index)):
        axis.set_ticks(np.arange(len(names)) + 0.5, [f"{name:g}".replace("-", "−") for name in names], fontsize=8)
        axis.set_tick_params(length=0)
    for row, column in np.argwhere(np.logical_and.outer(values.index == 0, values.columns == 0)):
        panel.add_patch(
            Rectangle((column, row), 1, 1, fill=False, clip_on=False, edgecolor="black", linewidth=1.4, zorder=3)
        )
    panel.set_title(look.title, loc="left", pad=4)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _colours(numbers: np.ndarray, look: Map) -> tuple[Colormap, Normalize]:
    """A scale from 0, symmetric about the middle, or logarithmic: a small difference then never fills it."""
    known = numbers[np.isfinite(numbers)]
    if look.middle is not None:
        reach = max((np.abs(known - look.middle).max() if known.size else 0), _SMALLEST_REACH)
        return _tints(look.colours, 0.5 - _PALE / 2, 0.5 + _PALE / 2), Normalize(
            look.middle - reach, look.middle + reach
        )
    colours = _tints(look.colours, 0.03, look.darkest)
    if look.logarithmic and known.size and known.min() > 0:
        return colours, LogNorm(known.min(), max(known.max(), 2 * known.min()))
    return colours, Normalize(0, known.max() if known.size and known.max() > 0 else 1)


def _tints(name: str, start: float, end: float) -> Colormap:
    return LinearSegmentedColormap.from_list(name, colormaps[name](np.linspace(start, end, 64)))


def check_places(figure: str, table: pd.DataFrame) -> None:
    """Raises ValueError for two values of a metric at one place; the message says what tells them apart."""
    twice = table[table.duplicated([*PLACE, "metric"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        same = twice[(twice[[*PLACE, "metric"]] == first[[*PLACE, "metric"]]).all(axis=1)]
        names = [
            name for name in ("method", "steps", "strength", "scorer") if name in same and same[name].nunique() > 1
        ]
        what = "; ".join(f"{name} {', '.join(map(str, same[name].unique()))}" for name in names) or "the same row twice"
        raise ValueError(
            f"figure {figure}: two values of {first.metric} at ({first.detoxification:g}, {first.sentiment:g}): {what}"
            "; pass one of them"
        )


def half_widths(table: pd.DataFrame, metrics: Collection[str]) -> str:
    """Half the widest interval of each metric, in words for a caption; metrics without an interval are left out."""
    width = ((table.high - table.low) / 2).groupby(table.metric).max()
    return selection.listed(
        f"{width[metric]:.2g} in {MAPS[metric].title.split(' (')[0].lower()}"
        for metric in metrics
        if width.get(metric, np.nan) > 0
    )
