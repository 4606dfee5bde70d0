"""Progress bars: the one place that imports tqdm."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(iterable: Iterable[T], *, total: int | None = None, desc: str, unit: str) -> Iterator[T]:
    """Yield the items of `iterable` and show how many are done, the rate and the time left.

    In a log file (no terminal) a line is written every ten seconds at most.
    """
    bar = tqdm(iterable, total=total, desc=desc, unit=unit, dynamic_ncols=True)
    if not bar.fp.isatty():
        bar.mininterval = bar.maxinterval = 10.0
    yield from bar
