"""Loaders: one function a file format, each from a path to rows (text: str, label: float).

label is +1.0 for wished (civil), -1.0 for unwished (toxic), NaN for a prompt. The files are pinned by hash, so a row
that cannot be read means that file and loader disagree: all such rows are reported with their lines, none is loaded.
"""

import csv
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pandas as pd

from steerlab.data.sources import Source, table

log = logging.getLogger(__name__)

# Perspective's TOXICITY: 0.5 and more is called toxic, as in RealToxicityPrompts; below 0.1 civil, so that the two
# classes are apart; what lies between is in neither.
TOXIC_FROM, CIVIL_BELOW = 0.5, 0.1
SPREADSHEET_ERROR = "#ERROR!"  # four cells of the published file hold it in place of a comment

Row = tuple[str, float]
T = TypeVar("T")


class BadRows(ValueError):
    """Rows that are not of the format; the message has one line each, `<file>:<line>: <what>`."""


def read(name: str, door: str, folder: Path, sources: Mapping[str, Source] | None = None) -> pd.DataFrame:
    """All rows of a source as its door's formats say, in the order of the table and of the files: text, label."""
    files = (table() if sources is None else sources)[name].doors[door].files
    frames = [FORMATS[file.format](folder / file.name) for file in files]
    return pd.concat(frames, ignore_index=True)


def prompt_lines(path: Path) -> pd.DataFrame:
    """One prompt a line; only the newline ends a line."""
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return _collect(path, enumerate(lines, start=1), lambda line: (_text(line), float("nan")))


def rtp_jsonl(path: Path) -> pd.DataFrame:
    """RealToxicityPrompts' own format: the prompt of {"prompt": {"text": ...}, ...} a line."""
    return _collect(path, _json_lines(path), lambda row: (_text(json.loads(row)["prompt"]["text"]), float("nan")))


def comment_pairs(path: Path) -> pd.DataFrame:
    """The sample comments: {"pair": int, "text": str, "label": -1|1} a line."""

    def row(line: str) -> Row:
        comment = json.loads(line)
        return _text(comment["text"]), _label(comment["label"])

    return _collect(path, _json_lines(path), row)


def jigsaw_csv(path: Path) -> pd.DataFrame:
    """Jigsaw Toxic Comment Classification: comment_text, toxic (0|1)."""
    return _collect(path, _csv_rows(path), lambda row: (_text(row["comment_text"]), _label(1 - 2 * int(row["toxic"]))))


def perspective_csv(path: Path) -> pd.DataFrame:
    """Perspective's published Wikipedia comments with its own scores, the two ends of the scale (see above)."""

    def row(fields: dict[str, str]) -> Row | None:
        score = float(fields["TOXICITY@6"])
        if not 0 <= score <= 1:
            raise ValueError(f"TOXICITY@6 is {score}, not within 0 and 1")
        if fields["comment_text"] == SPREADSHEET_ERROR or CIVIL_BELOW <= score < TOXIC_FROM:
            return None
        return _text(fields["comment_text"]), -1.0 if score >= TOXIC_FROM else 1.0

    return _collect(path, _csv_rows(path), row)


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {
    loader.__name__: loader for loader in (prompt_lines, rtp_jsonl, comment_pairs, jigsaw_csv, perspective_csv)
}


def _collect(path: Path, lines: Iterable[tuple[int, T]], parse: Callable[[T], Row | None]) -> pd.DataFrame:
    """Rows of all lines; a line for which `parse` gives None is left out, one for which it raises is reported."""
    rows, left_out, bad = [], 0, []
    for number, line in lines:
        try:
            row = parse(line)
        except (ValueError, KeyError, TypeError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            bad.append(f"{path}:{number}: {what}")
            continue
        if row is None:
            left_out += 1
        else:
            rows.append(row)
    if bad:
        raise BadRows("\n".join(bad))
    if left_out:
        log.info("%s: %d rows used, %d left out", path.name, len(rows), left_out)
    texts, labels = zip(*rows, strict=True) if rows else ((), ())
    return pd.DataFrame({"text": pd.Series(texts, dtype="str"), "label": pd.Series(labels, dtype="float64")})


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    return enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Records with the line each begins at: comments hold newlines, so records and lines are not the same."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header, begins = next(reader), reader.line_num + 1
        for values in reader:
            yield begins, dict(zip(header, values, strict=False))
            begins = reader.line_num + 1


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the text is {value!r}, not a string")
    if not value.strip():
        raise ValueError("the text is empty")
    return value


def _label(value: object) -> float:
    if value not in (-1, 1):
        raise ValueError(f"the label is {value!r}, not -1 or 1")
    return float(value)
