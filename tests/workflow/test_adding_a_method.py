"""docs/adding-a-method.md, followed word for word: the method passes the laws, runs, and reruns nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from tests.workflow.project import ROOT, copy_finished, environment, planned, snakemake

PAGE = (ROOT / "docs/adding-a-method.md").read_text()
FILE, LINE, ENTRY = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, re.S)
NEW = "results/metrics/tiny-llama/ablation/toxicity/test.csv"


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text()
    assert content.count(before) == 1
    path.write_text(content.replace(before, text + before))


def followed(finished: Path, folder: Path) -> Path:
    copy_finished(finished, folder)
    (folder / "steerlab/methods/ablation.py").write_text(FILE)
    insert(folder / "steerlab/experiment/registry.py", '    "caa": Method(', LINE)
    insert(folder / "schemas/config.yaml", "      caa:\n        type: object\n", ENTRY)
    asked = yaml.safe_load((ROOT / "presets/tiny.yaml").read_text())
    overlay = {
        "run": {"methods": [*asked["run"]["methods"], "ablation"]},
        "tasks": {"toxicity": {"methods": [*asked["tasks"]["toxicity"]["methods"], "ablation"]}},
    }
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return folder


def test_the_page_is_one_short_file_one_line_and_one_entry():
    assert len(FILE.splitlines()) < 80 and len(LINE.splitlines()) == 1


def test_a_method_added_by_the_page_runs_and_nothing_else_reruns(finished: Path, tmp_path: Path):
    folder = followed(finished, tmp_path / "added")
    arguments = ("--configfile", "presets/tiny.yaml", "overlay.yaml")
    new = {
        "capture_activations": 1,
        "train_steer": 1,
        "generate_continuations": 2,
        "score_texts": 2,
        "score_perplexity": 2,
        "compute_metrics": 2,
        "measure_reasoning": 1,  # of all steers that have a pick on the task
    }
    compared = {"measure_norms": 1, "measure_divergence": 1, "compare_methods": 1, "write_card": 8}
    told = {"choose_settings": 1, "plot_figure": 5, "build_report": 1}
    assert planned(folder, *arguments) == new | compared | told
    snakemake(folder, "--cores", "2", *arguments, "--", NEW)
    metrics = pd.read_csv(folder / NEW)
    assert set(metrics.method) == {"ablation"} and metrics.value.notna().any()


def test_a_method_added_by_the_page_is_under_the_laws(finished: Path, tmp_path: Path):
    folder = followed(finished, tmp_path / "added")
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "workflow"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [sys.executable, "-m", "pytest", "tests/laws", "-k", "ablation", "-n", "0", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed and int(passed[1]) > 10, result.stdout[-2000:]
