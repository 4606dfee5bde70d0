"""What Slurm itself says about the jobs of a run, and how a test breaks that Slurm."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from tests.workflow.project import environment

UP = Path(__file__).with_name("up.sh")
FOLDER = Path("/tmp/steerlab-slurm")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Record:
    """A job as Slurm's controller has it.

    run: the name of the run that submitted it; partition: where it was sent; gpus: how many it was given; restarts: how
    often it was put back.
    """

    id: str
    run: str
    rule: str
    partition: str
    state: str
    gpus: int
    restarts: int


def bring_up() -> None:
    """Start what is not running; waits until the node takes jobs."""
    environment = os.environ | {"SLURM_FOLDER": str(FOLDER)}
    subprocess.run(["bash", UP], env=environment, check=True, timeout=600)


def bring_down() -> None:
    subprocess.run(["bash", UP, "--stop"], env=os.environ | {"SLURM_FOLDER": str(FOLDER)}, check=True, timeout=60)


STARTED: list[subprocess.Popen] = []


def start(folder: Path, *command: str | Path, **extra: str) -> subprocess.Popen:
    """A run in a process group of its own; what it prints goes to printed.txt in the folder."""
    with open(folder / "printed.txt", "a") as to:
        run = subprocess.Popen(
            command, cwd=folder, env=environment(extra), stdout=to, stderr=to, start_new_session=True
        )
    STARTED.append(run)
    return run


def printed(folder: Path) -> str:
    return (folder / "printed.txt").read_text()


def records(folder: Path) -> list[Record]:
    """All jobs that were ever submitted from this folder."""
    command = ["scontrol", "show", "job", "--details", "--oneliner"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = []
    for line in printed.splitlines():
        field = dict(re.findall(r"(\S+?)=(\S*)", line))
        if field.get("WorkDir") == str(folder):
            rule = re.sub("^rule_|_wildcards_.*", "", field.get("Comment", field["JobName"]))
            gpus = re.fullmatch(r"gpu:(\d+)", field.get("JOB_GRES", ""))  # of a job that has not begun: absent
            given, restarts = int(gpus[1]) if gpus else 0, int(field["Restarts"])
            about = (field["JobId"], field["JobName"], rule, field["Partition"], field["JobState"])
            found.append(Record(*about, given, restarts))
    return found


def wait_for(what: Callable[[], Found], run: subprocess.Popen | None, seconds: float = 600) -> Found:
    """The first true answer; the run must not end before it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come to that"
        assert run is None or run.poll() is None, "the run ended before it came to that"
        time.sleep(0.05)
    return found


def running(folder: Path, *rules: str) -> list[Record]:
    return [record for record in records(folder) if record.state == "RUNNING" and (not rules or record.rule in rules)]


def script_of(record: Record) -> psutil.Process | None:
    """The process in which the job's script is at work, once it is."""
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("SLURM_JOB_ID") == record.id
            if ours and any(".snakemake/scripts/" in word for word in process.cmdline()):
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return None


def node_state() -> str:
    command = ["sinfo", "--noheader", "--partition=main", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def kill_daemon() -> None:
    os.kill(int((FOLDER / "slurmd.pid").read_text()), signal.SIGKILL)


def crash_node() -> None:
    """kill -9 of the node's daemon, of the shepherds of its jobs and of the jobs: what a power cut leaves."""
    kill_daemon()
    for process in psutil.process_iter():
        try:
            if process.name() == "slurmstepd" or "SLURM_JOB_ID" in process.environ():
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
