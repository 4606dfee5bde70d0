"""Toxicity and perplexity against the number of texts that a steer was trained on, beside the unsteered model."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "data_efficiency"
PANELS = {"mean_toxicity": "Mean toxicity\n(score, 0 to 1)", "perplexity": "Perplexity\n(per token)"}
COLUMNS = ["texts", *selection.COLUMNS]


def table(
    metrics: pd.DataFrame, texts: Mapping[str, int | None], *, split: str = "test", scorers: Collection[str] = ()
) -> pd.DataFrame:
    """The points: rows of base (texts 0) and of each method that texts names, with the texts it was trained on.

    metrics: the project's metrics columns of one model; texts: {method: number of training texts, >= 1, None for all
    there are, which is infinity in the table}; other methods are left out. scorers: the toxicity scorer to draw.
    Returns COLUMNS. Raises ValueError where a number is below 1, base or every method is missing, two methods share
    texts, strength and steps, or two models, tasks or scorers would be mixed.
    """
    few = {method: number for method, number in texts.items() if number is not None and number < 1}
    if few:
        raise ValueError(f"figure {FIGURE}: {few} are no numbers of training texts; give at least 1 each")
    rows = selection.beside_base(FIGURE, metrics, texts, PANELS, split=split, scorers=scorers)
    rows = rows.assign(
        texts=rows.method.map({method: number or np.inf for method, number in texts.items()}).fillna(0.0),
        rank=rows.metric.map(list(PANELS).index),
        run=pd.to_numeric(rows.seed, errors="coerce"),
    )
    twice = rows[rows.duplicated(["texts", "steps", "strength", "seed", "metric"], keep=False)]
    if len(twice):
        raise ValueError(
            f"figure {FIGURE}: methods {sorted(twice.method.unique())} share {twice.texts.iloc[0]:g} texts; name one"
        )
    return rows.sort_values(["texts", "steps", "strength", "rank", "run"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns. One line a strength, and a number of steps where they differ at a strength."""
    table = table.astype({"seed": str})
    base, steered = table[table.method == "base"], table[table.method != "base"]
    numbers = sorted(steered.texts.unique())
    steered = steered.assign(place=steered.texts.map(numbers.index))
    lines = _lines(steered)
    with style.context():
        figure, axes = marks.stacked(len(PANELS), height=4.2)
        for panel, (metric, label) in zip(axes, PANELS.items(), strict=True):
            marks.level(panel, base[base.metric == metric], colour="black")
            for place, (strength, steps) in enumerate(lines):
                rows = steered[(steered.strength == strength) & (steered.steps == steps) & (steered.metric == metric)]
                marks.curve(panel, rows, "place", **_look(place, len(lines)))
            panel.set_ylabel(label)
            panel.grid(axis="y")
            shown = table[table.metric == metric]
            marks.from_zero(panel, shown) if metric != "perplexity" else marks.log_where_wide(panel, shown)
        axes[-1].set_xticks(range(len(numbers)), map(_number, numbers))
        axes[-1].set_xlim(-0.5, len(numbers) - 0.5)
        axes[-1].set_xlabel("Training texts (number, both classes together)")
        handles = [marks.pooled_handle("unsteered", color="black", marker="", linestyle=(0, (5, 2)))]
        handles += [
            marks.pooled_handle(name, **{"color" if key == "colour" else key: part for key, part in look.items()})
            for look, name in ((_look(place, len(lines)), name) for place, name in enumerate(lines.values()))
        ]
        handles += marks.seed_handle(table)
        marks.legend(figure, handles)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: texts, the numbers of training texts; one_point, empty where there are several."""
    numbers = sorted(table[table.method != "base"].texts.unique())
    return selection.phrases(table, confidence=confidence) | {
        "texts": selection.listed(map(_number, numbers)),
        "one_point": "one number of training texts" if len(numbers) == 1 else "",
    }


def _number(texts: float) -> str:
    return "all" if np.isinf(texts) else f"{texts:,.0f}"


def _lines(steered: pd.DataFrame) -> dict[tuple[float, int], str]:
    """(strength, steps) of each line and its name; steps are named where a strength has several."""
    pairs = steered[["strength", "steps"]].drop_duplicates().sort_values(["strength", "steps"])
    several = pairs.strength.duplicated(keep=False)
    return {
        (strength, steps): f"strength {strength:g}" + (f", {steps:g} steps" if many else "")
        for (strength, steps), many in zip(pairs.itertuples(index=False, name=None), several, strict=True)
    }


def _look(place: int, places: int) -> dict:
    colour = marks.shade(style.colour("lm_steer"), place, places)
    return {"colour": colour, "marker": marks.MARKERS[place % len(marks.MARKERS)]}
