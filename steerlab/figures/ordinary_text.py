"""What steers cost on ordinary text, a row a method: the change of cross-entropy, and KL from the unsteered model.

A large point is the mean over texts of each text's mean over seeds, with its bootstrap interval over texts, which are
thus paired between the steered model and the unsteered one; small points are the seeds.
"""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, paired, selection, style
from steerlab.metrics import bootstrap

FIGURE = "ordinary_text"
PANELS = {"ce_change": "Cross-entropy change\n(nats a token)", "kl": "KL divergence\n(nats a token)"}
METRICS = ("ce", *PANELS)
COLUMNS = ["model", "method", "strength", "seed", "metric", "value", "low", "high", "n", "tokens"]


def table(
    texts: pd.DataFrame,
    *,
    model: str = "",
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
) -> pd.DataFrame:
    """COLUMNS, methods in the style's order, the unsteered model as "base"; seed "all" is over all seeds.

    texts: as from steerlab.analyses.ordinary_text, of any number of seeds; model: its name, for the caption. metric:
    one of METRICS; n: of texts. The unsteered model's numbers depend on no seed and stand there once.
    Raises ValueError where there is nothing, a method has several strengths, or its seeds have different texts.
    """
    if texts.empty:
        raise ValueError(f"figure {FIGURE}: no texts were read; pass those of a steer")
    base = texts.assign(method="base", strength=0.0, ce=texts.base_ce, kl=0.0).drop_duplicates("text")
    both = pd.concat([base, texts]).assign(ce_change=lambda rows: rows.ce - rows.base_ce, model=model)
    rows = [
        first[["model", "method", "strength", "tokens"]].to_dict() | numbers
        for first, numbers in paired.by_method(
            FIGURE, both, "text", METRICS, resamples=resamples, confidence=confidence
        )
    ]
    return pd.DataFrame(rows)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    shown = table[table.metric.isin(list(PANELS))].astype({"seed": str})
    labels = [style.row_label(method, strength) for method, strength in zip(shown.method, shown.strength)]
    figure, _ = marks.points_in_rows(shown.assign(group="", label=labels), PANELS)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = bootstrap.CONFIDENCE) -> dict[str, str]:
    """Phrases: model, texts, tokens, seeds, interval; base: the unsteered model's cross-entropy; changes: of each
    method; controls: "yes" where any are drawn."""
    table = table.astype({"seed": str})
    pooled = paired.pooled(table)
    seeds = table[table.seed != "all"].groupby("method")["seed"].nunique()
    steered = [method for method in table.method.unique() if method != "base"]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "texts": selection.counted(table.n, "text"),
        "tokens": f"{int(table.tokens.max())}",
        "seeds": selection.counted(seeds, "seed"),
        "interval": selection.interval(confidence, "texts"),
        "base": _said(pooled["base", "ce"], ".3f"),
        "changes": "; ".join(
            f"{style.row_label(method, pooled[method, 'kl']['strength'])}: "
            f"{_said(pooled[method, 'ce_change'], '+.3f')} and {_said(pooled[method, 'kl'], '.3g')}"
            for method in steered
        ),
        "controls": "yes" if any(method.startswith(style.RANDOM) for method in steered) else "",
    }


def _said(row: dict, form: str) -> str:
    value, low, high = (f"{row[end]:{form}}".replace("-", "−") for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
