"""The rate limiter: one quota of requests for every process that shares a store.

A file holds the time of the next free slot; whoever wants to send a request takes that slot under the file's lock and
waits for it. Slots are evenly spaced, so no window of time holds more requests than its share of the quota. A killed
process loses the one slot that it had taken.
"""

import fcntl
import os
import struct
import threading
import time
from pathlib import Path

SHARE = 0.97  # of the quota that slots fill: the rest absorbs that requests leave a little after their slots
LATE = 0.2  # seconds by which a slot may be taken late without being lost
FAR = 3600.0  # seconds: a next slot beyond them is a clock that was set back


class Quota:
    """At most `per_second` requests a second, over all processes that name the same file; safe for threads.

    stopped: ends every wait at once when it is set.
    """

    def __init__(self, path: Path, per_second: float, stopped: threading.Event) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._spacing, self._stopped = path, 1 / (SHARE * per_second), stopped
        self._turn = threading.Lock()  # one slot is taken ahead a process

    def wait(self) -> bool:
        """Take the next slot and sleep until it comes; False if `stopped` was set meanwhile."""
        with self._turn:
            return not self._stopped.wait(max(0.0, self._take() - time.time()))

    def pause(self, seconds: float) -> None:
        """Give out no slot of the next `seconds`, to no process: the service asked for a rest."""
        until = time.time() + min(seconds, FAR / 2)
        self._exchange(lambda free: max(free, until))

    def _take(self) -> float:
        free = self._exchange(lambda free: max(free, time.time() - LATE) + self._spacing)
        return free - self._spacing

    def _exchange(self, change) -> float:
        """Replace the time of the next free slot by a function of it; returns the new one (seconds since 1970)."""
        with self._path.open("a+b"), self._path.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            raw = file.read(8)
            free = struct.unpack("<d", raw)[0] if len(raw) == 8 else 0.0
            free = change(free if free < time.time() + FAR else 0.0)
            os.pwrite(file.fileno(), struct.pack("<d", free), 0)
        return free


class Claims:
    """Which texts this process is asking for: another one that shares the file does not ask for them meanwhile.

    A claim is the kernel's record lock on one byte of a file, at a place that the text's hash names: it ends with the
    process, however that ends. One object a process: closing one lets go of all claims on the file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")

    def take(self, text: bytes) -> bool:
        """Claim a text by its SHA-256 (32 bytes); False if another process has it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(text))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, text: bytes) -> None:
        """Let others ask for a text again, by its SHA-256 (32 bytes)."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(text))

    def close(self) -> None:
        """Let go of all claims."""
        self._file.close()


def _place(text: bytes) -> int:
    return int.from_bytes(text[:8]) >> 2
