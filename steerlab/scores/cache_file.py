"""The file of a score cache: its table, its journal, and how it is made again where it is damaged.

Rows lie in the order of their text's hash, so a damaged page loses its own texts and no others. Every row bears a seal
over its content: SQLite finds broken pages, the seal finds flipped bits.
"""

import fcntl
import hashlib
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

log = logging.getLogger(__name__)

SCHEMA = 1
COLUMNS = "text, question, scores, refusal, response, at, seal"
PAGE = 4096  # bytes, SQLite's default
_TABLE = """
CREATE TABLE answers (
  text BLOB NOT NULL, question TEXT NOT NULL, scores TEXT NOT NULL, refusal TEXT, response BLOB NOT NULL,
  at INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (text, question)
) WITHOUT ROWID
"""
_INSERT = f"INSERT OR REPLACE INTO answers ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_BESIDE = ("", "-wal", "-shm")  # what SQLite keeps of one database


class CacheError(RuntimeError):
    """A score cache that cannot be used; the message says why and what to do."""


def sealed(row: tuple) -> tuple:
    """The row with its seal (8 bytes) as its last value."""
    return (*row, hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).digest())


def is_whole(row: tuple) -> bool:
    """True if the row's seal is that of its content."""
    return sealed(row[:-1]) == tuple(row)


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """True if the error tells of a broken file; not of a lock, a full disk or a missing right."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def insert(database: sqlite3.Connection, row: tuple) -> None:
    """Write a row in place of whatever has its text and question."""
    database.execute(_INSERT, row)


def connect(path: Path) -> sqlite3.Connection:
    """The database at `path`, made if it is not there; every write is on disk when it ends.

    Raises CacheError for a database that is no score cache or has another schema version, sqlite3.DatabaseError for
    what is no database.
    """
    _finish_rebuild(path)
    database = _bare(path)
    try:
        found = _version(database, path)
        _set_journal(database, journal(path))
        database.execute("PRAGMA synchronous=FULL")  # an answer that was paid for outlives a power cut
        if found == 0:
            _create(database)
        database.execute("SELECT text FROM answers LIMIT 1").fetchone()
        return database
    except BaseException:
        database.close()
        raise


def _bare(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60, isolation_level=None)
    database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")  # damaged text breaks its seal, no more
    return database


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


@retry(retry=retry_if_exception(_is_busy), wait=wait_random(0.02, 0.2), stop=stop_after_delay(60), reraise=True)
def _set_journal(database: sqlite3.Connection, kind: str) -> None:
    database.execute(f"PRAGMA journal_mode={kind}")  # this statement alone does not wait for a lock


def _version(database: sqlite3.Connection, path: Path) -> int:
    """The schema version, 0 of a new file; nothing is written."""
    database.execute("BEGIN")
    with database:
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise CacheError(f"{path} is a database of something else than scores; name another store")
    if found not in (0, SCHEMA):
        raise CacheError(
            f"score cache {path} has schema version {found}, this code reads {SCHEMA}; "
            "export it with the version that wrote it and merge the export here"
        )
    return found


def _create(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    with database:
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:  # no other process was faster
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version={SCHEMA}")


# ---- where it lies ----


def journal(path: Path, mounts: str | None = None) -> str:
    """SQLite's journal for a file: "wal", or "delete" on a network file system, which has not the shared memory of WAL.

    mounts: the text of /proc/self/mounts; None reads it.
    """
    listed = Path("/proc/self/mounts")
    mounts = (listed.read_text() if listed.exists() else "") if mounts is None else mounts
    folder, best, kind = path.absolute().parent.resolve(), "", ""
    for line in mounts.splitlines():
        _, point, found = line.split()[:3]
        point = point.replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return "delete" if kind in NETWORK or kind.startswith("fuse.") else "wal"


NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "pvfs2",
    "orangefs", "panfs", "wekafs", "virtiofs",
}  # fmt: skip


# ---- damage ----


def rebuild(path: Path, lock: IO[str], *, patience: float = 10.0) -> tuple[int, Path | None]:
    """Make a damaged file again from what can be read; returns (rows read, where the damaged one lies).

    lock: an open file whose shared lock every process holds that has the database open; this process has closed its own
    connection. The new file is whole before the old one is moved. (0, None): another process has made it again
    meanwhile. Raises CacheError where others have it open for longer than `patience` seconds; the shared lock is held
    again in any case.
    """
    before = _inode(path)
    try:
        _lock_alone(path, lock, patience)
        if _inode(path) != before:
            return 0, None
        return _rebuilt(path)
    finally:
        fcntl.flock(lock, fcntl.LOCK_SH)


def _rebuilt(path: Path) -> tuple[int, Path]:
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    log.warning("score cache %s is damaged; it is made again from what can be read, and kept as %s", path, aside)
    fresh = _fresh(path)
    for suffix in _BESIDE:
        _beside(fresh, suffix).unlink(missing_ok=True)
    count = 0
    with closing(_bare(fresh)) as database:
        _create(database)
        for rows in _readable(path):
            database.execute("BEGIN")
            with database:
                for row in filter(is_whole, rows):
                    insert(database, row)
                    count += 1
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(aside, suffix))
    fresh.rename(path)
    log.warning("score cache %s: %d answers could be read", path, count)
    return count, aside


def _finish_rebuild(path: Path) -> None:
    """Put a new file in its place whose process died between moving the old one away and that."""
    if not path.exists():
        with suppress(FileNotFoundError):
            _fresh(path).rename(path)


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + ".rebuilding")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _lock_alone(path: Path, lock: IO[str], patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise CacheError(
                    f"score cache {path} is damaged and another process has it open; end that one and run again"
                ) from None
            fcntl.flock(lock, fcntl.LOCK_UN)  # whoever else found the damage waits for us
            time.sleep(0.1)


def _readable(path: Path) -> Iterator[list[tuple]]:
    """Rows that can still be read, by ranges of the hash that are halved until each is readable or very small."""
    smallest = 2**64 // max(16 * path.stat().st_size // PAGE, 2**8)
    query = f"SELECT {COLUMNS} FROM answers WHERE text >= ? AND text < ?"
    with _with_first_page(path) as database:
        ranges = [(start * 2**56, (start + 1) * 2**56) for start in range(2**8)]
        while ranges:
            low, high = ranges.pop()
            end = high.to_bytes(8) if high < 2**64 else b"\xff" * 33
            try:
                yield database.execute(query, (low.to_bytes(8), end)).fetchall()
            except sqlite3.Error:
                if high - low > smallest:
                    middle = (low + high) // 2
                    ranges += [(low, middle), (middle, high)]


@contextmanager
def _with_first_page(path: Path) -> Iterator[sqlite3.Connection]:
    """A copy of the damaged file, opened to read; where its first page is lost, with the first page of a new file.

    The first page says what tables there are and where they start, which is alike in all score caches.
    """
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.copy-") as folder:
        copy, new = Path(folder) / "copy", Path(folder) / "new"
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(_beside(path, suffix), _beside(copy, suffix))
        with closing(_bare(copy)) as database:
            try:
                database.execute("SELECT text FROM answers LIMIT 1").fetchone()
            except sqlite3.Error:
                log.debug("the first page of %s cannot be read", path)
            else:
                yield database
                return
        shutil.copyfile(path, copy)
        _beside(copy, "-wal").unlink(missing_ok=True)
        with closing(_bare(new)) as database:
            _create(database)
        first = bytearray(new.read_bytes()[:PAGE])
        first[28:32] = (path.stat().st_size // PAGE).to_bytes(4)  # pages in the file
        with copy.open("r+b") as file:
            file.write(first)
        with closing(_bare(copy)) as database:
            yield database


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """A copy of somebody's score cache that may be opened and mended; theirs is only read.

    Raises CacheError for a file that is none, or has another schema version.
    """
    with path.open("rb") as file:
        head = file.read(100)
    if head[:16] != b"SQLite format 3\0" or int.from_bytes(head[60:64]) != SCHEMA:
        raise CacheError(f"{path} is no export and no score cache of schema version {SCHEMA}; nothing is taken from it")
    with TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(_beside(path, suffix), _beside(Path(folder) / path.name, suffix))
        yield Path(folder) / path.name
