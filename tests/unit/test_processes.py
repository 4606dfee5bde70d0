"""A reader trained by several processes is the one that a single process trains; and how processes fail and end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from scripts import train_reader
from steerlab.methods.latentqa import Decoder
from steerlab.processes import ProcessError, share
from tests.unit.latentqa_subjects import SETTINGS, reader_model, table
from tests.workflow.project import ROOT

COMPUTE = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "threads": 1, "versions": {}, "capture_code": "c"}
GIVEN = {key: value for key, value in SETTINGS.items() if key != "seed"} | {"official_code": False}
GIVEN |= {"updates": 6, "accumulation": 2, "dropout": 0.2, "held_out_every": 2, "learning_rate": 0.01, "keep": "best"}
WORK = "tests.unit.process_work"


def trained(folder: Path, shared: dict[str, object] | None = None, **more: object) -> Decoder:
    """A reader by the rule's script; of its six rows two are of dev. more: hyperparameters."""
    folder.mkdir()
    table(hidden=1).assign(split=["train", "train", "dev"] * 2).to_parquet(folder / "table.parquet")
    spec = COMPUTE | {"activations": {"batch_rows": 4, "shard_rows": 2}, "seed": 0, "setting": "masked", "labels": None}
    train_reader.run(
        model=reader_model("llama").folder, table=folder / "table.parquet", store=folder / "store",
        work=folder / "work", reader=folder / "reader", settings={"checkpoint_every": 2, "tracker": None},
        spec=spec | {"hyperparameters": GIVEN | more} | (shared or {}),
    )  # fmt: skip
    return Decoder.load(folder / "reader")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return trained(tmp_path_factory.mktemp("alone") / "run")


@pytest.mark.parametrize(("sharding", "spared"), [("ddp", False), ("fsdp", True)])
def test_two_processes_train_the_reader_that_one_does(
    tmp_path: Path, alone: Decoder, sharding: str, spared: bool
) -> None:
    shared = {"processes": 2, "sharding": sharding}
    together = trained(tmp_path / "run", shared, checkpointed_activations=spared)
    found, expected = (pd.DataFrame(list(each.training), dtype=float) for each in (together, alone))
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-5)
    assert list(found.step) == [1, 2, 3, 4, 5, 6] and found.held_out_loss.notna().sum() == 3
    assert together.record.config == alone.record.config | {"checkpointed_activations": spared}
    assert together.record.data == alone.record.data
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name], tensor, rtol=1e-3, atol=1e-5)
    kept = list((tmp_path / "run" / "store" / "activations").rglob("*.safetensors"))
    assert len(kept) == 3 and list((tmp_path / "run" / "work").rglob("*.safetensors"))


def test_a_process_holds_its_share_of_each_block_and_says_the_same(tmp_path: Path) -> None:
    model = reader_model("llama")
    share(2, f"{WORK}:is_in_parts", {"model": model.folder, "folder": tmp_path}, device="cpu")
    with torch.no_grad():
        expected = model.load()(torch.tensor([list(b"how are you")])).logits
    for number in range(2):
        sizes, logits = torch.load(tmp_path / f"{number}.pt")
        assert all(0 < own <= 0.6 * whole for own, whole in sizes)
        torch.testing.assert_close(logits, expected)


def test_the_error_is_that_of_the_process_that_failed_first() -> None:
    with pytest.raises(ProcessError, match="^process 1: ValueError: no such thing; give another$"):
        share(2, f"{WORK}:fails", {"number": 1}, device="cpu")


def test_processes_without_a_card_each_are_refused() -> None:
    asked = torch.cuda.device_count() + 1
    with pytest.raises(ProcessError, match=f"{asked} processes need a card each.*--resources gpu={asked}"):
        share(asked, f"{WORK}:fails", {"number": 0}, device="cuda")


KILLED = f"""
import sys
from steerlab.processes import share
share(2, "{WORK}:waits", {{"folder": sys.argv[1]}}, device="cpu")
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as launcher:
        deadline = time.monotonic() + 120
        while len(pids := [int(file.stem) for file in tmp_path.glob("*.pid")]) < 2 and launcher.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        launcher.send_signal(signal.SIGKILL)
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
