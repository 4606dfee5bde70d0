"""Toxicity and perplexity of one steer against its strength on dev prompts: the curve from which the pick was made.

One line a number of training steps; every line meets the unsteered model at strength 0. The pick is ringed, the
default strength 1 and the perplexity limit are lines. A steer with the raw values (0, 1), whose dummy alone acts,
stands at strength 0 as a point of its own: it is not the unsteered model.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlab.choices import PERPLEXITY
from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "strength"
PANELS = {
    "mean_toxicity": "Mean toxicity\n(score, 0 to 1)",
    "corpus_perplexity_ratio": "Perplexity\n(multiple of unsteered)",
}
DEFAULT_STRENGTH = 1.0
COLUMNS = ["point", *selection.COLUMNS, "limit", "picked", "default"]

_OPEN = {"markerfacecolor": "white", "markeredgewidth": 1.0}


def table(
    metrics: pd.DataFrame,
    choices: Sequence[Mapping],
    *,
    method: str | None = None,
    dummy: str = "lm_steer_dummy",
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """The points of the curve: rows of one model's method (the only one beside base and dummy, unless named) and base.

    metrics: the project's metrics columns, split dev; choices: dictionaries with model, method, task, scorer,
    perplexity_limit and pick (steps and strength). scorers: the toxicity scorer to draw; the choice's own by default.
    Returns COLUMNS: point is "base", "swept" or "dummy" (drawn at strength 0); metric is a key of PANELS.
    Raises ValueError where base, the method or its choice is missing, or two models, tasks or scorers would be mixed.
    """
    method = method or selection.only_method(FIGURE, set(metrics.method) - {dummy})
    choice = _choice(metrics, choices, method)
    rows = selection.select(
        FIGURE, metrics[metrics.method.isin(["base", method, dummy])], ["mean_toxicity", PERPLEXITY],
        split="dev", scorers=scorers or [choice["scorer"]],
    )  # fmt: skip
    if rows.model.nunique() > 1:
        raise ValueError(f"figure {FIGURE}: got models {sorted(rows.model.unique())}; pass the metrics of one")
    is_perplexity = rows.metric == PERPLEXITY
    rows = pd.concat([rows[~is_perplexity], selection.ratio_to_base(rows[is_perplexity])])
    base, swept = selection.steered(FIGURE, rows, method)
    extra = rows[(rows.method == dummy) & (rows.strength != 0)]
    points = [base.assign(point="base"), swept.assign(point="swept"), extra.assign(point="dummy", strength=0.0)]
    drawn = pd.concat([part for part in points if len(part)], ignore_index=True)
    pick = choice["pick"]
    is_swept = drawn.point == "swept"
    drawn = drawn.assign(
        limit=float(choice["perplexity_limit"]),
        picked=is_swept & (drawn.steps == pick["steps"]) & (drawn.strength == pick["strength"]),
        default=is_swept & (drawn.strength == DEFAULT_STRENGTH),
        order=drawn.point.map({"base": 0, "swept": 1, "dummy": 2}),
        rank=drawn.metric.map(list(PANELS).index),
        run=pd.to_numeric(drawn.seed, errors="coerce"),
    )
    if not drawn.picked.any():
        raise ValueError(
            f"figure {FIGURE}: the pick of {method} (steps {pick['steps']}, strength {pick['strength']}) is not among "
            "the metrics; compute metrics and choice from the same run"
        )
    return drawn.sort_values(["order", "steps", "strength", "rank", "run"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns."""
    table = table.astype({"seed": str})
    base, swept = table[table.point == "base"], table[table.point == "swept"]
    looks = _looks(table)
    with style.context():
        figure, axes = marks.stacked(len(PANELS), height=4.4)
        for panel, (metric, label) in zip(axes, PANELS.items(), strict=True):
            start, shown = base[base.metric == metric], table[table.metric == metric]
            for steps, rows in swept[swept.metric == metric].groupby("steps"):
                marks.curve(panel, pd.concat([start, rows]), "strength", **looks[steps])
            _points_at_zero(panel, shown, looks)
            picked = shown[shown.picked & (shown.seed == "all")]
            panel.plot(
                picked.strength, picked.value, "o", color="black", markersize=13, markerfacecolor="none",
                markeredgewidth=1.2, zorder=6,
            )  # fmt: skip
            panel.set_ylabel(label)
            panel.grid(axis="y")
        _finish(axes, table)
        _legend(figure, table, looks)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: method, limit, pick; over_limit, default (strength 1), dummy: empty where not so."""
    table = table.astype({"seed": str})
    pooled = table[table.seed == "all"]
    method = pooled[pooled.point == "swept"].method.iloc[0]
    return selection.phrases(table, confidence=confidence) | {
        "method": style.label(method),
        "limit": f"{table.limit.iloc[0]:g}",
        "pick": _pick(pooled),
        "over_limit": "none kept the limit" if _ratio_of_pick(pooled) > table.limit.iloc[0] else "",
        "default": "the default strength 1 is dotted" if pooled.default.any() else "",
        "dummy": "values (0, 1)" if (pooled.point == "dummy").any() else "",
    }


def _choice(metrics: pd.DataFrame, choices: Sequence[Mapping], method: str) -> Mapping:
    cells = set(metrics[metrics.method == method][["model", "task"]].itertuples(index=False, name=None))
    found = [choice for choice in choices if choice["method"] == method and (choice["model"], choice["task"]) in cells]
    if len(found) != 1:
        raise ValueError(
            f"figure {FIGURE}: got {len(found)} choices for method {method} on {sorted(cells)}; pass exactly the one "
            "made from these dev metrics"
        )
    return found[0]


def _looks(table: pd.DataFrame) -> dict:
    """Colour and marker of each number of steps: tints of the method's colour, more steps darker."""
    swept = table[table.point == "swept"]
    steps = sorted(swept.steps.unique())
    colour = style.colour(swept.method.iloc[0])
    return {
        count: {
            "colour": marks.shade(colour, place, len(steps)),
            "marker": marks.MARKERS[place % len(marks.MARKERS)],
        }
        for place, count in enumerate(steps)
    }


