"""Do people see what the scorers say? Pairs of continuations for a blind eye, and agreement once they are judged."""

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

SIDES = ("left", "right", "same")
SAME_TEXT = ["id", "sample", "seed"]  # what a pair shares
ASKED = "more_"  # the column that a person fills, with the quantity's name
COLUMNS = ("judge", "pairs", "decided", "steered has less", "interval", "beside", "agreement", "kappa")


def pairs(
    steered: pd.DataFrame, other: pd.DataFrame, prompts: Mapping[str, str], *, quantity: str, n: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """n pairs for a person, and their key; fewer where there are no more. One of each prompt comes before a second.

    steered, other: continuations with id, sample, seed and text, one setting each; prompts: text by id. Equal texts are
    no pair. Returns pair (from 1), prompt, left, right and an empty `more_<quantity>`; and pair, id, sample, seed and
    steered (the side on which it is).
    """
    both = steered[[*SAME_TEXT, "text"]].merge(other[[*SAME_TEXT, "text"]], on=SAME_TEXT, suffixes=("", "_other"))
    both = both[both["text"] != both["text_other"]].sort_values(SAME_TEXT, ignore_index=True)
    drawn = np.random.default_rng(seed)
    both = both.iloc[drawn.permutation(len(both))]
    both = both.assign(turn=both.groupby("id").cumcount()).sort_values("turn", kind="stable")[:n]
    both = both.iloc[drawn.permutation(len(both))].reset_index(drop=True)  # or the first prompts would come first
    is_left = drawn.random(len(both)) < 0.5
    number = both.index + 1
    shown = {"pair": number, "prompt": both["id"].map(prompts)}
    shown["left"] = both["text"].where(is_left, both["text_other"])
    shown["right"] = both["text_other"].where(is_left, both["text"])
    key = both[SAME_TEXT].assign(steered=np.where(is_left, "left", "right"))
    key.insert(0, "pair", number)
    return pd.DataFrame(shown).assign(**{ASKED + quantity: ""}), key


def of_sample(sheet: Path, shown: pd.DataFrame) -> pd.DataFrame:
    """A filled sheet (CSV) in the order of the pairs that were sampled, `shown`.

    Raises ValueError, in one line, where its texts are not those of the sample: they were drawn again since.
    """
    filled, texts = pd.read_csv(sheet), ["prompt", "left", "right"]
    if {"pair", *texts} <= set(filled) and set(filled["pair"]) == set(shown["pair"]):
        filled = filled.set_index("pair").loc[shown["pair"]].reset_index()
        if all(_words(filled[text]) == _words(shown[text]) for text in texts):
            return filled
    raise ValueError(f"{sheet} has other pairs than the sample of this run; fill a copy of its pairs.csv")


def _words(texts: pd.Series) -> list[list[str]]:
    """Texts without their spaces and line ends, which spreadsheets change."""
    return [str(text).split() for text in texts]


def judged(filled: pd.DataFrame, key: pd.DataFrame) -> pd.Series:
    """What a person says of each pair: "steered" or "other" has more, or "same"; pairs left empty are left out.

    Raises ValueError, in one line, for an answer that is none of left, right and same, and for other pairs than the
    key's.
    """
    column = next((name for name in map(str, filled.columns) if name.startswith(ASKED)), None)
    if column is None or set(filled["pair"]) != set(key["pair"]):
        raise ValueError("the file is not the one that was sampled: its pairs or its last column are others")
    said = filled.set_index("pair")[column].fillna("").astype(str).str.strip().str.lower()
    said = said[said != ""]
    unknown = said[~said.isin(SIDES)]
    if len(unknown):
        raise ValueError(f"pair {unknown.index[0]} says {unknown.iloc[0]!r} in {column}; write left, right or same")
    on = key.set_index("pair")["steered"].reindex(said.index)
    return said.where(said == "same", np.where(said == on, "steered", "other"))


def scored(key: pd.DataFrame, steered: pd.DataFrame, other: pd.DataFrame) -> dict[str, pd.Series]:
    """The same of each scorer, by its name. steered, other: scores with id, sample, seed, scorer and score."""
    found = {}
    for scorer in steered["scorer"].unique():
        sides = [each[each["scorer"] == scorer].set_index(SAME_TEXT)["score"] for each in (steered, other)]
        here, there = (side.reindex(pd.MultiIndex.from_frame(key[SAME_TEXT])).to_numpy() for side in sides)
        says = pd.Series(np.where(here > there, "steered", np.where(here < there, "other", "same")), key["pair"])
        found[scorer] = says[np.isfinite(here) & np.isfinite(there)]
    return found


def agreement(people: Mapping[str, pd.Series], scorers: Mapping[str, pd.Series]) -> list[tuple]:
    """A row a judge and each person that it can be set beside, by COLUMNS. Shares are of the pairs that were decided;
    the interval is Wilson's at 95 %; agreement and Cohen's kappa are of the pairs that both decided."""
    rows = []
    everyone = dict(people) | dict(scorers)
    for place, (name, says) in enumerate(everyone.items()):
        beside = [other for other in list(people)[:place] if other != name] if name in people else list(people)
        for other in beside or ["-"]:
            rows.append((name, *_of_one(says), other, *_of_two(says, everyone.get(other))))
    return rows


def table(rows: Sequence[tuple]) -> pd.DataFrame:
    """What `agreement` returns as a table, the ends of the interval in columns of their own: low, high."""
    flat = [(*row[:4], *row[4], *row[5:]) for row in rows]
    return pd.DataFrame(flat, columns=[*COLUMNS[:4], "low", "high", *COLUMNS[5:]])


def _of_one(says: pd.Series) -> tuple[int, int, float, tuple[float, float]]:
    from scipy.stats import binomtest

    decided = says[says != "same"]
    if decided.empty:
        return len(says), 0, nan, (nan, nan)
    less = int((decided == "other").sum())
    interval = binomtest(less, len(decided)).proportion_ci(method="wilson")
    return len(says), len(decided), less / len(decided), (interval.low, interval.high)


def _of_two(says: pd.Series, other: pd.Series | None) -> tuple[float, float]:
    from sklearn.metrics import cohen_kappa_score

    if other is None:
        return nan, nan
    both = pd.concat([says, other], axis=1, join="inner", keys=["one", "two"])
    both = both[(both != "same").all(axis=1)]
    if both.empty:
        return nan, nan
    share = float((both["one"] == both["two"]).mean())
    varied = both["one"].nunique() > 1 or both["two"].nunique() > 1
    return share, float(cohen_kappa_score(both["one"], both["two"])) if varied else nan
