"""How a model's layers go with readers' eye movements: the curve that a layer is chosen by, and what stands behind it.

Above, the mean over features and corpora of |Spearman| with its interval, each corpus thin, what chance gives as a grey
band, and dashed the same without the sentences' first words. In the middle the features one by one, below what length
and log frequency leave of the mean. Shaded is the middle third of the depth, a ring marks the layer picked in it.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from steerlab.data.eye_tracking import FEATURES
from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.eye_tracking import COLUMNS as CURVES
from steerlab.metrics.eye_tracking import EMBEDDINGS, INNER, MEAN, PARTIAL, POOLED, SPEARMAN

FIGURE = "eye_tracking"
RULE = "middle_peak"
COLUMNS = ["model", *CURVES, "middle", "picked"]

_THIRD, _CHANCE = "#EFEFEF", "#BDBDBD"
_CORPORA = (
    "#332288",
    "#44AA99",
    "#CC6677",
    "#661100",
)  # of Tol's muted scheme, in the order of the corpora: no method's
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))  # in the order of the features
_TITLES = {"provo": "Provo", "zuco_nr": "ZuCo NR", "zuco_tsr": "ZuCo TSR", "geco": "GECO"}
_INNER = {"color": "black", "linestyle": (0, (4, 2)), "linewidth": 1.0}
_RING = {"marker": "o", "color": "none", "markeredgecolor": "black", "markeredgewidth": 1.2, "markersize": 8}


def table(curves: pd.DataFrame, choice: Mapping[str, Any], *, model: str = "") -> pd.DataFrame:
    """The rows that are drawn, with COLUMNS: over all corpora, and of each the MEAN of SPEARMAN; layers up.

    curves: as from steerlab.metrics.eye_tracking; choice: the layers picked by them (steerlab.layer_choices); model:
    its name, for the caption. middle: whether a layer is of the middle third; picked: whether RULE names it.
    Raises ValueError where the choice was made of other curves.
    """
    blocks, named = set(curves["layer"]) - {EMBEDDINGS}, choice["picks"][RULE]
    if blocks != {one["layer"] for one in choice["candidates"]}:
        raise ValueError(f"figure {FIGURE}: the choice has other layers than the curves; choose the layer again")
    mean, of_ranks = curves["feature"] == MEAN, curves["measure"] == SPEARMAN
    over_all = (curves["corpus"] == POOLED) | (curves["corpus"].nunique() == 1)
    drawn = (mean & of_ranks) | (over_all & of_ranks) | (over_all & mean & curves["measure"].isin([PARTIAL, INNER]))
    shown = curves[drawn].sort_values(["corpus", "measure", "feature", "layer"])
    marked = {"middle": shown["layer"].isin(choice["buckets"]["middle"]), "picked": shown["layer"] == named}
    return shown.assign(model=model, **marked)[COLUMNS].reset_index(drop=True)


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    with style.context():
        figure, (above, features, below) = marks.stacked(3, height=6.0, ratios=(1.5, 1.1, 1.0))
        _curve(above, table, SPEARMAN)
        of_inner = _of(table, INNER)
        above.plot(of_inner["layer"], of_inner["value"], zorder=3, **_INNER)
        for place, corpus in enumerate(_alone(table)):
            rows = _of(table, SPEARMAN, corpus=corpus)
            above.plot(rows["layer"], rows["value"], color=_CORPORA[place % len(_CORPORA)], linewidth=0.8, zorder=2)
        for name, dashes in zip(FEATURES, _DASHES):
            rows = _of(table, SPEARMAN, feature=name)
            features.plot(rows["layer"], rows["value"].abs(), color="black", linestyle=dashes, linewidth=1.0)
        _curve(below, table, PARTIAL)
        labels = (
            "Mean of |Spearman|",
            "|Spearman|\nof each feature",
            "Mean of |Spearman|\ngiven length and\nfrequency",
        )
        for panel, label in zip((above, features, below), labels, strict=True):
            _axes(panel, table, label)
        below.set_xlabel("Block (counted from 0; E: embeddings)")
        above_it = {"loc": "lower center", "bbox_to_anchor": (0.46, 0.98), "ncols": 2}
        features.legend(handles=_handles_of_features(), handlelength=2.4, labelspacing=0.25, **above_it)
        marks.legend(figure, _handles(table))
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Phrases: model; corpora, with words, sentences and how many are left out; interval; picked: the layer with its
    numbers; alone: what each corpus by itself would pick; inner: the pick without first words; partial, chance: of the
    picked layer; embeddings: their mean."""
    picked = table[table["picked"]]
    row, partial = (_one(picked, measure) for measure in (SPEARMAN, PARTIAL))
    corpora = _alone(table) or list(dict.fromkeys(table["corpus"]))
    embeddings = _of(table, SPEARMAN)
    return {
        "model": selection.listed(table["model"].dropna().unique()),
        "corpora": selection.listed(_counted(table, corpus) for corpus in corpora),
        "several": "yes" if len(corpora) > 1 else "",
        "interval": selection.interval(confidence, "sentences"),
        "share": f"{100 * confidence:g} %",
        "picked": str(row["layer"]),
        "value": f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
        "p": _p(row["p_holm"]),
        "alone": ", ".join(f"{_peak(table, SPEARMAN, corpus)} by {_title(table, corpus)}" for corpus in corpora),
        "inner": str(_peak(table, INNER)),
        "partial": f"{partial['value']:.3f}",
        "partial_p": _p(partial["p_holm"]),
        "embeddings": f"{embeddings[embeddings['layer'] == EMBEDDINGS]['value'].iloc[0]:.3f}",
    }


