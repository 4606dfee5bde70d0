"""The profiles for other machines, as far as this one can try them.

sbatch stands in for the command of any queue; nvidia-smi is made to list two cards.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.slurm import cluster
from tests.slurm.cluster import records, running, wait_for
from tests.unit.test_job import with_fake_cards
from tests.workflow.project import SNAKEMAKE, TINY, copy_project, snakemake

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

TABLES = [f"results/data/{task}.parquet" for task in ("toxicity", "truthfulness", "sentiment")]


def test_another_queue_is_taken_up_again_after_a_kill(tmp_path: Path):
    """With a command that submits, one that asks and one that cancels: here sbatch, scontrol and scancel."""
    folder = copy_project(tmp_path / "queue").resolve()
    profile = ("--workflow-profile", "profiles/cluster-generic", "--set-resources", "prepare_model:gpu=1")
    arguments = (*profile, "--", "results/models/tiny-llama", *TABLES)
    run = cluster.start(folder, SNAKEMAKE, *TINY, *arguments)
    wait_for(lambda: running(folder, "prepare_model"), run)
    run.kill()
    run.wait(timeout=30)
    snakemake(folder, "--unlock")
    assert "Resuming incomplete job" in snakemake(folder, *TINY, *arguments)
    jobs = records(folder)
    assert {(job.rule, job.gpus, job.state) for job in jobs} == {
        ("prepare_model", 1, "COMPLETED"),
        ("make_task_table", 0, "COMPLETED"),
    }
    assert len(jobs) == 1 + len(TABLES)


def test_another_queue_tells_of_a_job_that_it_ended(tmp_path: Path):
    folder = copy_project(tmp_path / "queue").resolve()
    run = cluster.start(folder, SNAKEMAKE, *TINY, "--workflow-profile", "profiles/cluster-generic", "--", *TABLES)
    victim = wait_for(lambda: running(folder), run)[0]
    subprocess.run(["scancel", victim.id], check=True)
    assert run.wait(timeout=300) == 1
    assert sorted(job.state for job in records(folder)) == ["CANCELLED", "COMPLETED", "COMPLETED"]


def test_jobs_on_one_machine_get_a_card_each(tmp_path: Path):
    """The locks of both cards are held at once, by two processes."""
    folder, cards = copy_project(tmp_path / "cards"), tmp_path / "bin"
    cards.mkdir()
    faked = with_fake_cards(cards, 2)
    changes = {name: faked[name] for name in ("PATH", "TMPDIR")}
    profile = ("--workflow-profile", "profiles/gpu-local", "--set-resources", "make_task_table:gpu=1")
    run = cluster.start(folder, SNAKEMAKE, *TINY, *profile, "--", *TABLES, **changes)
    locks = [cards / "steerlab-cards" / f"{card}.lock" for card in (0, 1)]
    holders = wait_for(lambda: both if len(both := holding(locks)) == 2 else None, run)
    assert len(set(holders.values())) == 2
    assert run.wait(timeout=300) == 0


def holding(locks: list[Path]) -> dict[Path, str]:
    """Which process has a lock on which file, as the kernel lists them."""
    inodes = {str(lock.stat().st_ino): lock for lock in locks if lock.exists()}
    listed = re.findall(r"FLOCK +ADVISORY +WRITE +(\d+) +\w+:\w+:(\d+)", Path("/proc/locks").read_text())
    return {inodes[inode]: process for process, inode in listed if inode in inodes}
