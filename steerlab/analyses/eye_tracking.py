"""How far a model's layers go with readers' eye movements (CogSteer, part one), layer by layer and feature by feature.

Of each layer the words' states are brought to their first principal component, and this number is correlated with how
long readers looked at the words. What counts is the mean over the five features of |Spearman|, with three companions:
chance, the same where the sentences' eye movements have changed places; what is left given the words' length and log
frequency; and the same without the sentences' first words, which the attention sink sets apart in upper blocks.
"""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.analyses.word_states import EMBEDDINGS, first_component, layers_of, word_states
from steerlab.data.eye_tracking import FEATURES
from steerlab.metrics import bootstrap, ranks
from steerlab.models import ModelHandle
from steerlab.progress import progress

POOLED, MEAN = "all", "mean"  # in the columns corpus and feature: over all corpora, over all features
SPEARMAN, PARTIAL, INNER = "spearman", "partial_spearman", "spearman_without_first_words"
COLUMNS = [
    "corpus", "data", "measure", "feature", "layer", "value", "low", "high", "chance_low", "chance_high", "p", "p_holm",
    "words", "sentences", "left_out",
]  # fmt: skip

_KEYS = ["measure", "feature", "layer"]

Array = NDArray[np.float64]


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
    """One row a corpus, measure, feature and layer, with COLUMNS. table: the task's (steerlab.tasks.eye_tracking).

    Corpus POOLED is the mean over the corpora. layer: EMBEDDINGS, or a block counted from 0. measure: pearson,
    spearman, kendall; the same with log_ before it, of log10 of the feature where it is above 0; PARTIAL, given the
    rank of length and of log frequency; INNER, of the words but a sentence's first. The value of a feature has a sign
    (components are turned so that their mean Spearman is not below 0), that of MEAN is the mean of absolute values.
    low, high: of the MEAN of SPEARMAN, over sentences. chance_low, chance_high: where so much of the null distribution
    lies as the confidence says; p: of the null distribution; p_holm: corrected for the blocks; of MEAN of SPEARMAN and
    PARTIAL.
    """
    frequency = log_frequency(table["word"])
    how = {"permutations": permutations, "resamples": resamples, "confidence": confidence, "seed": seed}
    found, drawn = [], []
    for corpus, words in table.groupby("corpus", sort=False):
        words = words.reset_index(drop=True)
        sentences = [list(of_sentence) for _, of_sentence in words.groupby("sentence", sort=False)["word"]]
        states = word_states(model, sentences, batch_sentences=batch_sentences)
        inner = (words["place"] > 0).to_numpy()
        layers = progress(range(len(states)), total=len(states), desc=f"components of {corpus}", unit="layer")
        components = np.stack([first_component(states[layer]) for layer in layers], axis=1)
        within = (
            np.stack([first_component(layer[inner]) for layer in states], axis=1) if inner.any() else components[:0]
        )
        rows, draws = curves_of_corpus(words, components, within, frequency[words["word"]].to_numpy(), **how)
        found.append(rows.assign(corpus=corpus))
        drawn.append(draws)
    if len(found) > 1:
        found.append(_pooled(pd.concat(found), drawn, confidence).assign(corpus=POOLED))
    curves = pd.concat(found, ignore_index=True)
    curves["layer"] = curves["layer"].map(dict(enumerate(layers_of(model))))
    return _corrected(curves)[COLUMNS]


def log_frequency(words: pd.Series) -> pd.Series:
    """log10 of how often each word stands among all these words, by the word; case and punctuation do not count.

    These are counts of the corpora at hand, a coarse measure: most words stand there once.
    """
    unique = pd.Series(words.unique())
    bare = unique.map(_bare)
    counts = words.map(dict(zip(unique, bare))).value_counts()
    return pd.Series(np.log10(bare.map(counts).to_numpy(dtype=float)), index=unique)


