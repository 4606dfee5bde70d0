"""The command line, as a user calls it."""

import re
import subprocess
import sys
from datetime import UTC, datetime

import pandas as pd
import pytest
import yaml

from steerlab import experiment
from steerlab.experiment import plan
from tests.workflow.project import ROOT


def steerlab(*arguments: str, cwd=ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steerlab", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


def test_plan_counts_the_cells_and_jobs_of_the_default(tmp_path):
    printed = steerlab("plan", "--at-once", "2", "--csv", str(tmp_path / "cost.csv")).stdout
    assert "91 cells, at most 9,288 continuations and 190,656 new tokens, answers to 1,548 questions" in printed
    assert re.search(r"^all +565 ", printed, re.M) and re.search(r"^store +[1-4],\d{3}$", printed, re.M)
    assert max(map(len, printed.splitlines())) <= 120
    by_rule = pd.read_csv(tmp_path / "cost.csv").set_index("rule")
    assert by_rule.loc["generate_continuations", "tokens new"] == 190656
    assert 0.8 < by_rule["core-hours"].sum() < 2.75  # what the default may take on two cores, and no other unit


def test_plan_tells_the_prompts_that_a_pilot_asks_for(tmp_path):
    folder = tmp_path / "metrics" / "m" / "caa" / "toxicity"
    folder.mkdir(parents=True)
    head = "model,method,task,split,prompts,seed,metric,low,high,difference_low,difference_high,n,scorer\n"
    (folder / "test.csv").write_text(head + "m,caa,toxicity,test,all,all,mean_toxicity,0.1,0.3,-0.05,0.05,36,s\n")
    printed = steerlab("plan", "--pilot", str(tmp_path), "--width", "0.1").stdout
    assert "caa     toxicity  mean_toxicity  36  0.2    144     0.1     36      4" in printed
    for wrong in (
        ("--pilot", str(tmp_path)),
        ("--pilot", str(tmp_path / "none"), "--width", "1"),
        ("--rates", str(tmp_path)),
    ):
        told = steerlab("plan", *wrong)
        assert told.returncode == 1 and told.stderr.startswith("plan: ") and len(told.stderr.splitlines()) == 1


def test_plan_merges_overlays_as_snakemake_does(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "run: {methods: [base], tasks: [toxicity], variants: [], seeds: [5]}\n"
        "tasks: {toxicity: {prompts: {test: 10}}}\n"
    )
    printed = steerlab("plan", "--configfile", str(overlay)).stdout
    assert "2 cells, at most 88 continuations and 1,760 new tokens" in printed


def test_errors_are_one_line(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("treads: 2\n")
    result = steerlab("plan", "--configfile", str(wrong))
    assert result.returncode == 1 and result.stderr == "config: unknown key 'treads'; did you mean 'threads'?\n"
    wrong.write_text("run:\n\tmodels: []\n")
    result = steerlab("plan", "--configfile", str(wrong))
    assert result.returncode == 1 and result.stderr.startswith(f"plan: {wrong} is no YAML: ")
    assert len(result.stderr.splitlines()) == 1
    result = steerlab("plan", cwd=tmp_path)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1


def test_plan_says_what_to_ask_perspective_for_over_all_presets():
    lines = {
        line.split("  ")[0]: line.split() for line in steerlab("plan", "--perspective").stdout.splitlines() if line
    }
    assert lines["config.yaml"][1:4] == ["6,192", "1.8", "2026-12-29"]  # more but for the sentiment continuations
    assert "paper-lm_steer + paper-lm_steer-sizes" in lines  # a preset behind the one that its name extends
    assert "tiny" not in lines and "perspective" not in lines  # random models; the same texts as the default


@pytest.mark.parametrize(("day", "quota", "late"), [(30, 1.0, True), (20, 1.0, False), (20, 0.005, True)])
def test_what_can_no_longer_be_asked_in_time_is_marked(day, quota, late):
    config = experiment.load(yaml.safe_load((ROOT / "config.yaml").read_text())).config
    asked = config | {"scores": config["scores"] | {"perspective": {"quota": quota}}}
    assert ("too late" in plan.perspective_table({"config.yaml": asked}, datetime(2026, 12, day, tzinfo=UTC))) == late


def test_the_command_line_is_read_without_torch_and_the_harness():
    heavy = "import sys, steerlab.cli; print({'torch', 'transformers', 'lm_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("command", "named"), [("evaluate", "--table"), ("chat", "### target layers: 13,14")])
def test_help_names_what_can_be_asked(command: str, named: str):
    printed = steerlab(command, "--help")
    assert printed.returncode == 0 and named in printed.stdout and "--strength" in printed.stdout
    missing = steerlab(command)
    assert missing.returncode == 2 and "the following arguments are required: --model" in missing.stderr
