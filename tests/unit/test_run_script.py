"""envs/run.sh: what `make run` does about a run that died in the folder."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.workflow.project import ROOT

SNAKEMAKE = '#!/bin/sh\necho "$@" >>called\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose last run, begun on this machine, was killed, and a command that notes how it is called."""
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.output.lock").touch()
    (tmp_path / ".lock").write_text(f"{os.uname().nodename}\n")
    (tmp_path / "snakemake").write_text(SNAKEMAKE)
    (tmp_path / "snakemake").chmod(0o755)
    return tmp_path


def run(folder: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess:
    command = ["bash", ROOT / "envs/run.sh", "./snakemake", "--cores", "1"]
    return subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, text=True, capture_output=True)


def tool(folder: Path, name: str, lines: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
    (folder / name).chmod(0o755)


def calls(folder: Path) -> list[str]:
    return (folder / "called").read_text().splitlines() if (folder / "called").exists() else []


def test_what_a_dead_run_locked_is_unlocked(folder: Path):
    tool(folder, "squeue", "exit 0")
    assert run(folder, f"{folder}:/usr/bin:/bin").returncode == 0
    assert calls(folder) == ["--quiet all --unlock --cores 1", "--cores 1"]


def test_a_run_that_was_begun_on_another_machine_is_left_alone(folder: Path):
    """Its lock may not reach this machine, so that it may be alive."""
    (folder / ".lock").write_text("elsewhere\n")
    ended = run(folder)
    assert ended.returncode == 1 and calls(folder) == []
    assert ended.stderr.startswith("the last run in this folder was begun on elsewhere; see that it is dead, remove")


def test_after_a_good_end_the_next_run_may_be_on_another_machine(folder: Path):
    (folder / ".lock").write_text("elsewhere\n")
    (folder / ".snakemake/locks/0.output.lock").unlink()
    assert run(folder).returncode == 0
    assert calls(folder) == ["--cores 1"] and (folder / ".lock").read_text() == f"{os.uname().nodename}\n"


def test_of_the_jobs_in_slurm_only_the_dead_runs_are_cancelled(folder: Path):
    """Not those of another folder, nor those that something else than the executor of Slurm has submitted from here."""
    listed = f"11 rule_plot {folder}\\n12 rule_plot /elsewhere\\n13 (null) {folder}\\n"
    tool(folder, "squeue", f'[ -e cancelled ] || printf "{listed}"')
    tool(folder, "scancel", 'echo "$@" >cancelled')
    assert run(folder, f"{folder}:/usr/bin:/bin").returncode == 0
    assert (folder / "cancelled").read_text() == "11\n"
    assert calls(folder) == ["--quiet all --unlock --cores 1", "--cores 1"]
