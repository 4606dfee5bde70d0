"""The profiles for other machines, as far as this one can try them.

sbatch stands in for the command of any queue; nvidia-smi is made to list two cards.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm import cluster
from tests.slurm.cluster import printed, records, running, wait_for
from tests.unit.test_job import with_fake_cards
from tests.workflow.project import SNAKEMAKE, TINY, copy_project

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

TABLES = [f"results/data/{task}.parquet" for task in ("toxicity", "truthfulness", "sentiment")]


def test_another_queue_is_cleared_after_a_kill(tmp_path: Path):
    """With a command that submits, one that asks and one that cancels: here sbatch, scontrol and scancel."""
    folder = copy_project(tmp_path / "queue").resolve()
    profile = ("--workflow-profile", "profiles/cluster-generic", "--set-resources", "prepare_model:gpu=1")
    command = ("bash", "envs/run.sh", SNAKEMAKE, *TINY, *profile, "--", "results/models/tiny-llama", *TABLES)
    run = cluster.start(folder, *command)
    wait_for(lambda: running(folder, "prepare_model"), run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(timeout=30)
    assert cluster.start(folder, *command).wait(timeout=400) == 0, printed(folder)[-3000:]
    jobs = records(folder)
    ended = [(job.rule, job.gpus) for job in jobs if job.state == "COMPLETED"]
    assert sorted(ended) == [("make_task_table", 0)] * len(TABLES) + [("prepare_model", 1)]
    assert {job.state for job in jobs} == {"COMPLETED", "CANCELLED"}


def test_another_queue_tells_of_a_job_that_it_ended(tmp_path: Path):
    folder = copy_project(tmp_path / "queue").resolve()
    run = cluster.start(folder, SNAKEMAKE, *TINY, "--workflow-profile", "profiles/cluster-generic", "--", *TABLES)
    victim = wait_for(lambda: running(folder), run)[0]
    subprocess.run(["scancel", victim.id], check=True)
    assert run.wait(timeout=300) == 1
    assert sorted(job.state for job in records(folder)) == ["CANCELLED", "COMPLETED", "COMPLETED"]


def test_as_many_jobs_as_cards_are_started_on_one_machine_and_wait_for_a_card_each(tmp_path: Path):
    """While another user of the machine holds both, two of three jobs wait for one; the third is not started."""
    folder, bin = copy_project(tmp_path / "cards"), tmp_path / "bin"
    (bin / "steerlab-cards").mkdir(parents=True)
    faked = with_fake_cards(bin, 2)
    changes = {name: faked[name] for name in ("PATH", "TMPDIR")}
    profile = ("--workflow-profile", "profiles/gpu-local", "--set-resources", "make_task_table:gpu=1")
    with contextlib.ExitStack() as held:
        for card in (0, 1):
            fcntl.flock(held.enter_context(open(bin / f"steerlab-cards/{card}.lock", "a")), fcntl.LOCK_EX)
        run = cluster.start(folder, SNAKEMAKE, *TINY, *profile, "--", *TABLES, **changes)
        wait_for(lambda: len(waiting(folder)) == 2, run)
        time.sleep(3)
        assert len(waiting(folder)) == len(list((folder / "results/logs/data").glob("*.log"))) == 2
    assert run.wait(timeout=300) == 0


def waiting(folder: Path) -> list[Path]:
    """The logs of jobs that say that they wait for a card."""
    logs = (folder / "results/logs/data").glob("*.log")
    return [log for log in logs if "of 2 cards too few are free; waiting for 1" in log.read_text()]
