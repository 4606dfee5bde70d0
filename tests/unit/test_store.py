"""The store: whole files or none, damage found, finished batches kept."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab import store
from tests.workflow.project import ROOT


def rows(batch: int) -> pd.DataFrame:
    return pd.DataFrame({"batch": [batch] * 3, "text": [f"text {batch}, {row}" for row in range(3)]})


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write_atomically(tmp_path / "file", fail)
    assert list(tmp_path.iterdir()) == []


@given(position=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_any_flipped_bit_of_a_shard_is_found(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int):
    shard = tmp_path_factory.mktemp("shard") / "0.parquet"
    store.write_shard(shard, lambda path: rows(0).to_parquet(path))
    assert store.shard_is_whole(shard)
    content = bytearray(shard.read_bytes())
    content[position % len(content)] ^= 1 << bit
    shard.write_bytes(content)
    assert not store.shard_is_whole(shard)


def test_finished_batches_are_read_and_damaged_ones_computed_again(tmp_path: Path):
    computed = []

    def compute(batch: int) -> pd.DataFrame:
        computed.append(batch)
        return rows(batch)

    names = ["a", "b", "c"]
    first = store.resume(tmp_path, names, compute, desc="test", unit="batch")
    (tmp_path / "b.parquet").write_bytes(b"rotten")
    (tmp_path / "c.parquet").unlink()
    second = store.resume(tmp_path, names, compute, desc="test", unit="batch")
    assert computed == [0, 1, 2, 1, 2]
    pd.testing.assert_frame_equal(first, second)


KILLED = """
import sys, time
from pathlib import Path
from steerlab import store
from tests.unit.test_store import rows
def compute(batch):
    if batch == 2:
        print("at the third", flush=True)
        time.sleep(60)
    return rows(batch)
store.resume(Path(sys.argv[1]), list("abcd"), compute, desc="test", unit="batch", share=(0, 2))
"""


def test_a_killed_shard_goes_on_where_it_was_killed_and_keeps_what_another_has_done(tmp_path: Path):
    store.resume(tmp_path, list("abcd"), rows, desc="test", unit="batch", share=(1, 2))
    child = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "at the third\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    computed = []

    def compute(batch: int) -> pd.DataFrame:
        computed.append(batch)
        return rows(batch)

    everything = store.resume(tmp_path, list("abcd"), compute, desc="test", unit="batch")
    assert computed == [2]
    pd.testing.assert_frame_equal(everything, pd.concat([rows(batch) for batch in range(4)], ignore_index=True))


@given(st.dictionaries(st.text(), st.integers()))
def test_the_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int]):
    assert store.digest(value) == store.digest(dict(reversed(value.items())))
