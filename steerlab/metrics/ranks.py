"""Correlations of many columns with many others at once, over words that stand in sentences.

Words of one sentence are not independent, so intervals draw sentences (and rank what was drawn anew), and the null
distribution moves whole sentences, which keeps what is alike in neighbouring words: length and frequency are. A column
that does not vary correlates with nothing: 0.

Sources: Kendall 1948, Rank Correlation Methods, for ties (midranks) and partial coefficients; Holm 1979, Scandinavian
Journal of Statistics 6, for the correction.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from steerlab.metrics import bootstrap

Array = NDArray[np.float64]

_NOTHING = 1e-9  # of a column of norm 1: what rounding leaves
_WORDS_AT_ONCE = 200_000  # of permuted copies in memory at a time


def midranks(values: ArrayLike) -> Array:
    """(n, columns) ranks from 1 within each column; equal values share the mean of their ranks."""
    return stats.rankdata(np.asarray(values, dtype=float), axis=0)


def pearson(x: Array, y: Array) -> Array:
    """(columns of x, columns of y) coefficients. x, y: (n, columns)."""
    return standardised(x).T @ standardised(y)


def spearman(x: Array, y: Array) -> Array:
    """(columns of x, columns of y) coefficients of the midranks. x, y: (n, columns)."""
    return pearson(midranks(x), midranks(y))


def kendall(x: Array, y: Array) -> Array:
    """(columns of x, columns of y) coefficients, tau-b. x, y: (n, columns)."""
    found = [[stats.kendalltau(one, other)[0] for other in y.T] for one in x.T]
    return np.nan_to_num(np.array(found, dtype=float).reshape(x.shape[1], y.shape[1]))


def standardised(values: Array) -> Array:
    """The columns with mean 0 and norm 1, whose products are correlations; a column that does not vary is all 0."""
    centred = values - values.mean(0)
    norm = np.linalg.norm(centred, axis=0)
    small = norm <= 1e-12 * np.linalg.norm(values, axis=0)  # what is left of equal values by rounding
    return np.divide(centred, norm, out=np.zeros_like(centred), where=~small & (norm > 0))


def without(values: Array, given: Array) -> Array:
    """What is left of the columns' midranks after a linear fit on the midranks of `given`, (n, columns of values).

    The correlations of two such residuals are partial rank correlations. given: (n, columns).
    """
    vectors, sizes, _ = np.linalg.svd(standardised(midranks(given)), full_matrices=False)
    basis = vectors[:, sizes > _NOTHING]  # fewer than the columns of `given` where they say the same
    ranks = standardised(midranks(values))
    left = ranks - basis @ (basis.T @ ranks)
    return left * (np.linalg.norm(left, axis=0) > _NOTHING)


def bootstrapped(x: Array, y: Array, sentence: NDArray[np.int64], *, resamples: int, seed: int) -> Array:
    """(resamples, columns of x): the mean over y's columns of |Spearman|, in draws of whole sentences.

    x, y: (n, columns); sentence: (n,) from 0, the sentence of each word.
    """
    columns = _Ranked.of(np.hstack([x, y]))
    found = []
    for counts in bootstrap.draws(int(sentence.max()) + 1, resamples, seed):
        for times in counts[:, sentence]:
            ranks = columns.drawn(times)
            centred = ranks - times @ ranks / times.sum()
            weighted = centred * times[:, None]
            norm = np.sqrt(np.einsum("nc,nc->c", weighted, centred))
            products = weighted[:, : x.shape[1]].T @ centred[:, x.shape[1] :]
            scale = np.outer(norm[: x.shape[1]], norm[x.shape[1] :])
            found.append(np.abs(np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)).mean(1))
    return np.array(found)


def permuted(x: Array, y: Array, sentence: NDArray[np.int64], *, permutations: int, seed: int) -> Array:
    """(permutations, columns of x): the mean over y's columns of |correlation| where sentences have changed places.

    The sentences' rows of y are laid end to end in a random order beside the rows of x, each sentence's own rows in
    their order. x, y: (n, columns), ranks or residuals; sentence: (n,), growing.
    """
    x, y = standardised(x), standardised(y)
    step = max(1, _WORDS_AT_ONCE // len(x))
    found = []
    for orders in _orders(sentence, permutations, seed, step):
        found.append(np.abs(x.T @ y[orders]).mean(2))
    return np.concatenate(found)


def p_values(observed: Array, null: Array) -> Array:
    """(columns,) share of the null distribution that is as large as what was observed, which counts itself.

    observed: (columns,); null: (permutations, columns).
    """
    return (1 + (null >= observed).sum(0)) / (1 + len(null))


def holm(p: ArrayLike) -> Array:
    """p-values corrected for how many they are (the family-wise error rate), by Holm's step-down procedure."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _orders(sentence: NDArray[np.int64], permutations: int, seed: int, step: int) -> Iterator[NDArray[np.int64]]:
    """Rows in permuted order of sentences, (some of the permutations, n), that together are all permutations."""
    generator = np.random.default_rng(seed)
    blocks: Sequence[NDArray[np.int64]] = np.split(np.arange(len(sentence)), np.flatnonzero(np.diff(sentence)) + 1)
    for done in range(0, permutations, step):
        yield np.stack(
            [
                np.concatenate([blocks[place] for place in generator.permutation(len(blocks))])
                for _ in range(min(step, permutations - done))
            ]
        )


@dataclass(frozen=True)
class _Ranked:
    """Columns sorted once, so that the midranks of any draw of their rows cost no sorting.

    order: (n, columns) rows by value; first, beyond: (n, columns), for each row the sorted places at which the run of
    values equal to its own begins and ends (exclusive).
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    beyond: NDArray[np.int64]

    @classmethod
    def of(cls, values: Array) -> "_Ranked":
        place: Callable[[str], Array] = lambda method: stats.rankdata(values, method=method, axis=0)  # noqa: E731
        return cls(
            np.argsort(values, axis=0, kind="stable"), place("min").astype(np.int64) - 1, place("max").astype(np.int64)
        )

    def drawn(self, times: Array) -> Array:
        """(n, columns) midranks where each row stands as often as `times`, (n,), says."""
        below = np.zeros((len(times) + 1, self.order.shape[1]))
        np.cumsum(times[self.order], axis=0, out=below[1:])
        return (np.take_along_axis(below, self.first, 0) + np.take_along_axis(below, self.beyond, 0) + 1) / 2
