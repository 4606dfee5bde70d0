"""A method with parts of it taken out: what each variant changes in MC1 and MC2, a row a variant and strength.

A large point is the paired difference from the unsteered model over all seeds with its interval, small points are the
seeds.
"""

from collections.abc import Collection, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style, truthfulness
from steerlab.metrics.bootstrap import CONFIDENCE

PANELS = {"mc1": "MC1 (difference\nfrom unsteered)", "mc2": "MC2 (difference\nfrom unsteered)"}
COLUMNS = ["of", "group", "label", *selection.COLUMNS]

_SHOWN = {"value": "difference", "low": "difference_low", "high": "difference_high"}
_SHORT = {metric: metric.upper() for metric in PANELS}


def table(
    metrics: pd.DataFrame,
    labels: Sequence[tuple[str, str]],
    *,
    of: str,
    split: str = "test",
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """The rows drawn, variants in the order of labels, strengths up.

    metrics: the project's metrics columns of one model; labels: (variant, name for readers); others are left out; of:
    the method. Returns COLUMNS: label is the row's name, group the variant's; metric is a key of PANELS.
    Raises ValueError where none of the methods is there, one has no difference from the unsteered model, or two models,
    tasks or scorers would be mixed.
    """
    figure, names = f"{of}_ablations", dict(labels)
    rows = selection.select(
        figure, metrics[metrics.method.isin(list(names))], list(PANELS), split=split, scorers=scorers
    )
    rows = rows[rows.strength != 0]
    if rows.empty:
        raise ValueError(f"figure {figure}: no rows of {sorted(names)} at a strength; pass their metrics")
    if rows.model.nunique() > 1:
        raise ValueError(f"figure {figure}: got models {sorted(rows.model.unique())}; pass the metrics of one")
    if rows.difference.isna().any():
        name = rows[rows.difference.isna()].method.iloc[0]
        raise ValueError(f"figure {figure}: {name} has no difference; compute its metrics beside the unsteered model's")
    rows = rows.assign(name=rows.method.map(names), order=rows.method.map(list(names).index))
    return selection.named_rows(rows.assign(of=of, group=rows.name), PANELS)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns. All variants have their method's colour: the rows name them."""
    shown = table.astype({"seed": str}).assign(method=table["of"], **{name: table[of] for name, of in _SHOWN.items()})
    figure, axes = marks.points_in_rows(shown, PANELS)
    for panel in axes:  # long names leave little room for numbers
        panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases of questions, and: method; variants, those drawn; changes, of each; detectable, as of the
    figure of truthfulness."""
    table = table.astype({"seed": str})
    pooled = table[table.seed == "all"]
    return truthfulness.of_questions(table, confidence) | {
        "method": style.label(table["of"].iloc[0]),
        "variants": selection.listed(table.group.unique()),
        "changes": "; ".join(truthfulness.changes(pooled, _SHORT, names="label")),
        "detectable": truthfulness.detectable(pooled, _SHORT, confidence),
    }
