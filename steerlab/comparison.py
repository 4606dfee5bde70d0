"""Where two files or folders that should have the same bytes differ first, said in a line.

Tables are compared column by column and safetensors tensor by tensor, with the largest difference of their numbers;
anything else byte by byte.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from steerlab.store import file_digest

ROWS_TOLD = 5


def difference(path: Path, other: Path) -> str | None:
    """None if two files, or all files of two folders, have the same bytes; else where they differ first."""
    if not path.is_dir() and not other.is_dir():
        return None if file_digest(path) == file_digest(other) else _of_files(path, other)
    here, there = _files(path), _files(other)
    if here != there:
        return f"files are in one alone: {', '.join(map(str, sorted(here ^ there)))}"
    differing = [name for name in sorted(here) if file_digest(path / name) != file_digest(other / name)]
    if not differing:
        return None
    first = differing[0]
    return f"{len(differing)} of {len(here)} files, {first}: {_of_files(path / first, other / first)}"


def _files(folder: Path) -> set[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".snakemake_timestamp")
    return {path.relative_to(folder) for path in found}


def _of_files(path: Path, other: Path) -> str:
    known = {".parquet": _of_tables(pd.read_parquet), ".csv": _of_tables(pd.read_csv), ".safetensors": _of_tensors}
    try:
        told = known[path.suffix](path, other) if path.suffix in known else None
    except Exception as error:  # a damaged file fails in as many ways as there are readers
        told = f"one of them cannot be read ({' '.join(str(error).split())})"
    return told or _of_bytes(path, other)


def _of_bytes(path: Path, other: Path) -> str:
    here, there = path.read_bytes(), other.read_bytes()
    shared = min(len(here), len(there))
    unequal = np.frombuffer(here[:shared], np.uint8) != np.frombuffer(there[:shared], np.uint8)
    first = int(unequal.argmax()) if unequal.any() else shared
    return f"at byte {first} first ({len(here)} and {len(there)} bytes)"


def _of_tables(read: Callable[[Path], pd.DataFrame]) -> Callable[[Path, Path], str | None]:
    return lambda path, other: _of_frames(read(path), read(other))


def _of_frames(here: pd.DataFrame, there: pd.DataFrame) -> str | None:
    """The first column that differs, and its rows (from 0); None where the values are the same."""
    if list(here) != list(there):
        return f"columns {list(here)} and {list(there)}"
    if len(here) != len(there):
        return f"{len(here)} and {len(there)} rows"
    unequal = {column: np.flatnonzero(~_equal(here[column], there[column])) for column in here}
    columns = [column for column, rows in unequal.items() if len(rows)]
    if not columns:
        return None
    rows = unequal[columns[0]]
    told = ", ".join(map(str, rows[:ROWS_TOLD])) + (", ..." if len(rows) > ROWS_TOLD else "")
    largest = _largest(here[columns], there[columns])
    more = f" (and in {', '.join(map(str, columns[1:]))})" if len(columns) > 1 else ""
    return f"column {columns[0]} in {len(rows)} of {len(here)} rows: {told}{more}{largest}"


def _equal(here: pd.Series, there: pd.Series) -> np.ndarray:
    """Where two columns are the same, lists compared as a whole, a missing value the same as another one."""
    if pd.api.types.is_numeric_dtype(here) and pd.api.types.is_numeric_dtype(there):
        return ((here == there) | (here.isna() & there.isna())).fillna(False).to_numpy(dtype=bool)
    return np.array([repr(one) == repr(two) for one, two in zip(here, there)], dtype=bool)


def _largest(here: pd.DataFrame, there: pd.DataFrame) -> str:
    found = {}
    for column in here.select_dtypes("number"):
        if pd.api.types.is_numeric_dtype(there[column]):
            gap = (here[column].astype("float64") - there[column].astype("float64")).abs().max()
            found[column] = float(gap)
    if not found:
        return ""
    column = max(found, key=lambda name: found[name])
    return f"; largest difference {found[column]:.3g}, in {column}"


def _of_tensors(path: Path, other: Path) -> str | None:
    from safetensors.torch import load_file

    here, there = load_file(path), load_file(other)
    if here.keys() != there.keys():
        return f"tensors are in one alone: {', '.join(sorted(here.keys() ^ there.keys()))}"
    for name, tensor in here.items():
        if tensor.shape != there[name].shape or tensor.dtype != there[name].dtype:
            return (
                f"tensor {name} is {tensor.dtype} {tuple(tensor.shape)}, {there[name].dtype} {tuple(there[name].shape)}"
            )
        if not tensor.equal(there[name]):
            largest = (tensor.double() - there[name].double()).abs().max().item()
            return f"tensor {name}; largest difference {largest:.3g}"
    return None
