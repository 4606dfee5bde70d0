"""No choice sees a test prompt: the plan's graph is walked up from every choice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.project import Job, copy_project, plan


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("splits") / "project")


def choices(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.rule in ("choose_settings", "choose_glue_layer")]


def ancestors(jobs: list[Job], job: Job) -> Iterator[str]:
    """Every file that a job's outputs are made from, over all jobs between."""
    maker = {file: job for job in jobs for file in job.outputs}
    seen, waiting = set(), list(job.inputs)
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            yield file
            waiting += maker[file].inputs if file in maker else ()


def of_test_prompts(jobs: list[Job]) -> set[str]:
    """The files of the test split among the ancestors of all choices."""
    found = {file for job in choices(jobs) for file in ancestors(jobs, job)}
    return {file for file in found if {"test", "test.csv"} & set(Path(file).parts)}


@pytest.mark.parametrize("preset", ["config.yaml", "presets/tiny.yaml", "presets/full.yaml"])
def test_no_file_of_the_test_split_leads_to_a_choice(project: Path, preset: str):
    jobs = plan(project, "--configfile", preset)
    assert choices(jobs) and not of_test_prompts(jobs)
    assert any("/dev/" in file for file in ancestors(jobs, choices(jobs)[0]))


def test_a_choice_that_reads_a_test_table_is_found(tmp_path: Path):
    folder = copy_project(tmp_path / "leaking")
    rule = folder / "rules/choices.smk"
    dev = 'names.METRICS.replace("{split}", "dev")'
    assert dev in rule.read_text()
    leak = 'names.METRICS.replace("{split}", "test").replace("{method}", "base")'
    rule.write_text(rule.read_text().replace(dev, f"[{dev}, {leak}]"))
    assert "metrics/tiny-llama/base/toxicity/test.csv" in of_test_prompts(plan(folder))
