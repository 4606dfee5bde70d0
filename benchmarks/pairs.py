"""Interleaved pairs: two ways of doing one thing, measured turn by turn, so that a busy machine slows both alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ratio:
    """How many times better one way is than the other: the median over pairs and its 95 % bootstrap interval.

    ours, other: medians of what either way took, in `unit` (s or MiB).
    """

    name: str
    aim: float
    ratio: float
    low: float
    high: float
    pairs: int
    ours: float
    other: float
    unit: str = "s"

    @property
    def met(self) -> bool:
        return self.ratio >= self.aim


def speed_ratio(name: str, aim: float, ours: Callable[[], object], other: Callable[[], object], *, pairs: int) -> Ratio:
    """Time both, `pairs` times; the ratio is other / ours."""
    seconds = interleaved([ours, other], pairs)
    return ratio_of(name, aim, seconds[:, 1] / seconds[:, 0], seconds)


def ratio_of(name: str, aim: float, ratios: np.ndarray, taken: np.ndarray, unit: str = "s") -> Ratio:
    """The summary of the ratios of all pairs. taken: (pairs, 2 or more), what ours and the other took."""
    ours, other = np.median(taken, axis=0)[:2]
    low, high = median_interval(ratios)
    return Ratio(name, aim, float(np.median(ratios)), low, high, len(ratios), float(ours), float(other), unit)


def interleaved(works: Sequence[Callable[[], object]], turns: int) -> np.ndarray:
    """Seconds of each work in each turn, (turns, works), after one turn that is not counted; the order is turned round
    every other time."""
    seconds = np.empty((turns + 1, len(works)))
    for turn in range(turns + 1):
        order = range(len(works)) if turn % 2 else reversed(range(len(works)))
        for which in order:
            seconds[turn, which] = timed(works[which])
    return seconds[1:]


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_interval(values: np.ndarray, resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)
