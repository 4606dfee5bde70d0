"""Percentile bootstrap intervals over prompts, for means, ratios of sums and paired differences.

The unit that is drawn again is the prompt (or question), because samples of one prompt are not independent. Every
statistic here is a ratio of two sums over prompts; a mean is the ratio whose denominators are all 1. Values are sorted
before they are drawn from, so the order of the prompts changes nothing, not even the last bit.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95

_DRAWS_AT_ONCE = 2_000_000  # indices held in memory at a time: 16 MB


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
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Sum of the numerators over the sum of the denominators.

    numerator, denominator: (prompts,), finite, denominators > 0 (leave a prompt without any counted text out).
    Raises ValueError naming the offending figure otherwise.
    """
    columns = _columns(numerator, denominator)
    return _estimate(columns, lambda sums: sums[..., 0] / sums[..., 1], resamples, confidence, seed)


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
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Estimate:
    """Difference of two ratios over the same prompts, drawn together. Each is (numerator, denominator)."""
    columns = _columns(*treated, *control)
    return _estimate(
        columns, lambda sums: sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3], resamples, confidence, seed
    )


def _columns(*columns: ArrayLike) -> NDArray[np.float64]:
    """(prompts, columns), checked, in an order of its own. Columns alternate between numerator and denominator."""
    arrays = [np.asarray(column, dtype=float) for column in columns]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"bootstrap: got arrays of shapes {sorted(shapes)}; pass one value a prompt in each")
    table = np.stack(arrays, axis=1)
    if not np.isfinite(table).all():
        raise ValueError(
            f"bootstrap: {int((~np.isfinite(table)).any(axis=1).sum())} of {len(table)} prompts have a value that is "
            "not finite; leave them out and count them"
        )
    if (table[:, 1::2] <= 0).any():
        raise ValueError(f"bootstrap: a denominator is {table[:, 1::2].min():g}; leave prompts that count nothing out")
    return table[np.lexsort(table.T[::-1])]


def _estimate(
    columns: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    resamples: int,
    confidence: float,
    seed: int,
) -> Estimate:
    if not 0 < confidence < 1:
        raise ValueError(f"bootstrap: confidence is {confidence}; give a share between 0 and 1, such as 0.95")
    if resamples < 1:
        raise ValueError(f"bootstrap: resamples is {resamples}; draw at least one, better {RESAMPLES}")
    n = len(columns)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(statistic(columns.sum(axis=0)))
    if n == 1:
        return Estimate(value, np.nan, np.nan, 1)
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // n)
    sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
    drawn = np.concatenate([statistic(columns[generator.integers(n, size=(size, n))].sum(axis=1)) for size in sizes])
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    # Equal values add up to sums that differ in the last bit by how they are grouped; the value itself is a resample.
    return Estimate(value, min(float(low), value), max(float(high), value), n)
