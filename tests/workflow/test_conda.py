"""`--sdm conda`: the same jobs in the environments of their rules."""

import os
import re
from pathlib import Path

from tests.workflow.project import ROOT, copy_project, dry_run, jobs_of

CONDA = """#!/bin/sh
# What a plan asks of conda, and no more: nothing is installed.
case "$*" in
"info --json") echo '{"conda_prefix": "/nowhere", "platform": "linux-64"}' ;;
"--version") echo "conda 25.1.0" ;;
"config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}' ;;
*) exit 1 ;;
esac
"""


def test_a_plan_with_conda_has_the_same_jobs_and_names_each_environment(tmp_path: Path, monkeypatch):
    folder = copy_project(tmp_path / "project")
    plain = jobs_of(dry_run(folder))
    (tmp_path / "conda").write_text(CONDA)
    (tmp_path / "conda").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    printed = dry_run(folder, "--sdm", "conda")
    assert set(jobs_of(printed)) == set(plain) and len(plain) > 200
    named = re.findall(r"Conda environment (\S+) will be created", printed)
    assert sorted(named) == sorted(f"envs/{path.name}" for path in (ROOT / "envs").glob("*.yaml"))
    assert not re.search(r"warning|error", printed, re.I)
