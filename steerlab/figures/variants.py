"""Variants of a method on the same prompts: LM-Steer's adaptors, or where CogSteer's adapter stands."""

from collections.abc import Collection, Sequence

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

PANELS = {"mean_toxicity": "Mean toxicity\n(score, 0 to 1)", "perplexity": "Perplexity\n(per token)"}
COLUMNS = ["of", "group", "label", *selection.COLUMNS]


def table(
    metrics: pd.DataFrame,
    labels: Sequence[tuple[str, str]],
    *,
    of: str,
    split: str = "test",
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """The rows drawn, in their order: base, then the variants in the order of labels, strengths up.

    metrics: the project's metrics columns of one model; labels: (variant, name for readers); others are left out. of:
    the method. scorers: the toxicity scorer to draw.
    Returns COLUMNS: label is the row's name, group the variant's; metric is a key of PANELS.
    Raises ValueError where base is missing, none of the variants is there, or two models, tasks or scorers would be
    mixed.
    """
    figure, names = f"variants of {of}", {"base": style.label("base")} | dict(labels)
    rows = selection.beside_base(figure, metrics, dict(labels), PANELS, split=split, scorers=scorers)
    rows = rows.assign(name=rows.method.map(names), order=rows.method.map(list(names).index))
    return selection.named_rows(rows.assign(of=of, group=rows.name), PANELS)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns. All variants have their method's colour: the rows name them."""
    looks = table.method.where(table.method == "base", table["of"])
    figure, _ = marks.points_in_rows(table.astype({"seed": str}).assign(method=looks), PANELS)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: method; variants, those drawn; changes, of each in mean toxicity with its interval."""
    steered = table[table.method != "base"]
    pooled = steered[(steered.seed.astype(str) == "all") & (steered.metric == "mean_toxicity")]
    told = pooled[pooled.difference.notna()]
    changes = [
        f"{label}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        for label, difference, low, high in zip(
            told.label, told.difference, told.difference_low, told.difference_high, strict=True
        )
    ]
    return selection.phrases(table, confidence=confidence) | {
        "method": style.label(table["of"].iloc[0]),
        "variants": selection.listed(steered.group.unique()),
        "changes": "; ".join(changes).replace("-", "−"),
    }
