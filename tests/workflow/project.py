"""A copy of the project to run Snakemake in, and what a test asks of such a run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

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
    """The environment of a run: one thread a process, no bytecode that would count as a change."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | dict(extra)


def snakemake(folder: Path, *arguments: str, expect: int = 0) -> str:
    """Run Snakemake on the tiny preset (unless another configfile is given); returns what it printed."""
    chosen = () if "--configfile" in arguments else TINY
    result = subprocess.run(
        [SNAKEMAKE, *chosen, *arguments], cwd=folder, env=environment(), text=True, capture_output=True, timeout=600
    )
    printed = result.stdout + result.stderr
    assert result.returncode == expect, printed[-4000:]
    return printed


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """Jobs a rule that a dry-run would run; empty for "Nothing to be done"."""
    printed = snakemake(folder, "-n", *arguments)
    if "Nothing to be done" in printed:
        return {}
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", printed, re.S)
    assert table, printed[-4000:]
    counts = dict(line.split() for line in table.group(1).splitlines())
    return {rule: int(count) for rule, count in counts.items() if rule not in ("total", "all")}


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
