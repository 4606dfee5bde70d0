"""Reading a task's table (results/data/<task>.parquet): which rows are trained on, which are asked."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def training_rows(path: Path) -> pd.DataFrame:
    """The labelled training texts, one row a text, in the table's order: the order of their activations."""
    table = pd.read_parquet(path)
    return table.loc[table["role"] == "train"].reset_index(drop=True)


def prompts(path: Path, *, split: str, rendering: str) -> list[tuple[str, str]]:
    """(id, text) of the prompts of a split as rendered; raises ValueError where the table has none."""
    table = pd.read_parquet(path)
    rows = table[(table.role == "prompt") & (table.split == split) & (table.rendering == rendering)]
    if rows.empty:
        raise ValueError(f"{path} has no {rendering} prompts of split {split}")
    return list(zip(rows.id, rows.text))


def continuations(paths: Sequence[Path], seeds: Sequence[int]) -> pd.DataFrame:
    """The generations of all seeds with a column `seed`. paths: one file a seed, in the order of `seeds`."""
    frames = [pd.read_parquet(path).assign(seed=seed) for path, seed in zip(paths, seeds, strict=True)]
    return pd.concat(frames, ignore_index=True)
