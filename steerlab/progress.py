"""Progress bars: the one place that imports tqdm."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(iterable: Iterable[T], *, total: int | None = None, desc: str, unit: str) -> Iterator[T]:
    """Yield the items of `iterable` and show how many are done, the rate and the time left.

    In a log file (no terminal) a line is written every ten seconds at most.
    """
    yield from _calm(tqdm(iterable, total=total, desc=desc, unit=unit, dynamic_ncols=True))


def progress_of(total: int, *, desc: str, unit: str) -> tqdm:
    """A bar like that of `progress`, which its owner moves with `update(n)` and closes."""
    return _calm(tqdm(total=total, desc=desc, unit=unit, dynamic_ncols=True))


def note(text: str) -> None:
    """Write a line to the terminal, between bars."""
    tqdm.write(text, file=sys.stderr)


def _calm(bar: tqdm) -> tqdm:
    if not bar.fp.isatty():
        bar.mininterval = bar.maxinterval = 10.0
    return bar
