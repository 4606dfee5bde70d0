"""The whole DAG on the tiny preset: its results, its promises about cores, and kill -9 in the middle of it."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
from snakemake.io import expand

from steerlab.experiment import names
from tests.workflow.project import (
    SNAKEMAKE,
    TINY,
    copy_project,
    dry_run,
    environment,
    planned,
    result_bytes,
    sidecars,
    snakemake,
)


def test_a_run_ends_with_the_page_and_every_table(finished: Path):
    assert (finished / "results/report/index.html").stat().st_size > 1000
    tables = [path for split in ("dev", "test") for path in (finished / "results/metrics").glob(f"*/*/*/{split}.csv")]
    metrics = pd.concat(map(pd.read_csv, tables))
    methods = {"base", "lm_steer", "random_lm_steer", "hpr", "random_hpr", "slim", "random_slim"}
    methods |= {"cogsteer", "random_cogsteer", "latentqa"}
    variants = {"lm_steer_all", "lm_steer_30", "civil_and_positive", "transferred", "hpr_net", "hpr_reflection"}
    variants |= {"slim_risk_aware", "slim_layers", "cogsteer_and_lm_steer"}
    variants |= {f"cogsteer_{placed}" for placed in ("picked", "random", "block_0", "block_1")}
    assert set(metrics.method) == methods | variants and set(metrics.split) == {"dev", "test"}
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


def start(folder: Path, *targets: str, **extra: str) -> subprocess.Popen:
    """`make run` without the set-up, in a process group of its own and with another hash seed of Python.

    extra: of the environment.
    """
    command = ["bash", "envs/run.sh", SNAKEMAKE, "--cores", "2", *TINY, "--", *targets]
    hashes = environment({"PYTHONHASHSEED": "7"} | extra)
    with open(folder / "printed.txt", "a") as printed:
        return subprocess.Popen(command, cwd=folder, env=hashes, stdout=printed, stderr=printed, start_new_session=True)


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


def kill_group(run: subprocess.Popen) -> None:
    os.killpg(run.pid, signal.SIGKILL)


def wait_for_another_shard(run: subprocess.Popen, folder: Path, pattern: str, before: int) -> None:
    end = time.monotonic() + 300
    while len(list(folder.glob(pattern))) <= before:
        assert run.poll() is None and time.monotonic() < end, (folder / "printed.txt").read_text()[-3000:]
        time.sleep(0.002)


def wait_until_gone(folder: Path, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while left := list(alive(folder)):
        assert time.monotonic() < end, f"still at work {seconds} s after the kill: {left}"
        time.sleep(0.1)


STAGES = {
    ".store/activations/*/*.safetensors": [names.ACTIVATIONS],
    ".store/generations/*/*.parquet": [names.GENERATIONS],
    ".store/scores/*/*.parquet": [names.PERPLEXITY_SCORES, names.TEXT_SCORES],
}
MATRIX = {
    "model": ["tiny-llama"], "method": ["base", "lm_steer"], "task": ["toxicity"], "split": ["dev", "test"],
    "seed": [0], "part": ["fitted"], "site": ["lm_head_input"], "positions": ["all"], "judge": ["base"],
}  # fmt: skip


def test_a_run_killed_twice_in_each_stage_ends_with_the_same_bytes(finished: Path, tmp_path: Path):
    """kill -9 of snakemake alone, then of its process group, at seeded moments, in what two methods' metrics need.

    Each job works by itself here, and was forked from a warm process in the run that it is compared with.
    """
    folder = copy_project(tmp_path / "killed").resolve()
    moments = random.Random("kill -9")
    for shards, patterns in STAGES.items():
        targets = sorted({target for pattern in patterns for target in expand(pattern, **MATRIX)})
        for kill in (lambda run: kill_snakemake_alone(folder), kill_group):
            run = start(folder, *targets, STEERLAB_WARM="0")
            wait_for_another_shard(run, folder, shards, before=len(list(folder.glob(shards))))
            time.sleep(moments.uniform(0, 0.05))
            kill(run)
            run.wait(timeout=30)
            if kill is kill_group or moments.random() < 0.5:  # else the next run starts at once and has to wait itself
                wait_until_gone(folder)
    targets = sorted(expand(names.METRICS, **MATRIX))
    last = start(folder, *targets, STEERLAB_WARM="0")
    assert last.wait(timeout=1200) == 0, (folder / "printed.txt").read_text()[-3000:]
    ended = result_bytes(folder)
    assert set(targets) < set(ended) and ended.items() <= result_bytes(finished).items()
    assert not [path for path in (folder / "results").rglob(".*.*") if path.suffix in (".part", ".tmp")]
    assert planned(folder, "--", *targets) == {}


def test_a_run_killed_at_ten_moments_ends_with_the_same_bytes(finished: Path, tmp_path: Path):
    """kill -9 of snakemake alone or of its process group, after seeded numbers of jobs of the whole run."""
    folder = copy_project(tmp_path / "killed").resolve()
    moments, jobs = random.Random("ten moments"), len(sidecars(finished))
    for number in sorted(moments.sample(range(jobs - 1), 10)):
        run = start(folder)
        wait_for_jobs(run, folder, number)
        time.sleep(moments.uniform(0, 1))
        kill = moments.choice([lambda run: kill_snakemake_alone(folder), kill_group])
        kill(run)
        run.wait(timeout=30)
    last = start(folder)
    assert last.wait(timeout=1200) == 0, (folder / "printed.txt").read_text()[-3000:]
    assert result_bytes(folder) == result_bytes(finished)
    assert not [path for path in (folder / "results").rglob(".*.*") if path.suffix in (".part", ".tmp")]
    assert planned(folder) == {}


def wait_for_jobs(run: subprocess.Popen, folder: Path, number: int) -> None:
    """Until so many jobs have ended well."""
    end = time.monotonic() + 900
    while sum(1 for _ in (folder / "results").rglob("*.run.json")) < number:
        assert run.poll() is None and time.monotonic() < end, (folder / "printed.txt").read_text()[-3000:]
        time.sleep(0.05)


def test_with_a_gpu_one_model_job_runs_on_a_card_whatever_the_command_line(tmp_path: Path):
    """The default profile's limit holds for plain `snakemake`, and every rule that runs a model asks for the card."""
    folder = copy_project(tmp_path / "gpu")
    (folder / "gpu.yaml").write_text("device: cuda\n")
    for arguments in ((), ("--cores", "all"), ("--cores", "all", "--resources", "gpu=1")):
        printed = dry_run(folder, *arguments, "--configfile", "presets/tiny.yaml", "gpu.yaml")
        jobs = re.split(r"\n(?=\[)|\n\n", printed)
        asks = {rule: [job for job in jobs if f"rule {rule}:" in job] for rule in MODEL_RULES}
        assert all(found and all("gpu=1" in job for job in found) for found in asks.values())
        printed = snakemake(folder, "--forceall", *arguments, "--", "results/data/raw/comments/sample")
        assert 'Provided resources: gpu=Resource("gpu", 1)' in printed


MODEL_RULES = ("capture_activations", "train_steer", "derive_steer", "generate_continuations", "score_perplexity")


def test_a_finished_run_is_watched_to_its_end(finished: Path):
    asked = [sys.executable, "-m", "steerlab", "watch", "--once", "--page", "results/live.html"]
    said = subprocess.run(asked, cwd=finished, env=environment(), capture_output=True, text=True, check=True).stdout
    page = (finished / "results" / "live.html").read_text()
    (finished / "results" / "live.html").unlink()
    jobs = len(sidecars(finished)) + 1  # and `all`, which has none
    assert f"{jobs} of {jobs} jobs done, 0 running, 0 failed" in said and "the run is over" in said
    assert f"<h1>{jobs} of {jobs} jobs done</h1>" in page and "refresh" not in page
