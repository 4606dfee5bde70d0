"""Activations: captured once, keyed by what they are of, found when damaged, one shard in memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from steerlab import activations, models, sites
from steerlab.activations import Row
from steerlab.models import ModelHandle
from steerlab.sites import Site
from tests.workflow.project import ROOT, environment

TEXTS = [f"text number {number}{', and more' * (number % 3)}" for number in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    models.prepare({"kind": "random", "family": "llama", "layers": 3, "seed": 0}, folder, name="tiny")
    return folder


@pytest.fixture
def handle(folder: Path) -> ModelHandle:
    return ModelHandle(folder)


def capture(handle: ModelHandle, store: Path, positions="last", texts=TEXTS, site="block_output", **sizes):
    rows = activations.select(handle.info.tokenizer, texts, positions)
    return activations.capture(handle, rows, site, folder=store, **({"batch_rows": 3, "shard_rows": 4} | sizes))


def states(captured: activations.Activations, layer: int) -> tuple[list[int], torch.Tensor]:
    parts = list(captured.shards(Site(captured.site, layer)))
    return [row for rows, _ in parts for row in rows.tolist()], torch.cat([tensor for _, tensor in parts])


@pytest.mark.parametrize("site", ["block_output", "attention_heads"])
@pytest.mark.parametrize("positions", ["last", "all"])
def test_states_are_those_of_each_text_alone(handle: ModelHandle, tmp_path: Path, positions: str, site: str):
    captured = capture(handle, tmp_path, positions, site=site)
    for layer in captured.layers(site):
        rows, found = states(captured, layer)
        alone = []
        for text in TEXTS:
            ids = torch.tensor([models.encode(handle.info.tokenizer, text)])
            with sites.capture(handle.load(), [Site(site, layer)]) as seen, torch.no_grad():
                handle.load()(input_ids=ids)
            alone.append(seen[Site(site, layer)][0] if positions == "all" else seen[Site(site, layer)][0, -1:])
        assert rows == [row for row, part in enumerate(alone) for _ in part]
        torch.testing.assert_close(found, torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_the_second_capture_loads_no_model_and_gives_the_same_bytes(folder: Path, tmp_path: Path, monkeypatch):
    first = [path.read_bytes() for path in capture(ModelHandle(folder), tmp_path).files]
    monkeypatch.setattr(ModelHandle, "load", lambda self: pytest.fail("the body was loaded"))
    assert [path.read_bytes() for path in capture(ModelHandle(folder), tmp_path).files] == first


def test_sites_captured_together_have_the_bytes_of_each_alone(folder: Path, tmp_path: Path):
    others = [("attention_heads", "all"), ("lm_head_input", "last"), ("block_output", "all")]
    model = ModelHandle(folder)
    also = [(site, activations.select(model.info.tokenizer, TEXTS, positions)) for site, positions in others]
    together = capture(model, tmp_path / "together", also=also)
    idle = ModelHandle(folder)
    for site, positions in [("block_output", "last"), *others]:
        alone = capture(ModelHandle(folder), tmp_path / "alone", positions, site=site)
        found = capture(idle, tmp_path / "together", positions, site=site)
        assert [path.name for path in found.files] == [path.name for path in alone.files]
        assert [path.read_bytes() for path in found.files] == [path.read_bytes() for path in alone.files]
    assert "_model" not in vars(idle), "all shards were there"
    assert together.site == "block_output"


def test_of_sites_captured_together_only_a_missing_shard_is_captured_again(handle: ModelHandle, tmp_path: Path):
    also = [("attention_heads", activations.select(handle.info.tokenizer, TEXTS, "last"))]
    captured = capture(handle, tmp_path, also=also)
    (lost,) = [path for path in tmp_path.rglob("*.safetensors") if path not in captured.files][:1]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors") if path != lost}
    lost.unlink()
    capture(handle, tmp_path, also=also)
    assert lost.is_file()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_flipped_byte_is_found_and_only_its_shard_is_captured_again(handle: ModelHandle, tmp_path: Path):
    captured = capture(handle, tmp_path)
    before = [path.read_bytes() for path in captured.files]
    times = [path.stat().st_mtime_ns for path in captured.files]
    rotten = bytearray(before[1])
    rotten[len(rotten) // 2] ^= 1
    captured.files[1].write_bytes(rotten)
    capture(handle, tmp_path)
    assert [path.read_bytes() for path in captured.files] == before
    assert [path.stat().st_mtime_ns == time for path, time in zip(captured.files, times)] == [True, False, True]


def test_other_tokens_positions_sites_or_models_never_share_a_shard(handle: ModelHandle, tmp_path: Path):
    other = tmp_path / "other"
    models.prepare({"kind": "random", "family": "llama", "layers": 3, "seed": 1}, other, name="other")
    captures = [
        capture(handle, tmp_path / "store"),
        capture(handle, tmp_path / "store", positions="all"),
        capture(handle, tmp_path / "store", site="attention_heads"),
        capture(handle, tmp_path / "store", texts=[text + "." for text in TEXTS]),
        capture(ModelHandle(other), tmp_path / "store"),
        capture(ModelHandle(handle.folder, dtype="bfloat16"), tmp_path / "store"),
        capture(ModelHandle(handle.folder, attention="eager"), tmp_path / "store"),
    ]
    files = [file for captured in captures for file in captured.files]
    assert len(files) == len(set(files))


def test_a_selection_is_part_of_the_key():
    tokens = (1, 2, 3)
    keys = {activations._key([Row(tokens, selected)]) for selected in ((0,), (2,), (0, 2), (0, 1, 2))}
    keys |= {activations._key([Row((1,), (0,)), Row((2, 3), (0, 1))]), activations._key([Row((1, 2, 3), (0, 0, 1))])}
    assert len(keys) == 6


MEASURED = """
import resource, sys
from pathlib import Path
from tests.unit import test_activations as test
from steerlab.models import ModelHandle
from steerlab.sites import Site
texts = [f"{number:06d}" + "." * 240 for number in range(int(sys.argv[3]))]
captured = test.capture(ModelHandle(Path(sys.argv[1])), Path(sys.argv[2]), "all", texts, batch_rows=16, shard_rows=32)
for _, states in captured.shards(Site("block_output", 1)):
    states.sum()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(peak, sum(path.stat().st_size for path in captured.files) >> 20)
