"""The score cache: what paid or rationed services have said of texts, kept for ever in one SQLite file of the store.

An answer stands under its question (who was asked: scorer, version, attributes, languages) and the SHA-256 of the exact
text; the texts themselves are not kept. Several processes may write at once: the first answer to a question stays. Each
row bears a seal, so that a flipped bit is found when the row is read; a damaged file is set aside and made again from
what can be read of it.
"""

import fcntl
import hashlib
import json
import logging
import shutil
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

log = logging.getLogger(__name__)

FILE = "scores.sqlite"  # in the store
SCHEMA = 1
A_LOOK_UP = 500  # texts that one query asks for

T = TypeVar("T")


class CacheError(RuntimeError):
    """A score cache that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Question:
    """Whom a text was given to, and what was asked of it. Scores of two versions are never mixed."""

    scorer: str
    version: str
    attributes: tuple[str, ...]
    languages: tuple[str, ...] = ()

    def encoded(self) -> str:
        return json.dumps([self.scorer, self.version, sorted(self.attributes), sorted(self.languages)])

    @classmethod
    def decoded(cls, text: str) -> "Question":
        scorer, version, attributes, languages = json.loads(text)
        return cls(scorer, version, tuple(attributes), tuple(languages))

    def holds(self, other: "Question") -> bool:
        """True if an answer to this question answers the other one too: it asks for all its attributes, or for more."""
        alike = (self.scorer, self.version, sorted(self.languages))
        return alike == (other.scorer, other.version, sorted(other.languages)) and {*other.attributes} <= {
            *self.attributes
        }


@dataclass(frozen=True)
class Answer:
    """What a service said of one text.

    scores: value by attribute; empty where it refused, and then refusal is its reason. response: what came over the
    wire, as JSON, "" where nothing was asked. at: seconds since 1970, UTC.
    """

    scores: Mapping[str, float]
    refusal: str | None
    response: str
    at: int


def text_digest(text: str) -> bytes:
    """SHA-256 of a text's UTF-8 bytes (32 bytes); a lone surrogate counts as the three bytes that it would have."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def now() -> int:
    """Seconds since 1970, UTC."""
    return int(time.time())


