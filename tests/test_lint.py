"""What `make lint` runs: style, rules, types, and the direction of imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CHECKS = {
    "ruff": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "snakefmt": ["snakefmt", "--check", "Snakefile", "rules"],
    "snakemake": ["snakemake", "--lint"],
    "basedpyright": ["basedpyright"],
    "import-linter": ["lint-imports"],
}


@pytest.mark.parametrize("check", CHECKS)
def test_lint(check: str):
    command = CHECKS[check]
    result = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]


def test_rules_hold_no_logic_and_files_stay_small():
    for path in (ROOT / "rules").glob("*.smk"):
        assert "def " not in path.read_text(), path
    assert len((ROOT / "Snakefile").read_text().splitlines()) < 80
    assert len((ROOT / "rules/common.smk").read_text().splitlines()) < 60
    for path in (ROOT / "scripts").glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path
