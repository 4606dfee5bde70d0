"""A copy of the project to run Snakemake in, and what a test asks of such a run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import snakemake.cli as snakemake_cli

ROOT = Path(__file__).parents[2]
PARTS = (
    "Snakefile",
    "config.yaml",
    "rules",
    "scripts",
    "steerlab",
    "schemas",
    "presets",
    "profiles",
    "envs",
    "captions",
)
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
TINY = ("--configfile", "presets/tiny.yaml")


def copy_project(folder: Path) -> Path:
    """A fresh checkout: code and configuration, no results."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    return folder


def copy_finished(finished: Path, folder: Path) -> Path:
    """A copy of a finished run with its results, store and history; times are kept."""
    shutil.copytree(finished, folder, symlinks=True)
    return folder


def environment(extra: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """The environment of a run: one thread a process."""
    return os.environ | {"OMP_NUM_THREADS": "1"} | dict(extra)


def snakemake(folder: Path, *arguments: str, expect: int = 0) -> str:
    """Run Snakemake on the tiny preset (unless another configfile is given); returns what it printed."""
    chosen = () if "--configfile" in arguments else TINY
    result = subprocess.run(
        [SNAKEMAKE, *chosen, *arguments], cwd=folder, env=environment(), text=True, capture_output=True, timeout=1500
    )
    printed = result.stdout + result.stderr
    assert result.returncode == expect, printed[-4000:]
    return printed


@dataclass(frozen=True)
class Job:
    """A job of a dry-run: its rule, and the files that it reads and writes (without "results/")."""

    rule: str
    inputs: frozenset[str]
    outputs: tuple[str, ...]


def dry_run(folder: Path, *arguments: str) -> str:
    """What a dry-run prints, on the tiny preset unless another configfile is given."""
    chosen = () if "--configfile" in arguments else TINY
    code, printed = _in_a_fork(folder, "-n", *chosen, *arguments)
    assert code == 0, printed[-4000:]
    return printed


def plan(folder: Path, *arguments: str) -> list[Job]:
    """The jobs that a dry-run would run, on the tiny preset unless another configfile is given."""
    return jobs_of(dry_run(folder, *arguments))


def jobs_of(printed: str) -> list[Job]:
    """The jobs that a dry-run has printed."""
    blocks = re.split(r"^(?:local)?rule ", printed, flags=re.M)[1:]
    jobs = [
        Job(block.partition(":")[0], frozenset(_files(block, "input")), _files(block, "output")) for block in blocks
    ]
    assert jobs or "Nothing to be done" in printed, printed[-4000:]
    return [job for job in jobs if job.rule != "all"]


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """Jobs a rule that a dry-run would run."""
    return dict(Counter(job.rule for job in plan(folder, *arguments)))


def _files(block: str, kind: str) -> tuple[str, ...]:
    line = re.search(rf"^    {kind}: (.*)$", block, re.M)
    return tuple(file.removeprefix("results/") for file in line[1].split(", ")) if line else ()


def _in_a_fork(folder: Path, *arguments: str) -> tuple[int, str]:
    """Snakemake's exit code and what it printed, in a fork of this process, which saves importing it each time."""
    with tempfile.TemporaryFile("w+") as printed:
        child = os.fork()
        if child == 0:
            code: object = 1
            try:
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                os.chdir(folder)
                os.environ |= environment()
                for name in [name for name in sys.modules if name.split(".")[0] == "steerlab"]:
                    del sys.modules[name]  # the folder has its own
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
                snakemake_cli.main(list(arguments))
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code if isinstance(code, int) else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        return status, printed.read()


def result_bytes(folder: Path) -> dict[str, str]:
    """SHA-256 of every result, without what tells how it was made: logs, benchmarks, sidecars, the report's costs."""
    how = ("results/logs/", "results/benchmarks/", "results/report/")
    found = {}
    for path in sorted((folder / "results").rglob("*")):
        name = str(path.relative_to(folder))
        hidden = path.name in (".gitignore", ".snakemake_timestamp") or name.endswith(".run.json")
        if path.is_file() and not hidden and not name.startswith(how):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def sidecars(folder: Path) -> list[dict]:
    """All sidecars of a run."""
    return [json.loads(path.read_text()) for path in sorted((folder / "results").rglob("*.run.json"))]
