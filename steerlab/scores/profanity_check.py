"""Toxicity by alt-profanity-check: a linear model on words and word pairs, open, offline and fast.

It ranks much as Perspective does (AUC 0.97 on 1,996 Wikipedia comments) and agrees with it at the cut of 0.5 on 94.5 %
of them, but it is lexical: mild profanity is overrated, threats without swear words are underrated, and low scores are
compressed. Its numbers are never to be printed as Perspective's.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np


class ProfanityCheck:
    """`score` gives the probability that a text is offensive, in [0, 1]; an empty text is scored as a newline."""

    name = "alt-profanity-check"
    quantity: Literal["toxicity"] = "toxicity"

    def __init__(self) -> None:
        from profanity_check import predict_prob  # loads the model's weights

        self._predict = predict_prob
        self.version = version(self.name)

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) float64, in [0, 1]."""
        if not texts:
            return np.empty(0)
        return np.asarray(self._predict([text or "\n" for text in texts]), dtype=np.float64)
