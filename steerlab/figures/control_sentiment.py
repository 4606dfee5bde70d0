"""Sentiment and perplexity of continuations under LatentQA's control, beside the prompt and the random control.

A row a method and strength, below the class of its prompts. A large point is the value over all seeds with its
interval, small points are the seeds; differences from the unsteered model, which the caption tells, are paired.
"""

from collections.abc import Collection

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.figures.truthfulness import signed
from steerlab.metrics import bootstrap
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "control_sentiment"
PANELS = {
    "positive_share": "Positive\n(share)",
    "mean_sentiment": "Sentiment\n(−1 to 1)",
    "perplexity": "Perplexity\n(per token)",
}
CLASSES = ("neutral", "negative", "positive")  # of prompts; a wish of good cheer has least to do on the last
COLUMNS = ["group", "label", *selection.COLUMNS]


def table(metrics: pd.DataFrame, *, scorers: Collection[str] = ()) -> pd.DataFrame:
    """The rows drawn with COLUMNS: by class of prompts, methods in the style's order, strengths up.

    metrics: the project's metrics columns of one model, task sentiment; all methods in it are drawn. scorers: whose
    sentiment and perplexity to draw where there are several.
    Raises ValueError as `selection.select` does, and where the unsteered model or a second one would be missing.
    """
    rows = selection.select(FIGURE, metrics, list(PANELS), split="test", prompts=CLASSES, scorers=scorers)
    if rows.model.nunique() > 1:
        raise ValueError(f"figure {FIGURE}: got models {sorted(rows.model.unique())}; pass the metrics of one")
    if not {"base"} < set(rows.method):
        found = sorted(rows.method.unique())
        raise ValueError(f"figure {FIGURE}: got methods {found}; pass the metrics of base and of what stands beside it")
    place = rows.prompts.map(CLASSES.index) * (1 + rows.method.map(style.rank).max())
    rows = rows.assign(
        group=rows.prompts + " prompts", name=rows.method.map(_name), order=place + rows.method.map(style.rank)
    )
    return selection.named_rows(rows, PANELS)[COLUMNS]


def _name(method: str) -> str:
    return "random directions" if method.startswith(style.RANDOM) else style.label(method)


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    figure, _ = marks.points_in_rows(table.astype({"seed": str}), PANELS, headings=True)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: changes, of the share of positive texts in each row; detectable, the smallest such
    change that is told from 0, "" where none has an interval; controls, instructed: "yes" where any are drawn; others:
    the rows of further controls."""
    pooled = table[(table.seed.astype(str) == "all") & (table.metric == "positive_share")]
    told = pooled[pooled.difference.notna()]
    widths = (told.difference_high - told.difference_low).dropna()
    changes = [
        f"{label} on {group}: {signed(change)} [{signed(low)}, {signed(high)}]"
        for label, group, change, low, high in zip(
            told.label, told.group, told.difference, told.difference_low, told.difference_high, strict=True
        )
    ]
    return selection.phrases(table, confidence=confidence) | {
        "changes": "; ".join(changes),
        "detectable": f"{bootstrap.detectable(widths.max(), confidence):.2g}" if (widths > 0).any() else "",
        "controls": "yes" if table.method.str.startswith(style.RANDOM).any() else "",
        "instructed": "yes" if (table.method == "instructed").any() else "",
        "others": selection.listed(style.label(name) for name in table.method.unique() if name not in style.LABELS),
    }
