"""How far a model's layers go with readers' eye movements (CogSteer, part one), layer by layer and feature by feature.

Of each layer the words' states are brought to their first principal component, corpus by corpus, and this number is
correlated with how long readers looked at the words: steerlab.metrics.eye_tracking.
"""

import numpy as np
import pandas as pd
import torch

from steerlab.analyses.word_states import first_component, word_states
from steerlab.metrics import bootstrap
from steerlab.metrics.eye_tracking import Corpus, curves
from steerlab.models import ModelHandle


def eye_tracking(
    model: ModelHandle,
    table: pd.DataFrame,
    *,
    batch_sentences: int,
    permutations: int,
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """The curves, as steerlab.metrics.eye_tracking.curves has them. table: the task's (steerlab.tasks.eye_tracking)."""
    by_corpus = {
        str(name): components(model, words.reset_index(drop=True), batch_sentences=batch_sentences)
        for name, words in table.groupby("corpus", sort=False)
    }
    how = {"permutations": permutations, "resamples": resamples, "confidence": confidence, "seed": seed}
    return curves(by_corpus, **how)


def components(model: ModelHandle, words: pd.DataFrame, *, batch_sentences: int) -> Corpus:
    """The words of one corpus with each layer's first principal component. words: rows of the task's table."""
    sentences = [list(of_sentence) for _, of_sentence in words.groupby("sentence", sort=False)["word"]]
    states = word_states(model, sentences, batch_sentences=batch_sentences)
    inner = torch.tensor((words["place"] > 0).to_list())
    if inner.sum() < 2:
        raise ValueError(
            f"eye_tracking: {words['corpus'].iloc[0]} has no sentence of several words; take more sentences"
        )
    of_all, of_inner = ([first_component(layer) for layer in each] for each in (states, states[:, inner]))
    return Corpus(words, np.stack(of_all, axis=1), np.stack(of_inner, axis=1))
