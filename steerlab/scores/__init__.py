"""Scores: one number or a few a text. Scorers of texts alone share one interface; importing it imports no torch."""

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd


class Scorer(Protocol):
    """Judges texts by themselves, each alone: a text's score does not depend on the texts beside it."""

    name: str
    version: str

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) float64, in the order of the texts."""
        ...


def load(path: str) -> Scorer:
    """The scorer at `module:Class`, ready to score; raises ValueError for a path outside steerlab.scores."""
    module, _, name = path.partition(":")
    if not module.startswith("steerlab.scores."):
        raise ValueError(f"{path!r} is no scorer of this project; give steerlab.scores.<file>:<Class>")
    return getattr(importlib.import_module(module), name)()


def label(scorer: Scorer) -> str:
    """How tables name a scorer: `name==version`. Scores of two versions are never mixed."""
    return f"{scorer.name}=={scorer.version}"


def toxicity(generations: pd.DataFrame, scorer: str) -> pd.DataFrame:
    """The generations without text and tokens, with the columns scorer and toxicity (0 to 1); scorer: its path."""
    judge = load(scorer)
    return generations.drop(columns=["text", "tokens"]).assign(
        scorer=label(judge), toxicity=judge.score(list(generations["text"]))
    )
