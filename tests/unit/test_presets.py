"""The presets: each plans cleanly in a fresh checkout without a network, and the paper's has the paper's scale."""

import json
import math
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from steerlab import experiment
from steerlab.cli import _merged
from steerlab.data.doors import fetch
from steerlab.data.sources import SAMPLE, table
from steerlab.experiment import costs, rates, work
from steerlab.plan_command import files_of_plan
from steerlab.reference import PAPERS
from steerlab.tasks import latent_reading, truthfulness
from tests.workflow.project import ROOT, SNAKEMAKE, copy_project, environment

PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
TOGETHER = [("paper-lm_steer", "paper-lm_steer-sizes"), ("paper-lm_steer", "gpu"), ("full", "gpu")]
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("fresh") / "project")


def loaded(*presets: str) -> experiment.Experiment:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    for preset in presets:
        config = _merged(config, yaml.safe_load((ROOT / "presets" / f"{preset}.yaml").read_text()))
    return experiment.load(config)


@pytest.mark.parametrize("presets", [*((preset,) for preset in PRESETS), *TOGETHER], ids="+".join)
def test_a_preset_dry_runs_without_a_network(presets: tuple[str, ...], fresh: Path):
    command = [SNAKEMAKE, "-n", "--configfile", *(f"presets/{preset}.yaml" for preset in presets)]
    result = subprocess.run(command, cwd=fresh, env=environment(OFFLINE), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert any(f"train_{what}" in result.stdout for what in ("steer", "classifier", "reader"))


@pytest.mark.parametrize("presets", [(), *((preset,) for preset in PRESETS), *TOGETHER], ids="+".join)
def test_the_sample_questions_are_as_many_as_are_asked_for(presets: tuple[str, ...]):
    found = loaded(*presets)
    if "truthfulness" not in found.tasks:
        pytest.skip("asks no questions")
    spec = json.loads(found.spec("make_task_table", [("task", "truthfulness")]))
    if spec["doors"] != {"truthfulqa": "sample"}:
        pytest.skip("asks for other questions")
    rows = truthfulness.make_table({"truthfulqa": SAMPLE}, spec["doors"], spec["settings"])
    asked = rows[rows["role"] == "prompt"].groupby("split")["group"].nunique().to_dict()
    wanted = {split: n for split, n in spec["settings"]["prompts"].items() if n}
    assert asked | wanted == asked and len(rows[rows["role"] == "train"])


def told_in_the_docs() -> dict[str, list[float]]:
    """Preset -> the numbers of its row in docs/cost.md."""
    rows = re.findall(r"^\| `(paper-\w+)` \|(.*)\|$", (ROOT / "docs" / "cost.md").read_text(), re.MULTILINE)
    return {preset: [float(cell.replace(",", "")) for cell in cells.split("|")] for preset, cells in rows}


@pytest.mark.parametrize("paper", PAPERS)
def test_a_papers_preset_costs_what_the_docs_say_and_each_job_fits_in_its_time(
    paper: str, fresh: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(fresh)
    x, used = loaded(f"paper-{paper}"), rates.shipped("cuda", loaded(f"paper-{paper}").config["dtype"])
    jobs = work.jobs(files_of_plan([Path(f"presets/paper-{paper}.yaml")]))
    cost = costs.of_jobs(x, jobs, used)
    assert not cost.unknown
    total, disk = dict(zip(costs.COLUMNS, cost.total)), dict.fromkeys(("store", "results"), 0.0)
    for place, size in cost.bytes.items():
        disk[place.partition(",")[0]] += size / 1e9
    tokens = [total[f"tokens {kind}"] / 1e6 for kind in ("read", "new", "trained on")]
    counted = [total["jobs"], *tokens, total["GPU-hours"], *disk.values()]
    assert counted == pytest.approx(told_in_the_docs()[f"paper-{paper}"], rel=0.1, abs=0.06)
    longest = max(costs.of_jobs(x, [job], used).total[-1] for job in jobs)
    assert longest < x.config["runtime"] / 60


def test_the_papers_preset_has_the_papers_scale():
    config = loaded("paper-lm_steer").config
    steer = config["steers"]["lm_steer"]
    assert config["run"]["models"] == ["gpt2-large"]
    assert (steer["steps"], steer["rank"], steer["batch_texts"], steer["max_tokens"]) == ([1000], 1000, 32, 256)
    assert (steer["eps"], steer["init"], steer["learning_rate"], steer["regularization"]) == (1e-3, 1e-2, 1e-2, 0.0)
    assert config["generations"]["toxicity"]["samples"] == {"dev": 25, "test": 25}
    assert config["generations"]["toxicity"]["top_p"] == 0.9
    assert config["dtype"] == "float32"


def test_the_papers_preset_uses_each_training_text_once():
    config = loaded("paper-lm_steer").config
    steer = config["steers"]["lm_steer"]
    texts = 2 * config["tasks"]["toxicity"]["comments"] * (1 - steer["held_out"])
    # About a tenth is held out, by hash: five standard deviations of a binomial are 300.
    assert texts - 300 >= steer["steps"][-1] * steer["batch_texts"]


def test_the_papers_preset_takes_the_papers_data_and_judge():
    paper = loaded("paper-lm_steer")
    doors = {"nontoxic_prompts": "url", "comments": "kaggle", "sentiment_texts": "hub", "sentiment_prompts": "url"}
    assert doors.items() <= paper.doors.items()
    assert paper.config["scores"]["perplexity"]["judges"] == ["gpt2-xl"]
    assert "rtp_prompts" not in paper.doors


def test_full_runs_every_variant_of_the_default():
    full, default = loaded("full").config, loaded().config
    assert set(full["run"]["variants"]) >= set(default["variants"])


def test_the_sizes_run_models_of_three_families_in_half_precision_without_sdpa():
    config = loaded("paper-lm_steer", "paper-lm_steer-sizes").config
    assert (config["dtype"], config["attention"]) == ("float16", "eager")
    assert {name.split("-")[0] for name in config["run"]["models"]} == {"gpt2", "pythia", "gpt"}
    assert config["steers"]["lm_steer"]["steps"] == [1000]


def test_the_paper_s_classifiers_have_the_paper_s_settings():
    settings = loaded("paper-cogsteer").config["glue"]
    assert len(settings["tasks"]) == 9 and settings["interventions"] == ["prefix"]
    assert settings["prefix"] == {"length": 30, "hidden": 512, "learning_rate": 2e-5}
    trained = {key: settings[key] for key in ("batch_rows", "epochs", "warmup", "weight_decay", "max_tokens")}
    assert trained == {"batch_rows": 32, "epochs": 2, "warmup": 0.1, "weight_decay": 1e-4, "max_tokens": 128}
    assert settings["layer_rule"] == "validation_middle" and settings["train_rows"] is None


def test_latentqas_paper_preset_has_the_settings_of_its_code():
    found = loaded("paper-latentqa")
    settings = found.config["latentqa"]
    given = json.loads(
        found.spec("train_reader", [("model", "llama3-8b-instruct"), ("setting", "masked"), ("seed", "0")])
    )
    fitted = given["hyperparameters"]
    assert (given["device"], given["dtype"], given["processes"], given["sharding"]) == ("cuda", "bfloat16", 8, "ddp")
    assert (fitted["rank"], fitted["alpha"], fitted["dropout"], fitted["targets"]) == (16, 32, 0.05, None)
    assert (fitted["learning_rate"], fitted["weight_decay"], fitted["batch_rows"]) == (3e-5, 0.01, 4)
    assert (fitted["read_layer"], fitted["write_layer"], fitted["normalise"]) == (15, 0, "none")
    assert (fitted["answer_role"], fitted["last_answer_only"], fitted["keep"]) == ("reflect", True, "last")
    assert settings["settings"] == ["masked"] and found.config["latent_reading"]["rows"]["train"] is None
    assert len(found.readers) == 3 and found.models == ["llama3-8b-instruct"]


def test_latentqas_paper_preset_has_what_its_paper_reports_numbers_of():
    found = loaded("paper-latentqa")
    drawn = {figure for _, figure in found.drawn}
    assert {"read_relations", "read_system_prompts", "control_sentiment", "control_bias"} <= drawn
    assert found.doors["crows_pairs"] == "url"


@pytest.mark.real_data
def test_latentqas_paper_preset_sees_each_row_of_the_mirror_five_times(tmp_path: Path):
    found = loaded("paper-latentqa")
    fitted = found.config["latentqa"]["reader"]
    spec = json.loads(found.spec("make_task_table", [("task", "latent_reading")]))
    fetch(table()["latentqa"], "mirror", tmp_path / "raw", mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    rows = latent_reading.make_table({"latentqa": tmp_path / "raw"}, {"latentqa": "mirror"}, spec["settings"])
    an_update = fitted["batch_rows"] * fitted["accumulation"]
    assert fitted["updates"] == math.ceil(5 * (rows["split"] == "train").sum() / an_update)
