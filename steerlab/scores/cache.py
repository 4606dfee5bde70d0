"""The score cache: what paid or rationed services have said of texts, kept for ever in one SQLite file of the store.

An answer stands under its question (who was asked: scorer, version, attributes, languages) and the SHA-256 of the exact
text; the texts themselves are not kept. Several processes may write at once: the first answer to a question stays. A
damaged file is set aside and made again from what can be read of it (steerlab.scores.cache_file).
"""

import fcntl
import hashlib
import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from steerlab.scores import cache_file
from steerlab.scores.cache_file import COLUMNS, CacheError, is_whole, sealed

log = logging.getLogger(__name__)

FILE = "scores.sqlite"  # in the store
A_LOOK_UP = 500  # texts that one query asks for
OF_THE_TEXT = {"COMMENT_EMPTY", "COMMENT_TOO_LONG", "NO_UNICODE", "EMPTY", "TOO_LONG"}  # refusals, whatever was asked

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """Whom a text was given to, and what was asked of it. Scores of two versions are never mixed."""

    scorer: str
    version: str
    attributes: tuple[str, ...]
    languages: tuple[str, ...] = ()

    def encoded(self) -> str:
        """As the cache's rows have it: JSON, in which the order of attributes and languages plays no part."""
        return json.dumps([self.scorer, self.version, sorted(self.attributes), sorted(self.languages)])

    @classmethod
    def decoded(cls, text: str) -> "Question":
        """The question that `encoded` wrote."""
        scorer, version, attributes, languages = json.loads(text)
        return cls(scorer, version, tuple(attributes), tuple(languages))

    def holds(self, other: "Question") -> bool:
        """True if it asks the same service for all that the other one asks for, or for more."""
        alike = (self.scorer, self.version, sorted(self.languages))
        asks_alike = alike == (other.scorer, other.version, sorted(other.languages))
        return asks_alike and {*other.attributes} <= {*self.attributes}


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
        self._lock = path.with_name(path.name + ".lock").open("a+")
        fcntl.flock(self._lock, fcntl.LOCK_SH)  # whoever rebuilds the file needs it alone
        self._database: sqlite3.Connection | None = None
        try:
            self._guarded(self._connection)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "ScoreCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database and of the lock that keeps others from rebuilding it."""
        self._disconnect()
        self._lock.close()

    def look_up(self, question: Question, texts: Sequence[str]) -> dict[str, Answer]:
        """The answers that are there, by text: to this question, else the oldest one to a wider question.

        A refusal of a wider question counts only where its reason is the text's own. A row whose seal is broken counts
        as absent, with a line in the log.
        """
        by_digest = {text_digest(text): text for text in texts}
        found: dict[str, tuple[bool, int, Answer]] = {}  # what is smallest wins: the same question, then the oldest
        digests, asked = list(by_digest), question.encoded()
        for start in range(0, len(digests), A_LOOK_UP):
            some = digests[start : start + A_LOOK_UP]
            query = f"SELECT {COLUMNS} FROM answers WHERE text IN ({', '.join('?' * len(some))})"
            for row in self._page(query, some):
                if not is_whole(row):
                    log.warning("score cache %s: the answer to text %s is damaged", self.path, row[0].hex())
                    continue
                text, is_other = by_digest[row[0]], row[1] != asked
                counts = not is_other or (row[3] is None or row[3] in OF_THE_TEXT)
                if counts and Question.decoded(row[1]).holds(question):
                    one = (is_other, row[5], answer_of(row))
                    found[text] = min(found.get(text, one), one, key=lambda one: one[:2])
        return {text: answer for text, (_, _, answer) in found.items()}

    def add(self, question: Question, answers: Mapping[str, Answer]) -> None:
        """Write the answers, durably when it returns; a text that has a whole answer to the same question keeps it."""
        self.add_rows([row_of(text_digest(text), question, answer) for text, answer in answers.items()])

    def add_rows(self, rows: Sequence[tuple]) -> None:
        """`add` for rows as `row_of` makes them."""

        def write() -> None:
            database = self._connection()
            database.execute("BEGIN IMMEDIATE")
            with database:
                for row in rows:
                    there = database.execute(_ONE, row[:2]).fetchone()
                    if there is None or not is_whole(there):
                        cache_file.insert(database, row)

        if rows:
            self._guarded(write)

    def rows(self) -> Iterator[tuple]:
        """All rows in the order of (text, question), as COLUMNS has them. Their seals are not tested."""
        last: tuple = (b"", "")
        while page := self._page(_PAGE, last):
            yield from page
            last = page[-1][:2]

    def row(self, text: bytes, question: str) -> tuple | None:
        """The row of one text (its SHA-256) and question (encoded), or None."""
        return next(iter(self._page(_ONE, (text, question))), None)

    def faults(self) -> list[str]:
        """What is wrong with the file, one line each: SQLite's own check, then every broken seal. Reads all of it."""
        try:
            checked = self._connection().execute("PRAGMA integrity_check(10)").fetchall()
            found = [line for (line,) in checked if line != "ok"]
            if not found:
                broken = sum(not is_whole(row) for row in self._connection().execute(f"SELECT {COLUMNS} FROM answers"))
                found = [f"{broken} rows whose seal is broken"] if broken else []
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return found

    def rebuild(self) -> tuple[int, Path | None]:
        """Make the file again from what can be read: (rows read, where the old one lies), as cache_file.rebuild."""
        self._disconnect()
        return cache_file.rebuild(self.path, self._lock)

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = cache_file.connect(self.path)
        return self._database

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _page(self, query: str, values: Sequence) -> list[tuple]:
        return self._guarded(lambda: self._connection().execute(query, values).fetchall())

    def _guarded(self, work: Callable[[], T]) -> T:
        """`work`, once more after a rebuild where the file turns out to be damaged."""
        try:
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if not cache_file.is_damage(error):
                    raise
            self.rebuild()
            return work()
        except sqlite3.DatabaseError as error:
            raise CacheError(f"score cache {self.path}: {error}; free its disk or its lock and run again") from error


# ---- rows ----

_ONE = f"SELECT {COLUMNS} FROM answers WHERE text = ? AND question = ?"
_PAGE = f"SELECT {COLUMNS} FROM answers WHERE (text, question) > (?, ?) ORDER BY text, question LIMIT 10000"


def row_of(text: bytes, question: Question, answer: Answer) -> tuple:
    """A row as `add_rows` takes it. text: SHA-256 of the text, 32 bytes."""
    response = zlib.compress(answer.response.encode()) if answer.response else b""
    scores = json.dumps(dict(answer.scores), sort_keys=True)
    return sealed((text, question.encoded(), scores, answer.refusal, response, answer.at))


def answer_of(row: tuple) -> Answer:
    """What a whole row says."""
    _, _, scores, refusal, response, at, _ = row
    return Answer(json.loads(scores), refusal, zlib.decompress(response).decode() if response else "", at)
