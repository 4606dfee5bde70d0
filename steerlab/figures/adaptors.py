"""The adaptors of LM-Steer beside each other: what multiply, add, offset and the full matrix do to the same prompts."""

from collections.abc import Collection, Mapping

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "adaptors"
PANELS = {"mean_toxicity": "Mean toxicity\n(score, 0 to 1)", "perplexity": "Perplexity\n(per token)"}
COLUMNS = ["group", "label", *selection.COLUMNS]


def table(
    metrics: pd.DataFrame, labels: Mapping[str, str], *, split: str = "test", scorers: Collection[str] = ()
) -> pd.DataFrame:
    """The rows drawn, in their order: base, then the methods in the order of labels, strengths up.

    metrics: the project's metrics columns of one model; labels: {method: name for readers}; other methods are left
    out. scorers: the toxicity scorer to draw.
    Returns COLUMNS: label is the row's name, group the method's; metric is a key of PANELS.
    Raises ValueError where base is missing, none of the methods is there, or two models, tasks or scorers would be
    mixed.
    """
    names = {"base": style.label("base")} | dict(labels)
    rows = selection.select(
        FIGURE, metrics[metrics.method.isin(list(names))], list(PANELS), split=split, scorers=scorers
    )
    if rows.model.nunique() > 1:
        raise ValueError(f"figure {FIGURE}: got models {sorted(rows.model.unique())}; pass the metrics of one")
    rows = selection.on_the_same_texts(rows[(rows.method == "base") | (rows.strength != 0)])
    found = set(rows[rows.seed == "all"].method)
    if "base" not in found:
        raise ValueError(f"figure {FIGURE}: no rows of method base; pass its metrics too")
    if not found & set(labels):
        raise ValueError(f"figure {FIGURE}: no rows of {sorted(labels)} at a strength; pass their metrics")
    rows = rows.assign(name=rows.method.map(names), order=rows.method.map(list(names).index))
    return selection.named_rows(rows.assign(group=rows.name), PANELS)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns. All adaptors have LM-Steer's colour: the rows name them."""
    looks = table.method.where(table.method == "base", "lm_steer")
    figure, _ = marks.points_in_rows(table.astype({"seed": str}).assign(method=looks), PANELS)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: adaptors, those drawn."""
    steered = table[table.method != "base"]
    return selection.phrases(table, confidence=confidence) | {"adaptors": selection.listed(steered.group.unique())}