def curves_of_corpus(
    words: pd.DataFrame,
    components: Array,
    inner: Array,
    frequency: Array,
    *,
    permutations: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Array]]:
    """The rows of one corpus, layers numbered from 0 by the columns of `components`, and what was drawn for them.

    words: of the corpus; components: (words, layers); inner: (words but the sentences' first, layers); frequency:
    (words,). Drawn are the "resamples" (resamples, layers) and, by measure, the null (permutations, layers).
    Raises ValueError for a feature that does not vary.
    """
    features = words[list(FEATURES)].to_numpy(dtype=float)
    if (constant := [name for name in FEATURES if words[name].nunique() < 2]) or len(words) < 3:
        raise ValueError(f"eye_tracking: {constant or 'three words'} must vary to correlate; take more sentences")
    sentence = pd.factorize(words["sentence"])[0]
    of_ranks = ranks.spearman(components, features)
    components = components * np.where(of_ranks.mean(1) < 0, -1.0, 1.0)
    is_inner = (words["place"] > 0).to_numpy()
    given = np.column_stack([words["word"].map(lambda word: len(_bare(word))), frequency])
    ranked = ranks.midranks(components), ranks.midranks(features)
    left = ranks.without(components, given), ranks.without(features, given)
    values = {
        "pearson": ranks.pearson(components, features),
        SPEARMAN: ranks.pearson(*ranked),
        "kendall": ranks.kendall(components, features),
        **_of_logarithms(components, features),
        PARTIAL: ranks.pearson(*left),
        INNER: ranks.spearman(inner, features[is_inner]) if len(inner) > 2 else np.full(of_ranks.shape, np.nan),
    }
    rows = pd.concat([_rows(measure, value) for measure, value in values.items()], ignore_index=True)
    many = {"permutations": permutations, "seed": seed}
    drawn = {
        "resamples": ranks.bootstrapped(components, features, sentence, resamples=resamples, seed=seed),
        SPEARMAN: ranks.permuted(*ranked, sentence, **many),
        PARTIAL: ranks.permuted(*left, sentence, **many),
    }
    about = {"data": words["data"].iloc[0], "words": len(words), "sentences": int(sentence.max()) + 1}
    return _with_draws(rows, drawn, confidence).assign(**about, left_out=int(words["left_out"].iloc[0])), drawn


def _of_logarithms(components: Array, features: Array) -> dict[str, Array]:
    """The measures of log10 of each feature, over the words where it is above 0."""
    found: dict[str, list[Array]] = {name: [] for name in ("pearson", "spearman", "kendall")}
    for feature in features.T:
        positive = feature > 0
        logarithm, there = np.log10(feature[positive])[:, None], components[positive]
        for name, columns in found.items():
            columns.append(getattr(ranks, name)(there, logarithm))
    return {f"log_{name}": np.hstack(columns) for name, columns in found.items()}


def _rows(measure: str, values: Array) -> pd.DataFrame:
    """One row a layer and feature, and the MEAN over features. values: (layers, features)."""
    table = pd.DataFrame(values, columns=list(FEATURES)).assign(**{MEAN: np.abs(values).mean(1)})
    long = table.rename_axis("layer").reset_index().melt("layer", var_name="feature")
    return long.assign(measure=measure)


def _with_draws(rows: pd.DataFrame, drawn: Mapping[str, Array], confidence: float) -> pd.DataFrame:
    """The rows with intervals and p-values where something was drawn for them."""
    rows = rows.assign(**dict.fromkeys(["low", "high", "chance_low", "chance_high", "p"], np.nan))
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    for measure in (SPEARMAN, PARTIAL):
        here = rows[(rows.measure == measure) & (rows.feature == MEAN)].sort_values("layer")
        at, values = here.index, here["value"].to_numpy()
        rows.loc[at, ["chance_low", "chance_high"]] = np.quantile(drawn[measure], ends, axis=0).T
        rows.loc[at, "p"] = ranks.p_values(values, drawn[measure])
        if measure == SPEARMAN:
            low, high = np.quantile(drawn["resamples"], ends, axis=0)
            rows.loc[at, ["low", "high"]] = np.column_stack([np.minimum(low, values), np.maximum(high, values)])
    return rows


def _pooled(rows: pd.DataFrame, drawn: list[dict[str, Array]], confidence: float) -> pd.DataFrame:
    """The means over corpora, of absolute values, with what was drawn in each of them."""
    means = rows.assign(value=rows["value"].abs()).groupby(_KEYS, sort=False)["value"].mean().reset_index()
    corpora = rows.drop_duplicates("corpus")
    about = {name: int(corpora[name].sum()) for name in ("words", "sentences", "left_out")}
    together = {name: np.mean([draws[name] for draws in drawn], axis=0) for name in drawn[0]}
    data = " and ".join(dict.fromkeys(corpora["data"]))
    return _with_draws(means, together, confidence).assign(**about, data=data)


def _corrected(curves: pd.DataFrame) -> pd.DataFrame:
    """The curves with p-values corrected for the blocks of a corpus and measure; the embeddings are none."""
    curves = curves.assign(p_holm=np.nan)
    tested = curves[curves["p"].notna() & (curves["layer"] != EMBEDDINGS)]
    for _, rows in tested.groupby(["corpus", "measure"]):
        curves.loc[rows.index, "p_holm"] = ranks.holm(rows["p"])
    return curves


def _bare(word: str) -> str:
    """The word's letters and digits in lower case; a word without any is itself."""
    return re.sub(r"[\W_]", "", word).lower() or word
