"""The rows of figures that ask every method, and the unsteered model, about the same items: texts or questions."""

from collections.abc import Iterator, Sequence

import pandas as pd

from steerlab.figures import style
from steerlab.metrics import bootstrap


def by_method(
    figure: str, rows: pd.DataFrame, item: str, metrics: Sequence[str], *, resamples: int, confidence: float
) -> Iterator[tuple[pd.Series, dict]]:
    """(the first of a method's rows, its numbers), methods in the style's order, over all seeds and then by seed.

    rows: method ("base": the unsteered model, each item once), strength, seed, the column item, and the metrics. The
    numbers: seed ("all": of each item's mean over seeds), metric, and those of `bootstrap.mean` over items; base has
    no seeds of its own.
    Raises ValueError where a method has several strengths, an item stands twice, or seeds have different items.
    """
    several = rows.groupby("method")["strength"].nunique() > 1
    if several.any():
        raise ValueError(f"figure {figure}: {several.idxmax()} has several strengths; pass one")
    for method in sorted(rows.method.unique(), key=lambda name: (style.rank(name), name)):
        own = rows[rows.method == method]
        if own.duplicated(["seed", item]).any():
            raise ValueError(f"figure {figure}: a {item} of {method} stands twice for one seed; pass each seed once")
        for metric in metrics:
            by_seed = own.pivot(index=item, columns="seed", values=metric)
            if by_seed.isna().any(axis=None):
                raise ValueError(f"figure {figure}: the seeds of {method} have different {item}s; pass the same of all")
            columns = {"all": by_seed.mean(axis=1)} | ({} if method == "base" else dict(by_seed.items()))
            for seed, values in columns.items():
                found = bootstrap.mean(values, resamples=resamples, confidence=confidence)
                yield own.iloc[0], {"seed": str(seed), "metric": metric} | vars(found)


def pooled(table: pd.DataFrame) -> dict[tuple[str, str], dict]:
    """{(method, metric): the row over all seeds}."""
    return {(row["method"], row["metric"]): row for row in table[table.seed == "all"].to_dict("records")}
