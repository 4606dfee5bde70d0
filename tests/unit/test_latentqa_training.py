"""The decoder's training: it learns to read, goes on after a kill to the same bytes, and shares a step's batches."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, multiprocessing, nn

from steerlab import sites
from steerlab.language_modelling import bucketed
from steerlab.methods.latentqa import Decoder
from steerlab.methods.latentqa_training import Steps, activation_checkpointing, train
from tests.unit.latentqa_subjects import ROOT, SETTINGS, dialog, reader_model, table

BATCHES = [[[place, place + 1], [place + 2]] for place in range(12)]


def trained(folder: Path | None, stops_at: int | None = None, **more: Any) -> tuple[list[dict], dict[str, Tensor]]:
    """A line fitted with dropout in twelve updates of two batches; or up to an exception in one of them."""
    weight, calls = nn.Parameter(torch.ones(3, 4)), [0]
    xs = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))

    def differentiate(batch: list[int], factor: float) -> Tensor:
        calls[0] += 1
        if stops_at is not None and calls[0] > 2 * stops_at:
            raise KeyboardInterrupt
        loss = (nn.functional.dropout(xs[batch], 0.5) @ weight.T - 1).square().mean() * factor
        loss.backward()
        return loss

    def held_out_loss() -> float:
        return float((weight.detach().sum() - 10).square())

    steps = Steps(BATCHES, 0.1, 0.01, seed=0, every=3, checkpoint_every=2, **more)
    return train({"weight": weight}, steps, differentiate, held_out_loss, checkpoints=folder)


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("stops_at", [1, 2, 7, 11])
def test_a_training_that_was_stopped_goes_on_to_the_same_losses_and_tensors(
    tmp_path: Path, stops_at: int, keep: str
) -> None:
    rows, tensors = trained(None, keep=keep)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, stops_at, keep=keep)
    again, resumed = trained(tmp_path, keep=keep)
    assert again == rows and [row["step"] for row in rows] == list(range(1, 13))
    assert torch.equal(resumed["weight"], tensors["weight"])
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    rows, tensors = trained(None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, 9)
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-1])
    again, resumed = trained(tmp_path)
    assert again == rows and torch.equal(resumed["weight"], tensors["weight"])


def test_the_best_tensors_are_those_of_the_lowest_held_out_loss() -> None:
    rows, best = trained(None, keep="best")
    looked = {row["step"]: row["held_out_loss"] for row in rows if row["held_out_loss"] is not None}
    assert list(looked) == [3, 6, 9, 12]
    assert float((best["weight"].sum() - 10).square()) == min(looked.values()) < looked[12]


def test_the_learning_rate_falls_along_a_cosine_without_warm_up() -> None:
    rates = torch.tensor([row["learning_rate"] for row in trained(None)[0]])
    torch.testing.assert_close(rates, 0.05 * (1 + torch.cos(torch.pi * torch.arange(12) / 12)))


def _process(rank: int, folder: Path) -> None:
    where = f"file://{folder / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    rows, tensors = trained(folder / "checkpoints")
    torch.distributed.destroy_process_group()
    torch.save((rows, tensors), folder / f"{rank}.pt")


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    rows, tensors = trained(None)
    multiprocessing.spawn(_process, (tmp_path,), nprocs=2)
    for rank in (0, 1):
        found, weights = torch.load(tmp_path / f"{rank}.pt")
        assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
        torch.testing.assert_close(weights["weight"], tensors["weight"])


# ---- a whole decoder ----

KILLED = """
import sys
from pathlib import Path
from tests.unit.test_latentqa_training import fit
fit(Path(sys.argv[1]))
"""


def fit(checkpoints: Path | None) -> Decoder:
    settings = SETTINGS | {"updates": 24, "accumulation": 2, "dropout": 0.2, "held_out": 0.3, "held_out_every": 7}
    settings |= {"learning_rate": 0.01, "normalise": "learnt", "checkpoints": checkpoints, "checkpoint_every": 1}
    return Decoder.fit(reader_model("llama"), table(), None, **settings)  # pyright: ignore


def test_a_decoder_killed_in_training_becomes_the_one_that_was_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL) as child:
        try:
            deadline = time.monotonic() + 300
            while not list(tmp_path.glob("*/*.safetensors")) and child.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    written = [int(file.stem) for file in tmp_path.glob("*/*.safetensors")]
    assert 1 <= max(written) < 24
    resumed, whole = fit(tmp_path), fit(None)
    assert resumed.training == whole.training and len(whole.training) == 24
    assert resumed.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(resumed.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_one_seed_gives_one_decoder_and_its_row_of_losses() -> None:
    first, again, other = (Decoder.fit(reader_model("llama"), table(), **(SETTINGS | {"seed": s})) for s in (0, 0, 1))  # pyright: ignore
    assert first.training == again.training != other.training
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert list(first.training[0]) == ["step", "loss", "learning_rate", "held_out_loss"]


def test_a_decoder_learns_to_read_what_the_states_show() -> None:
    """The answer is a letter that stands in the read alone, the same question about each."""
    letters = "ab" * 6
    turns = [json.dumps(dialog(letter * 6)) for letter in letters]
    data = pd.DataFrame({"id": [str(i) for i in range(12)], "turns": turns, "hidden": 0, "question": "?"})
    data["answer"] = list(letters)
    settings = SETTINGS | {"updates": 60, "rank": 8, "alpha": 16.0, "learning_rate": 0.02, "batch_rows": 6}
    model = reader_model("llama")
    decoder = Decoder.fit(model, data, **settings)  # pyright: ignore
    swapped = [place ^ 1 for place in range(12)]  # the read of the other letter
    true, shuffled, none = (
        decoder.losses(model, data, **more).loss.mean()  # pyright: ignore
        for more in ({}, {"shown": swapped}, {"patch": False})
    )
    assert true < shuffled - 0.3 and true < none


def test_batches_are_of_like_length_and_hold_every_text_once_an_epoch() -> None:
    lengths = torch.randint(1, 500, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    cut = bucketed(lengths, 4, 32, torch.Generator().manual_seed(0))
    assert cut == bucketed(lengths, 4, 32, torch.Generator().manual_seed(0))
    for epoch in (cut[:16], cut[16:]):
        assert sorted(place for batch in epoch for place in batch) == list(range(64))
    assert cut[:16] != cut[16:]
    pads = sum(max(lengths[i] for i in batch) - lengths[j] for batch in cut[:16] for j in batch)
    assert pads < 0.1 * sum(lengths)
    firsts = [lengths[batch[0]] for batch in cut[:16]]
    assert firsts != sorted(firsts)


def test_blocks_are_computed_again_where_activations_are_not_kept() -> None:
    model: Any = reader_model("llama").load()
    calls: list[int] = []
    hook = sites.block(model, 1).self_attn.register_forward_hook(lambda *_: calls.append(1))  # pyright: ignore
    states = torch.randn(1, 5, 16, requires_grad=True)
    with activation_checkpointing(model, True):
        model(inputs_embeds=states, use_cache=False).logits.sum().backward()
    assert len(calls) == 2
    model(inputs_embeds=states, use_cache=False).logits.sum().backward()
    hook.remove()
    assert len(calls) == 3
