"""Sentiment by VADER: a lexicon of 7,500 rated words and a few rules (negation, intensity), open, offline and fast.

A weak stand-in for a trained classifier: it knows words, not meaning, and gives 0 to a text that has none of its words.
On SST-2's validation set (n = 872) its sign is the label's for 56.8 % of the sentences, and for 67.7 % of the 83.8 %
that it does not give 0. Its rank correlation with `num_positive` of 10,000 sentiment prompts is 0.47. Its numbers are
never to be printed as another scorer's. Source: Hutto and Gilbert 2014, ICWSM.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np


class Vader:
    """`score` gives the compound score in [-1, 1], below 0 where a text is negative; 0 where no word of it is rated."""

    name = "vaderSentiment"
    quantity: Literal["sentiment"] = "sentiment"

    def __init__(self) -> None:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # reads the lexicon in the package

        self._rate = SentimentIntensityAnalyzer().polarity_scores
        self.version = version(self.name)

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) float64, in [-1, 1]."""
        return np.array([self._rate(text)["compound"] for text in texts], dtype=np.float64)
