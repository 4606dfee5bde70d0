"""Eye tracking: how long readers looked at words, one row a word. No model is asked; its states are compared."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import eye_tracking, loaders
from steerlab.data.sources import REAL, SYNTHETIC
from steerlab.data.splits import share

COLUMNS = ["corpus", "data", *eye_tracking.COLUMNS]


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """The words of all corpora with COLUMNS, corpora in the order given, words in reading order.

    raw, doors: folder of raw files and door of each corpus. settings: {"corpora": [...], "sentences": how many of a
    corpus, the first ones by hash, None for all}. data: REAL, or SYNTHETIC for what comes through the sample door.
    left_out: how many sentences of a corpus lack one value a word, counted before any are chosen.
    Raises ValueError where a corpus has fewer sentences than asked for.
    """
    frames = []
    for corpus in settings["corpora"]:
        data = SYNTHETIC if doors[corpus] == "sample" else REAL
        words = loaders.read(corpus, doors[corpus], raw[corpus]).assign(corpus=corpus, data=data)
        frames.append(words[words.sentence.isin(_chosen(corpus, words, settings["sentences"]))])
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def _chosen(corpus: str, words: pd.DataFrame, n: int | None) -> list[int]:
    """Numbers of the first n sentences in hash order; a text that stands twice is two sentences."""
    texts = words.groupby("sentence")["word"].agg(" ".join)
    if n is not None and n > len(texts):
        raise ValueError(
            f"eye_tracking: {n} sentences are asked for, {corpus} has {len(texts)}; lower eye_tracking.sentences"
        )
    return sorted(texts.index, key=lambda number: (share(texts[number], "order"), number))[:n]
