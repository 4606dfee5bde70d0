"""The papers' reported numbers as data: one YAML file a paper, read as one row a number. No torch here.

What was found stands with its source, its table and a grade that says how far it can be trusted; what was not found
stays in the table without a value, so that nobody fills it from memory. Numbers that others got when they ran a
paper's method (grade T) stand beside the paper's own and never in their place.

Beside them lies the calibration of the scorers that ships, as its README says where from.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from steerlab.metrics.calibrated import SHIPPED

PAPERS = ("lm_steer", "hpr", "slim", "latentqa", "cogsteer")
GRADES = {
    "A": "the paper's own text, or its authors' repository, poster, figure or output file",
    "A-fig": "read off the authors' own figure, with an error of reading",
    "B": "copied by others who read the paper: reading notes, a review",
    "C": "a summary, an abstract or a homepage",
    "T": "another group's run of the method: never the paper's number",
}
THIRD_PARTY = "T"
NOT_FOUND = "not found"

COLUMNS = [
    "paper", "table", "source", "grade", "task", "model", "method", "setting", "prompts", "steer_value", "metric",
    "value", "spread", "error", "unit", "scale", "scorer", "status", "note",
]  # fmt: skip
_TEXT = ("table", "source", "grade", "task", "model", "method", "setting", "prompts", "scale", "scorer", "note")
_DESCRIBE = ("task", "model", "method", "setting", "prompts", "steer_value", "note")  # columns of a block's rows
_BLOCK = {*_TEXT, "steer_value", "error", "unit", "columns", "rows"}


def read(paper: str, folder: Path | None = None) -> pd.DataFrame:
    """All numbers found for a paper (one of PAPERS), one row each, in the order of its file.

    Returns COLUMNS, text unless said otherwise and "" where there is nothing to say:
      paper, table (its number in the version that `source` is), source, grade (a key of GRADES);
      task ("toxicity", "sentiment", "cost", ...), model, method, setting (what else a reader must know to repeat it);
      prompts: "all" or a class of prompts; steer_value (float): LM-Steer's, in multiples of its eps0, else NaN;
      metric: the workbench's name where it has one; value (float) as printed, in `unit` ("" or "percent",
      "million", ...), NaN where it was not found; spread (float): standard deviation over seeds, else NaN;
      error (float): of reading it off a figure, else NaN; scale: prompts x samples; scorer;
      status: "reported" or "not found"; note.
    folder: where <paper>.yaml lies, the package's own by default.
    Raises ValueError, one line, for an unknown paper, grade, source, key or column, a value that is no number, or a
    number read off a figure without its error.
    """
    if paper not in PAPERS:
        raise ValueError(f"reference: no paper {paper!r}; choose one of {', '.join(PAPERS)}")
    file = (folder or Path(__file__).parent) / f"{paper}.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    rows = [row for block in document["numbers"] for row in _rows(block, document["sources"], file.name)]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(paper=paper)
    numbers = ["steer_value", "value", "spread", "error"]
    return table.astype(dict.fromkeys(numbers, float) | dict.fromkeys(set(COLUMNS) - set(numbers), str))


def paper_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table as from `read`, the rows that are the paper's own: all but those of third parties."""
    return table[table.grade != THIRD_PARTY].reset_index(drop=True)


def third_party_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table as from `read`, what other groups got with the paper's method."""
    return table[table.grade == THIRD_PARTY].reset_index(drop=True)


def calibration(statistics: Path | None = None, reliability: Path | None = None) -> dict[str, pd.DataFrame]:
    """{"statistics", "reliability"} of a calibration from their CSV, or else as they ship.

    Columns: COLUMNS and BINS of steerlab.analyses.calibration; a note is "" where there is nothing to say.
    """
    found = pd.read_csv(statistics or SHIPPED / "calibration.csv", dtype={"note": "str"})
    return {
        "statistics": found.assign(note=found["note"].fillna("")),
        "reliability": pd.read_csv(reliability or SHIPPED / "reliability.csv"),
    }


def _rows(block: Mapping, sources: Mapping[str, str], file: str) -> Iterator[dict[str, object]]:
    """The rows of one block: what it says of all its numbers, joined with what each of its rows says."""
    where = f"reference {file}, {block.get('table', 'a block without a table')!r}"
    _check(block, sources, where)
    described = [column for column in block["columns"] if column in _DESCRIBE]
    shared: dict[str, object] = {key: block.get(key, "") for key in _TEXT} | {"prompts": block.get("prompts", "all")}
    shared |= {"source": sources[block["source"]], "steer_value": block.get("steer_value", math.nan)}
    for line in block["rows"]:
        if len(line) != len(block["columns"]):
            raise ValueError(f"{where}: row {line} has {len(line)} cells for {len(block['columns'])} columns")
        cells = dict(zip(block["columns"], line))
        own = {key: cells.pop(key) for key in described}
        if own.get("steer_value", 0) is None:
            own["steer_value"] = math.nan
        for metric, cell in cells.items():
            if cell is None:  # the table has no such number
                continue
            value, spread, status = _number(cell, f"{where}: {metric} of {list(own.values())}")
            measured = {"metric": metric, "value": value, "spread": spread, "status": status}
            of_metric = {key: _of_metric(block.get(key, ""), metric) for key in ("unit", "scorer")}
            yield shared | own | measured | of_metric | {"error": block.get("error", math.nan)}


def _check(block: Mapping, sources: Mapping[str, str], where: str) -> None:
    unknown = set(block) - _BLOCK
    if unknown:
        raise ValueError(f"{where}: unknown key {sorted(unknown)}; known are {sorted(_BLOCK)}")
    lacking = {"table", "source", "grade", "columns", "rows"} - set(block)
    if lacking:
        raise ValueError(f"{where}: {sorted(lacking)} is missing; say it")
    if block["grade"] not in GRADES:
        raise ValueError(f"{where}: unknown grade {block['grade']!r}; choose one of {', '.join(GRADES)}")
    if block["source"] not in sources:
        raise ValueError(f"{where}: unknown source {block['source']!r}; list it under sources")
    if (block["grade"] == "A-fig") != isinstance(block.get("error"), int | float):
        raise ValueError(
            f"{where}: grade {block['grade']} and error {block.get('error')!r}; A-fig, and only it, has one"
        )


def _number(cell: Any, where: str) -> tuple[float, float, str]:
    """(value, spread, status) of a cell: a number, [number, standard deviation] or "not found"."""
    if cell == NOT_FOUND:
        return math.nan, math.nan, NOT_FOUND
    numbers = cell if isinstance(cell, list) else [cell]
    if len(numbers) > 2 or not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"{where} is {cell!r}; write a number, [number, standard deviation] or {NOT_FOUND!r}")
    return float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else math.nan, "reported"


def _of_metric(said: object, metric: str) -> object:
    """What a block says of one metric, where it says it metric by metric."""
    return said.get(metric, "") if isinstance(said, Mapping) else said
