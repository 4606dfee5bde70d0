"""The command line, as a user calls it."""

import subprocess
import sys

from tests.workflow.project import ROOT


def steerlab(*arguments: str, cwd=ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "steerlab", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


def test_plan_counts_the_cells_of_the_default():
    printed = steerlab("plan").stdout
    assert "18 cells, at most 7,536 continuations and 150,720 new tokens" in printed


def test_plan_merges_overlays_as_snakemake_does(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "run: {methods: [base], tasks: [toxicity], variants: [], seeds: [5]}\n"
        "tasks: {toxicity: {prompts: {test: 10}}}\n"
    )
    printed = steerlab("plan", "--configfile", str(overlay)).stdout
    assert "2 cells, at most 120 continuations and 2,400 new tokens" in printed


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
