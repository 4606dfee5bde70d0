"""One table of metrics from those of several folds, whose test questions have none in common.

A value over all questions is the mean of the folds' values weighed by their questions. The folds' errors are
independent, so the distances to the ends of their intervals, weighed alike, are added in squares.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

VALUES = {"value": ("low", "high"), "difference": ("difference_low", "difference_high")}


def pooled(folds: Sequence[pd.DataFrame], row: Sequence[str]) -> pd.DataFrame:
    """One row for each of `row`'s values that every fold has, in the first fold's order and with its other columns.

    folds: steerlab.metrics.continuations' columns; row: those that say which rows of the folds belong together. Means:
    value, base and difference with their ends, strength; sums: n.
    Raises ValueError where a fold has such a row twice, or one that another fold lacks, or has by another scorer.
    """
    for fold in folds:
        if fold.duplicated(list(row)).any():
            twice = fold[fold.duplicated(list(row))].iloc[0]
            raise ValueError(f"folds: {', '.join(f'{name} {twice[name]}' for name in row)} stands twice in a fold")
    indexed = [fold.set_index(list(row)) for fold in folds]
    first = indexed[0]
    for other in indexed[1:]:
        if len(odd := first.index.symmetric_difference(other.index)):
            raise ValueError(f"folds: {odd[0]} is not in every fold; compute the metrics of all of them")
    same_order = [fold.loc[first.index] for fold in indexed]
    if any(list(fold.scorer) != list(first.scorer) for fold in same_order):
        raise ValueError("folds: a number comes from several scorers; compute the metrics of all folds alike")
    n = np.array([fold.n for fold in same_order], dtype=float)
    weights = n / n.sum(0)

    def mean(name: str) -> np.ndarray:
        return (weights * np.array([fold[name] for fold in same_order], dtype=float)).sum(0)

    found = first.assign(n=n.sum(0).astype(int), strength=mean("strength"), base=mean("base"))
    for name, ends in VALUES.items():
        middle = mean(name)
        for end, sign in zip(ends, (-1, +1)):
            away = np.array([fold[end] - fold[name] for fold in same_order], dtype=float)
            found[end] = middle + sign * np.sqrt(((weights * away) ** 2).sum(0))
        found[name] = middle
    return found.reset_index()[list(folds[0].columns)]
