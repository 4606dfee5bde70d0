"""Truthfulness over all questions: two folds, each question answered under steers that learnt from the other half.

Drawn as the figure `truthfulness`, at the picks alone; the pick of a method is each fold's own.
"""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import truthfulness
from steerlab.metrics import folds
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "folds"
COLUMNS = truthfulness.COLUMNS


def table(metrics: pd.DataFrame, choices: Sequence[Mapping] = (), *, scorers: Collection[str] = ()) -> pd.DataFrame:
    """The rows drawn, with COLUMNS; metrics: of the two folds, which are two tasks; choices: of both.

    strength: the mean of the folds' picks. Raises ValueError for fewer folds, and for a row that one of them lacks.
    """
    tasks = sorted(metrics.task.unique())
    if len(tasks) < 2:
        raise ValueError(f"figure {FIGURE}: got the metrics of {tasks}; pass those of both folds")
    of_tasks = [truthfulness.table(metrics[metrics.task == task], choices, scorers=scorers) for task in tasks]
    picked = {one["method"] for one in choices if one["pick"]}
    of_folds = [rows[rows.chosen | ~rows.method.isin(picked)] for rows in of_tasks]
    found = folds.pooled(of_folds, ["model", "method", "prompts", "seed", "metric"])
    return found.assign(task=" and ".join(tasks))[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    return truthfulness.plot(table)


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The phrases of the figure `truthfulness`."""
    return truthfulness.facts(table, confidence=confidence)
