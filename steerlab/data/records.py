"""Records of raw files, each with the line it begins at, and how those that are not of the format are told.

A record that cannot be read means that file and loader disagree: all such records are reported together, none is
loaded.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class BadRows(ValueError):
    """Rows that are not of the format; the message has one line each, `<file>:<line>: <what>`."""


def parsed(path: Path, records: Iterable[tuple[int, T]], parse: Callable[[T], R]) -> list[R]:
    """What `parse` makes of each record; all records for which it raises are reported together."""
    made, bad = [], []
    for number, record in records:
        try:
            made.append(parse(record))
        except (ValueError, KeyError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            bad.append(f"{path}:{number}: {what}")
    if bad:
        raise BadRows("\n".join(bad))
    return made


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file; only the newline ends a line."""
    return numbered(path.read_text(encoding="utf-8"), "\n")


def numbered(text: str, newline: str) -> Iterator[tuple[int, str]]:
    """(number, line) from 1 on; a newline at the end of the text begins no further line."""
    return enumerate(text.removesuffix(newline).split(newline), start=1)


def csv_rows(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, dict[str, str]]]:
    """Records with the line each begins at: fields hold newlines, so records and lines are not the same."""
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file)
        header, begins = next(reader), reader.line_num + 1
        for values in reader:
            yield begins, dict(zip(header, values, strict=False))
            begins = reader.line_num + 1


def text(value: object) -> str:
    """The value, if it is a string with something in it."""
    words = string(value)
    if not words.strip():
        raise ValueError("the text is empty")
    return words


def string(value: object) -> str:
    """The value, if it is a string, also an empty one; else raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"the text is {value!r}, not a string")
    return value