class ScoreCache:
    """The cache at `path`, made if it is not there; a context manager. One object belongs to one thread.

    Raises CacheError for a file of another schema version, and for a damaged file while another process has it open.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = path.with_name(path.name + ".lock").open("a")
        fcntl.flock(self._lock, fcntl.LOCK_SH)  # whoever rebuilds the file needs it alone
        try:
            self._database = self._opened()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "ScoreCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()
        self._lock.close()

    def look_up(self, question: Question, texts: Sequence[str]) -> dict[str, Answer]:
        """The answers that are there, by text. A row whose seal is broken counts as absent, with a line in the log."""
        by_digest = {text_digest(text): text for text in texts}
        found: dict[str, Answer] = {}
        digests = list(by_digest)
        for start in range(0, len(digests), A_LOOK_UP):
            asked = digests[start : start + A_LOOK_UP]
            query = f"SELECT {COLUMNS} FROM answers WHERE text IN ({', '.join('?' * len(asked))})"
            for row in self._page(query, asked):
                if not _is_whole(row):
                    log.warning("score cache %s: the answer to text %s is damaged", self.path, _hex(row[0]))
                elif Question.decoded(row[1]).holds(question):
                    found[by_digest[row[0]]] = _answer(row)
        return found

    def add(self, question: Question, answers: Mapping[str, Answer]) -> None:
        """Write the answers, durably when it returns; a text that has a whole answer to the same question keeps it."""
        self.add_rows([_row(text_digest(text), question.encoded(), answer) for text, answer in answers.items()])

    def add_rows(self, rows: Sequence[tuple]) -> None:
        """`add` for rows as `rows` gives them."""

        def write() -> None:
            with self._database:  # one transaction
                for row in rows:
                    there = self._database.execute(_ONE, row[:2]).fetchone()
                    if there is None or not _is_whole(there):
                        self._database.execute(f"REPLACE INTO answers ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)

        if rows:
            self._guarded(write)

    def rows(self) -> Iterator[tuple]:
        """All rows in the order of (text, question), as COLUMNS has them. Their seals are not tested."""
        last: tuple = (b"", "")
        query = f"SELECT {COLUMNS} FROM answers WHERE (text, question) > (?, ?) ORDER BY text, question LIMIT 10000"
        while page := self._page(query, last):
            yield from page
            last = page[-1][:2]

    def _page(self, query: str, values: Sequence) -> list[tuple]:
        return self._guarded(lambda: self._database.execute(query, values).fetchall())

    def row(self, text: bytes, question: str) -> tuple | None:
        """The row of one text and question, or None."""
        return next(iter(self._page(_ONE, (text, question))), None)

    def faults(self) -> list[str]:
        """What is wrong with the file, one line each: SQLite's own check, then every broken seal. Reads all of it."""
        try:
            found = [row[0] for row in self._database.execute("PRAGMA integrity_check(10)") if row[0] != "ok"]
            broken = sum(not _is_whole(row) for row in self.rows()) if not found else 0
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return found + ([f"{broken} rows whose seal is broken"] if broken else [])

    def rebuild(self) -> tuple[int, Path]:
        """Set the file aside and make it again from what can be read; returns (rows read, where the old one lies)."""
        with suppress(sqlite3.DatabaseError, AttributeError):
            self._database.close()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CacheError(
                f"score cache {self.path} is damaged and another process has it open; end that one and run again"
            ) from None
        aside = self.path.with_name(f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(aside.with_name(aside.name + suffix))
        self._database = self._opened()
        count = 0
        for rows in _readable(aside):
            whole = [row for row in rows if _is_whole(row)]
            self.add_rows(whole)
            count += len(whole)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        log.warning("score cache %s was damaged: %d rows were read from it; it lies at %s", self.path, count, aside)
        return count, aside

    def _opened(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise CacheError(f"score cache {self.path} cannot be opened: {error}") from error
            self.rebuild()
            return self._database

    def _guarded(self, work: Callable[[], T]) -> T:
        """`work`, once more after a rebuild where the file turns out to be damaged."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise CacheError(
                    f"score cache {self.path}: {error}; free its disk or its lock and run again"
                ) from error
            self.rebuild()
            return work()


# ---- rows ----

COLUMNS = "text, question, scores, refusal, response, at, seal"
_ONE = f"SELECT {COLUMNS} FROM answers WHERE text = ? AND question = ?"
_TABLE = """
CREATE TABLE answers (
  text BLOB NOT NULL, question TEXT NOT NULL, scores TEXT NOT NULL, refusal TEXT, response BLOB NOT NULL,
  at INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (text, question)
) WITHOUT ROWID
"""  # rows lie in the order of their text's hash, so a damaged page loses its own texts and no others


def _row(text: bytes, question: str, answer: Answer) -> tuple:
    response = zlib.compress(answer.response.encode()) if answer.response else b""
    row = (text, question, json.dumps(dict(answer.scores), sort_keys=True), answer.refusal, response, answer.at)
    return (*row, _seal(row))


def _answer(row: tuple) -> Answer:
    _, _, scores, refusal, response, at, _ = row
    return Answer(json.loads(scores), refusal, zlib.decompress(response).decode() if response else "", at)


def row_of(text: bytes, question: Question, answer: Answer) -> tuple:
    """A row as `add_rows` takes it. text: SHA-256 of the text, 32 bytes."""
    return _row(text, question.encoded(), answer)


def answer_of(row: tuple) -> Answer:
    """What a row says; raises CacheError for one whose seal is broken."""
    if not _is_whole(row):
        raise CacheError(f"the answer to text {_hex(row[0])} is damaged; call `scores verify --repair`")
    return _answer(row)


def _seal(row: tuple) -> bytes:
    return hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _is_whole(row: tuple) -> bool:
    return _seal(row[:-1]) == row[-1]


def _hex(text: object) -> str:
    return text.hex() if isinstance(text, bytes) else repr(text)


# ---- the file ----


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60)
    try:
        database.execute(f"PRAGMA journal_mode={journal(path)}")
        database.execute("PRAGMA synchronous=FULL")  # an answer that was paid for outlives a power cut
        found = database.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            _create(database)
        elif found != SCHEMA:
            raise CacheError(
                f"score cache {path} has schema version {found}, this code reads {SCHEMA}; "
                "export it with the version that wrote it and merge the export here"
            )
        database.execute("SELECT text FROM answers LIMIT 1").fetchone()
        return database
    except BaseException:
        database.close()
        raise


def _create(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    with database:
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody was faster
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version={SCHEMA}")


def journal(path: Path, mounts: str | None = None) -> str:
    """SQLite's journal for a file: "wal", or "delete" on a network file system, which has not the shared memory of WAL.

    mounts: the text of /proc/self/mounts; None reads it.
    """
    if mounts is None:
        mounts = Path("/proc/self/mounts").read_text() if Path("/proc/self/mounts").exists() else ""
    folder = path.absolute().parent.resolve()
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, found = line.split()[:3]
        point = point.replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    if kind.removeprefix("fuse.") in NETWORK:
        log.info("score cache %s lies on %s: rollback journal instead of WAL", path, kind)
        return "delete"
    return "wal"


NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "sshfs",
    "pvfs2", "orangefs", "panfs", "wekafs", "virtiofs",
}  # fmt: skip


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _readable(path: Path) -> Iterator[list[tuple]]:
    """Rows that can still be read, by ranges of the hash that are halved until each is readable or very small."""
    smallest = 2**64 // max(16 * path.stat().st_size // PAGE, 2**8)
    query = f"SELECT {COLUMNS} FROM answers WHERE text >= ? AND text < ?"
    with _repaired(path) as database:
        ranges = [(start * 2**56, (start + 1) * 2**56) for start in range(2**8)]
        while ranges:
            low, high = ranges.pop()
            end = high.to_bytes(8) if high < 2**64 else b"\xff" * 33
            try:
                yield database.execute(query, (low.to_bytes(8), end)).fetchall()
            except (sqlite3.Error, UnicodeError):
                if high - low > smallest:
                    middle = (low + high) // 2
                    ranges += [(low, middle), (middle, high)]


PAGE = 4096  # bytes, SQLite's default


@contextmanager
def _repaired(path: Path) -> Iterator[sqlite3.Connection]:
    """The damaged file opened to read; where its first page is lost, a copy with the first page of a new file.

    The first page says what tables there are and where they start, which is alike in all score caches.
    """
    with TemporaryDirectory(dir=path.parent) as folder, closing(sqlite3.connect(path)) as database:
        try:
            database.execute("SELECT text FROM answers LIMIT 0")
            yield database
            return
        except sqlite3.Error:
            log.debug("the first page of %s cannot be read", path)
        copy, new = Path(folder) / "copy", Path(folder) / "new"
        shutil.copyfile(path, copy)
        _connect(new).close()
        first = bytearray(new.read_bytes()[:PAGE])
        first[28:32] = (path.stat().st_size // PAGE).to_bytes(4)  # pages in the file
        with copy.open("r+b") as file:
            file.write(first)
        with closing(sqlite3.connect(copy)) as database:
            yield database
