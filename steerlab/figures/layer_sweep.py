"""One adapted block after the other, on dev prompts: toxicity and perplexity by the block, beside the unsteered model.

A large point is the value over all seeds, the band its interval, small points are the seeds. The middle third of the
depth is shaded; the ring is the block that the rule picks there.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "cogsteer_layers"
PANELS = {"mean_toxicity": "Mean toxicity\n(score, 0 to 1)", "perplexity": "Perplexity\n(per token)"}
COLUMNS = ["layer", "is_middle", "is_picked", *selection.COLUMNS]

METHOD = "cogsteer"


def table(
    metrics: pd.DataFrame,
    choices: Sequence[Mapping[str, Any]],
    layers: Mapping[str, int],
    *,
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """The rows drawn: base, then the blocks up.

    metrics: the project's metrics columns of one model on dev prompts; layers: {variant: the block that it adapts};
    others are left out. choices: the one that `layer_choices.by_sweep` made of them. scorers: the toxicity scorer.
    Returns COLUMNS: layer is -1 for base; is_picked: by the rule validation_middle.
    Raises ValueError for other choices than one, and as `selection.beside_base` does.
    """
    if len(choices) != 1:
        raise ValueError(f"figure {FIGURE}: got {len(choices)} choices; pass the one that was made of these blocks")
    rows = selection.beside_base(FIGURE, metrics, layers, PANELS, split="dev", scorers=scorers)
    layer, (first, stop) = rows.method.map({"base": -1} | dict(layers)), choices[0]["middle"]
    is_picked = layer == choices[0]["picks"]["validation_middle"]
    rows = rows.assign(layer=layer, is_middle=layer.between(first, stop - 1), is_picked=is_picked)
    return rows.sort_values(["layer", "metric", "strength", "seed"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str})
    blocks, colour = table[table.layer >= 0], style.colour(METHOD)
    middle = blocks[blocks.is_middle].layer
    with style.context():
        figure, axes = marks.stacked(len(PANELS), height=3.8)
        for panel, (metric, label) in zip(axes, PANELS.items(), strict=True):
            rows = blocks[blocks.metric == metric]
            panel.axvspan(middle.min() - 0.5, middle.max() + 0.5, color="#EEEEEE", linewidth=0, zorder=-1)
            marks.level(panel, table[(table.layer < 0) & (table.metric == metric)], colour=style.colour("base"))
            marks.curve(panel, rows, "layer", colour=colour)
            picked = rows[rows.is_picked & (rows.seed == "all")]
            panel.plot(
                picked.layer, picked.value, "o", color="black", markersize=2 * style.POOLED_SIZE,
                markerfacecolor="none", markeredgewidth=1.2, zorder=5,
            )  # fmt: skip
            panel.set_ylabel(label)
            panel.grid(axis="y")
            marks.log_where_wide(panel, table[table.metric == metric])
        axes[-1].set_xlabel("Adapted block (counted from 0)")
        axes[-1].xaxis.set_major_locator(MaxNLocator(10, integer=True))
        ring = {"linestyle": "none", "color": "black", "markerfacecolor": "none", "markersize": 2 * style.POOLED_SIZE}
        handles = [
            marks.pooled_handle("CogSteer", color=colour),
            marks.pooled_handle(style.label("base"), marker="none", color=style.colour("base"), linestyle=(0, (5, 2))),
            marks.pooled_handle("picked", **ring),
            *marks.seed_handle(blocks),
        ]
        marks.legend(figure, handles)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: picked, the block; best, the block with the least toxicity of all that were tried."""
    pooled = table[(table.seed.astype(str) == "all") & (table.layer >= 0) & (table.metric == "mean_toxicity")]
    best = pooled.sort_values(["value", "layer"]).layer.iloc[0]
    return selection.phrases(table, confidence=confidence) | {
        "picked": selection.listed(pooled[pooled.is_picked].layer),
        "best": str(best),
        "blocks": selection.counted([len(pooled)], "block"),
    }