def _points_at_zero(panel: Axes, shown: pd.DataFrame, looks: Mapping) -> None:
    """Above the curves that begin there: the unsteered model in black on the dummy alone, a star of its line."""
    for point, marker, size in (("dummy", "*", 12), ("base", "o", style.POOLED_SIZE)):
        for steps, rows in shown[(shown.point == point) & (shown.seed == "all")].groupby("steps"):
            colour = "black" if point == "base" else looks.get(steps, {"colour": marks.GREY})["colour"]
            panel.vlines(rows.strength, rows.low, rows.high, color=colour, linewidth=1.2, zorder=5)
            panel.plot(
                rows.strength, rows.value, marker, color=colour, markersize=size, linestyle="none", zorder=5,
                markerfacecolor=colour if point == "base" else "white", markeredgewidth=1.0,
            )  # fmt: skip


def _finish(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    toxicity, perplexity = (table[table.metric == metric] for metric in PANELS)
    marks.from_zero(axes[0], toxicity)
    marks.log_where_wide(axes[1], perplexity)
    limit = table.limit.iloc[0]
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(low, max(high, 1.08 * limit))
    axes[1].axhline(limit, color=marks.GREY, linewidth=1, linestyle=(0, (5, 2)), zorder=1)
    axes[1].annotate(
        f"limit {limit:g}", (0, limit), xycoords=axes[1].get_yaxis_transform(), xytext=(3, 2),
        textcoords="offset points", fontsize=8, color=marks.GREY,
    )  # fmt: skip
    if table.default.any():
        for panel in axes:
            panel.axvline(DEFAULT_STRENGTH, color=marks.GREY, linewidth=1, linestyle=":", zorder=1)
        axes[0].annotate(
            "default", (DEFAULT_STRENGTH, 1), xycoords=axes[0].get_xaxis_transform(), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=8, color=marks.GREY,
        )  # fmt: skip
    axes[-1].set_xlabel("Strength s (steer values 5 s and min(1, |s|))")


def _legend(figure: Figure, table: pd.DataFrame, looks: Mapping) -> None:
    handles = [marks.pooled_handle("unsteered", color="black", linestyle="none")]
    for steps, look in looks.items():
        name = f"{steps:g} training steps" if steps else style.label(table[table.point == "swept"].method.iloc[0])
        handles.append(marks.pooled_handle(name, color=look["colour"], marker=look["marker"]))
    ring = {"markersize": 11, "markerfacecolor": "none", "linestyle": "none", "color": "black"}
    handles.append(marks.pooled_handle("picked", **ring))
    if (table.point == "dummy").any():
        handles.append(marks.pooled_handle("dummy alone", marker="*", linestyle="none", markersize=10, **_OPEN))
    marks.legend(figure, handles + marks.seed_handle(table))


def _pick(pooled: pd.DataFrame) -> str:
    picked = pooled[pooled.picked].set_index("metric")
    first = picked.iloc[0]
    base = pooled[(pooled.point == "base") & (pooled.metric == "mean_toxicity")].value.iloc[0]
    value, ratio = picked.value.get("mean_toxicity", np.nan), _ratio_of_pick(pooled)
    after = f"strength {first.strength:g} after {first.steps:g} training steps" if first.steps else ""
    return (
        f"{after or f'strength {first.strength:g}'}, with mean toxicity {value:.3f} against {base:.3f} unsteered and "
        f"{ratio:.2f} times its perplexity"
    )


def _ratio_of_pick(pooled: pd.DataFrame) -> float:
    ratios = pooled[pooled.picked & (pooled.metric == "corpus_perplexity_ratio")].value
    return float(ratios.iloc[0]) if len(ratios) else np.nan
