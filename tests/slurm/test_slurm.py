"""The tiny preset on a real Slurm of one node: which jobs it gets, and what is left when things are killed.

`make test-slurm` runs it. The targets are the metrics of a few methods; with STEERLAB_SLURM=all it is the whole preset.
"""

import os
import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.slurm import cluster
from tests.slurm.cluster import Record, printed, records, wait_for
from tests.workflow.project import (
    SNAKEMAKE,
    TINY,
    copy_project,
    dry_run,
    planned,
    result_bytes,
    snakemake,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

# This node answers at once, so its jobs are asked after sooner than a busy cluster's.
PROFILE = ("--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "2")
CELLS = ("base/toxicity/dev", "lm_steer/toxicity/dev", "base/truthfulness/test")
WHOLE = os.environ.get("STEERLAB_SLURM") == "all"
TARGETS = () if WHOLE else tuple(f"results/metrics/tiny-llama/{cell}.csv" for cell in CELLS)
ROUNDS = 3 if WHOLE else 1
LOCAL = {"fetch_source", "score_texts_by_service", "all"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("slurm") / "cluster").resolve()


@pytest.fixture(scope="module")
def gpu_rules(folder: Path) -> set[str]:
    """The rules that ask for a GPU where the device is one."""
    (folder / "cuda.yaml").write_text("device: cuda\n")
    jobs = re.split(r"^(?:local)?rule ", dry_run(folder, "--configfile", "presets/tiny.yaml", "cuda.yaml"), flags=re.M)
    return {job.partition(":")[0] for job in jobs if re.search(r"^    resources: .*\bgpu=1\b", job, re.M)}


def arguments(gpu_rules: set[str]) -> list[str]:
    """Those rules ask for a GPU, as with `device: cuda`, while the device of the preset stays a CPU."""
    return [*PROFILE, *TINY, "--set-resources", *(f"{rule}:gpu=1" for rule in sorted(gpu_rules)), "--", *TARGETS]


def start(folder: Path, gpu_rules: set[str]) -> subprocess.Popen:
    before = len(runs(folder)) if (folder / "printed.txt").exists() else 0
    run = cluster.start(folder, "bash", "envs/run.sh", SNAKEMAKE, *arguments(gpu_rules))
    wait_for(lambda: len(runs(folder)) > before, run)
    return run


def runs(folder: Path) -> list[str]:
    """The names that Slurm's executor gave to the runs so far."""
    return re.findall(r"^SLURM run ID: (.*)$", printed(folder), re.M)


def running(folder: Path, *rules: str) -> list[Record]:
    """Jobs of the last run."""
    return [record for record in cluster.running(folder, *rules) if record.run == runs(folder)[-1]]


def finish(run: subprocess.Popen, folder: Path, expect: int) -> None:
    code = run.wait(timeout=7200)
    assert code == expect, printed(folder)[-4000:]


def test_killed_jobs_a_crashed_node_and_a_killed_snakemake_change_no_byte(folder: Path, gpu_rules: set[str], tmp_path):
    local = copy_project(tmp_path / "local")
    snakemake(local, "--cores", "2", "--", *TARGETS)
    moments = random.Random("kill -9")
    for _ in range(ROUNDS):
        run = start(folder, gpu_rules)
        restart_the_daemon(run, folder)
        crash_the_node(run, folder)
        wait_for_more_jobs(run, folder, moments.randrange(0, 60 if WHOLE else 3))
        kill_snakemake(run, folder)
    run = start(folder, gpu_rules)
    cancel_a_job(run, folder)
    kill_a_script(run, folder)
    finish(run, folder, expect=1)  # with all made that does not rest on those two
    last = start(folder, gpu_rules)
    finish(last, folder, expect=0)
    assert result_bytes(folder) == result_bytes(local)
    assert not [path for path in (folder / "results").rglob(".*.*") if path.suffix in (".part", ".tmp")]
    assert planned(folder, "--", *TARGETS) == {}


def cancel_a_job(run: subprocess.Popen, folder: Path) -> None:
    victim = wait_for(lambda: running(folder, "train_steer", "score_answers"), run)[0]
    subprocess.run(["scancel", victim.id], check=True)
    wait_for(lambda: f"SLURM-job '{victim.id}' failed, SLURM status is: 'CANCELLED'" in printed(folder), run)


def kill_a_script(run: subprocess.Popen, folder: Path) -> None:
    def script() -> tuple | None:
        for record in running(folder, "generate_continuations", "score_perplexity"):
            if process := cluster.script_of(record):
                return record, process
        return None

    victim, process = wait_for(script, run)
    assert process.environ()["CUDA_VISIBLE_DEVICES"] in ("0", "1", "2", "3")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: f"SLURM-job '{victim.id}' failed, SLURM status is: 'FAILED'" in printed(folder), run)


def restart_the_daemon(run: subprocess.Popen, folder: Path) -> None:
    """kill -9 of the node's daemon alone: its jobs go on, and none is put back."""
    there = {record.id for record in wait_for(lambda: running(folder), run)}
    cluster.kill_daemon()
    cluster.bring_up()
    wait_for(lambda: not there & {record.id for record in running(folder)}, run)
    assert {(record.state, record.restarts) for record in records(folder) if record.id in there} == {("COMPLETED", 0)}


def crash_the_node(run: subprocess.Popen, folder: Path) -> None:
    """The jobs on it are put back by Slurm and run again; the run goes on."""
    there = wait_for(lambda: running(folder), run)
    cluster.crash_node()
    wait_for(lambda: cluster.node_state().startswith("down"), run, seconds=120)
    cluster.bring_up()
    ids = {record.id for record in there}
    assert all(record.restarts == 1 for record in records(folder) if record.id in ids)


def wait_for_more_jobs(run: subprocess.Popen, folder: Path, more: int) -> None:
    before = sum(record.state == "COMPLETED" for record in records(folder))
    wait_for(lambda: sum(record.state == "COMPLETED" for record in records(folder)) >= before + more, run)


def kill_snakemake(run: subprocess.Popen, folder: Path) -> None:
    """Its jobs live on in Slurm; the next run cancels them before it begins."""
    wait_for(lambda: running(folder), run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait(timeout=30)
    assert running(folder)


def test_slurm_gave_a_gpu_to_exactly_the_rules_that_run_a_model(folder: Path, gpu_rules: set[str]):
    """From Slurm's own records of the run above; rules that run beside snakemake were never submitted."""
    given = {(record.rule, record.gpus) for record in records(folder) if record.state == "COMPLETED"}
    rules = {rule for rule, _ in given}
    assert given == {(rule, int(rule in gpu_rules)) for rule in rules}
    assert rules & gpu_rules and rules - gpu_rules and not rules & LOCAL


def test_the_cards_are_slurms_to_hand_out(folder: Path):
    """No limit of Snakemake's own would keep a cluster run at one card."""
    provided = set(re.findall(r"^Provided resources: (.*)$", printed(folder), re.M))
    assert provided == {'services=Resource("services", 1)'}


def test_no_job_of_a_dead_run_is_alive_beside_the_next_one(folder: Path):
    states = [{record.state for record in records(folder) if record.run == run} for run in runs(folder)]
    assert len(states) == ROUNDS + 2 and "CANCELLED" in states[0] and states[-1] == {"COMPLETED"}


def test_a_job_of_two_cards_gets_both_on_a_partition_that_has_them_and_starts_its_script_once(tmp_path: Path):
    folder = copy_project(tmp_path / "two").resolve()
    (folder / "partitions.yaml").write_text("partitions:\n  main: {max_runtime: 600}\n  gpu: {max_gpu: 2}\n")
    told = ("--slurm-partition-config", "partitions.yaml", "--slurm-keep-successful-logs")
    made = ("results/models/tiny-llama", "results/data/truthfulness.parquet")
    snakemake(folder, *PROFILE, *TINY, *told, "--set-resources", "prepare_model:gpu=2", "--", *made)
    given = {record.rule: (record.partition, record.gpus) for record in records(folder)}
    assert given == {"prepare_model": ("gpu", 2), "make_task_table": ("main", 0)}
    (log,) = (folder / ".snakemake/slurm_logs/rule_prepare_model").rglob("*.log")
    ends = log.read_text().count("Finished jobid: 0 (Rule: prepare_model)")
    assert ends == 2  # as the step's snakemake tells it, and the script's
