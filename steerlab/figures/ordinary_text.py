"""What steers cost on ordinary text, a row a method: the change of cross-entropy, and KL from the unsteered model.

A large point is the mean over texts of each text's mean over seeds, with its bootstrap interval over texts, which are
thus paired between the steered model and the unsteered one; small points are the seeds.
"""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.metrics import bootstrap

FIGURE = "ordinary_text"
PANELS = {"ce_change": "Cross-entropy change\n(nats a token)", "kl": "KL divergence\n(nats a token)"}
METRICS = ("ce", *PANELS)
COLUMNS = ["model", "method", "strength", "seed", "metric", "value", "low", "high", "n", "tokens"]

_RANDOM = "random_"


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
    several = both.groupby("method")["strength"].nunique() > 1
    if several.any():
        raise ValueError(f"figure {FIGURE}: {several.idxmax()} has several strengths; pass one")
    rows = [
        rows.iloc[0][["model", "method", "strength", "tokens"]].to_dict() | numbers
        for _, rows in sorted(both.groupby("method"), key=lambda group: (style.rank(str(group[0])), group[0]))
        for numbers in _numbers(rows, {"resamples": resamples, "confidence": confidence})
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
    pooled = {(row["method"], row["metric"]): row for row in table[table.seed == "all"].to_dict("records")}
    seeds = table[table.seed != "all"].groupby("method")["seed"].nunique()
    steered = [method for method in table.method.unique() if method != "base"]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "texts": selection.counted(table.n, "text"),
        "tokens": f"{int(table.tokens.max())}",
        "seeds": selection.counted(seeds, "seed"),
        "interval": f"{100 * confidence:g} % percentile bootstrap interval over texts",
        "base": _said(pooled["base", "ce"], ".3f"),
        "changes": "; ".join(
            f"{style.row_label(method, pooled[method, 'kl']['strength'])}: "
            f"{_said(pooled[method, 'ce_change'], '+.3f')} and {_said(pooled[method, 'kl'], '.3g')}"
            for method in steered
        ),
        "controls": "yes" if any(method.startswith(_RANDOM) for method in steered) else "",
    }


def _numbers(rows: pd.DataFrame, intervals: dict) -> Iterator[dict]:
    """A method's rows of each metric, over all seeds and by seed."""
    method = rows.method.iloc[0]
    if rows.duplicated(["seed", "text"]).any():
        raise ValueError(f"figure {FIGURE}: a text of {method} stands twice for one seed; pass each seed once")
    for metric in METRICS:
        by_seed = rows.pivot(index="text", columns="seed", values=metric)
        if by_seed.isna().any(axis=None):
            raise ValueError(f"figure {FIGURE}: the seeds of {method} have different texts; measure them on the same")
        columns = {"all": by_seed.mean(axis=1)} | ({} if method == "base" else dict(by_seed.items()))
        for seed, values in columns.items():
            found = bootstrap.mean(values, **intervals)
            yield {"seed": str(seed), "metric": metric} | vars(found)


def _said(row: dict, form: str) -> str:
    value, low, high = (f"{row[end]:{form}}".replace("-", "−") for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
