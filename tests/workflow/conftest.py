"""One finished run of the tiny preset, made once and shared by all tests and workers."""

import fcntl
from pathlib import Path

import pytest

from tests.workflow.project import copy_project, snakemake


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the tiny preset ran to its end; tests copy it and do not change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "popen" in base.name else base  # xdist gives each worker a folder in a common one
    folder, done = shared / "finished", shared / "finished.done"
    with open(shared / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            snakemake(copy_project(folder), "--cores", "2")
            done.touch()
    return folder
