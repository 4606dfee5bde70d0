"""SLIM's classifiers layer by layer, on the rows that judge: their risk, and what a layer's vote misses and alarms.

In colour the risk: thick is the mean over seeds, thin lines are the seeds, filled points are layers that every seed
steers, hollow ones those that some do. In grey the mean rates of the vote.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style

FIGURE = "slim_layers"
COLUMNS = ["model", "task", "seed", "layer", "risk", "fpr", "fnr", "threshold", "picked"]

_VOTE = {"fpr": ("false alarms of the vote", "-"), "fnr": ("misses of the vote", (0, (4, 2)))}


def table(choices: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The points: each seed's, and their means as seed "all", whose `picked` is the share of seeds that steer there.

    choices: that of SLIM, with its model, method and task. risk: mean over heads of FPR + bl FNR; fpr, fnr, threshold:
    of the layer's vote. Returns COLUMNS, seeds up and then "all", layers up. Raises ValueError for other choices than
    one of SLIM with what its seeds selected.
    """
    selected = [each for choice in choices for each in choice["selected"].values()]
    if len(choices) != 1 or not selected or not all("classifiers" in each for each in selected):
        methods = [choice["method"] for choice in choices]
        raise ValueError(f"figure {FIGURE}: got choices of {methods}; pass SLIM's alone, with what its seeds selected")
    (choice,) = choices
    rows = pd.concat(
        pd.DataFrame(of_seed["classifiers"]).assign(
            seed=seed, picked=lambda rows, of=of_seed: rows.layer.isin(of["candidates"][0]["layers"]).astype(float)
        )
        for seed, of_seed in sorted(choice["selected"].items(), key=lambda item: int(item[0]))
    )
    means = rows.groupby("layer")[["risk", "fpr", "fnr", "threshold", "picked"]].mean().reset_index().assign(seed="all")
    return pd.concat([rows, means], ignore_index=True).assign(model=choice["model"], task=choice["task"])[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str})
    means, seeds = table[table.seed == "all"], table[table.seed != "all"]
    colour = style.colour("slim")
    with style.context():
        figure, (above, below) = marks.stacked(2, height=3.6)
        if several := seeds.seed.nunique() > 1:
            for _, rows in seeds.groupby("seed"):
                above.plot(rows.layer, rows.risk, color=colour, linewidth=0.6, alpha=0.6)
        above.plot(means.layer, means.risk, color=colour, linewidth=1.6)
        for full, rows in means[means.picked > 0].groupby(means.picked == 1):
            above.plot(
                rows.layer, rows.risk, "o", color=colour, markersize=style.POOLED_SIZE, markeredgewidth=1.2,
                markerfacecolor=colour if full else "white", zorder=4,
            )  # fmt: skip
        for column, (_, line) in _VOTE.items():
            below.plot(means.layer, means[column], color=marks.GREY, linewidth=1.4, linestyle=line)
        above.set_ylabel("Risk of a head\n(FPR + bl FNR)")
        below.set_ylabel("Rate of the vote\n(share of rows)")
        below.set_xlabel("Layer (counted from 0)")
        below.set_ylim(0, None)
        for panel in (above, below):
            panel.grid(axis="y")
            panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
            panel.margins(x=0.03)
        marks.legend(figure, _handles(means, several))
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """Phrases: model, task, seeds; picked: each seed's layer with its vote; open: how many votes, of how many, are
    always open, as tau is 0; empty where none is."""
    seeds = table.astype({"seed": str}).query("seed != 'all'")
    picked = seeds[seeds.picked > 0]
    said = [
        f"layer {row['layer']} from {selection.counted([row['threshold']], 'vote')} on in seed {row['seed']} "
        f"(alarms {row['fpr']:.2f}, misses {row['fnr']:.2f})"
        for row in picked.to_dict("records")
    ]
    always_open = int((seeds.threshold == 0).sum())
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "task": selection.listed(table.task.unique()),
        "seeds": selection.counted([seeds.seed.nunique()], "seed"),
        "picked": "; ".join(said),
        "open": f"{always_open} of {len(seeds)}" if always_open else "",
    }


def _handles(means: pd.DataFrame, several: bool) -> list:
    colour = style.colour("slim")
    plain = {"marker": "none", "color": colour}
    handles = [marks.pooled_handle("risk, mean over seeds" if several else "risk", **plain, linewidth=1.6)]
    if several:
        handles.append(marks.pooled_handle("risk, one seed", **plain, linewidth=0.6, alpha=0.6))
    ring = {"linestyle": "none", "color": colour, "markeredgewidth": 1.2}
    if (means.picked == 1).any():
        handles.append(marks.pooled_handle("steered by every seed" if several else "steered", **ring))
    if ((means.picked > 0) & (means.picked < 1)).any():
        handles.append(marks.pooled_handle("steered by some", markerfacecolor="white", **ring))
    grey = {"marker": "none", "linewidth": 1.4}
    return [*handles, *(marks.pooled_handle(name, **grey, linestyle=line) for name, line in _VOTE.values())]
