"""SLIM's candidates on the rows that judge: MC2 against kappa, a line a layer that was tried; the pick stands out.

A panel a seed, as each seed tries layers of its own on questions of its own; dashed is the unsteered model on them.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.figures.truthfulness import signed

FIGURE = "slim_kappa"
COLUMNS = ["model", "task", "seed", "layer", "kappa", "value", "unsteered", "by", "questions", "picked"]

_RING = {"linestyle": "none", "marker": "o", "color": "black", "markerfacecolor": "none", "markersize": 9}
_UNSTEERED = {"color": style.colour("base"), "linewidth": 1.2, "linestyle": (0, (5, 2))}


def table(choices: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a seed and candidate, all up; choices: that of SLIM, with its model, method and task.

    Returns COLUMNS. Raises ValueError for other choices than one of SLIM with what its seeds selected, and where a seed
    had no questions to choose by.
    """
    selected = [each for choice in choices for each in choice["selected"].values()]
    if len(choices) != 1 or not selected or not all("unsteered" in each for each in selected):
        methods = [choice["method"] for choice in choices]
        raise ValueError(f"figure {FIGURE}: got choices of {methods}; pass SLIM's alone, with what its seeds selected")
    (choice,) = choices
    for seed, of in choice["selected"].items():
        if of["unsteered"] is None:
            raise ValueError(
                f"figure {FIGURE}: seed {seed} chose by {of['by']}; fit it on rows with answers to judge by"
            )
    rows = pd.concat(
        pd.DataFrame(of["candidates"]).assign(
            seed=int(seed),
            unsteered=of["unsteered"],
            by=of["by"],
            questions=of["groups"],
            picked=[place < of["pick"] for place in range(len(of["candidates"]))],
        )
        for seed, of in choice["selected"].items()
    )
    rows = rows.assign(model=choice["model"], task=choice["task"])
    return rows.sort_values(["seed", "layer", "kappa"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV. A layer looks alike in all panels."""
    seeds, kappas = list(table.groupby("seed")), sorted(table.kappa.unique())
    looks = _looks(table)
    with style.context():
        figure, panels = marks.stacked(len(seeds), height=3.0 if len(seeds) == 1 else 0.9 + 1.25 * len(seeds))
        for panel, (seed, rows) in zip(panels, seeds, strict=True):
            panel.sharey(panels[0])
            panel.axhline(rows.unsteered.iloc[0], **_UNSTEERED)
            for layer, of_layer in rows.groupby("layer"):
                panel.plot(of_layer.kappa, of_layer.value, linewidth=1.4, **looks[layer])  # pyright: ignore
            picked = rows[rows.picked]
            panel.plot(picked.kappa, picked.value, zorder=4, **_RING)
            marks.log_ticks_at(panel, kappas, [f"{kappa:.3g}" for kappa in kappas])
            panel.yaxis.set_major_locator(MaxNLocator(4 if len(seeds) > 1 else 6, steps=[1, 2, 2.5, 5, 10]))
            panel.set_ylabel("MC2 of the\njudging questions" if len(seeds) == 1 else f"MC2,\nseed {seed}")
            panel.grid(axis="y")
            panel.margins(y=0.14)  # room for a ring
        panels[-1].set_xlabel("kappa (multiplier of the constraint's spread)")
        marks.legend(figure, _handles(looks))
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """Phrases: model, task, seeds, questions; picked: each seed's layer and kappa with its gain in MC2."""
    picked = table[table.picked].assign(gain=table.value - table.unsteered)
    said = [
        f"layer {row['layer']}, kappa {row['kappa']:.3g} in seed {row['seed']} ({signed(row['gain'])})"
        for row in picked.to_dict("records")
    ]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "task": selection.listed(table.task.unique()),
        "seeds": selection.counted([table.seed.nunique()], "seed"),
        "by": selection.listed(table.by.unique()),
        "questions": selection.counted(table.questions, "question"),
        "picked": "; ".join(said),
    }


def _looks(table: pd.DataFrame) -> dict[int, dict[str, object]]:
    """Each layer's tint and marker."""
    layers, colour = sorted(table.layer.unique()), style.colour("slim")
    return {
        layer: {
            "color": marks.shade(colour, place, len(layers)),
            "marker": marks.MARKERS[place % len(marks.MARKERS)],
            "linestyle": "-",
            "markersize": style.POOLED_SIZE,
        }
        for place, layer in enumerate(layers)
    }


def _handles(looks: dict[int, dict[str, object]]) -> list:
    handles = [marks.pooled_handle(f"layer {layer}", **look) for layer, look in looks.items()]
    return [
        *handles,
        marks.pooled_handle("unsteered", marker="none", **_UNSTEERED),
        marks.pooled_handle("picked", **_RING),
    ]
