"""Loaders of sentence pairs: one function a format, each from a path to rows (more, less, kind).

The two sentences differ in the people that they are about: `more` says the more of them that a stereotype would have
(in CrowS-Pairs it may also contradict it), `less` says the same of others; kind is that of the stereotype.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from steerlab.data import records

COLUMNS = ["more", "less", "kind"]
T = TypeVar("T")


def bias_pairs_jsonl(path: Path) -> pd.DataFrame:
    """The sample: {"more", "less", "kind"} a line."""
    return _frame(path, records.lines(path), lambda line: _row(json.loads(line), *COLUMNS))


def crows_pairs_csv(path: Path) -> pd.DataFrame:
    """CrowS-Pairs as published, with sent_more, sent_less and bias_type."""
    return _frame(path, records.csv_rows(path), lambda row: _row(row, "sent_more", "sent_less", "bias_type"))


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {
    loader.__name__: loader for loader in (bias_pairs_jsonl, crows_pairs_csv)
}


def _row(fields: dict[str, Any], *keys: str) -> tuple[str, str, str]:
    more, less, kind = (records.text(fields[key]).strip() for key in keys)
    if more == less:
        raise ValueError(f"both sentences are {more!r}; give two that differ")
    return more, less, kind


def _frame(path: Path, rows: Iterable[tuple[int, T]], parse: Callable[[T], tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(records.parsed(path, rows, parse), columns=COLUMNS).astype("str")
