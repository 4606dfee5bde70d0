"""Reading a task's table (results/data/<task>.parquet): which rows are trained on, which are asked."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

CLASS_NAMES = {1.0: "positive", 0.0: "neutral", -1.0: "negative"}  # of a prompt, by its label


FITTED = ("train", "dev")  # the splits whose labelled texts a fit may see: to learn from, and to judge what it learnt


def training_rows(path: Path, splits: Sequence[str] = FITTED) -> pd.DataFrame:
    """The labelled texts of some splits, one row a text, in the table's order: the order of their activations."""
    table = pd.read_parquet(path)
    return table.loc[(table["role"] == "train") & table["split"].isin(splits)].reset_index(drop=True)


def prompts(path: Path, *, split: str, rendering: str, limit: int | None = None) -> list[tuple[str, str]]:
    """(id, text) of the prompts of a split as rendered, by id; raises ValueError where the table has none.

    limit: only the first so many of each class (prompts without one are a class of their own); None takes all.
    """
    table = pd.read_parquet(path)
    rows = table[(table.role == "prompt") & (table.split == split) & (table.rendering == rendering)].sort_values("id")
    if rows.empty:
        raise ValueError(f"{path} has no {rendering} prompts of split {split}")
    if limit is not None:
        rows = rows.groupby("label", dropna=False).head(limit)
    return list(zip(rows.id, rows.text))


def classes(data: pd.DataFrame) -> np.ndarray:
    """+1.0 for a wished text, -1.0 for an unwished one, 0.0 for one of neither class, (rows,): its label's sign."""
    return np.sign(data["label"].to_numpy(dtype=np.float64))


def to_derive_on(path: Path, *, is_chosen: bool, texts: int) -> list[str]:
    """What a derived steer is made on: the dev prompts where the first of its tasks has a choice; else so many of what
    was learnt from, spread over the table: its texts, or the instructions of a control's."""
    if is_chosen:
        return [text for _, text in prompts(path, split="dev", rendering="plain")]
    table = pd.read_parquet(path)
    if "turns" in table:
        return list(dict.fromkeys(json.loads(turns)[0]["content"] for turns in table["turns"].unique()[:texts]))
    learnt = training_rows(path)["text"]
    return list(learnt.iloc[:: max(1, len(learnt) // texts)][:texts])


def prompt_classes(path: Path, *, split: str) -> dict[str, str]:
    """id -> class of the prompts of a split: "positive", "neutral" or "negative", "all" where they have no class."""
    table = pd.read_parquet(path, columns=["id", "role", "split", "label"])
    rows = table[(table.role == "prompt") & (table.split == split)]
    return {id: CLASS_NAMES.get(label, "all") for id, label in zip(rows.id, rows.label)}


ORDER = ["seed", "steps", "strength", "id", "sample"]  # by which scores of continuations are sorted


def continuations(paths: Sequence[Path], seeds: Sequence[int]) -> pd.DataFrame:
    """The generations of all seeds with a column `seed`. paths: one file a seed, in the order of `seeds`."""
    frames = [pd.read_parquet(path).assign(seed=seed) for path, seed in zip(paths, seeds, strict=True)]
    return pd.concat(frames, ignore_index=True)


def answers(path: Path, *, split: str) -> pd.DataFrame:
    """The answers to choose from of a split's questions, by question and answer: group, id, label, mc1, text.

    group: the question's id, which its prompts have; label: among the answers of MC2 +1.0 correct, -1.0 incorrect, else
    NaN; mc1: among those of MC1 +1.0 the correct one, -1.0 the others, else NaN.
    Raises ValueError for a question of the split without answers, or without a correct one in either list.
    """
    table = pd.read_parquet(path)
    table = table[table.split == split]
    found = table[table.role == "answer"].sort_values(["group", "id"], ignore_index=True)
    if missing := sorted(set(table[table.role == "prompt"].group) - set(found.group)):
        raise ValueError(f"{path}: question {missing[0]} has no answers to choose from; make the task's table again")
    for key, may_be in (("label", lambda n: n >= 1), ("mc1", lambda n: n == 1)):
        correct = found[key].eq(1).groupby(found.group).sum()
        if len(wrong := correct[~may_be(correct)]):
            raise ValueError(
                f"{path}: question {wrong.index[0]} has {wrong.iloc[0]} correct answers by {key}; "
                "make the task's table again"
            )
    return found[["group", "id", "label", "mc1", "text"]]
