"""The score cache: what goes in comes out, once, from several processes, after damage, and between people."""

import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from steerlab.scores import cache_file, exchange
from steerlab.scores.cache import FILE, Answer, Question, ScoreCache, text_digest
from steerlab.scores.cache_file import CacheError, journal
from tests.unit.test_cli import steerlab

QUESTION = Question("perspective", "v1alpha1", ("TOXICITY",), ("en",))
HOSTILE = ["a\0b", "\ud800", "x" * 100_000, "\u202eright to left", "👩‍👩‍👧", "", "  \n\t", "\x7f", "%s ' \" ;--"]


def answer(score: float, at: int = 1) -> Answer:
    return Answer({"TOXICITY": score}, None, json.dumps({"value": score, "of": "é"}), at)


def filled(folder: Path, texts: int = 2000) -> Path:
    """A closed cache with that many answers, all in the main file."""
    with ScoreCache(folder / FILE) as cache:
        cache.add(QUESTION, {f"text {number}": answer(number / texts) for number in range(texts)})
        cache._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / FILE


def scores(path: Path, texts: int = 2000) -> dict[str, float]:
    with ScoreCache(path) as cache:
        found = cache.look_up(QUESTION, [f"text {number}" for number in range(texts)])
    return {text: one.scores["TOXICITY"] for text, one in found.items()}


def test_an_answer_comes_back_as_it_was_given(tmp_path):
    refused = Answer({}, "COMMENT_EMPTY", "", 7)
    with ScoreCache(tmp_path / FILE) as cache:
        cache.add(QUESTION, {"kind": answer(0.25, 3), "": refused})
    with ScoreCache(tmp_path / FILE) as cache:
        assert cache.look_up(QUESTION, ["kind", "", "unknown"]) == {"kind": answer(0.25, 3), "": refused}


def test_hostile_texts_survive_a_round_trip(tmp_path):
    given = {text: answer(place / 100) for place, text in enumerate(HOSTILE)}
    with ScoreCache(tmp_path / FILE) as cache:
        cache.add(QUESTION, given)
        assert cache.look_up(QUESTION, HOSTILE) == given


def test_the_first_answer_to_a_question_stays(tmp_path):
    with ScoreCache(tmp_path / FILE) as cache, ScoreCache(tmp_path / FILE) as other:
        cache.add(QUESTION, {"text": answer(0.1)})
        other.add(QUESTION, {"text": answer(0.9)})
        assert cache.look_up(QUESTION, ["text"])["text"] == answer(0.1)


@pytest.mark.parametrize(
    ("stored", "counts"),
    [
        (Question("perspective", "v1alpha1", ("INSULT", "TOXICITY"), ("en",)), True),
        (Question("perspective", "v1alpha1", ("INSULT",), ("en",)), False),
        (Question("perspective", "v2", ("TOXICITY",), ("en",)), False),
        (Question("moderation", "v1alpha1", ("TOXICITY",), ("en",)), False),
        (Question("perspective", "v1alpha1", ("TOXICITY",), ("de",)), False),
    ],
)
def test_an_answer_to_more_attributes_counts_and_one_to_another_question_does_not(tmp_path, stored, counts):
    with ScoreCache(tmp_path / FILE) as cache:
        cache.add(stored, {"text": answer(0.1)})
        assert bool(cache.look_up(QUESTION, ["text"])) == counts


def test_the_same_question_wins_over_a_wider_one_and_an_older_wide_one_over_a_newer(tmp_path):
    wide = [Question("perspective", "v1alpha1", ("TOXICITY", other), ("en",)) for other in ("A", "Z")]
    with ScoreCache(tmp_path / FILE) as cache:
        cache.add(wide[0], {"text": answer(0.1, at=2)})
        cache.add(wide[1], {"text": answer(0.2, at=1)})
        assert cache.look_up(QUESTION, ["text"])["text"] == answer(0.2, at=1)
        cache.add(QUESTION, {"text": answer(0.3, at=9)})
        assert cache.look_up(QUESTION, ["text"])["text"] == answer(0.3, at=9)


@pytest.mark.parametrize(("reason", "counts"), [("COMMENT_TOO_LONG", True), ("LANGUAGE_DETECTION_FAILED", False)])
def test_a_refusal_of_a_wider_question_counts_where_the_text_is_its_reason(tmp_path, reason, counts):
    wide = Question("perspective", "v1alpha1", ("TOXICITY", "FLIRTATION"), ("en",))
    with ScoreCache(tmp_path / FILE) as cache:
        cache.add(wide, {"text": Answer({}, reason, "", 1)})
        assert bool(cache.look_up(QUESTION, ["text"])) == counts


def test_several_processes_write_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tests.unit.test_score_cache import *\n"
        "with ScoreCache(Path(sys.argv[1])) as cache:\n"
        "    for n in range(100): cache.add(QUESTION, {f'text {n}': answer(n / 100, int(sys.argv[2]))})\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path / FILE, str(at)]) for at in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    with ScoreCache(tmp_path / FILE) as cache:
        assert len(list(cache.rows())) == 100 and cache.faults() == []


