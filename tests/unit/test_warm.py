"""The warm process: a script does in its fork what it does by itself, and ends when its job or its run does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.project import ROOT

JOB = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from steerlab.warm import hand_over
hand_over(int(os.environ["RUN"]))
"""
CHECKS = {
    "by itself or in a fork": "print('warm' if 'torch' in sys.modules else 'cold', os.getpid(), flush=True)",
    "a status": "sys.exit(3)",
    "a message": "sys.exit('what is wrong')",
    "an error": "raise KeyError('lost')",
    "surroundings": "print(os.getcwd(), os.environ['MARK'], sys.argv[0].endswith('job.py'), __name__)",
    "stay": "import time; print(os.getpid(), flush=True); time.sleep(60)",
    "draws": "import random, numpy, torch; print(random.random(), flush=True)",
    "sums": "import torch; torch.manual_seed(0); print(torch.randn(64, 64).mm(torch.randn(64, 64)).sum().item().hex())",
}


class Run:
    """A process in snakemake's place, and the jobs that it starts."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def start(self, what: str, **environ: str) -> subprocess.Popen:
        script = self.folder / what.replace(" ", "_") / "job.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(JOB + CHECKS[what] + "\n")
        around = os.environ | {"RUN": str(self.process.pid), "OMP_NUM_THREADS": "1"} | environ
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, script], cwd=self.folder, env=around, text=True, **pipes)

    def ends(self, what: str, **environ: str) -> tuple[int, str, str]:
        job = self.start(what, **environ)
        out, err = job.communicate(timeout=60)
        return job.returncode, out, err

    def is_warm(self) -> bool:
        return self.ends("by itself or in a fork")[1].startswith("warm")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run whose warm process is ready."""
    run = Run(tmp_path_factory.mktemp("run"))
    warms_up(run)
    yield run
    run.process.kill()
    run.process.wait()


def warms_up(run: Run) -> None:
    end = time.monotonic() + 120
    while not run.is_warm():
        assert time.monotonic() < end
        time.sleep(0.5)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ends_soon(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_alive(pid)


def test_the_first_job_of_a_run_works_by_itself(tmp_path: Path):
    cold = Run(tmp_path)
    try:
        assert not cold.is_warm()
    finally:
        cold.process.kill()
        cold.process.wait()


def test_a_job_may_be_told_to_work_by_itself(run: Run):
    assert run.ends("by itself or in a fork", STEERLAB_WARM="0")[1].startswith("cold")


def test_a_job_ends_with_the_status_of_its_script(run: Run):
    assert run.ends("a status") == (3, "", "")


def test_a_message_and_a_traceback_come_out_where_the_job_writes(run: Run):
    assert run.ends("a message") == (1, "", "what is wrong\n")
    status, _, err = run.ends("an error")
    assert status == 1 and "KeyError: 'lost'" in err


def test_a_script_finds_its_folder_its_environment_and_its_name(run: Run):
    assert run.ends("surroundings", MARK="here")[1].split() == [str(run.folder), "here", "True", "__main__"]


def test_the_same_numbers_come_out_as_by_itself(run: Run):
    assert run.ends("sums") == run.ends("sums", STEERLAB_WARM="0")


def test_two_forks_draw_different_unseeded_numbers(run: Run):
    assert run.ends("draws")[1] != run.ends("draws")[1]


def test_the_fork_ends_with_its_job(run: Run):
    job = run.start("stay")
    assert job.stdout
    fork = int(job.stdout.readline())
    assert fork != job.pid
    job.kill()
    job.wait()
    assert ends_soon(fork, 5)


def test_a_killed_fork_is_a_failed_job(run: Run):
    job = run.start("stay")
    assert job.stdout and job.stderr
    os.kill(int(job.stdout.readline()), signal.SIGKILL)
    assert job.wait(timeout=10) == 1 and "killed" in job.stderr.read()


def test_the_warm_process_ends_with_its_run(tmp_path: Path):
    gone = Run(tmp_path)
    warms_up(gone)
    found = subprocess.run(["pgrep", "-f", f"warm.py {gone.process.pid} "], capture_output=True, text=True)
    (warm,) = map(int, found.stdout.split())
    gone.process.kill()
    gone.process.wait()
    assert ends_soon(warm, 5)
