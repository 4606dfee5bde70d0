"""Accuracy on multiple-choice questions before and after steering, a row a method: by likelihood, and that per letter.

A large point is the mean over questions of each question's mean over seeds, with its bootstrap interval over questions;
small points are the seeds. Differences from the unsteered model, which the caption tells, are paired by question.
"""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, paired, selection, style
from steerlab.figures.truthfulness import signed
from steerlab.metrics import bootstrap

FIGURE = "reasoning"
PANELS = {"acc": "Accuracy", "acc_norm": "Accuracy,\nlikelihood per letter"}
METRICS = tuple(name for panel in PANELS for name in (panel, f"{panel}_change"))
COLUMNS = ["model", "method", "strength", "seed", "metric", "value", "low", "high", "n", "chance"]


def table(
    questions: pd.DataFrame,
    *,
    model: str = "",
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
) -> pd.DataFrame:
    """COLUMNS, methods in the style's order, the unsteered model as "base"; seed "all" is over all seeds.

    questions: as from steerlab.analyses.reasoning, of any number of seeds; model: its name, for the caption. metric:
    one of METRICS, accuracies from 0 to 1; n: of questions; chance: the accuracy of a blind guess, the same everywhere.
    The unsteered model's numbers depend on no seed and stand there once.
    Raises ValueError where there is nothing, a method has several strengths, or its seeds have different questions.
    """
    if questions.empty:
        raise ValueError(f"figure {FIGURE}: no questions were read; pass those of a steer")
    before = {panel: questions[f"base_{panel}"] for panel in PANELS}
    base = questions.assign(method="base", strength=0.0, **before).drop_duplicates("question")
    both = pd.concat([base, questions]).assign(model=model)
    both = both.assign(**{f"{panel}_change": both[panel] - both[f"base_{panel}"] for panel in PANELS})
    chance = {"chance": (1 / base.choices).mean()}
    rows = [
        first[["model", "method", "strength"]].to_dict() | chance | numbers
        for first, numbers in paired.by_method(
            FIGURE, both, "question", METRICS, resamples=resamples, confidence=confidence
        )
    ]
    return pd.DataFrame(rows)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    shown = table[table.metric.isin(list(PANELS))].astype({"seed": str})
    labels = [style.row_label(method, strength) for method, strength in zip(shown.method, shown.strength)]
    line = {"color": marks.GREY, "linewidth": 1.0, "linestyle": (0, (4, 2))}
    guess = marks.pooled_handle("a blind guess", **({"marker": ""} | line))
    figure, axes = marks.points_in_rows(shown.assign(group="", label=labels), PANELS, more=[guess])
    chance = float(table.chance.iloc[0])
    for panel in axes:
        panel.axvline(chance, zorder=0, **line)
        panel.set_xlim(right=max(panel.get_xlim()[1], 1.1 * chance))
    return figure


def facts(table: pd.DataFrame, *, confidence: float = bootstrap.CONFIDENCE) -> dict[str, str]:
    """Phrases: model, questions, seeds, interval, chance; base: the unsteered model's accuracies; changes: of each
    method; detectable: the smallest change of accuracy that is told from 0, "" where all are certain; controls: "yes"
    where any are drawn."""
    table = table.astype({"seed": str})
    pooled = paired.pooled(table)
    seeds = table[table.seed != "all"].groupby("method")["seed"].nunique()
    steered = [method for method in table.method.unique() if method != "base"]
    width = max(pooled[method, "acc_change"]["high"] - pooled[method, "acc_change"]["low"] for method in steered)
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "questions": selection.counted(table.n, "question"),
        "seeds": selection.counted(seeds, "seed"),
        "interval": selection.interval(confidence, "questions"),
        "chance": f"{table.chance.iloc[0]:.3g}",
        "base": " and ".join(f"{pooled['base', panel]['value']:.3f}" for panel in PANELS),
        "changes": "; ".join(
            f"{style.row_label(method, pooled[method, 'acc']['strength'])}: "
            + " and ".join(_said(pooled[method, f"{panel}_change"]) for panel in PANELS)
            for method in steered
        ),
        "detectable": f"{bootstrap.detectable(width, confidence):.2g}" if width > 0 else "",
        "controls": "yes" if any(method.startswith(style.RANDOM) for method in steered) else "",
    }


def _said(row: dict) -> str:
    value, low, high = (signed(row[end]) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
