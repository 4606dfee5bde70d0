"""Loaders of GLUE's files: one function a format, each from a path to rows (text, second, label).

second: the other text of a pair, None for a task of single texts; label (float): the class from 0, or STS-B's score.
Formats that hold several splits have a column split ("train" or "validation") as well; of the others the file is one.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow.parquet

from steerlab.data import records

COLUMNS = ["text", "second", "label"]
SPLITS = ("train", "validation")
T = TypeVar("T")


def glue_parquet(path: Path) -> pd.DataFrame:
    """The hub's nyu-mll/glue: one or two columns of text, in their order, then label and idx."""
    table = pyarrow.parquet.read_table(path)
    texts = [name for name in table.column_names if name not in ("label", "idx")]
    if len(texts) not in (1, 2) or "label" not in table.column_names:
        raise records.BadRows(f"{path}:1: the columns are {table.column_names}, not one or two texts, label and idx")

    def row(fields: dict[str, Any]) -> tuple[str, str | None, float]:
        first, *second = (records.text(fields[name]) for name in texts)
        return first, second[0] if second else None, _label(fields["label"])

    return _frame(path, enumerate(table.to_pylist(), start=1), row)


def glue_tsv(path: Path) -> pd.DataFrame:
    """SST-2 as the mirror has it: a header, then sentence and label, tab between; blanks at ends are cut."""

    def row(line: str) -> tuple[str, None, float]:
        sentence, label = line.split("\t")
        return records.text(sentence.strip()), None, _label(int(label))

    lines = records.lines(path)
    if next(lines)[1] != "sentence\tlabel":
        raise records.BadRows(f"{path}:1: the header is not sentence, label")
    return _frame(path, lines, row)


def glue_jsonl(path: Path) -> pd.DataFrame:
    """The sample: {"text": str, "label": 0|1, "split": "train"|"validation"} a line."""

    def row(line: str) -> tuple[str, None, float, str]:
        fields = json.loads(line)
        if fields["split"] not in SPLITS:
            raise ValueError(f"the split is {fields['split']!r}, not train or validation")
        return records.text(fields["text"]), None, _label(fields["label"]), fields["split"]

    return _frame(path, records.lines(path), row, "split")


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {
    loader.__name__: loader for loader in (glue_parquet, glue_tsv, glue_jsonl)
}


def _frame(path: Path, rows: Iterable[tuple[int, T]], parse: Callable[[T], tuple], *more: str) -> pd.DataFrame:
    frame = pd.DataFrame(records.parsed(path, rows, parse), columns=[*COLUMNS, *more])
    return frame.astype({"text": "object", "second": "object", "label": "float64"})


def _label(value: float) -> float:
    if value is None or not 0 <= value <= 5:  # GLUE's own test sets have -1 in the labels' place
        raise ValueError(f"the label is {value!r}, neither a class nor a score from 0 to 5")
    return float(value)
