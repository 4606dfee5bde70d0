"""The prelude of every script: outputs whole or absent, one line for an error, no orphan, one job a card."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from steerlab.job import job
from tests.workflow.project import ROOT


class Named(dict):
    """What Snakemake hands to a script under input, output, params, resources and wildcards."""

    def __getattr__(self, name: str):
        return self[name]


def fake_snakemake(folder: Path, **changes: object) -> SimpleNamespace:
    (folder / "in.txt").write_text("in")
    parts = {
        "rule": "a_rule",
        "threads": 1,
        "input": Named(text=str(folder / "in.txt")),
        "output": Named(made=str(folder / "results/data/out.txt"), folder=str(folder / "results/data/folder")),
        "params": Named(spec='{"leaf": 1}', code="abc"),
        "resources": Named(),
        "wildcards": Named(split="dev"),
        "log": [str(folder / "log.txt")],
        "config": {"store": str(folder / "store")},
    }
    return SimpleNamespace(**parts | changes)


def write(j) -> None:
    j.outputs["made"].write_text("made")
    j.outputs["folder"].mkdir()
    (j.outputs["folder"] / "file").write_text("file")


def test_outputs_are_renamed_at_the_end_with_a_sidecar(tmp_path: Path):
    with job(fake_snakemake(tmp_path)) as j:
        write(j)
        assert not (tmp_path / "results/data/out.txt").exists()
    data = tmp_path / "results/data"
    assert (data / "out.txt").read_text() == "made" and (data / "folder/file").read_text() == "file"
    about = json.loads((data / "out.txt.run.json").read_text())
    assert about["spec"] == {"leaf": 1} and about["seconds"] >= 0 and about["peak_mib"] > 0


def test_a_failed_job_leaves_no_output_and_one_line(tmp_path: Path):
    with pytest.raises(SystemExit) as exit, job(fake_snakemake(tmp_path)) as j:
        write(j)
        raise ValueError("the thing is wrong; mend it")
    assert str(exit.value) == f"a_rule: ValueError: the thing is wrong; mend it (log: {tmp_path}/log.txt)"
    assert list((tmp_path / "results/data").iterdir()) == []
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_what_a_killed_job_left_is_removed(tmp_path: Path):
    left = tmp_path / "results/data/.out.txt.4711.part"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    with job(fake_snakemake(tmp_path)) as j:
        write(j)
    assert not left.exists()


@pytest.mark.parametrize(
    "change",
    [{"params": Named(spec='{"leaf": 2}', code="abc")}, {"params": Named(spec='{"leaf": 1}', code="abd")}],
    ids=["spec", "code"],
)
def test_another_spec_or_code_never_sees_the_same_work_folder(tmp_path: Path, change: dict):
    works = []
    for changes in ({}, change):
        with job(fake_snakemake(tmp_path, **changes)) as j:
            write(j)
            works.append(j.work)
    assert works[0] != works[1]


def test_another_content_of_an_input_never_sees_the_same_work_folder(tmp_path: Path):
    works = []
    for content in ("one", "two", "one"):
        snakemake = fake_snakemake(tmp_path)
        (tmp_path / "in.txt").write_text(content)
        with job(snakemake) as j:
            write(j)
            works.append(j.work)
    assert works[0] != works[1] and works[0] == works[2]


ORPHAN = """
import time
from steerlab.job import parent_run, watch_run
watch_run(parent_run(), 0.1)
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("shell", [False, True], ids=["parent", "shell between"])
def test_a_job_ends_when_its_run_is_killed(tmp_path: Path, shell: bool):
    # A process whose command line names snakemake starts the job, directly or through a shell.
    command = [sys.executable, "-c", ORPHAN]
    if shell:
        command = ["bash", "-c", '"$@"; true', "bash", *command]
    start = f"import subprocess; subprocess.call({command!r})"
    (tmp_path / "snakemake").write_text(start)
    run = subprocess.Popen([sys.executable, tmp_path / "snakemake"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout and run.stdout.readline() == "up\n"
    run.kill()
    started = time.monotonic()
    assert run.stdout.read() == ""  # ends when the last holder of the pipe, the job, is gone
    assert time.monotonic() - started < 5


LEASE = """
import sys, time
from steerlab.job import lease_cards
with lease_cards(int(sys.argv[1]), 0.01) as card:
    start = time.monotonic()
    time.sleep(0.2)
    print(card, start, time.monotonic(), flush=True)
    if len(sys.argv) > 2: time.sleep(60)
"""


def with_fake_cards(folder: Path, number: int) -> dict[str, str]:
    """An environment whose nvidia-smi lists so many cards, with a temporary folder of its own for the locks."""
    lines = "\n".join(f"echo 'GPU {index}: Fake (UUID: GPU-{index})'" for index in range(number))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}\n")
    (folder / "nvidia-smi").chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return environment | {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)}


def start(environment: dict[str, str], *arguments: str, cards: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-c", LEASE, str(cards), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def leases(environment: dict[str, str], jobs: int, cards: int = 1) -> list[tuple[str, float, float]]:
    children = [start(environment, cards=cards) for _ in range(jobs)]
    printed = [child.communicate(timeout=60)[0].split() for child in children]
    return [(card, float(begin), float(end)) for card, begin, end in printed]


def test_two_jobs_are_never_on_one_card_and_all_cards_are_used(tmp_path: Path):
    held = leases(with_fake_cards(tmp_path, 2), 6)
    assert {card for card, _, _ in held} == {"0", "1"}
    for card, begin, end in held:
        others = [other for other in held if other[0] == card and other != (card, begin, end)]
        assert all(end <= other[1] or other[2] <= begin for other in others)


def test_a_killed_job_frees_its_card(tmp_path: Path):
    environment = with_fake_cards(tmp_path, 1)
    holder = start(environment, "stay")
    assert holder.stdout and holder.stdout.readline().startswith("0 ")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert [card for card, _, _ in leases(environment, 1)] == ["0"]


def test_a_card_chosen_by_the_cluster_wins(tmp_path: Path):
    environment = with_fake_cards(tmp_path, 2) | {"CUDA_VISIBLE_DEVICES": "7"}
    assert [card for card, _, _ in leases(environment, 1)] == ["7"]


def test_jobs_of_several_cards_take_them_together_and_none_waits_for_ever(tmp_path: Path):
    held = leases(with_fake_cards(tmp_path, 3), 4, cards=2)
    assert len(held) == 4 and all(len(set(cards.split(","))) == 2 for cards, _, _ in held)
    spans = sorted((begin, end) for _, begin, end in held)
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))  # of three cards, two at once


def test_more_cards_than_there_are_is_an_error(tmp_path: Path):
    child = start(with_fake_cards(tmp_path, 1), cards=2)
    assert child.wait(timeout=60) == 1
