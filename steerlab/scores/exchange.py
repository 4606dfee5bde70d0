"""Score caches between people: export as parquet with a dataset card, merge of two caches, what is in one.

Texts are not in a cache and so not in an export: whoever has a text finds its score by the text's SHA-256.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from steerlab.progress import progress
from steerlab.scores.cache import Answer, Question, ScoreCache, answer_of, row_of
from steerlab.scores.cache_file import CacheError, copied, is_whole
from steerlab.store import write_atomically

TABLE, CARD = "scores.parquet", "README.md"
COLUMNS = pa.schema(
    [
        ("text_sha256", pa.string()),
        ("scorer", pa.string()),
        ("version", pa.string()),
        ("attributes", pa.list_(pa.string())),
        ("languages", pa.list_(pa.string())),
        ("scores", pa.string()),
        ("refusal", pa.string()),
        ("response", pa.string()),
        ("scored_at", pa.timestamp("s", tz="UTC")),
    ]
)
A_GROUP = 50_000  # rows


@dataclass(frozen=True)
class Merged:
    """What a merge did: rows that are new, rows that both had alike, rows of theirs that are damaged, and conflicts.

    conflicts: one row each, with text_sha256, question, ours, theirs (a score or a refusal), difference (NaN where one
    of them refused).
    """

    new: int
    alike: int
    damaged: int
    conflicts: pd.DataFrame


def export(cache: ScoreCache, folder: Path) -> int:
    """Write scores.parquet and its card into a folder; returns the rows. The same rows give the same bytes.

    Damaged rows are left out.
    """
    counts = statistics(cache)
    groups = progress(
        _grouped(filter(is_whole, cache.rows())),
        total=-(-int(counts["texts"].sum()) // A_GROUP),
        desc="export",
        unit="group",
    )

    def write(path: Path) -> None:
        with pq.ParquetWriter(path, COLUMNS, compression="zstd") as writer:
            for rows in groups:
                writer.write_table(pa.Table.from_pylist([_exported(row) for row in rows], schema=COLUMNS))

    write_atomically(folder / TABLE, write)
    write_atomically(folder / CARD, lambda path: path.write_text(_card(counts), encoding="utf-8"))
    return int(counts["texts"].sum())


def merge(cache: ScoreCache, other: Path) -> Merged:
    """Take over the answers of an export (its folder or its parquet file) or of another cache file.

    A text that both have keeps the answer that is here; where they differ, that is a conflict. Raises CacheError for a
    file that is neither; the rows before a wrong one are then there, which does no harm.
    """
    new = alike = damaged = 0
    conflicts = []
    for rows in _read(other):
        fresh = []
        for row in rows:
            there = cache.row(row[0], row[1])
            if not is_whole(row):
                damaged += 1
            elif there is None or not is_whole(there):
                fresh.append(row)
            elif _said(there) == _said(row):
                alike += 1
            else:
                conflicts.append(_conflict(there, row))
        cache.add_rows(fresh)
        new += len(fresh)
    columns = ["text_sha256", "question", "ours", "theirs", "difference"]
    return Merged(new, alike, damaged, pd.DataFrame(conflicts, columns=columns))


def statistics(cache: ScoreCache) -> pd.DataFrame:
    """One row a question: scorer, version, attributes, languages, texts, refused, first and last day of an answer."""
    found: dict[str, dict[str, Any]] = {}
    for row in filter(is_whole, cache.rows()):
        one = found.setdefault(row[1], {"texts": 0, "refused": 0, "first": row[5], "last": row[5]})
        one["texts"] += 1
        one["refused"] += row[3] is not None
        one["first"], one["last"] = min(one["first"], row[5]), max(one["last"], row[5])
    table = []
    for encoded, one in sorted(found.items()):
        asked = Question.decoded(encoded)
        days = {key: datetime.fromtimestamp(one[key], UTC).date().isoformat() for key in ("first", "last")}
        names = {"attributes": ", ".join(asked.attributes), "languages": ", ".join(asked.languages)}
        table.append({"scorer": asked.scorer, "version": asked.version, **names, **one, **days})
    columns = ["scorer", "version", "attributes", "languages", "texts", "refused", "first", "last"]
    return pd.DataFrame(table, columns=columns)


def _grouped(rows: Iterator[tuple]) -> Iterator[list[tuple]]:
    while group := list(itertools.islice(rows, A_GROUP)):
        yield group


# ---- rows of a table ----


def _exported(row: tuple) -> dict[str, Any]:
    answer, asked = answer_of(row), Question.decoded(row[1])
    return {
        "text_sha256": row[0].hex(),
        "scorer": asked.scorer,
        "version": asked.version,
        "attributes": list(asked.attributes),
        "languages": list(asked.languages),
        "scores": row[2],
        "refusal": answer.refusal,
        "response": answer.response,
        "scored_at": datetime.fromtimestamp(answer.at, UTC),
    }


def _imported(line: dict[str, Any]) -> tuple:
    digest = bytes.fromhex(line["text_sha256"])
    if len(digest) != 32:
        raise ValueError(f"text_sha256 {line['text_sha256']!r}")
    asked = Question(line["scorer"], line["version"], tuple(line["attributes"]), tuple(line["languages"]))
    scores = {str(name): float(score) for name, score in json.loads(line["scores"]).items()}
    if not scores and not line["refusal"]:
        raise ValueError(f"neither scores nor a refusal for text {line['text_sha256']}")
    if not all(0 <= score <= 1 for score in scores.values()):
        raise ValueError(f"a score outside 0 to 1 for text {line['text_sha256']}")
    at = int(line["scored_at"].timestamp())
    return row_of(digest, asked, Answer(scores, line["refusal"], line["response"], at))


def _read(other: Path) -> Iterator[list[tuple]]:
    path = other / TABLE if other.is_dir() else other
    if not path.is_file():
        raise CacheError(f"there is no {path}; give an export's folder, its {TABLE}, or a score cache")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if not is_parquet:
        with copied(path) as copy, ScoreCache(copy) as theirs:
            yield from _grouped(theirs.rows())
        return
    try:
        for batch in pq.ParquetFile(path).iter_batches(A_GROUP, columns=COLUMNS.names):
            yield [_imported(line) for line in batch.to_pylist()]
    except (pa.ArrowException, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CacheError(f"{path} is no export of a score cache: {str(error).splitlines()[0]}") from error


def _said(row: tuple) -> tuple:
    return json.loads(row[2]), row[3]


def _conflict(ours: tuple, theirs: tuple) -> tuple:
    texts = [row[3] or row[2] for row in (ours, theirs)]
    scores = [json.loads(row[2]) for row in (ours, theirs)]
    both = scores[0].keys() & scores[1].keys()
    difference = max((abs(scores[0][name] - scores[1][name]) for name in both), default=float("nan"))
    return ours[0].hex(), ours[1], *texts, difference


# ---- the card ----


def _card(counts: pd.DataFrame) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in counts.itertuples(index=False)]
    return CARD_TEXT.format(
        rows=int(counts["texts"].sum()),
        head=f"| {' | '.join(counts.columns)} |\n|{'---|' * len(counts.columns)}",
        table="\n".join(lines),
    )


CARD_TEXT = """---
pretty_name: Scores of texts by their SHA-256
configs:
- config_name: default
  data_files: scores.parquet
---

# Scores of texts by their SHA-256

{rows} answers of scoring services, exported from a score cache of steerlab. Some of these services are gone or change
without a version, so the answers cannot be asked for again. **No texts are in it**: a score is found by the text.

{head}
{table}

## Columns

| column | what |
|---|---|
| text_sha256 | SHA-256 (hex) of the exact text in UTF-8, not stripped or normalised |
| scorer, version | who was asked; a service without versions has that of its API, with the host of a copy |
| attributes, languages | what was asked for |
| scores | JSON, value by attribute; empty where the service refused |
| refusal | why it refused for good; null where it scored |
| response | what came over the wire, as JSON; empty where nothing was asked |
| scored_at | when, UTC |

## Use

`python -m steerlab scores merge <this folder>` takes it into a cache; texts that it has are then never asked for.
A service's own terms hold for its scores.
"""
