"""What the clients of all services share: one try a request, keys that leak nowhere, what statuses and scores mean."""

import email.utils
import math
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import requests

from steerlab.scores import ScorerError
from steerlab.scores.services import KEYS

LONGEST_REST = 1800.0  # seconds that a service may ask for


class ServiceStopped(ScorerError):
    """A service that will give no more scores until somebody does something; the message says what."""


class Unavailable(Exception):
    """No score this time; another attempt may bring one.

    throttled: the service says that requests come too fast; retry_after: seconds that it asked to wait, None if none.
    """

    def __init__(self, reason: str, *, throttled: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.throttled, self.retry_after = throttled, retry_after


class Connection(threading.local):
    """A connection a thread. It sends each request once and follows no redirect, which would take the key along."""

    def __init__(self, service: str, headers: Mapping[str, str], timeout: float) -> None:
        self._service, self._headers, self._timeout = service, dict(headers), timeout
        self._session = requests.Session()
        self._session.auth = lambda request: request  # else a ~/.netrc takes the place of our key

    def send(self, address: str, body: bytes, headers: Mapping[str, str]) -> requests.Response:
        """POST; raises Unavailable where no answer came, and ServiceStopped where none can come."""
        try:
            return self._session.post(
                address, data=body, headers=dict(headers) | self._headers, timeout=self._timeout, allow_redirects=False
            )
        except (*HOPELESS, UnicodeError) as error:
            kind = type(error).__name__
            raise ServiceStopped(f"{self._service}: cannot be asked at all ({kind}); check its address") from None
        except requests.RequestException as error:
            raise Unavailable(type(error).__name__) from None


HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
)


def key_of(service: str, key: str) -> str:
    """The key without blanks around it; raises ServiceStopped for one that has characters that no header can have."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise ServiceStopped(f"{service}: the key has characters that no key has; copy it anew to {KEYS[service]}")
    return key


def unavailable(status: int, headers: Mapping[str, str]) -> Unavailable | None:
    """What a status means that another attempt may change; None for any other status."""
    if status == 429:
        return Unavailable("HTTP 429", throttled=True, retry_after=_retry_after(headers))
    if status in (408, 425) or (status >= 500 and status != 501):
        return Unavailable(f"HTTP {status}", retry_after=_retry_after(headers))
    return None


def probabilities(scores: Mapping[str, object]) -> dict[str, float]:
    """The scores as numbers; raises Unavailable where they are none, or not in [0, 1]: the answer was garbled."""
    try:
        found = {name: float(score) for name, score in scores.items()}  # pyright: ignore
    except (TypeError, ValueError, AttributeError):
        raise Unavailable("an answer without scores") from None
    if not found or not all(0 <= score <= 1 for score in found.values()):
        raise Unavailable("an answer without scores in 0 to 1")
    return found


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date; None for no time at all."""
    value, seconds = headers.get("retry-after", ""), math.nan
    with suppress(ValueError):
        seconds = float(value)
    with suppress(TypeError, ValueError):
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    return min(max(seconds, 0.0), LONGEST_REST) if math.isfinite(seconds) else None
