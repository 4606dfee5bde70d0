"""What reruns after a change, and what does not: the jobs that a dry-run plans first on a finished run.

First are the jobs whose own settings, code or files changed; whatever follows from them is planned as well, by
Snakemake. The table of what each change makes anew first is reruns.py.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from steerlab.data import sources
from steerlab.experiment import config
from tests.workflow.project import Job, copy_finished, plan
from tests.workflow.reruns import BESIDE_ABLATIONS, LEARNT, LEAVES, MODULES, OF_SENTIMENT, OF_TOXICITY, REPORT, WITH


def with_overlay(folder: Path, leaf: str, value: object) -> tuple[str, ...]:
    """Arguments of a run of the tiny preset with another value of a leaf."""
    overlay: object = value
    for key in reversed(leaf.split(".")):
        overlay = {key: overlay}
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    (folder / "with.yaml").write_text(yaml.safe_dump(WITH.get(leaf, {})))
    return "--configfile", "presets/tiny.yaml", str(folder / "overlay.yaml"), str(folder / "with.yaml")


def first(jobs: list[Job]) -> set[str]:
    """A file of each job that waits for no other one."""
    made = {file for job in jobs for file in job.outputs}
    return {job.outputs[0] for job in jobs if not job.inputs & made}


def matching(files: set[str], patterns: list[str]) -> set[str]:
    """The files that match; each pattern must match one."""
    for pattern in patterns:
        assert any(fnmatch(file, pattern) for file in files), f"nothing is named {pattern}"
    return {file for file in files if any(fnmatch(file, pattern) for pattern in patterns)}


@pytest.fixture(scope="module")
def files(finished: Path) -> set[str]:
    """The first file of every job of the finished run."""
    return {job.outputs[0] for job in plan(finished, "--forceall")}


def test_the_table_of_leaves_has_every_leaf_of_the_schema():
    leaves = {".".join(path) for path, node in config.leaves(config.schema())}
    assert leaves == set(LEAVES)


@pytest.mark.parametrize("leaf", [leaf for leaf, change in LEAVES.items() if change])
def test_a_changed_leaf_reruns_what_depends_on_it(finished: Path, files: set[str], tmp_path: Path, leaf: str):
    value, patterns = LEAVES[leaf]
    jobs = plan(finished, *with_overlay(tmp_path, leaf, value))
    assert first(jobs) == matching(files | first(jobs), patterns)
    assert jobs[-1].outputs == ("report/index.html",)


def test_another_seed_reruns_no_text_of_the_others_that_it_cannot_change(finished: Path, tmp_path: Path):
    jobs = plan(finished, *with_overlay(tmp_path, "run.seeds", [0, 1]))
    texts = {job.outputs[0] for job in jobs if job.rule in ("train_steer", "generate_continuations")}
    settled = ["*/toxicity/dev/0.parquet", "*/base/*/0.parquet", "*/sentiment/*", "steers/*/0"]
    assert not [file for file in texts if any(fnmatch(file, pattern) for pattern in settled)]


def test_another_variant_reruns_itself_its_figures_and_the_report(finished: Path, files: set[str], tmp_path: Path):
    value, _ = LEAVES["run.variants"]
    jobs = plan(finished, *with_overlay(tmp_path, "run.variants", value))
    figures = matching(files, ["figures/tiny-llama/data_efficiency.svg", *BESIDE_ABLATIONS])
    others = {job.outputs[0] for job in jobs if "/lm_steer_100/" not in job.outputs[0]}
    assert others == figures | set(REPORT)


def test_another_scorer_reruns_no_text_before_a_choice(finished: Path, tmp_path: Path):
    value, _ = LEAVES["scores.toxicity"]
    jobs = plan(finished, *with_overlay(tmp_path, "scores.toxicity", value))
    remade = {file for job in jobs for file in job.outputs}
    assert not any(fnmatch(file, pattern) for file in remade for pattern in [*OF_TOXICITY, *OF_SENTIMENT, *LEARNT])
    assert {job.rule for job in jobs if job.rule.startswith("score_texts")} and "data/toxicity.parquet" not in remade


def test_a_mirror_with_perspectives_scores_reruns_test_metrics_and_no_choice(finished: Path, tmp_path: Path):
    scored = ("scored_continuations", "scored_comments")
    mirror = tmp_path / "mirror"
    for file in (file for name in scored for file in sources.table()[name].doors["mirror"].files):
        (mirror / file.remote).parent.mkdir(parents=True, exist_ok=True)
        (mirror / file.remote).touch()
    jobs = plan(finished, *with_overlay(tmp_path, "data.mirror", str(mirror)))
    assert first(jobs) == {f"data/raw/{name}/mirror" for name in scored}
    rules = {"fetch_source", "calibrate_scorers", "compute_metrics", "write_card", "plot_figure", "build_report"}
    assert {job.rule for job in jobs} == rules
    computed = {job.outputs[0] for job in jobs if job.rule == "compute_metrics"}
    assert computed and all(file.endswith("/test.csv") for file in computed)


def test_nothing_reruns_on_a_finished_run(finished: Path):
    assert plan(finished) == []


@pytest.fixture(scope="module")
def copy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose code the tests below change and put back."""
    return copy_finished(finished, tmp_path_factory.mktemp("copy") / "run")


@contextmanager
def changed(*paths: Path) -> Iterator[None]:
    """Inside, the files may be written; after it they are as before."""
    before = {path: (path.read_bytes(), path.stat()) for path in paths}
    try:
        yield
    finally:
        for path, (content, about) in before.items():
            path.write_bytes(content)
            os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_a_touch_of_every_file_reruns_nothing(finished: Path, tmp_path: Path):
    folder = copy_finished(finished, tmp_path / "touched")
    for path in folder.rglob("*"):
        if path.is_file() and "results" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path)
    assert plan(folder) == []


def test_a_comment_and_a_docstring_rerun_nothing(copy: Path):
    paths = [*copy.glob("steerlab/**/*.py"), *copy.glob("scripts/*.py")]
    with changed(*paths):
        for path in paths:
            text = path.read_text()
            path.write_text(re.sub(r'^"""', '"""Reworded. ', text, count=1) + "\n# a remark\n")
        assert plan(copy) == []


CHANGES = {".py": "\nCHANGED = True\n", ".json": "\n"}


@pytest.mark.parametrize("path", MODULES)
def test_changed_code_reruns_the_jobs_that_run_it(copy: Path, files: set[str], path: str):
    with changed(copy / path):
        with open(copy / path, "a") as file:
            file.write(CHANGES.get(Path(path).suffix, "\n\n# changed: true\n"))
        assert first(plan(copy)) == matching(files, MODULES[path])
