"""Scoring by services over the network: each distinct text is asked for once, at the quota's rate, and kept for ever.

One thread writes to the score cache, others wait for answers. Several processes may share a store: they share its
quota and do not ask for each other's texts. Whatever was answered before a kill, a Ctrl-C or a stop is in the cache.
"""

import email.utils
import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from tenacity.nap import sleep_using_event

from steerlab.progress import note, progress_of
from steerlab.scores import ScorerError
from steerlab.scores.cache import FILE, Answer, Question, ScoreCache, now, text_digest
from steerlab.scores.quota import SHARE, Claims, Quota

log = logging.getLogger(__name__)

ATTEMPTS = 20  # with waits of up to a minute: a quarter of an hour
LONGEST_WAIT = 60.0  # seconds, where the service names none: a quota by the minute is full again by then
WORKERS = 64  # requests at once, at most
AHEAD = 4  # texts in hand a worker, so that a slow disk does not leave the quota unused
A_WRITE = 0.1  # seconds of answers that are written together: each write waits for the disk


class ServiceStopped(ScorerError):
    """A service that will give no more scores until somebody does something; the message says what."""


class Unavailable(Exception):
    """No score this time; another attempt may bring one.

    throttled: the service says that requests come too fast; retry_after: seconds that it asked to wait, None if none.
    """

    def __init__(self, reason: str, *, throttled: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.throttled, self.retry_after = throttled, retry_after


class Service(Protocol):
    """Somebody over the network who scores texts, one a request.

    question: what the answers are kept under; quantity: what the score is.
    """

    name: str
    version: str
    quantity: Literal["toxicity", "sentiment"]
    question: Question

    def refusal(self, text: str) -> str | None:
        """Why the text is not even sent; None if it is."""
        ...

    def ask(self, text: str) -> Answer:
        """One request; safe for threads. Raises Unavailable, and ServiceStopped."""
        ...

    def score(self, answer: Answer) -> float:
        """The number that tables show, of an answer that is no refusal."""
        ...


class Connection(threading.local):
    """A connection a thread; `requests` sends each request once, and never again by itself."""

    def __init__(self) -> None:
        self.session = requests.Session()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date."""
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


class NetworkScorer:
    """A service as a Scorer: scores come from the cache in `store`, and are asked for where they are not there.

    quota: requests a second, of all processes that share the store. A refused text scores NaN.
    """

    def __init__(self, service: Service, store: Path, *, quota: float) -> None:
        self.name, self.version, self.quantity = service.name, service.version, service.quantity
        self._service, self._store, self._quota = service, store, quota

    def score(self, texts: Sequence[str]) -> np.ndarray:
        found = answers(self._service, texts, self._store, quota=self._quota)
        scores = {text: math.nan if one.refusal else self._service.score(one) for text, one in found.items()}
        return np.array([scores[text] for text in texts], dtype=np.float64)


def answers(service: Service, texts: Sequence[str], store: Path, *, quota: float) -> dict[str, Answer]:
    """The answer to every distinct text, from the cache or the service.

    store: the folder of the cache; quota: requests a second. Raises ServiceStopped with one line; what was answered
    until then is in the cache, as it is after a Ctrl-C.
    """
    distinct = list(dict.fromkeys(texts))
    with ScoreCache(store / FILE) as cache:
        found = cache.look_up(service.question, distinct)
        note(_forecast(service.name, len(texts), len(found), len(texts) - len(distinct), quota))
        missing = [text for text in distinct if text not in found]
        cache.add(service.question, refused := _refused_unasked(service, missing))
        missing = [text for text in missing if text not in refused]
        asked = _Asking(service, cache, store, quota).all(missing) if missing else {}
    return found | refused | asked


def _forecast(name: str, texts: int, cached: int, duplicates: int, quota: float) -> str:
    seconds = (texts - cached - duplicates) / (SHARE * quota)
    took = (
        f"{seconds / 3600:.1f} h"
        if seconds > 5400
        else f"{seconds / 60:.1f} min"
        if seconds > 90
        else f"{seconds:.0f} s"
    )
    return (
        f"{name}: {texts:,} texts, {cached:,} cached, {duplicates:,} duplicates, about {took} at {quota:g} per second"
    )


def _refused_unasked(service: Service, texts: Sequence[str]) -> dict[str, Answer]:
    reasons = {text: service.refusal(text) for text in texts}
    return {text: Answer({}, reason, "", now()) for text, reason in reasons.items() if reason}


class _Asking:
    """One pass over texts that are not in the cache: threads that ask, and this thread, which writes."""

    def __init__(self, service: Service, cache: ScoreCache, store: Path, quota: float) -> None:
        self._service, self._cache = service, cache
        self._stopped = threading.Event()
        self._quota = Quota(store / f"{service.name}.quota", quota, self._stopped)
        self._claims = Claims(store / f"{service.name}.claims")
        self._workers = min(WORKERS, max(2, math.ceil(4 * quota)))
        self._retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=self._rest,
            stop=stop_after_attempt(ATTEMPTS),
            sleep=sleep_using_event(self._stopped),
            reraise=True,
        )

    def all(self, texts: Sequence[str]) -> dict[str, Answer]:
        waiting = deque(random.Random(os.getpid()).sample(texts, len(texts)))  # processes start at different texts
        elsewhere: list[str] = []  # other processes are asking for them
        pending: dict[Future[Answer], str] = {}
        found: dict[str, Answer] = {}
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix=self._service.name)
        bar = progress_of(len(texts), desc=self._service.name, unit="text")
        try:
            while waiting or pending or elsewhere:
                while waiting and len(pending) < AHEAD * self._workers:
                    text = waiting.popleft()
                    if not self._claims.take(text_digest(text)):
                        elsewhere.append(text)
                    elif there := self._cache.look_up(self._service.question, [text]):  # answered since
                        found |= there
                        self._claims.release(text_digest(text))
                        bar.update()
                    else:
                        pending[pool.submit(self._retrying, self._ask, text)] = text
                done, _ = wait(pending, timeout=A_WRITE)
                found |= self._keep(pending, done, bar.update)
                if elsewhere and not waiting and not pending:
                    self._stopped.wait(0.2)
                    waiting.extend(elsewhere)
                    elsewhere.clear()
        except BaseException:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)  # waits for requests under way
            self._keep_what_came(pending)
            raise
        finally:
            bar.close()
            pool.shutdown()
            self._claims.close()
        return found

    def _ask(self, text: str) -> Answer:
        if not self._quota.wait():
            raise ServiceStopped(f"{self._service.name}: stopped before an answer came")
        return self._service.ask(text)

    def _rest(self, state: RetryCallState) -> float:
        """Seconds before the next attempt. A throttled request rests all of them, in every process."""
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, Unavailable)
        seconds = error.retry_after or _BACK_OFF(state)
        if error.throttled:
            self._quota.pause(seconds)
            return 0.0
        return seconds

    def _keep(
        self, pending: dict[Future[Answer], str], done: set[Future[Answer]], count: Callable[[int], object]
    ) -> dict[str, Answer]:
        """Write what came; raises what a thread raised, after the answers of the others are written."""
        came = {pending[future]: future for future in done}
        answered = {text: future.result() for text, future in came.items() if not future.exception()}
        self._cache.add(self._service.question, answered)
        for future in done:
            self._claims.release(text_digest(pending.pop(future)))
        count(len(answered))
        for future in done:
            if error := future.exception():
                raise self._final(error) from None
        return answered

    def _keep_what_came(self, pending: dict[Future[Answer], str]) -> None:
        came = {text: future for future, text in pending.items() if future.done() and not future.cancelled()}
        answered = {text: future.result() for text, future in came.items() if not future.exception()}
        self._cache.add(self._service.question, answered)

    def _final(self, error: BaseException) -> BaseException:
        if not isinstance(error, Unavailable):
            return error
        what = "the quota is lower than scores.{0}.quota says, or spent" if error.throttled else "it seems to be down"
        return ServiceStopped(
            f"{self._service.name}: no score in {ATTEMPTS} attempts ({error}); {what.format(self._service.name)}; "
            "run again later, what was answered is in the cache"
        )


_BACK_OFF = wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT)
