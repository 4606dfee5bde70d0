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


SCORERS = {"profanity_check": "steerlab.scores.profanity_check:ProfanityCheck"}


def scorer(name: str) -> Scorer:
    """The scorer of this name, ready to score; raises ValueError for one that is not in SCORERS."""
    if name not in SCORERS:
        raise ValueError(f"no scorer is called {name!r}; choose one of {', '.join(SCORERS)}")
    module, attribute = SCORERS[name].split(":")
    return getattr(importlib.import_module(module), attribute)()


def label(scorer: Scorer) -> str:
    """How tables name a scorer: `name==version`. Scores of two versions are never mixed."""
    return f"{scorer.name}=={scorer.version}"


def toxicity(generations: pd.DataFrame, name: str) -> pd.DataFrame:
    """The generations without text and tokens, with the columns scorer and toxicity (0 to 1) of the named scorer."""
    judge = scorer(name)
    return generations.drop(columns=["text", "tokens"]).assign(
        scorer=label(judge), toxicity=judge.score(list(generations["text"]))
    )
