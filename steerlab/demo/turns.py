"""One thread for all requests: a model is steered for one of them at a time, and a page that is left holds up none."""

import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()


class Turns:
    """Requests take turns, first come, first served, each from its beginning to its end."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="demo")
        self._closed = threading.Event()

    def take(self, steps: Callable[[], Generator[T]]) -> Generator[T]:
        """What the generator yields, as it comes, computed in the one thread; what it raises is raised here.

        When whoever takes it leaves off, the generator is closed at its next step.
        """
        made: queue.SimpleQueue[Any] = queue.SimpleQueue()
        left = threading.Event()

        def work() -> None:
            try:
                with closing(steps()) as coming:
                    while not (left.is_set() or self._closed.is_set()) and (step := next(coming, _END)) is not _END:
                        made.put((step, None))
                made.put((_END, None))
            except Exception as error:
                made.put((_END, error))

        self._thread.submit(work)
        try:
            while True:
                step, error = made.get()
                if error is not None:
                    raise error
                if step is _END:
                    return
                yield step
        finally:
            left.set()

    def close(self) -> None:
        """No further turns; the one under way ends at its next step."""
        self._closed.set()
        self._thread.shutdown()
