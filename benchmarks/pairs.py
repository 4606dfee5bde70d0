"""Interleaved pairs: two ways of doing one thing, measured turn by turn, so that a busy machine slows both alike."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import nan

import numpy as np
import torch


@dataclass(frozen=True)
class Ratio:
    """How many times better one way is than the other: the median over pairs and its 95 % bootstrap interval.

    ours, other: medians of what either way took, in `unit`. tokens_a_second: of ours, where it makes or reads tokens.
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
    tokens_a_second: float = nan

    @property
    def met(self) -> bool:
        return self.ratio >= self.aim


def speed_ratio(
    name: str,
    aim: float,
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    pairs: int,
    tokens: float = nan,
) -> Ratio:
    """Time both, `pairs` times; the ratio is other / ours. tokens: see `ratio_of`."""
    seconds = interleaved([ours, other], pairs)
    return ratio_of(name, aim, seconds[:, 1] / seconds[:, 0], seconds, tokens=tokens)


def ratio_of(
    name: str, aim: float, ratios: np.ndarray, taken: np.ndarray, unit: str = "s", tokens: float = nan
) -> Ratio:
    """The summary of the ratios of all pairs. taken: (pairs, 2 or more), what ours and the other took; tokens: of one
    time of ours."""
    ours, other = np.median(taken, axis=0)[:2]
    low, high = median_interval(ratios)
    about = (float(np.median(ratios)), low, high, len(ratios), float(ours), float(other), unit)
    return Ratio(name, aim, *about, tokens / float(ours))


def interleaved(
    works: Sequence[Callable[[], object]],
    turns: int,
    around: Sequence[Callable[[], AbstractContextManager[None]]] | None = None,
    *,
    warmed: bool = False,
) -> np.ndarray:
    """Seconds of each work in each turn, (turns, works), after one turn that is not counted; the order is turned round
    every other time. around: what is entered before the time of each work counts; warmed: and the work done once."""
    around = around or [nullcontext] * len(works)
    seconds = np.empty((turns + 1, len(works)))
    for turn in range(turns + 1):
        order = range(len(works)) if turn % 2 else reversed(range(len(works)))
        for which in order:
            with around[which]():
                if warmed:
                    works[which]()
                seconds[turn, which] = timed(works[which])
    return seconds[1:]


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes, on a card to its end."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def median_interval(values: np.ndarray, resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(values, (resamples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)
