"""Scoring by services over the network: each distinct text is asked for once, at the quota's rate, and kept for ever.

One thread writes to the score cache, others wait for answers. Several processes may share a store: they share its
quota and do not ask for each other's texts. Whatever was answered before a kill, a Ctrl-C or a stop is in the cache.
"""

import logging
import math
import os
import random
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event

from steerlab.progress import note, progress_of
from steerlab.scores.cache import FILE, Answer, Question, ScoreCache, now, text_digest
from steerlab.scores.cache_file import CacheError
from steerlab.scores.connection import ServiceStopped, Unavailable
from steerlab.scores.quota import SHARE, Claims, Quota

log = logging.getLogger(__name__)

ATTEMPTS = 20  # of a text that the service fails on
PATIENCE = 900.0  # seconds of nothing but "too fast"
LONGEST_WAIT = 60.0  # seconds, where the service names none: a quota by the minute is full again by then
WORKERS = 64  # requests at once, at most
AHEAD = 4  # texts in hand a worker, so that a slow disk does not leave the quota unused
A_WRITE = 0.1  # seconds of answers that are written together: each write waits for the disk


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


class NetworkScorer:
    """A service as a Scorer: scores come from the cache in `store`, and are asked for where they are not there.

    quota: requests a second, of all processes that share the store. A refused text scores NaN.
    """

    def __init__(self, service: Service, store: Path, *, quota: float) -> None:
        self.name, self.version, self.quantity = service.name, service.version, service.quantity
        self._service, self._store, self._quota = service, store, quota

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) float64, NaN for a refused text; each is asked for once. Raises ServiceStopped if no more come."""
        found = answers(self._service, texts, self._store, quota=self._quota)
        scores = {text: math.nan if one.refusal else self._service.score(one) for text, one in found.items()}
        return np.array([scores[text] for text in texts], dtype=np.float64)


def answers(
    service: Service, texts: Sequence[str], store: Path, *, quota: float, setting: str | None = None
) -> dict[str, Answer]:
    """The answer to every distinct text, from the cache or the service.

    store: the folder of the cache; quota: requests a second; setting: what sets it (default: scores.<service>.quota).
    Raises ServiceStopped with one line; what was answered until then is in the cache, as it is after a Ctrl-C.
    """
    distinct = list(dict.fromkeys(texts))
    with ScoreCache(store / FILE) as cache:
        found = cache.look_up(service.question, distinct)
        note(_forecast(service.name, len(texts), len(found), len(texts) - len(distinct), quota))
        missing = [text for text in distinct if text not in found]
        cache.add(service.question, refused := _refused_unasked(service, missing))
        missing = [text for text in missing if text not in refused]
        asked = _Asking(service, cache, store, quota, setting).all(missing) if missing else {}
    return found | refused | asked


def _forecast(name: str, texts: int, cached: int, duplicates: int, quota: float) -> str:
    seconds = (texts - cached - duplicates) / (SHARE * quota)
    unit, size = next(
        (unit, size) for unit, size in (("h", 3600), ("min", 60), ("s", 1)) if seconds > size or size == 1
    )
    counts = f"{name}: {texts:,} texts, {cached:,} cached, {duplicates:,} duplicates"
    return f"{counts}, about {round(seconds / size, 1 if size > 1 else None)} {unit} at {quota:g} per second"


def _refused_unasked(service: Service, texts: Sequence[str]) -> dict[str, Answer]:
    reasons = {text: service.refusal(text) for text in texts}
    return {text: Answer({}, reason, "", now()) for text, reason in reasons.items() if reason}


class _Asking:
    """One pass over texts that are not in the cache: threads that ask, and this thread, which writes."""

    def __init__(
        self, service: Service, cache: ScoreCache, store: Path, quota: float, setting: str | None = None
    ) -> None:
        self._service, self._cache = service, cache
        self._setting = setting or f"scores.{service.name}.quota"
        self._stopped = threading.Event()
        self._quota = Quota(store / f"{service.name}.quota", quota, self._stopped)
        self._claims = Claims(store / f"{service.name}.claims")
        self._failed: dict[str, Unavailable] = {}  # texts that the service fails on
        self._answered = 0  # since the last of them
        self._waits = False
        self._workers = min(WORKERS, max(2, math.ceil(4 * quota)))
        self._retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=self._rest,
            stop=self._is_over,
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
                found |= (came := self._keep(pending, done))
                bar.update(len(came))
                if elsewhere and not waiting and not pending:
                    if not self._waits:
                        note(f"{self._service.name}: another process asks for {len(elsewhere):,} of the texts; waiting")
                    self._waits = True
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
        if self._failed:
            raise self._failure()
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
        if seconds >= 10:
            log.warning("%s: %s, a rest of %.0f s", self._service.name, error, seconds)
        if error.throttled:
            self._quota.pause(seconds)
            return 0.0
        return seconds

    def _is_over(self, state: RetryCallState) -> bool:
        """True after ATTEMPTS of a text, or PATIENCE seconds of one that is throttled."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unavailable) and error.throttled:
            return (state.seconds_since_start or 0.0) > PATIENCE
        return state.attempt_number >= ATTEMPTS

    def _keep(self, pending: dict[Future[Answer], str], done: set[Future[Answer]]) -> dict[str, Answer]:
        """Write what came, then raise what stops the run.

        A text that the service fails on is set aside, as long as others got an answer since the last such text.
        """
        texts = {pending.pop(future): future for future in done}
        found = {text: future.result() for text, future in texts.items() if not future.exception()}
        self._cache.add(self._service.question, found)
        self._answered += len(found)
        for text, future in texts.items():
            self._claims.release(text_digest(text))
            error = future.exception()
            if isinstance(error, Unavailable) and not error.throttled and self._answered:
                self._answered = 0
                self._failed[text] = error
            elif error:
                raise self._final(error) from None
        return found

    def _keep_what_came(self, pending: dict[Future[Answer], str]) -> None:
        """Write what was answered while the run stops; an error here must not hide why it stops."""
        came = {text: future for future, text in pending.items() if future.done() and not future.cancelled()}
        found = {text: future.result() for text, future in came.items() if not future.exception()}
        try:
            self._cache.add(self._service.question, found)
        except CacheError as error:
            log.warning("%s", error)

    def _final(self, error: BaseException) -> BaseException:
        if not isinstance(error, Unavailable):
            return error
        name = self._service.name
        if error.throttled:
            what = f"too fast for {PATIENCE / 60:.0f} minutes; the quota is spent, or less than {self._setting}"
        else:
            what = f"no score in {ATTEMPTS} attempts ({error}); it seems to be down"
        return ServiceStopped(f"{name}: {what}; run again later, what was answered is in the cache")

    def _failure(self) -> ServiceStopped:
        text, error = next(iter(self._failed.items()))
        return ServiceStopped(
            f"{self._service.name}: {len(self._failed)} texts got no score in {ATTEMPTS} attempts ({error}), such as "
            f"that with SHA-256 {text_digest(text).hex()}; all others are in the cache: run again later"
        )


_BACK_OFF = wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT)
