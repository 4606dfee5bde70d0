"""GLUE: nine tasks of classifying or rating texts, each as one tidy table with three splits.

The published validation set is the test split here, as GLUE's own test labels are not public. What layers are chosen by
is a dev split, drawn from the published training rows by the hash of the text.
Source: Wang et al. 2019, "GLUE", table 1; the metrics are those that CogSteer reports.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from steerlab.data.splits import row_id, share

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Metric = Literal["accuracy", "matthews", "pearson"]


@dataclass(frozen=True)
class GlueTask:
    """title: its name for readers; metric: what CogSteer reports; classes: how many, 0 for scores that are rated."""

    title: str
    metric: Metric
    classes: int


TASKS = {
    "cola": GlueTask("CoLA", "matthews", 2),
    "sst2": GlueTask("SST-2", "accuracy", 2),
    "mrpc": GlueTask("MRPC", "accuracy", 2),
    "stsb": GlueTask("STS-B", "pearson", 0),
    "qqp": GlueTask("QQP", "accuracy", 2),
    "mnli": GlueTask("MNLI, matched", "accuracy", 3),
    "qnli": GlueTask("QNLI", "accuracy", 2),
    "rte": GlueTask("RTE", "accuracy", 2),
    "wnli": GlueTask("WNLI", "accuracy", 2),
}
COLUMNS = ["id", "split", "text", "second", "label"]
DEV_SHARE = 0.15  # of the training rows' first texts; a layer is chosen on their rows
_BETWEEN = "\n"  # stands between the two texts of a pair


def source(task: str) -> str:
    """The source of a task's rows in the sources table."""
    return f"glue_{task}"


def make_table(task: str, door: str, folder: Path, rows: Mapping[str, int | None]) -> pd.DataFrame:
    """A task's table: id (of the texts), split train|dev|test, text, second (None without), label (float).

    folder: the source's raw files. rows: how many of each split at most ("train", "dev", "test"; None takes all), the
    first ones in hash order, so a larger number keeps the rows of a smaller one.
    Training rows are left out, and counted in the log, that stand under two labels or in the test split too; the same
    row again counts once. Pairs with the same first text are on one side of train and dev. Sorted by split and id.
    Raises BadRows for a file that is not of its format, ValueError where a split is empty.
    """
    import pandas as pd

    published = _published(task, door, folder)
    test = _unique(published[published.split == "validation"])
    train = _unique(published[published.split == "train"])
    alone = train[~train.id.duplicated(keep=False) & ~train.id.isin(set(test.id))]
    log.info("%s: %d training rows, %d of them under one label and in no test row", task, len(train), len(alone))
    is_dev = alone.text.map(lambda text: share(str(text), "GLUE dev") < DEV_SHARE)
    splits = {"train": alone[~is_dev], "dev": alone[is_dev], "test": test}
    parts = [_first(part, rows[name]).assign(split=name) for name, part in splits.items()]
    if empty := [name for name, part in zip(splits, parts) if part.empty]:
        raise ValueError(f"{task}: its {empty[0]} split is empty; raise glue.{empty[0]}_rows or take another source")
    return pd.concat(parts).sort_values(["split", "id"], ignore_index=True)[COLUMNS]


def of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split, by id."""
    return table[table.split == split].reset_index(drop=True)


def parts(text: str, second: str | None) -> tuple[str, str]:
    """The pieces that a model reads in a row, the second with what stands between; "" where there is none."""
    return text, "" if second is None else f"{_BETWEEN}{second}"


def _published(task: str, door: str, folder: Path) -> pd.DataFrame:
    import pandas as pd

    from steerlab.data import loaders, sources

    frames = []
    for file in sources.table()[source(task)].doors[door].files:
        frame = loaders.FORMATS[file.format](folder / file.name)
        frames.append(frame if "split" in frame else frame.assign(split=file.name.partition(".")[0]))
    found = pd.concat(frames, ignore_index=True)
    return found.assign(id=[row_id("\0".join(parts(*texts))) for texts in zip(found.text, found.second)])


def _unique(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop_duplicates(["id", "label"])


def _first(rows: pd.DataFrame, n: int | None) -> pd.DataFrame:
    order = rows.id.map(lambda id: share(str(id), "order"))
    return rows.loc[order.sort_values(kind="stable").index[:n]]
