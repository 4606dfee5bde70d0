"""SLIM's candidates on the rows that judge: MC2 against kappa, a line a layer that was tried; the pick stands out.

Lines are means over the seeds that tried the layer, small points the seeds; dashed is the unsteered model.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from steerlab.figures import marks, selection, style

FIGURE = "slim_kappa"
COLUMNS = ["model", "task", "seed", "layer", "kappa", "value", "unsteered", "questions", "picked"]


def table(choices: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a seed and candidate; choices: that of SLIM, with its model, method and task.

    Raises ValueError for other choices than one of SLIM whose kappa was chosen by questions.
    """
    if len(choices) != 1 or any(each.get("unsteered") is None for each in choices[0]["selected"].values()):
        raise ValueError(f"figure {FIGURE}: got {len(choices)} choices; pass the one of SLIM, chosen by questions")
    (choice,) = choices
    rows = pd.concat(
        pd.DataFrame(of["candidates"]).assign(
            seed=seed,
            unsteered=of["unsteered"],
            questions=of["groups"],
            picked=[place < of["pick"] for place in range(len(of["candidates"]))],
        )
        for seed, of in choice["selected"].items()
    )
    rows = rows.assign(model=choice["model"], task=choice["task"])
    return rows.sort_values(["seed", "layer", "kappa"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    colour, layers = style.colour("slim"), sorted(table.layer.unique())
    with style.context():
        figure, (panel,) = marks.stacked(1, height=3.0)
        panel.axhline(table.unsteered.mean(), color=style.colour("base"), linewidth=1.2, linestyle=(0, (5, 2)))
        for place, layer in enumerate(layers):
            rows, shade = table[table.layer == layer], marks.shade(colour, place, len(layers))
            means = rows.groupby("kappa")["value"].mean()
            marker = marks.MARKERS[place % len(marks.MARKERS)]
            panel.plot(means.index, means, "-", color=shade, linewidth=1.4, marker=marker, markersize=style.POOLED_SIZE)
            panel.plot(rows.kappa, rows.value, marker, color=shade, markersize=style.SEED_SIZE, alpha=0.6)
        picked = table[table.picked]
        panel.plot(
            picked.kappa, picked.value, "o", color="black", markerfacecolor="none", markersize=9, linestyle="none"
        )
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(FixedLocator(sorted(table.kappa.unique())))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.set_xlabel("kappa (multiplier of the constraint's spread)")
        panel.set_ylabel("MC2\n(on the judging questions)")
        panel.grid(axis="y")
        marks.legend(figure, _handles(layers))
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """Phrases: model, task, seeds, questions; picked: each seed's layer and kappa with its gain in MC2."""
    picked = table[table.picked].assign(gain=table.value - table.unsteered)
    said = [
        f"layer {row.layer:g}, kappa {row.kappa:g} in seed {row.seed} ({row.gain:+.3f})" for row in picked.itertuples()
    ]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "task": selection.listed(table.task.unique()),
        "seeds": selection.counted([table.seed.nunique()], "seed"),
        "questions": selection.counted(table.questions, "question"),
        "picked": "; ".join(said),
    }


def _handles(layers: Sequence[int]) -> list:
    colour = style.colour("slim")
    looks = [(marks.shade(colour, place, len(layers)), marks.MARKERS[place % 6]) for place in range(len(layers))]
    handles = [
        marks.pooled_handle(f"layer {layer:g}", color=shade, marker=marker, linestyle="-")
        for layer, (shade, marker) in zip(layers, looks)
    ]
    handles.append(marks.pooled_handle("unsteered", marker="none", color=style.colour("base"), linestyle=(0, (5, 2))))
    ring = {"linestyle": "none", "color": "black", "markerfacecolor": "none", "markersize": 9}
    return [*handles, marks.pooled_handle("picked by a seed", **ring)]
