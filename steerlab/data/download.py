"""Downloads that resume: an HTTP(S) address to a file, and patience with a server or a line that fails for a while."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import requests

from steerlab.progress import progress

log = logging.getLogger(__name__)

ATTEMPTS = 5  # in a row without a byte of progress
MIB = 2**20
T = TypeVar("T")


class Transient(Exception):
    """A failure that may pass: worth another attempt."""


class Refused(Exception):
    """A failure that will not pass by itself; `status` is the HTTP status."""

    def __init__(self, status: int):
        super().__init__(f"the server answered {status}")
        self.status = status


def patiently(work: Callable[[], T], *, pause: float, reached: Callable[[], int] = lambda: 0) -> T:
    """`work()`, tried again after pause, 2 pause, 4 pause ... seconds while it raises Transient.

    reached: how far the work has come; getting further than ever before makes the patience new. Raises the last
    Transient after ATTEMPTS attempts in a row that got no further.
    """
    stalled, furthest = 0, reached()
    while True:
        try:
            return work()
        except Transient as error:
            stalled = 0 if reached() > furthest else stalled + 1
            furthest = max(furthest, reached())
            if stalled == ATTEMPTS:
                raise
            log.warning("%s; next attempt in %g s", error, pause * 2**stalled)
            time.sleep(pause * 2**stalled)


def download(url: str, part: Path, *, size: int | None, desc: str, pause: float) -> None:
    """Bring the bytes at `url` into `part`, going on from those that are there already.

    size: bytes expected, where known. pause: seconds before the second attempt. When this raises (Transient: gave up;
    Refused: HTTP 4xx), what has come stays in `part` for the next call.
    """
    patiently(lambda: _attempt(url, part, size, desc), pause=pause, reached=lambda: _length(part))


def _attempt(url: str, part: Path, size: int | None, desc: str) -> None:
    have = _length(part)
    if have == size:
        return
    # identity: a compressed answer would have other bytes and another length than the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(15, 60)) as answer:
            resumes = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if answer.status_code == 416:  # nothing after what we have: it is whole, or it is of another file
                if answer.headers.get("Content-Range") == f"bytes */{have}":
                    return
                part.unlink()
                raise Transient(f"{desc}: the partial file is longer than the remote one")
            if answer.status_code >= 500 or answer.status_code in (408, 429):
                raise Transient(f"{desc}: the server answered {answer.status_code}")
            if answer.status_code >= 400:
                raise Refused(answer.status_code)
            length = answer.headers.get("Content-Length")
            blocks = progress(
                answer.iter_content(MIB), total=-(-int(length) // MIB) if length else None, desc=desc, unit="MiB"
            )
            with part.open("ab" if resumes else "wb") as out:
                for block in blocks:
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise Transient(f"{desc}: the connection broke ({type(error).__name__})") from error
    if size is not None and _length(part) < size:
        raise Transient(f"{desc}: {_length(part)} of {size} bytes came")


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
