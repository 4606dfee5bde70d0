"""Percentile bootstrap intervals over prompts, for means, ratios of sums and paired differences.

The unit that is drawn again is the prompt (or question), because samples of one prompt are not independent. Every
statistic here is a ratio of two sums over prompts; a mean is the ratio whose denominators are all 1. Values are sorted
before they are drawn from, so the order of the prompts changes nothing, not even the last bit.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.8  # of the smallest detectable difference

_DRAWS_AT_ONCE = 2_000_000  # counts held in memory at a time: 16 MB


@dataclass(frozen=True)
class Estimate:
    """A number, its interval and the count of prompts behind it.

    low and high are NaN where fewer than two prompts are left: one prompt says nothing about other prompts.
    """

    value: float
    low: float
    high: float
    n: int


def mean(values: ArrayLike, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0) -> Estimate:
    """Mean over prompts. values: (prompts,), finite."""
    return ratio(values, np.ones_like(values, dtype=float), resamples=resamples, confidence=confidence, seed=seed)


def ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    scale: Callable[[Array], Array] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Sum of the numerators over the sum of the denominators, and of it the `scale` where there is one.

    numerator, denominator: (prompts,), finite, denominators > 0 (leave a prompt without any counted text out).
    scale: a growing function of an array of ratios, such as numpy.exp. Raises ValueError naming the offending figure.
    """
    columns = _columns(numerator, denominator)
    if (columns[1] <= 0).any():
        raise ValueError(f"bootstrap: a denominator is {columns[1].min():g}; leave prompts that count nothing out")
    return _estimate(columns, lambda sums: _scaled(scale, sums[..., 0], sums[..., 1]), resamples, confidence, seed)


def mean_difference(
    treated: ArrayLike,
    control: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Mean of treated - control over the prompts that both saw. treated, control: (prompts,), the same prompt a row."""
    ones = np.ones_like(treated, dtype=float)
    return ratio_difference((treated, ones), (control, ones), resamples=resamples, confidence=confidence, seed=seed)


def ratio_difference(
    treated: tuple[ArrayLike, ArrayLike],
    control: tuple[ArrayLike, ArrayLike],
    *,
    scale: Callable[[Array], Array] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Difference of two ratios (scaled as in `ratio`) over the same prompts, drawn together.

    treated, control: (numerator, denominator), each (prompts,), the same prompt a row. A prompt may count on one side
    alone: its numerator and denominator are then 0 on the other, so that each ratio stays what it is by itself.
    """
    columns = _columns(*treated, *control)
    if (columns[1::2] < 0).any() or ((columns[1::2] == 0) & (columns[::2] != 0)).any():
        raise ValueError("bootstrap: a denominator is below 0, or is 0 under a numerator that is not; give 0 over 0")

    def difference(sums: Array) -> Array:
        return _scaled(scale, sums[..., 0], sums[..., 1]) - _scaled(scale, sums[..., 2], sums[..., 3])

    return _estimate(columns, difference, resamples, confidence, seed)


def of_sums(
    columns: Sequence[ArrayLike],
    statistic: Callable[[Array], Array],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """A statistic that is a function of sums over prompts, and is not a ratio of two of them.

    columns: (prompts,) each, finite; statistic: (..., columns), the sums, to (...), NaN where it has no value.
    """
    return _estimate(_columns(*columns), statistic, resamples, confidence, seed)


def detectable(width: float, confidence: float = CONFIDENCE) -> float:
    """The smallest true difference that is told from 0 with POWER, from the width of a difference's interval."""
    normal = NormalDist()
    at_edge = normal.inv_cdf(0.5 + confidence / 2)
    return (at_edge + normal.inv_cdf(POWER)) * width / 2 / at_edge


def _columns(*columns: ArrayLike) -> Array:
    """(columns, prompts), checked, in an order of its own. Columns alternate between numerator and denominator."""
    arrays = [np.asarray(column, dtype=float) for column in columns]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"bootstrap: got arrays of shapes {sorted(shapes)}; pass one value a prompt in each")
    table = np.stack(arrays)
    if not np.isfinite(table).all():
        raise ValueError(
            f"bootstrap: {int((~np.isfinite(table)).any(axis=0).sum())} of {table.shape[1]} prompts have a value that "
            "is not finite; leave them out and count them"
        )
    return np.ascontiguousarray(table[:, np.lexsort(table[::-1])])


def _scaled(scale: Callable[[Array], Array] | None, numerator: Array, denominator: Array) -> Array:
    with np.errstate(invalid="ignore"):  # 0 / 0: a resample in which nothing counts has no value
        quotient = numerator / denominator
    return quotient if scale is None else scale(quotient)


def _estimate(
    columns: Array, statistic: Callable[[Array], Array], resamples: int, confidence: float, seed: int
) -> Estimate:
    if not 0 < confidence < 1:
        raise ValueError(f"bootstrap: confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"bootstrap: resamples is {resamples}; draw at least one, better {RESAMPLES}")
    n = columns.shape[1]
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(statistic(columns.sum(axis=1)))
    if n == 1 or np.isnan(value):
        return Estimate(value, np.nan, np.nan, n)
    # einsum, not a product of matrices: its sums do not depend on the number of threads.
    sums = [np.einsum("rn,cn->rc", times, columns) for times in _times_drawn(n, resamples, seed)]
    drawn = statistic(np.concatenate(sums))
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Estimate(value, np.nan, np.nan, n)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    # Equal values add up to sums that differ in the last bit by how they are grouped; the value itself is a resample.
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def _times_drawn(n: int, resamples: int, seed: int) -> Iterable[Array]:
    """How often each resample draws each of n prompts: (resamples, n) in all, in parts of limited size."""
    small = n * resamples <= _DRAWS_AT_ONCE
    return _small_draws(n, resamples, seed) if small else draws(n, resamples, seed)


@functools.lru_cache(maxsize=8)
def _small_draws(n: int, resamples: int, seed: int) -> list[Array]:
    """Kept, because a table of metrics asks for the same draws a thousand times."""
    return list(draws(n, resamples, seed))


def draws(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each resample draws each of n things, with replacement.

    Parts of limited size, (some of the resamples, n) float64, that together are all of them.
    """
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // n)
    for done in range(0, resamples, step):
        size = min(step, resamples - done)
        places = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * n).reshape(size, n).astype(float)
