"""Instructions that a model is asked while its control is learnt: one function a format, each from a path to rows.

Columns: instruction, context ("" where there is none), response. Long ones are left out, as in LatentQA's control: an
instruction has at most 100 words, a context fewer than 200.
"""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.data import records

log = logging.getLogger(__name__)

COLUMNS = ["instruction", "context", "response"]
INSTRUCTION_WORDS, CONTEXT_WORDS = 100, 200  # at most so many; fewer than so many


def dolly_jsonl(path: Path) -> pd.DataFrame:
    """The sample, and databricks-dolly-15k: {"instruction", "context", "response"} a line."""
    return _frame(path, records.lines(path), lambda line: _fields(json.loads(line), *COLUMNS))


def alpaca_json(path: Path) -> pd.DataFrame:
    """Stanford Alpaca: one list of {"instruction", "input", "output"}."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise records.BadRows(f"{path}:{getattr(error, 'lineno', 1)}: no JSON ({error}); fetch it again") from None
    if not isinstance(rows, list):
        raise records.BadRows(f"{path}:1: holds no list of instructions")
    return _frame(path, enumerate(rows, start=1), lambda row: _fields(row, "instruction", "input", "output"))


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {loader.__name__: loader for loader in (dolly_jsonl, alpaca_json)}


def messages(instruction: str, context: str, response: str | None = None) -> list[dict[str, str]]:
    """The turns of one row for a chat template: context below the instruction, and the answer where one is given."""
    asked = f"{instruction}\n\n{context}" if context else instruction
    turns = [{"role": "user", "content": asked}]
    return turns if response is None else [*turns, {"role": "assistant", "content": response}]


def _fields(row: Any, *keys: str) -> tuple[str, str, str]:
    if not isinstance(row, dict):
        raise ValueError(f"the row is {row!r}, not an object with {', '.join(keys)}")
    instruction, context, response = (records.string(row[key]) for key in keys)
    return instruction.strip(), context.strip(), response.strip()


def _frame(path: Path, rows: Iterable[tuple[int, Any]], parse: Callable[[Any], tuple[str, str, str]]) -> pd.DataFrame:
    """The rows that are short enough and have both an instruction and a response; the others are counted in the log."""
    parsed = records.parsed(path, rows, parse)
    kept = [row for row in parsed if row[0] and row[2] and _is_short(*row[:2])]
    if len(kept) < len(parsed):
        log.info("%s: %d rows used, %d left out as long or blank", path.name, len(kept), len(parsed) - len(kept))
    return pd.DataFrame(kept, columns=COLUMNS).astype("str")


def _is_short(instruction: str, context: str) -> bool:
    return len(instruction.split()) <= INSTRUCTION_WORDS and len(context.split()) < CONTEXT_WORDS
