"""What steers do to the norms of hidden states, layer by layer: at their edits, and in the stream behind them.

Above, the norm that an edit leaves as a multiple of the one that it was given, a point a layer that is edited; below,
the norm of each block's output as a multiple of the unsteered model's at the same token. Every method has a marker of
its own; random controls are hollow and dashed, with the marker and in the pale colour of their method.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "norm_consistency"
EDIT, STREAM = "edit", "stream"
PANELS = {EDIT: "At the edit\n(|x'| / |x|)", STREAM: "Block output\n(multiple of unsteered)"}
COLUMNS = [  # the model, the columns of steerlab.analyses.norms, and kept: whether the norm is
    "model", "kind", "method", "seed", "strength", "site", "layer", "norm", "base_norm", "ratio", "low", "high",
    "deviation", "changed", "size", "prompts", "tokens", "kept",
]  # fmt: skip

_MARKED_EVERY = 8  # layers between a line's markers
_LOG_FROM = 4  # largest over smallest ratio from which an axis is logarithmic


def table(norms: pd.DataFrame, *, model: str = "", rounding: float = 1e-4) -> pd.DataFrame:
    """The rows of steerlab.analyses.norms, of layers, with COLUMNS: methods in the style's order, edits first.

    model: its name, for the caption. rounding: of the model's precision; a mean deviation below it keeps the norm.
    Raises ValueError where there is nothing, or a method has several seeds or strengths.
    """
    if norms.empty:
        raise ValueError(f"figure {FIGURE}: no norms were measured; pass those of a steer")
    several = norms.groupby("method")[["seed", "strength"]].nunique().max(axis=1)
    if (several > 1).any():
        raise ValueError(f"figure {FIGURE}: {several.idxmax()} has several seeds or strengths; pass one of each")
    rows = norms.assign(place=norms.method.map(style.rank), rank=norms.kind.map(list(PANELS).index), model=model)
    rows = rows[rows.layer.notna()]  # an edit of what the head reads has no place on the axis
    rows["kept"] = rows.deviation < rounding
    return rows.sort_values(["place", "method", "rank", "layer"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    with style.context():
        figure, axes = marks.stacked(len(PANELS), height=4.6)
        for panel, (kind, label) in zip(axes, PANELS.items(), strict=True):
            shown = table[table.kind == kind]
            panel.axhline(1, color="black", linewidth=0.8, linestyle=":", zorder=0)
            for method, rows in shown.groupby("method", sort=False):
                _draw(panel, rows, str(method), joined=kind == STREAM)
            _finish(panel, label, shown)
        axes[-1].set_xlabel("Layer (counted from 0)")
        axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
        marks.legend(figure, _handles(table))
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Phrases: model, prompts, tokens, interval; controls: "yes" where any are drawn; kept: the methods whose edits
    keep the norm, edits: by how much those of the others change it; no_edits: the methods without any; behind: the last
    block's output of each."""
    names = {method: style.row_label(method, strength) for method, strength in _methods(table)}
    edits, stream = (table[table.kind == kind] for kind in PANELS)
    deviation = edits.groupby("method", sort=False)["deviation"].max()
    mean = edits.groupby("method", sort=False)["deviation"].mean()
    last = stream[stream.layer == stream.layer.max()]
    kept = deviation[edits.groupby("method", sort=False)["kept"].all()]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "prompts": selection.counted(table.prompts, "dev prompt"),
        "tokens": f"{int(table.tokens.max()):,}",
        "interval": selection.interval(confidence, "prompts"),
        "controls": "yes" if any(method.startswith(style.RANDOM) for method in names) else "",
        "kept": "; ".join(
            f"{names[str(method)]} ({value:.1g} on average at the layer that changes it most)"
            for method, value in kept.items()
        ),
        "edits": "; ".join(
            f"{names[method]}: {_percent(value)}"  # pyright: ignore
            for method, value in mean.items()
            if method not in kept
        ),
        "no_edits": "; ".join(names[method] for method in names if method not in mean),
        "behind": "; ".join(f"{names[row.method]}: {row.ratio:.3f}" for row in last.itertuples()),  # pyright: ignore
    }


def _methods(table: pd.DataFrame) -> list[tuple[str, float]]:
    return list(table[["method", "strength"]].drop_duplicates().itertuples(index=False, name=None))  # pyright: ignore


def _look(method: str) -> dict[str, Any]:
    """Controls are hollow and a little larger, so that they show around the point of their method."""
    control = method.startswith(style.RANDOM)
    return {
        "color": style.colour(method), "marker": style.marker(method), "markeredgewidth": 1.2, "linewidth": 1.2,
        "markersize": style.POOLED_SIZE + (2 if control else -1.5), "linestyle": (0, (3, 1.5)) if control else "-",
        "markerfacecolor": "none" if control else style.colour(method), "zorder": 2 if control else 3,
    }  # fmt: skip


def _draw(panel: Axes, rows: pd.DataFrame, method: str, *, joined: bool) -> None:
    look = _look(method)
    if joined:  # every layer has a point, so that a line shows them; its markers are some of them, for those to tell
        first, step = style.rank(method) % _MARKED_EVERY, min(_MARKED_EVERY, len(rows))
        panel.plot(rows.layer, rows.ratio, **look, markevery=(min(first, len(rows) - 1), step))
        panel.fill_between(rows.layer, rows.low, rows.high, color=look["color"], alpha=0.16, linewidth=0, zorder=1)
    else:
        panel.vlines(rows.layer, rows.low, rows.high, color=look["color"], linewidth=1.0, zorder=2)
        panel.plot(rows.layer, rows.ratio, **{**look, "linestyle": "none"})


def _finish(panel: Axes, label: str, shown: pd.DataFrame) -> None:
    panel.set_ylabel(label)
    panel.grid(axis="y")
    panel.margins(x=0.03)
    top, bottom = shown[["ratio", "high"]].max().max(), shown[["ratio", "low"]].min().min()
    if top > _LOG_FROM * bottom > 0:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=8))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        # Room around 1, so that rounding does not look like an effect.
        around = 1.12 * max(top - 1, 1 - bottom, 0.02)
        panel.set_ylim(1 - around if bottom < 1 - 0.1 * around else 1 - 0.15 * around, 1 + around)
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _handles(table: pd.DataFrame) -> list:
    """A line a method; one for all controls, whose colours say whose they are."""
    methods = _methods(table)
    handles = [
        marks.pooled_handle(style.row_label(method, strength), **_look(method))
        for method, strength in methods
        if not method.startswith(style.RANDOM)
    ]
    if any(method.startswith(style.RANDOM) for method, _ in methods):
        handles.append(
            marks.pooled_handle("random control", **_look(style.RANDOM) | {"color": "#AAAAAA", "marker": "o"})
        )
    return handles


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:,.0f} %" if percent >= 10 else f"{percent:.2g} %"
