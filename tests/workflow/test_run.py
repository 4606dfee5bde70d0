"""The whole DAG on the tiny preset: its results, its promises about cores, and kill -9 in the middle of it."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import psutil
import pytest

from tests.workflow.project import SNAKEMAKE, TINY, copy_project, environment, planned, result_bytes, sidecars


def test_a_run_ends_with_the_page_and_every_table(finished: Path):
    assert (finished / "results/report/index.html").stat().st_size > 1000
    metrics = pd.concat(pd.read_csv(path) for path in (finished / "results/metrics").rglob("*.csv"))
    assert set(metrics.method) == {"base", "caa"} and set(metrics.split) == {"dev", "test"}
    assert set(metrics.seed.astype(str)) == {"0", "1", "all"}
    assert (metrics.data == "sample").all()


def test_every_job_left_a_sidecar_a_log_and_a_benchmark(finished: Path):
    jobs = sidecars(finished)
    assert {"fetch_source", "prepare_model", "capture_activations", "build_report"} <= {job["rule"] for job in jobs}
    for folder, ending in (("logs", ".log"), ("benchmarks", ".tsv")):
        assert len(list((finished / "results" / folder).rglob(f"*{ending}"))) == len(jobs)


def test_jobs_never_use_more_cores_than_given(finished: Path):
    moments = []
    for job in sidecars(finished):
        moments += [(job["started"], job["threads"]), (job["ended"], -job["threads"])]
    busy, most = 0, 0
    for _, change in sorted(moments):
        busy += change
        most = max(most, busy)
    assert most <= 2


def test_two_runs_give_the_same_bytes_whatever_the_seed_of_python_hashes(finished: Path, tmp_path: Path):
    folder = copy_project(tmp_path / "again")
    run = start(folder, {"PYTHONHASHSEED": "7"})
    assert run.wait(timeout=600) == 0
    assert result_bytes(folder) == result_bytes(finished)


def start(folder: Path, extra: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen:
    """`make run` without the set-up, in a process group of its own."""
    command = ["bash", "envs/run.sh", SNAKEMAKE, "--cores", "2", *TINY]
    with open(folder / "printed.txt", "a") as printed:
        return subprocess.Popen(
            command, cwd=folder, env=environment(extra), stdout=printed, stderr=printed, start_new_session=True
        )


def alive(folder: Path) -> Iterator[psutil.Process]:
    """Processes at work in the folder."""
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue


def kill_snakemake_alone(folder: Path) -> None:
    for process in alive(folder):
        if process.name() == "snakemake" or "snakemake" in " ".join(process.cmdline()[:2]):
            process.kill()


def wait_for_shards(run: subprocess.Popen, folder: Path, pattern: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not list(folder.glob(pattern)):
        assert run.poll() is None and time.monotonic() < end, (folder / "printed.txt").read_text()[-3000:]
        time.sleep(0.002)


STAGES = {
    "activations": ".store/activations/*/*.safetensors",
    "generations": ".store/generations/*/*.parquet",
    "scores": ".store/scores/*/*.parquet",
}


@pytest.mark.parametrize("whole_group", [False, True], ids=["snakemake alone", "process group"])
def test_a_run_killed_in_each_stage_ends_with_the_same_bytes(finished: Path, tmp_path: Path, whole_group: bool):
    folder = copy_project(tmp_path / "killed").resolve()
    moments = random.Random(f"kill {whole_group}")
    for pattern in STAGES.values():
        run = start(folder)
        wait_for_shards(run, folder, pattern)
        time.sleep(moments.uniform(0, 0.1))
        if whole_group:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            kill_snakemake_alone(folder)
        run.wait(timeout=30)
        gone = time.monotonic() + 5
        while left := list(alive(folder)):
            assert time.monotonic() < gone, f"still at work 5 s after the kill: {left}"
            time.sleep(0.1)
    last = start(folder)
    assert last.wait(timeout=600) == 0, (folder / "printed.txt").read_text()[-3000:]
    assert result_bytes(folder) == result_bytes(finished)
    assert not list((folder / "results").rglob(".*.part"))
    assert planned(folder) == {}
