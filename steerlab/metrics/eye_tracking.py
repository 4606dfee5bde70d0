"""The curves of a model's layers against readers' eye movements, from one number a word and layer.

What counts is the mean over the five features of |Spearman|, with three companions: chance, the same where the eye
movements of sentences have changed places; what is left given the words' length and log frequency; and the same without
the sentences' first words, which the attention sink sets apart in upper blocks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steerlab.data.eye_tracking import FEATURES
from steerlab.metrics import ranks

EMBEDDINGS = -1  # the layer's number; blocks are counted from 0, and theirs is what leaves the block
POOLED, MEAN = "all", "mean"  # in the columns corpus and feature: over all corpora, over all features
SPEARMAN, PARTIAL, INNER = "spearman", "partial_spearman", "spearman_without_first_words"
COLUMNS = [
    "corpus", "data", "measure", "feature", "layer", "value", "low", "high", "chance_low", "chance_high", "p", "p_holm",
    "words", "sentences", "left_out",
]  # fmt: skip

_KEYS = ["measure", "feature", "layer"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Corpus:
    """The words of one corpus with a number each of every layer, EMBEDDINGS first.

    words: rows of the task's table (steerlab.tasks.eye_tracking); components: (words, layers); inner: the components of
    the words but the sentences' first, fitted on them alone, (those words, layers).
    """

    words: pd.DataFrame
    components: Array
    inner: Array


def curves(
    corpora: Mapping[str, Corpus], *, permutations: int, resamples: int, confidence: float, seed: int = 0
) -> pd.DataFrame:
    """One row a corpus, measure, feature and layer, with COLUMNS.

    Corpus POOLED is the mean over the corpora, where there are several. layer: EMBEDDINGS, or a block counted from 0.
    measure: pearson, spearman, kendall; the same with log_ before it, of log10 of the feature where it is above 0;
    PARTIAL, given the rank of length and of log frequency; INNER, of the words but a sentence's first. The value of a
    feature has a sign (components are turned so that their mean Spearman is not below 0), that of MEAN is the mean of
    absolute values. low, high: of the MEAN of SPEARMAN, over sentences. chance_low, chance_high: where so much of the
    null distribution lies as the confidence says; p: by the null distribution; p_holm: corrected for the blocks; all
    of the MEAN of SPEARMAN and PARTIAL.
    """
    frequency = log_frequency(pd.concat([corpus.words["word"] for corpus in corpora.values()]))
    found, drawn = [], []
    for name, corpus in corpora.items():
        draws = _drawn(corpus, frequency, permutations=permutations, resamples=resamples, seed=seed)
        found.append(_of_corpus(corpus, frequency, draws, confidence).assign(corpus=name))
        drawn.append(draws)
    if len(found) > 1:
        found.append(_pooled(pd.concat(found), drawn, confidence).assign(corpus=POOLED))
    return _corrected(pd.concat(found, ignore_index=True))[COLUMNS]


def log_frequency(words: pd.Series) -> pd.Series:
    """log10 of how often each word stands among all these words, by the word; case and punctuation do not count.

    These are counts of the corpora at hand, a coarse measure: most words stand there once.
    """
    unique = pd.Series(words.unique())
    bare = unique.map(_bare)
    counts = words.map(dict(zip(unique, bare))).value_counts()
    return pd.Series(np.log10(bare.map(counts).to_numpy(dtype=float)), index=unique)


def _of_corpus(corpus: Corpus, frequency: pd.Series, drawn: Mapping[str, Array], confidence: float) -> pd.DataFrame:
    """The rows of one corpus."""
    words, features = corpus.words, _features(corpus.words)
    components, is_inner = _turned(corpus.components, features), (words["place"] > 0).to_numpy()
    inner = _turned(corpus.inner, features[is_inner])
    values = {
        "pearson": ranks.pearson(components, features),
        SPEARMAN: ranks.spearman(components, features),
        "kendall": ranks.kendall(components, features),
        **_of_logarithms(components, features),
        PARTIAL: ranks.pearson(*_left(components, features, words, frequency)),
        INNER: ranks.spearman(inner, features[is_inner]),
    }
    rows = pd.concat([_rows(measure, value) for measure, value in values.items()], ignore_index=True)
    about = {"data": words["data"].iloc[0], "words": len(words), "sentences": words["sentence"].nunique()}
    return _with_draws(rows, drawn, confidence).assign(**about, left_out=int(words["left_out"].iloc[0]))


def _drawn(corpus: Corpus, frequency: pd.Series, *, permutations: int, resamples: int, seed: int) -> dict[str, Array]:
    """The "resamples", (resamples, layers), and by measure the null distribution, (permutations, layers)."""
    features, sentence = _features(corpus.words), pd.factorize(corpus.words["sentence"])[0]
    ranked = ranks.midranks(corpus.components), ranks.midranks(features)
    left = _left(corpus.components, features, corpus.words, frequency)
    many = {"permutations": permutations, "seed": seed}
    return {
        "resamples": ranks.bootstrapped(corpus.components, features, sentence, resamples=resamples, seed=seed),
        SPEARMAN: ranks.permuted(*ranked, sentence, **many),
        PARTIAL: ranks.permuted(*left, sentence, **many),
    }


def _features(words: pd.DataFrame) -> Array:
    """(words, features); raises ValueError for a feature that does not vary."""
    if constant := [name for name in FEATURES if words[name].nunique() < 2]:
        corpus = words["corpus"].iloc[0]
        raise ValueError(f"eye_tracking: {constant[0]} of {corpus} is the same for all words; take more sentences")
    return words[list(FEATURES)].to_numpy(dtype=float)


def _left(components: Array, features: Array, words: pd.DataFrame, frequency: pd.Series) -> tuple[Array, Array]:
    """What length and log frequency leave of the components' and the features' ranks."""
    lengths = [len(_bare(str(word))) for word in words["word"]]
    given = np.column_stack([lengths, frequency[words["word"]]])
    return ranks.without(components, given), ranks.without(features, given)


def _turned(components: Array, features: Array) -> Array:
    """The components, each with the sign by which its mean Spearman coefficient is not below 0."""
    return components * np.where(ranks.spearman(components, features).mean(1) < 0, -1.0, 1.0)


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
    layers = np.arange(len(values)) + EMBEDDINGS
    table = pd.DataFrame(values, columns=list(FEATURES), index=layers).assign(**{MEAN: np.abs(values).mean(1)})
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
