"""Scattered jobs as Snakemake plans and runs them: their files, two cards, and the bytes of a run without shards."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.unit.test_job import with_fake_cards
from tests.workflow.project import (
    SNAKEMAKE,
    TINY,
    copy_finished,
    copy_project,
    environment,
    plan,
    result_bytes,
    sidecars,
    snakemake,
)

STEERED = "generations/tiny-llama/lm_steer/toxicity/dev/0.parquet"  # two settings
OTHERS = (
    "activations/tiny-llama/truthfulness/fitted/block_output-answer.json",
    "scores/tiny-llama/lm_steer/toxicity/dev/perplexity-base.parquet",
    "scores/tiny-llama/base/truthfulness/dev/answers/0.parquet",
)


def with_shards(folder: Path, **numbers: int) -> tuple[str, ...]:
    """Arguments of a run of the tiny preset with so many shards."""
    (folder / "shards.yaml").write_text(yaml.safe_dump({"shards": numbers}))
    return *TINY, str(folder / "shards.yaml")


def shards_of(file: str, number: int) -> list[str]:
    return [f"shards/{each}-of-{number}/{file}" for each in range(1, number + 1)]


def test_three_shards_are_three_jobs_and_one_that_waits_for_them(tmp_path: Path):
    jobs = plan(copy_project(tmp_path / "run"), *with_shards(tmp_path, activations=3, generations=3, scores=3))
    counted = Counter(job.rule for job in jobs)
    scattered = {"capture_activations", "generate_continuations", "score_perplexity", "score_answers"}
    assert {rule.removesuffix("_shard") for rule in counted if rule.endswith("_shard")} == scattered
    assert all(counted[f"{rule}_shard"] == 3 * counted[rule] > 0 for rule in scattered)
    for job in jobs:
        if job.rule in scattered:
            assert set(shards_of(job.outputs[0], 3)) <= job.inputs
        if job.rule.endswith("_shard"):
            assert not [file for file in job.inputs if file.startswith("shards/")]


@pytest.fixture
def unmade(finished: Path, tmp_path: Path) -> Path:
    """A finished run without some files, with the sidecars and the store gone, too."""
    folder = copy_finished(finished, tmp_path / "run").resolve()
    for file in (STEERED, *OTHERS):
        (folder / "results" / file).unlink()
        (folder / "results" / f"{file}.run.json").unlink()
    shutil.rmtree(folder / ".store")
    return folder


def test_scattered_stages_end_with_the_bytes_of_a_run_without_shards(finished: Path, unmade: Path):
    files = [f"results/{file}" for file in (STEERED, *OTHERS)]
    arguments = with_shards(unmade, activations=2, generations=2, scores=3)
    for shard in shards_of(OTHERS[0], 2):  # they were done, but their work went with the store
        (unmade / "results" / shard).parent.mkdir(parents=True)
        (unmade / "results" / shard).touch()
    snakemake(unmade, "--cores", "2", *arguments, "--", *files)
    ended, whole = result_bytes(unmade), result_bytes(finished)
    assert {file: ended[file] for file in files} == {file: whole[file] for file in files}
    made = {file for about in sidecars(unmade) for file in written(about) if "/shards/" in file}
    scattered = zip((STEERED, *OTHERS[1:]), (2, 3, 3))
    assert made == {f"results/{shard}" for file, number in scattered for shard in shards_of(file, number)}
    assert not [file for file in ended if file.startswith("results/shards/")]  # but their sidecars
    assert plan(unmade, *arguments, "--", *files) == plan(unmade, *TINY, "--", *files) == []


def test_two_shards_at_once_have_a_card_each(unmade: Path, tmp_path: Path):
    cards = tmp_path / "cards"
    cards.mkdir()
    shards = [f"results/{shard}" for shard in shards_of(STEERED, 2)]
    ask = ("--set-resources", "generate_continuations_shard:gpu=1", "--resources", "gpu=2")
    command = [SNAKEMAKE, "--cores", "2", *ask, *with_shards(unmade, generations=2), "--", *shards]
    run = subprocess.run(
        command, cwd=unmade, env=environment(with_fake_cards(cards, 2)), text=True, capture_output=True
    )
    assert run.returncode == 0, run.stderr[-4000:]
    locks = sorted(lock.name for lock in cards.rglob("*.lock"))
    assert locks == ["0.lock", "1.lock"]  # the second card is tried when the first one is held
    first, second = (about for about in sidecars(unmade) if written(about)[0] in shards)
    assert max(first["started"], second["started"]) < min(first["ended"], second["ended"])


def written(about: dict) -> list[str]:
    """The outputs of a job, by its sidecar."""
    return [each["path"] for each in about["outputs"].values()]
