"""docs/as-a-module.md, followed: a project of its own takes the workflow as a module and goes on from what it makes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.project import ROOT, copy_project, environment, plan, planned, snakemake

PAGE = (ROOT / "docs/as-a-module.md").read_text()
(SNAKEFILE,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
(OVERLAY,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
OURS = ("--configfile", "steering.yaml")  # no overlay on the project's own configuration: it has none
PREFIXED = SNAKEFILE.replace("    config:\n", '    prefix: "held"\n    config:\n')
PREFIXED = PREFIXED.replace('"results/metrics/{', '"held/results/metrics/{')


def project(folder: Path, snakefile: str = SNAKEFILE) -> Path:
    """A project as the page lays it out, with the tiny preset for what it changes."""
    copy_project(folder / "modules/steerlab")
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / "presets/tiny.yaml", folder / "steering.yaml")
    (folder / "Snakefile").write_text(snakefile)
    return folder


def test_the_module_plans_what_the_workflow_plans_by_itself_and_the_projects_own_rules(tmp_path: Path):
    folder = project(tmp_path / "own")
    alone = planned(folder / "modules/steerlab")
    inside = planned(folder, *OURS, "--", "steering_all")
    assert {rule.removeprefix("steering_"): jobs for rule, jobs in inside.items() if rule != "steering_all"} == alone
    jobs = plan(folder, *OURS)
    kept = [job.inputs for job in jobs if job.rule == "keep_first_lines"]  # the project's own target is the default
    made = [job.outputs for job in jobs if job.rule in ("steering_compute_metrics", "steering_compare_layers")]
    assert len(kept) > 10 and set(kept) == {frozenset(outputs) for outputs in made}


def test_the_pages_overlay_is_a_configuration_that_can_be_planned(tmp_path: Path):
    folder = project(tmp_path / "own")
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model/config.json").write_text("{}")
    (folder / "steering.yaml").write_text(OVERLAY)
    jobs = plan(folder, *OURS, "--", "results/metrics/mine/lm_steer/toxicity/test.csv")
    assert {"../my-model/config.json"} in [job.inputs for job in jobs if job.rule == "steering_prepare_model"]


@pytest.mark.parametrize("where", ["", "held"], ids=["as the page has it", "with a prefix"])
def test_a_rule_of_the_project_goes_on_from_what_the_module_made(where: str, tmp_path: Path):
    folder = project(tmp_path / "own", PREFIXED if where else SNAKEFILE)
    snakemake(folder, "--cores", "1", *OURS, "--", "mine/tiny-llama/base/toxicity/dev.csv")
    table = folder / where / "results/metrics/tiny-llama/base/toxicity/dev.csv"
    kept = (folder / "mine/tiny-llama/base/toxicity/dev.csv").read_text()
    assert "mean_toxicity" in kept and table.read_text().startswith(kept)
    assert json.loads(Path(f"{table}.run.json").read_text())["rule"] == "compute_metrics"
    assert {"data", "generations", "scores"} <= {path.name for path in (folder / ".store").iterdir()}
    said = subprocess.run(
        [sys.executable, "-m", "steerlab", "verify", str(table.relative_to(folder))],
        cwd=folder,
        env=environment({"PYTHONPATH": "modules/steerlab"}),
        capture_output=True,
        text=True,
    )
    assert "1 identical" in said.stdout, said.stdout + said.stderr
