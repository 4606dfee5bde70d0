"""Accuracy of HPR's probes over the layers, on the dev questions that picked layers and on test questions.

Solid is the mean over seeds on test questions with the mean of their intervals as band, thin lines are the seeds,
dashed is the mean on dev questions. Filled points are layers that every seed picked, hollow ones that some did. The
dotted line is guessing.
"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "probe_accuracy"
CHANCE = 0.5  # of a balanced accuracy
COLUMNS = [  # the model and the columns of steerlab.analyses.probes
    "model", "seed", "layer", "dev_accuracy", "test_accuracy", "low", "high", "questions", "states", "picked",
]  # fmt: skip

_NUMBERS = ["dev_accuracy", "test_accuracy", "low", "high"]
_LINE = {"linestyle": "-", "linewidth": 1.6, "marker": "none"}
_DEV = {"linestyle": (0, (4, 2)), "linewidth": 1.2, "marker": "none"}
_CHANCE = {"linestyle": ":", "linewidth": 1.0, "marker": "none", "color": "black"}


def table(accuracies: pd.DataFrame, *, model: str = "") -> pd.DataFrame:
    """The points: each seed's, and their means as seed "all", whose `picked` is the share of seeds that picked it.

    accuracies: as from steerlab.analyses.probes of any number of seeds; model: its name, for the caption.
    Returns COLUMNS, seeds up and then "all", layers up. Raises ValueError where a layer of a seed stands twice, or
    seeds have different layers.
    """
    rows = accuracies.astype({"seed": str, "picked": float})
    if rows.duplicated(["seed", "layer"]).any():
        raise ValueError(f"figure {FIGURE}: a seed's layer stands twice; pass each seed's accuracies once")
    of_seeds = rows.groupby("layer")
    if of_seeds["seed"].nunique().nunique() != 1:
        raise ValueError(f"figure {FIGURE}: the seeds have different layers; pass those of one model")
    means = of_seeds[[*_NUMBERS, "picked", "questions", "states"]].mean().reset_index().assign(seed="all")
    means = means.astype({"questions": int, "states": int})
    order = pd.to_numeric(rows.seed).to_numpy()
    rows = rows.assign(run=order).sort_values(["run", "layer"])
    return pd.concat([rows, means], ignore_index=True).assign(model=model)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str})
    means, seeds = table[table.seed == "all"], table[table.seed != "all"]
    colour = style.colour("hpr")
    with style.context():
        figure, (panel,) = marks.stacked(1, height=3.0)
        panel.axhline(CHANCE, zorder=0, **{key: _CHANCE[key] for key in ("linestyle", "linewidth", "color")})
        if several := seeds.seed.nunique() > 1:
            for _, rows in seeds.groupby("seed"):
                panel.plot(rows.layer, rows.test_accuracy, color=colour, linewidth=0.6, alpha=0.6, zorder=2)
        panel.fill_between(means.layer, means.low, means.high, color=colour, alpha=0.16, linewidth=0, zorder=1)
        panel.plot(means.layer, means.test_accuracy, color=colour, linewidth=_LINE["linewidth"], zorder=3)
        dev = {key: _DEV[key] for key in ("linestyle", "linewidth")}
        panel.plot(means.layer, means.dev_accuracy, color=marks.GREY, zorder=3, **dev)
        for full, rows in means[means.picked > 0].groupby(means.picked == 1):
            panel.plot(
                rows.layer, rows.test_accuracy, "o", color=colour, markersize=style.POOLED_SIZE, zorder=4,
                markerfacecolor=colour if full else "white", markeredgewidth=1.2, linestyle="none",
            )  # fmt: skip
        panel.set_xlabel("Layer (counted from 0)")
        panel.set_ylabel("Balanced accuracy\n(of answers' tokens)")
        panel.grid(axis="y")
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        panel.margins(x=0.03)
        marks.legend(figure, _handles(means, several))
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Phrases: model, seeds, questions, states, interval; picked: the layers, with how many seeds picked them; dev,
    test: mean accuracy at the picked layers of each seed; best: the layer with the most accurate probe on test
    questions, which nobody may pick by."""
    table = table.astype({"seed": str})
    means, seeds = table[table.seed == "all"], table[table.seed != "all"]
    picked = seeds[seeds.picked > 0]
    best = means.sort_values("test_accuracy", kind="stable").iloc[-1]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "seeds": selection.counted([seeds.seed.nunique()], "seed"),
        "questions": selection.counted(table.questions, "test question"),
        "states": f"{int(table.states.max()):,}",
        "interval": selection.interval(confidence, "questions"),
        "picked": _picked(means, seeds.seed.nunique()),
        "dev": f"{picked.dev_accuracy.mean():.3f}" if len(picked) else "",
        "test": f"{picked.test_accuracy.mean():.3f}" if len(picked) else "",
        "best": f"{best.layer:g} ({best.test_accuracy:.3f})",
    }


def _picked(means: pd.DataFrame, seeds: int) -> str:
    """Layers that all seeds picked, then the others with their number of seeds."""
    every = [f"{layer:g}" for layer in means[means.picked == 1].layer]
    some = means[(means.picked > 0) & (means.picked < 1)]
    other = [
        f"{layer:g} ({share * seeds:.0f} of {seeds} seeds)" for layer, share in some[["layer", "picked"]].to_numpy()
    ]
    return selection.listed([*every, *other])


def _handles(means: pd.DataFrame, several: bool) -> list:
    colour = style.colour("hpr")
    handles = [marks.pooled_handle("test questions, with interval", color=colour, **_LINE)]
    if several:
        handles.append(marks.pooled_handle("one seed", color=colour, alpha=0.6, **_LINE | {"linewidth": 0.6}))
    handles.append(marks.pooled_handle("dev questions", **_DEV))
    ring = {"linestyle": "none", "color": colour, "markeredgewidth": 1.2}
    if (means.picked == 1).any():
        handles.append(marks.pooled_handle("picked by every seed" if several else "picked", **ring))
    if ((means.picked > 0) & (means.picked < 1)).any():
        handles.append(marks.pooled_handle("picked by some", markerfacecolor="white", **ring))
    return [*handles, marks.pooled_handle("guessing", **_CHANCE)]