def _curve(panel: Axes, table: pd.DataFrame, measure: str) -> None:
    """The mean over features with its interval, chance, and a ring about the picked layer."""
    rows = _of(table, measure)
    panel.fill_between(rows["layer"], rows["chance_low"], rows["chance_high"], color=_CHANCE, linewidth=0, zorder=1)
    if rows["low"].notna().any():
        panel.fill_between(rows["layer"], rows["low"], rows["high"], color="black", alpha=0.2, linewidth=0, zorder=2)
    panel.plot(rows["layer"], rows["value"], color="black", linewidth=1.6, zorder=4)
    picked = rows[rows["picked"]]
    panel.plot(picked["layer"], picked["value"], linestyle="none", zorder=5, **_RING)  # pyright: ignore


def _axes(panel: Axes, table: pd.DataFrame, label: str) -> None:
    middle = table[table["middle"]]["layer"]
    panel.axvspan(middle.min() - 0.5, middle.max() + 0.5, color=_THIRD, linewidth=0, zorder=0)
    panel.set_ylabel(label)
    panel.set_ylim(bottom=0)
    panel.grid(axis="y")
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    panel.set_xlim(EMBEDDINGS - 0.5, table["layer"].max() + 0.5)
    step = max(1, round((table["layer"].max() + 1) / 6))
    blocks = range(0, int(table["layer"].max()) + 1, step)
    panel.set_xticks([EMBEDDINGS, *blocks], ["E", *map(str, blocks)])


def _handles(table: pd.DataFrame) -> list[Line2D]:
    handles = [
        Line2D([], [], color="black", linewidth=1.6, label="mean over features, with interval"),
        *(
            Line2D([], [], color=_CORPORA[place % len(_CORPORA)], linewidth=0.8, label=f"{_title(table, corpus)} alone")
            for place, corpus in enumerate(_alone(table))
        ),
        Line2D([], [], label="without first words", **_INNER),  # pyright: ignore
        Line2D([], [], linestyle="none", label="picked layer", **_RING),  # pyright: ignore
    ]
    patches = [Patch(color=_CHANCE, label="chance"), Patch(color=_THIRD, label="middle third")]
    return [*handles, *patches]  # pyright: ignore[reportReturnType]


def _handles_of_features() -> list[Line2D]:
    return [
        Line2D([], [], color="black", linestyle=dashes, linewidth=1.0, label=label)
        for label, dashes in zip(FEATURES.values(), _DASHES)
    ]


def _of(table: pd.DataFrame, measure: str, *, feature: str = MEAN, corpus: str | None = None) -> pd.DataFrame:
    """The curve of a measure, over all corpora unless one is named, layers up."""
    corpus = corpus or (POOLED if POOLED in set(table["corpus"]) else table["corpus"].iloc[0])
    keys = (table["measure"] == measure) & (table["feature"] == feature) & (table["corpus"] == corpus)
    return table[keys].sort_values("layer")


def _alone(table: pd.DataFrame) -> list[str]:
    """The corpora that are drawn beside their mean; none where there is one alone."""
    corpora = list(dict.fromkeys(table["corpus"]))
    return [corpus for corpus in corpora if corpus != POOLED] if POOLED in corpora else []


def _peak(table: pd.DataFrame, measure: str, corpus: str | None = None) -> int:
    """The layer of the middle third with the highest mean."""
    rows = _of(table, measure, corpus=corpus)
    return int(rows[rows["middle"]].sort_values("value", kind="stable", ascending=False)["layer"].iloc[0])


def _one(rows: pd.DataFrame, measure: str) -> dict[str, Any]:
    return {str(name): value for name, value in _of(rows, measure).iloc[0].items()}


def _title(table: pd.DataFrame, corpus: str) -> str:
    made_up = table[table["corpus"] == corpus]["data"].iloc[0].startswith("synthetic")
    return _TITLES.get(corpus, corpus) + (" (synthetic)" if made_up else "")


def _counted(table: pd.DataFrame, corpus: str) -> str:
    row = _of(table, SPEARMAN, corpus=corpus).iloc[0]
    return (
        f"{_title(table, corpus)}: {row['words']:,} words of {row['sentences']} sentences, {row['left_out']} left out"
    )


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
