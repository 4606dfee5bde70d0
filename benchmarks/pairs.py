"""Interleaved pairs: two ways of doing one thing, timed turn by turn, so that a busy machine slows both alike."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ratio:
    """How many times faster one way is than the other: the median over pairs, its 95 % bootstrap interval, seconds."""

    name: str
    aim: float
    ratio: float
    low: float
    high: float
    pairs: int
    seconds: float
    seconds_other: float

    @property
    def met(self) -> bool:
        return self.ratio >= self.aim


def speed_ratio(name: str, aim: float, ours: Callable[[], object], other: Callable[[], object], *, pairs: int) -> Ratio:
    """Time both, `pairs` times (after one turn that is not counted), each going first every other time."""
    seconds = np.empty((pairs + 1, 2))
    for turn in range(pairs + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            seconds[turn, which] = timed((ours, other)[which])
    seconds = seconds[1:]
    low, high = median_interval(seconds[:, 1] / seconds[:, 0])
    ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
    return Ratio(name, aim, ratio, low, high, pairs, *(float(median) for median in np.median(seconds, axis=0)))


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