"""


def test_peak_memory_does_not_grow_with_the_number_of_texts(folder: Path, tmp_path: Path):
    peaks, sizes = [], []
    for number in (64, 1024):
        command = [sys.executable, "-c", MEASURED, folder, tmp_path / str(number), str(number)]
        printed = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
        ).stdout
        peak, size = map(int, printed.split())
        peaks.append(peak)
        sizes.append(size)
    assert sizes[1] - sizes[0] > 40  # MiB of states that a growing process would hold
    assert peaks[1] - peaks[0] < 15


KILLED = """
import sys
from pathlib import Path
from steerlab import activations, store
from tests.unit import test_activations as test
from steerlab.models import ModelHandle
whole = store.write_shard
def write(path, save, count=[]):
    count.append(path)
    if len(count) == 3:
        print("at the third", flush=True)
        import time; time.sleep(60)
    whole(path, save)
store.write_shard = write
test.capture(ModelHandle(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_capture_goes_on_at_its_next_shard(folder: Path, tmp_path: Path, monkeypatch):
    command = [sys.executable, "-c", KILLED, folder, tmp_path / "store"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "at the third\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    made, states_of = [], activations._states
    monkeypatch.setattr(activations, "_states", lambda *given: made.append(1) or states_of(*given))
    resumed = capture(ModelHandle(folder), tmp_path / "store")
    assert len(made) == 1
    whole = capture(ModelHandle(folder), tmp_path / "whole")
    assert [path.read_bytes() for path in resumed.files] == [path.read_bytes() for path in whole.files]


def test_a_text_without_tokens_is_refused(handle: ModelHandle, tmp_path: Path):
    with pytest.raises(ValueError, match="no tokens in the text"):
        capture(handle, tmp_path, texts=["fine", ""])


def test_other_code_or_threads_never_share_a_shard(handle: ModelHandle, tmp_path: Path):
    captures = [capture(handle, tmp_path, made_by=made_by) for made_by in ((), (1, "code"), (2, "code"), (1, "other"))]
    files = [file for captured in captures for file in captured.files]
    assert len(files) == len(set(files))


def test_chosen_layers_are_captured_alone_and_apart_from_all(handle: ModelHandle, tmp_path: Path):
    every, some = capture(handle, tmp_path, "all"), capture(handle, tmp_path, "all", layers=[1, 0])
    assert some.layers("block_output") == [1, 0] and not {*every.files} & {*some.files}
    for layer in (0, 1):
        assert torch.equal(states(some, layer)[1], states(every, layer)[1])
    with pytest.raises(Exception, match="layer_2"):
        states(some, 2)


def test_the_states_of_single_rows_are_read_in_any_order(handle: ModelHandle, tmp_path: Path):
    captured = capture(handle, tmp_path, "all")
    rows, found = states(captured, 2)
    wanted = [9, 0, 4, 3, 4]
    for row, some in zip(wanted, captured.of_rows(Site("block_output", 2), wanted), strict=True):
        assert torch.equal(some, found[[place for place, each in enumerate(rows) if each == row]])
