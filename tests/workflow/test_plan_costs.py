"""What a plan says of a run before it, against what the run then left."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from steerlab import experiment
from steerlab.experiment import costs, rates, work
from tests.workflow.project import TINY, environment, sidecars


@pytest.fixture(scope="module")
def told(finished: Path) -> tuple[experiment.Experiment, list[work.Job], costs.Cost]:
    """The tiny preset's experiment, jobs and cost."""
    asked = [sys.executable, "-m", "snakemake", "--summary", "--nolock", *TINY]
    summary = subprocess.run(asked, cwd=finished, env=environment(), capture_output=True, text=True, check=True).stdout
    x, jobs = experiment.load(rates.of_run(finished / "results")[0]), work.jobs(summary)
    return x, jobs, costs.of_jobs(x, jobs, rates.shipped("cpu"))


def test_the_plan_has_the_jobs_of_the_run(finished, told):
    ran = sidecars(finished)
    assert Counter(job.rule for job in told[1]) == Counter(each["rule"] for each in ran)
    wildcards = {(each["rule"], *sorted(each["wildcards"].items())) for each in ran}
    assert {(job.rule, *sorted(job.wildcards.items())) for job in told[1] if job.wildcards} <= wildcards


def test_the_plan_has_the_new_tokens_of_the_run_within_half(finished, told):
    rows = {row[0]: dict(zip(costs.COLUMNS, row)) for row in told[2].rows}
    files = (finished / "results" / "generations").rglob("*.parquet")
    drawn = sum(pd.read_parquet(file)["tokens"].map(len).sum() for file in files)
    assert 1 <= rows["generate_continuations"]["tokens new"] / drawn <= 1.5


@pytest.mark.parametrize(("place", "folder"), [("store", ".store"), ("results", "results")])
def test_the_plan_has_the_disk_of_the_run_within_half(finished, told, place, folder):
    planned = sum(size for name, size in told[2].bytes.items() if name.startswith(place))
    left = sum(file.stat().st_size for file in (finished / folder).rglob("*") if file.is_file())
    assert 1 / 1.5 <= planned / left <= 1.5
