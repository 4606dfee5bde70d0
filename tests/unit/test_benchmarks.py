"""What the benchmarks compare is comparable; how long it takes is no test's concern."""

import copy
import json
import os
import sys
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks import card_run, gpu, latentqa
from benchmarks.shapes import RandomModel
from steerlab import decoding as steps
from steerlab.language_modelling import mean_loss
from steerlab.methods.latentqa import Decoder
from steerlab.methods.latentqa_trainee import Trainee
from tests.laws.tape import record_on_tape
from tests.unit.latentqa_subjects import reader_model


def test_a_plain_fine_tune_learns_as_many_numbers_from_the_prompts_of_the_decoder() -> None:
    handle = reader_model("llama")
    decoder = Decoder.fit(handle, latentqa.DATA, **latentqa.SETTINGS | {"max_tokens": 1024})
    trainee = Trainee(handle, latentqa.DATA, None, decoder.record)
    assert [prompt for prompt, _ in trainee.fitted] == latentqa.prompts_of(handle)
    model: Any = copy.deepcopy(handle.load())
    plain = latentqa.plain_parameters(model)
    assert sorted(each.shape for each in plain) == sorted(each.shape for each in trainee.parameters.values())
    prompts = latentqa.prompts_of(handle)
    losses = [mean_loss(each, each.get_output_embeddings().weight, prompts) for each in (model, handle.load())]
    torch.testing.assert_close(*losses)  # layers that learnt nothing yet change nothing


def test_both_ways_of_reading_give_the_same_tokens_and_all_that_are_asked_for() -> None:
    handle = reader_model("llama")
    decoder = Decoder.fit(handle, latentqa.DATA, **latentqa.SETTINGS | {"max_tokens": 1024})
    cached, anew = (latentqa.reading(handle, decoder, use_cache)() for use_cache in (True, False))
    longest = max(len(prompt.ids) - len(prompt.asked) for prompt in latentqa.prompts_of(handle)[: latentqa.READ_ROWS])
    assert torch.equal(cached, anew) and cached.shape == (latentqa.READ_ROWS, longest + latentqa.NEW_TOKENS)


@pytest.mark.parametrize(("shape", "parameters"), [("llama-3-8b", 8_030_261_248), ("gpt2-large", 774_030_080)])
def test_the_shapes_are_those_of_the_models_that_they_are_named_after(shape: str, parameters: int) -> None:
    handle = RandomModel(shape, device="meta", dtype="bfloat16")
    assert handle.load().num_parameters() == parameters
    # What a step reads: the matrices of all blocks and the head, neither vectors nor the embeddings that are looked up.
    looked_up = {"llama-3-8b": 128256 * 4096, "gpt2-large": 1024 * 1280}[shape]
    vectors = sum(each.numel() for each in handle.load().parameters() if each.ndim == 1)
    assert gpu.weights(handle) + handle.output_embeddings().numel() == parameters - looked_up - vectors


def test_every_measure_of_a_card_gives_its_row_on_a_tiny_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(steps.RECORDERS, "cpu", record_on_tape)
    monkeypatch.setattr(gpu, "LONG", 60)
    out = tmp_path / "gpu.json"
    gpu.main(["--device", "cpu", "--dtype", "float32", "--shapes", "tiny-llama", "--pairs", "1", "--out", str(out)])
    found = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert "failed" not in printed and found["card"] == "a CPU" and found["bandwidth"] > 0 and found["products"] > 0
    on_cards = {measure.__name__ for measure in gpu.ON_CARDS}
    assert [row["measure"] for row in found["rows"]] == [name for name in gpu.NAMES if name not in on_cards]
    for row in found["rows"]:
        assert row["ratio"] > 0 and row["name"] in printed
    rates = {row["measure"]: row["tokens_a_second"] for row in found["rows"] if row["tokens_a_second"] > 0}
    assert {"prefill", "decode", "decoding_under_hpr", "cached_training", "training_from_states_on_disk"} <= set(rates)


def test_a_measure_that_fails_does_not_cost_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def recorded_steps(handle: RandomModel, pairs: int) -> None:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(gpu, "MEASURES", (recorded_steps, gpu.decode))
    monkeypatch.setattr(gpu, "LONG", 60)
    options = ["--device", "cpu", "--dtype", "float32", "--pairs", "1", "--only", "recorded_steps", "decode"]
    assert gpu.main([*options, "--shapes", "tiny-gpt2"]) == 1
    printed = capsys.readouterr().out
    assert "failed: out of memory\n" in printed and "decoding, batch 64" in printed


def test_without_a_card_the_benchmark_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="there is no card here; give --device cpu --shapes tiny-llama"):
        gpu.main([])


class TestRunOnACard:
    ROW = dict.fromkeys(card_run.KEY, "x") | {"value": 0.5, "low": 0.4, "high": 0.6}

    def metrics(self, folder: Path, **changes: object) -> Path:
        """Two metrics of a cell, the first one changed."""
        folder.mkdir(parents=True)
        rows = [self.ROW | changes, self.ROW | {"metric": "other"}, self.ROW | {"metric": "none", "low": nan}]
        pd.DataFrame(rows).to_csv(folder / "test.csv", index=False)
        return folder

    @pytest.fixture
    def card(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An nvidia-smi that tells of a card which is busy now and then, and a run that takes a second."""
        smi = tmp_path / "bin" / "nvidia-smi"
        smi.parent.mkdir()
        smi.write_text("#!/bin/bash\nwhile true; do echo '80, 1000'; echo '0, 3000'; sleep 0.2; done\n")
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(card_run, "RUN", [sys.executable, "-c", "import time; time.sleep(1)"])
        monkeypatch.chdir(tmp_path)

    def test_metrics_outside_the_intervals_are_told(
        self, tmp_path: Path, card: None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        there = self.metrics(tmp_path / "there")
        self.metrics(tmp_path / card_run.METRICS, value=0.7)
        assert card_run.main([str(there)]) == 0
        said = capsys.readouterr().out
        assert "card 40 % busy, at most 3,000 MiB in use" in said
        assert "1 of 2 metrics lie within the other run's intervals" in said and "0.7" in said

    def test_what_a_driver_does_not_know_costs_no_comparison(self) -> None:
        assert card_run.told_by(["[N/A], 900\n", "30, 1000\n"]) == "card 30 % busy, at most 1,000 MiB in use"
        assert card_run.told_by(["[N/A], [N/A]\n"]) == "nvidia-smi does not tell how busy the card was"

    def test_a_run_that_fails_is_told_in_a_line(
        self, tmp_path: Path, card: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(card_run, "RUN", [sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(SystemExit, match="the run failed with status 3"):
            card_run.main([str(self.metrics(tmp_path / "there"))])

    def test_a_folder_without_metrics_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match="holds no metrics"):
            card_run.main([str(tmp_path)])
