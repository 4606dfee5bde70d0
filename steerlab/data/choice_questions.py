"""Loaders of multiple-choice questions: one function a format, each from a path to rows (question, choices, answer).

choices: the texts to choose from, in their order, a list; answer: the index of the right one, from 0.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow.parquet

from steerlab.data import records

COLUMNS = ["question", "choices", "answer"]
CHOICES = 4  # of the sample; a few of ARC's questions have three or five
T = TypeVar("T")
Row = tuple[str, list[str], int]


def choices_jsonl(path: Path) -> pd.DataFrame:
    """The sample: {"question": str, "choices": [four texts], "answer": index of the right one} a line."""

    def row(line: str) -> Row:
        fields = json.loads(line)
        choices = fields["choices"]
        if len(choices) != CHOICES:
            raise ValueError(f"the question has {len(choices)} choices; give {CHOICES}")
        return _row(fields["question"], choices, fields["answer"])

    return _frame(path, records.lines(path), row)


def arc_parquet(path: Path) -> pd.DataFrame:
    """ARC as allenai/ai2_arc has it: question, choices {text, label} and answerKey, the label of the right one."""

    def row(fields: dict[str, Any]) -> Row:
        labels, key = list(fields["choices"]["label"]), fields["answerKey"]
        if key not in labels:
            raise ValueError(f"the answer {key!r} is none of the labels {labels}; name one of them, or leave it out")
        return _row(fields["question"], fields["choices"]["text"], labels.index(key))

    table = pyarrow.parquet.read_table(path, columns=["question", "choices", "answerKey"])
    return _frame(path, enumerate(table.to_pylist(), start=1), row)


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {
    loader.__name__: loader for loader in (choices_jsonl, arc_parquet)
}


def _row(question: object, choices: Sequence[object], answer: object) -> Row:
    texts = [records.text(choice) for choice in choices]
    if len(set(texts)) != len(texts):
        raise ValueError(f"a choice stands twice among {texts}; give different ones")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        raise ValueError(f"the answer is {answer!r}; give the index of a choice, from 0 to {len(texts) - 1}")
    return records.text(question), texts, answer


def _frame(path: Path, rows: Iterable[tuple[int, T]], parse: Callable[[T], Row]) -> pd.DataFrame:
    frame = pd.DataFrame(records.parsed(path, rows, parse), columns=COLUMNS)
    return frame.astype({"question": "object", "choices": "object", "answer": "int64"})