def test_another_schema_version_is_refused_in_one_line(tmp_path):
    path = filled(tmp_path, 1)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=7")
    with pytest.raises(
        CacheError, match="has schema version 7, this code reads 1; export it with the version"
    ) as error:
        ScoreCache(path)
    assert "\n" not in str(error.value)


# ---- damage ----


@pytest.mark.parametrize("damage", ["first page", "a page in the middle", "cut off", "no database", "many bytes"])
def test_a_damaged_file_is_set_aside_and_made_again_from_what_is_readable(tmp_path, damage):
    path = filled(tmp_path)
    whole = scores(path)
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    draw = random.Random(0)
    if damage == "first page":
        content[:4096] = bytes(4096)
    elif damage == "a page in the middle":
        content[4096 * (pages // 2) : 4096 * (pages // 2 + 1)] = draw.randbytes(4096)
    elif damage == "cut off":
        del content[4096 * (pages * 2 // 3) :]
    elif damage == "no database":
        content[:] = b"no database at all" * 1000
    else:
        for page in range(3, pages, 10):
            content[4096 * page : 4096 * page + 12] = draw.randbytes(12)
    path.write_bytes(content)
    found = scores(path)
    assert found.items() <= whole.items()  # nothing wrong is read
    least = {"first page": 2000, "a page in the middle": 1900, "cut off": 1000, "no database": 0, "many bytes": 1500}
    assert len(found) >= least[damage]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    with ScoreCache(path) as cache:
        assert cache.faults() == []
        cache.add(QUESTION, {"another": answer(0.5)})


def test_a_flipped_bit_in_a_score_is_found_when_it_is_read_and_the_text_is_asked_again(tmp_path, caplog):
    path = filled(tmp_path, 3)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE answers SET scores = '{\"TOXICITY\": 0.99}' WHERE text = ?", [text_digest("text 1")])
    assert set(scores(path, 3)) == {"text 0", "text 2"}
    assert "is damaged" in caplog.text
    with ScoreCache(path) as cache:
        assert cache.faults() == ["1 rows whose seal is broken"]
        cache.add(QUESTION, {"text 1": answer(0.4)})
        assert cache.faults() == []


def test_bytes_that_are_no_text_break_one_row_and_not_the_cache(tmp_path):
    path = filled(tmp_path, 3)
    place = (content := bytearray(path.read_bytes())).find(b'{"TOXICITY"') + 2
    content[place] ^= 0x80
    path.write_bytes(content)
    assert len(scores(path, 3)) == 2
    with ScoreCache(path) as cache:
        assert cache.faults() == ["1 rows whose seal is broken"]
        cache.rebuild()
        assert cache.faults() == [] and len(list(cache.rows())) == 2


def test_a_rebuild_that_died_between_its_two_renames_is_finished(tmp_path):
    path = filled(tmp_path, 3)
    path.rename(path.with_name(path.name + ".rebuilding"))
    assert len(scores(path, 3)) == 3


def test_a_database_of_something_else_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("CREATE TABLE mine (a)")
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(CacheError, match="is a database of something else than scores"):
        ScoreCache(tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == before


def test_many_processes_may_make_the_cache_at_once(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from tests.unit.test_score_cache import *\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "for n in range(20):\n"
        "    with ScoreCache(Path(sys.argv[1]) / str(n) / FILE) as cache: cache.add(QUESTION, {'text': answer(0.5)})\n"
    )
    together = str(time.time() + 4)
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path, together]) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4


def test_a_damaged_file_that_another_process_has_open_is_left_alone(tmp_path, monkeypatch):
    path = filled(tmp_path)
    monkeypatch.setattr(cache_file.rebuild, "__kwdefaults__", {"patience": 0.3})
    with ScoreCache(path):
        path.write_bytes(bytes(100))
        with pytest.raises(CacheError, match="another process has it open; end that one and run again"):
            ScoreCache(path)


# ---- where it lies ----


@pytest.mark.parametrize(
    ("kind", "expected"), [("ext4", "wal"), ("nfs4", "delete"), ("lustre", "delete"), ("fuse.sshfs", "delete")]
)
def test_a_network_file_system_gets_a_rollback_journal(tmp_path, kind, expected):
    mounts = f"proc /proc proc rw 0 0\n/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\n"
    assert journal(tmp_path / "store" / FILE, mounts) == expected


def test_the_deepest_mount_decides(tmp_path):
    mounts = f"server:/x {tmp_path} nfs rw 0 0\n/dev/b {tmp_path}/store ext4 rw 0 0\n"
    (tmp_path / "store").mkdir()
    assert journal(tmp_path / "store" / FILE, mounts) == "wal"


# ---- between people ----


def test_an_export_merged_into_an_empty_cache_gives_the_same_answers(tmp_path):
    path = filled(tmp_path, 100)
    with ScoreCache(path) as cache:
        cache.add(QUESTION, {"": Answer({}, "COMMENT_EMPTY", "", 5)})
        assert exchange.export(cache, tmp_path / "out") == 101
        rows = list(cache.rows())
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "101 answers" in card
        and card.startswith("---\n")
        and "| perspective | v1alpha1 | TOXICITY | en | 101 | 1 |" in card
    )
    assert "text 1" not in pd.read_parquet(tmp_path / "out" / "scores.parquet").to_csv()
    with ScoreCache(tmp_path / "other" / FILE) as other:
        merged = exchange.merge(other, tmp_path / "out")
        assert (merged.new, merged.alike, len(merged.conflicts)) == (101, 0, 0)
        assert list(other.rows()) == rows
        merged = exchange.merge(other, path)  # the cache itself
        assert (merged.new, merged.alike, len(merged.conflicts)) == (0, 101, 0)


def test_the_same_answers_give_the_same_export(tmp_path):
    with ScoreCache(filled(tmp_path, 50)) as cache:
        exchange.export(cache, tmp_path / "one")
        exchange.export(cache, tmp_path / "two")
    assert (tmp_path / "one/scores.parquet").read_bytes() == (tmp_path / "two/scores.parquet").read_bytes()


def test_a_merge_reports_what_differs_and_keeps_ours(tmp_path):
    with ScoreCache(tmp_path / "a" / FILE) as ours, ScoreCache(tmp_path / "b" / FILE) as theirs:
        ours.add(QUESTION, {"one": answer(0.1), "two": answer(0.2), "three": Answer({}, "COMMENT_TOO_LONG", "", 1)})
        theirs.add(QUESTION, {"one": answer(0.1, at=9), "two": answer(0.5), "three": answer(0.3), "four": answer(0.4)})
        exchange.export(theirs, tmp_path / "export")
        merged = exchange.merge(ours, tmp_path / "export")
        assert (merged.new, merged.alike, len(merged.conflicts)) == (1, 1, 2)
        of = merged.conflicts.set_index("text_sha256")["difference"]
        assert of[text_digest("two").hex()] == pytest.approx(0.3)
        assert ours.look_up(QUESTION, ["two", "three"])["two"] == answer(0.2)


def test_what_is_no_export_is_refused_in_one_line(tmp_path):
    pd.DataFrame({"text": ["a"]}).to_parquet(tmp_path / "scores.parquet")
    with ScoreCache(tmp_path / "a" / FILE) as cache:
        with pytest.raises(CacheError, match="is no export of a score cache"):
            exchange.merge(cache, tmp_path)
        with pytest.raises(CacheError, match="there is no"):
            exchange.merge(cache, tmp_path / "nothing")
        assert list(cache.rows()) == []


def test_a_merge_only_reads_the_other_file(tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n")
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE mine (a)")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with ScoreCache(tmp_path / "a" / FILE) as cache:
        for name in before:
            with pytest.raises(CacheError, match="is no export and no score cache"):
                exchange.merge(cache, tmp_path / name)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_damaged_rows_of_theirs_are_left_and_ours_are_healed(tmp_path):
    for name in ("a", "b"):
        with ScoreCache(tmp_path / name / FILE) as cache:
            cache.add(QUESTION, {"one": answer(0.1), "two": answer(0.2)})
    for name, text in (("a", "one"), ("b", "two")):
        with sqlite3.connect(tmp_path / name / FILE) as database:
            database.execute("UPDATE answers SET scores = 'x' WHERE text = ?", [text_digest(text)])
    with ScoreCache(tmp_path / "a" / FILE) as ours:
        merged = exchange.merge(ours, tmp_path / "b" / FILE)
        assert (merged.new, merged.alike, merged.damaged) == (1, 0, 1)
        assert ours.faults() == []


def test_the_command_line_exports_merges_counts_and_verifies(tmp_path):
    path = filled(tmp_path / "a", 10)
    store, other = ("--store", str(tmp_path / "a")), ("--store", str(tmp_path / "b"))
    assert "10 answers written" in steerlab("scores", "export", str(tmp_path / "out"), *store).stdout
    assert "10 new answers, 0 known, 0 differ" in steerlab("scores", "merge", str(tmp_path / "out"), *other).stdout
    printed = steerlab("scores", "stats", *other).stdout
    assert "10 answers" in printed and "a row" in printed and "perspective" in printed
    assert "every row is whole" in steerlab("scores", "verify", *other).stdout
    with sqlite3.connect(path) as database:
        database.execute("UPDATE answers SET at = 5 WHERE text = ?", [text_digest("text 1")])
    found = steerlab("scores", "verify", *store)
    assert found.returncode == 1 and len(found.stderr.splitlines()) == 1 and "--repair" in found.stderr
    assert "9 answers were read" in steerlab("scores", "verify", "--repair", *store).stdout
    absent = steerlab("scores", "stats", "--store", str(tmp_path / "none"))
    assert absent.returncode == 1 and "there is no score cache" in absent.stderr
