"""Instructions: the two published forms, what is left out as long or blank, what is refused, and the sample."""

import json
import logging
from pathlib import Path

import pytest

from steerlab.data import loaders
from steerlab.data.instructions import COLUMNS, alpaca_json, dolly_jsonl, messages
from steerlab.data.records import BadRows
from steerlab.data.sources import SAMPLE

ROW = {"instruction": "Say it.", "context": "", "response": "It."}


def dolly(folder: Path, *rows: dict) -> Path:
    path = folder / "dolly.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def alpaca(folder: Path, rows: object) -> Path:
    path = folder / "alpaca.json"
    path.write_text(json.dumps(rows))
    return path


def test_both_forms_give_the_same_columns(tmp_path):
    given = ROW | {"context": " A text.\n", "category": "closed_qa"}
    twin = {"instruction": "Say it.", "input": "A text.", "output": "It."}
    for frame in (dolly_jsonl(dolly(tmp_path, given)), alpaca_json(alpaca(tmp_path, [twin]))):
        assert list(frame.columns) == COLUMNS and frame.values.tolist() == [["Say it.", "A text.", "It."]]


def words(n: int) -> str:
    return " ".join(["word"] * n)


@pytest.mark.parametrize(
    ("changed", "is_kept"),
    [
        ({"instruction": words(100)}, True),
        ({"instruction": words(101)}, False),
        ({"context": words(199)}, True),
        ({"context": words(200)}, False),
        ({"response": words(500)}, True),
        ({"response": " "}, False),
        ({"instruction": ""}, False),
    ],
)
def test_long_and_blank_rows_are_left_out_and_counted(tmp_path, caplog, changed, is_kept):
    with caplog.at_level(logging.INFO):
        frame = dolly_jsonl(dolly(tmp_path, ROW, ROW | changed))
    assert len(frame) == 1 + is_kept
    assert ("1 rows used, 1 left out as long or blank" in caplog.text) != is_kept


def test_all_bad_rows_are_told_together(tmp_path):
    path = dolly(tmp_path, ROW, {"instruction": "Say it."}, ROW | {"response": 3})
    with pytest.raises(BadRows) as error:
        dolly_jsonl(path)
    assert str(error.value).splitlines() == [
        f"{path}:2: lacks 'context'",
        f"{path}:3: the text is 3, not a string",
    ]
    path = alpaca(tmp_path, [3, {"instruction": "a", "input": "b"}])
    with pytest.raises(BadRows) as error:
        alpaca_json(path)
    assert [line.removeprefix(f"{path}:")[:3] for line in str(error.value).splitlines()] == ["1: ", "2: "]
    with pytest.raises(BadRows, match="holds no list of instructions"):
        alpaca_json(alpaca(tmp_path, {}))


def test_the_context_stands_below_the_instruction_and_the_answer_after_both():
    assert messages("Say it.", "") == [{"role": "user", "content": "Say it."}]
    assert messages("Say it.", "A text.", "It.") == [
        {"role": "user", "content": "Say it.\n\nA text."},
        {"role": "assistant", "content": "It."},
    ]


def test_the_sample_has_sixty_different_instructions_none_left_out():
    frame = loaders.read("instructions", "sample", SAMPLE)
    assert len(frame) == frame.instruction.nunique() == 60
    assert (frame.context != "").sum() == 14
    assert frame.response.str.split().str.len().max() < 40
