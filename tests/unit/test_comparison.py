"""Where two files differ first, said in a line."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from steerlab.comparison import difference

TABLE = pd.DataFrame({"id": ["a", "b", "c"], "tokens": [[1], [2, 3], []], "value": [0.5, None, 1.0]})


def write(path: Path, table: pd.DataFrame) -> Path:
    table.to_parquet(path, index=False) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_the_same_bytes_are_no_difference(tmp_path: Path, ending: str):
    assert difference(*(write(tmp_path / f"{name}.{ending}", TABLE) for name in "ab")) is None


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"value": [0.5, None, 1.25]}, "column value in 1 of 3 rows: 2; largest difference 0.25, in value"),
        ({"value": [None, None, 1.0]}, "column value in 1 of 3 rows: 0"),
        ({"tokens": [[1], [2, 4], []]}, "column tokens in 1 of 3 rows: 1"),
        ({"id": ["x", "y", "c"], "value": [0.5, None, 2.0]}, "column id in 2 of 3 rows: 0, 1 (and in value)"),
        ({"more": 1}, "columns ['id', 'tokens', 'value', 'more'] and ['id', 'tokens', 'value']"),
    ],
)
def test_a_table_tells_column_rows_and_the_largest_difference(tmp_path: Path, ending: str, change: dict, told: str):
    paths = write(tmp_path / f"a.{ending}", TABLE.assign(**change)), write(tmp_path / f"b.{ending}", TABLE)
    assert (difference(*paths) or "").startswith(told)


def test_missing_rows_are_counted(tmp_path: Path):
    assert difference(write(tmp_path / "a.csv", TABLE), write(tmp_path / "b.csv", TABLE[:2])) == "3 and 2 rows"


def test_other_bytes_of_the_same_values_are_found(tmp_path: Path):
    TABLE.to_parquet(tmp_path / "a.parquet", compression="snappy")
    TABLE.to_parquet(tmp_path / "b.parquet", compression=None)
    assert "at byte" in (difference(tmp_path / "a.parquet", tmp_path / "b.parquet") or "")


def test_a_damaged_table_is_a_difference(tmp_path: Path):
    whole = write(tmp_path / "a.parquet", TABLE)
    (tmp_path / "b.parquet").write_bytes(whole.read_bytes()[:40])
    assert "cannot be read" in (difference(whole, tmp_path / "b.parquet") or "")


def test_a_folder_tells_the_first_file_and_its_tensor(tmp_path: Path):
    for name, value in (("a", 1.0), ("b", 1.5)):
        (tmp_path / name).mkdir()
        save_file({"W": torch.tensor([1.0, value], dtype=torch.bfloat16)}, tmp_path / name / "steer.safetensors")
        (tmp_path / name / "steer.json").write_text("{}")
    told = difference(tmp_path / "a", tmp_path / "b")
    assert told == "1 of 2 files, steer.safetensors: tensor W; largest difference 0.5"
    (tmp_path / "a" / "more.txt").touch()
    assert difference(tmp_path / "a", tmp_path / "b") == "files are in one alone: more.txt"


def test_other_files_tell_the_first_byte(tmp_path: Path):
    (tmp_path / "a.json").write_text("abcd")
    (tmp_path / "b.json").write_text("abxde")
    assert difference(tmp_path / "a.json", tmp_path / "b.json") == "at byte 2 first (4 and 5 bytes)"
