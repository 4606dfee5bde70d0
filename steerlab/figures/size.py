"""Toxicity of unsteered and steered models against their size, and the share of parameters that a steer adds."""

from collections.abc import Collection

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "size"
TOXICITY = "Mean toxicity\n(score, 0 to 1)"
SHARE = "Learnable\n(% of the model)"
COLUMNS = [*selection.COLUMNS, "learnable", "model_parameters", "share"]

_ASIDE = 1.03  # factor by which points of one model are moved apart, so that their intervals do not cover each other


def table(
    metrics: pd.DataFrame,
    parameters: pd.DataFrame,
    *,
    method: str = "lm_steer",
    split: str = "test",
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """The points: mean toxicity of base and method for each model, with its size and the steer's.

    metrics: the project's metrics columns of any number of models; parameters: one row a (model, method): model,
    method, learnable (numbers in the steer), model_parameters. scorers: the toxicity scorer to draw.
    Returns COLUMNS: learnable is 0 for base; share = learnable / model_parameters.
    Raises ValueError where a model lacks base, the method or its parameters, or two tasks or scorers would be mixed.
    """
    rows = selection.select(
        FIGURE, metrics[metrics.method.isin(["base", method])], ["mean_toxicity"], split=split, scorers=scorers
    )
    rows = rows[(rows.method == "base") | (rows.strength != 0)]
    for model, part in rows[rows.seed == "all"].groupby("model"):
        absent = {"base", method} - set(part.method)
        if absent:
            raise ValueError(f"figure {FIGURE}: no rows of {sorted(absent)} on model {model}; pass their metrics too")
    sizes = parameters[parameters.method == method].set_index("model")
    unknown = sorted(set(rows.model) - set(sizes.index))
    if unknown or sizes.index.has_duplicates:
        what = f"lack {method} on {unknown}" if unknown else f"hold a model twice for {method}"
        raise ValueError(f"figure {FIGURE}: the parameters {what}; give one row a model")
    several = rows[rows.duplicated(["model", "method", "strength", "seed"])]
    if len(several):
        raise ValueError(
            f"figure {FIGURE}: {method} on {several.model.iloc[0]} has several numbers of steps at strength "
            f"{several.strength.iloc[0]:g}; pass one"
        )
    is_base = (rows.method == "base").to_numpy()
    rows = rows.assign(
        learnable=np.where(is_base, 0, rows.model.map(sizes.learnable).to_numpy()),
        model_parameters=rows.model.map(sizes.model_parameters),
        order=np.where(is_base, 0, 1),
        run=pd.to_numeric(rows.seed, errors="coerce"),
    )
    rows = rows.assign(share=rows.learnable / rows.model_parameters)
    keys = ["model_parameters", "model", "order", "strength", "steps", "run"]
    return rows.sort_values(keys, ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns. One line a strength; with one model there are points and a note, no line."""
    table = table.astype({"seed": str})
    models = table.drop_duplicates("model")
    lines = _lines(table)
    with style.context():
        figure, axes = marks.stacked(2, height=3.9, ratios=(2.2, 1))
        for place, key in enumerate(lines):
            rows = table[_line_of(table) == key]
            aside = _ASIDE ** (place - (len(lines) - 1) / 2)
            marks.curve(axes[0], rows.assign(x=rows.model_parameters * aside), "x", **_look(place, len(lines)))
        marks.from_zero(axes[0], table)
        _shares(axes[1], table[table.method != "base"].drop_duplicates("model"))
        for panel, label in zip(axes, (TOXICITY, SHARE), strict=True):
            panel.set_ylabel(label)
            panel.grid(axis="y")
        if len(models) == 1:
            axes[0].text(
                0.02, 0.04, "one model: no trend", transform=axes[0].transAxes, fontsize=8, fontstyle="italic",
                color=marks.GREY,
            )  # fmt: skip
        names = [f"{model}\n{_millions(size)}" for model, size in models[["model", "model_parameters"]].to_numpy()]
        marks.log_ticks_at(axes[-1], list(models.model_parameters), names)
        if len(models) > 1:
            axes[-1].tick_params(axis="x", rotation=30)
        axes[-1].set_xlabel("Model (parameters)")
        handles = [
            marks.pooled_handle(
                name, color=_look(place, len(lines))["colour"], marker=_look(place, len(lines))["marker"]
            )
            for place, name in enumerate(lines.values())
        ]
        handles += marks.seed_handle(table)
        marks.legend(figure, handles)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: method; learnable, each model's steer in numbers; one_point, empty with several."""
    steers = table[table.method != "base"].drop_duplicates("model")
    learnable = [
        f"{learnable:,.0f} of {model}'s {total:,.0f} ({100 * learnable / total:.2g} %)"
        for model, learnable, total in steers[["model", "learnable", "model_parameters"]].to_numpy()
    ]
    return selection.phrases(table, confidence=confidence) | {
        "method": style.label(steers.method.iloc[0]),
        "learnable": selection.listed(learnable),
        "one_point": "one model" if len(steers) == 1 else "",
    }


def _line_of(table: pd.DataFrame) -> pd.Series:
    return table.method.where(table.method == "base", table.strength.map("{:g}".format))


def _lines(table: pd.DataFrame) -> dict[str, str]:
    """Each line's key and name: base, then the strengths, up."""
    steered = table[table.method != "base"]
    names = {
        f"{strength:g}": style.row_label(steered.method.iloc[0], strength)
        for strength in sorted(steered.strength.unique())
    }
    return {"base": style.label("base")} | names


def _look(place: int, places: int) -> dict:
    """Base is black; strengths are tints of LM-Steer's colour."""
    colour = "black" if place == 0 else marks.shade(style.colour("lm_steer"), place - 1, places - 1)
    return {"colour": colour, "marker": marks.MARKERS[place % len(marks.MARKERS)]}


def _shares(panel: Axes, steers: pd.DataFrame) -> None:
    percent = 100 * steers.share
    panel.plot(steers.model_parameters, percent, "o", color=style.colour("lm_steer"), markersize=style.POOLED_SIZE)
    for x, y in zip(steers.model_parameters, percent, strict=True):
        panel.annotate(f"{y:.2g} %", (x, y), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8)
    panel.set_ylim(0, 1.7 * percent.max())


def _millions(number: float) -> str:
    return f"{number / 1e9:.3g} B" if number >= 1e9 else f"{number / 1e6:.3g} M"
