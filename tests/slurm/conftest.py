"""One Slurm for all tests of this folder; one that is up already stays up."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.slurm import cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    there = cluster.node_state()
    cluster.bring_up()
    yield
    if not there:
        cluster.bring_down()


@pytest.fixture(autouse=True)
def no_run_left() -> Iterator[None]:
    """A run that a failed test has started is ended."""
    yield
    for run in cluster.STARTED:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    cluster.STARTED.clear()
