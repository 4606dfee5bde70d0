"""`make archive` and `make figures`: every figure again in a fresh checkout, from the archive alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.project import ROOT, copy_project, environment, jobs_of, result_bytes

ON_TINY = "ARGS=--configfile presets/tiny.yaml --cores 2"


def make(folder: Path, *arguments: str) -> str:
    """`make` in a folder, with the environment of the tests in place of a fresh one; returns what it printed."""
    asked = ["make", "-f", str(ROOT / "Makefile"), "-o", "setup", f"VENV={sys.prefix}", *arguments]
    done = subprocess.run(asked, cwd=folder, env=environment(), capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def archive(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "results.tar.gz"
    make(finished, "archive", f"ARCHIVE={path}")
    return path


@pytest.fixture(scope="module")
def fresh(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout with the archive unpacked."""
    folder = copy_project(tmp_path_factory.mktemp("fresh") / "project")
    subprocess.run(["tar", "-xzf", archive], cwd=folder, check=True)
    return folder


def test_an_archive_has_no_models_and_no_texts(archive: Path):
    listed = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True).stdout.split()
    assert {name.split("/")[1] for name in listed} == {"metrics", "choices", "analyses", "steers"}
    assert not [name for name in listed if name.endswith((".safetensors", ".parquet"))]


def test_only_figures_are_planned_from_an_archive(finished: Path, fresh: Path):
    planned = {job.outputs[0] for job in jobs_of(make(fresh, "figures", f"{ON_TINY} -n")) if job.rule != "figures"}
    drawn = {str(path.relative_to(finished / "results")) for path in (finished / "results/figures").rglob("*.svg")}
    assert planned == drawn


def test_every_figure_is_drawn_again_from_an_archive_alone_with_the_same_bytes(finished: Path, fresh: Path):
    unpacked = result_bytes(fresh)
    make(fresh, "figures", ON_TINY)
    drawn = {name: digest for name, digest in result_bytes(finished).items() if name.startswith("results/figures/")}
    assert {name.rpartition(".")[2] for name in drawn} == {"svg", "pdf", "csv", "rst"}
    assert result_bytes(fresh) == unpacked | drawn
