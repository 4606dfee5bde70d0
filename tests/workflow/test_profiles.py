"""Each profile replaces the default one, so each has all that a run needs; a cluster's sets no limit on cards."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import ROOT, copy_project, snakemake

PROFILES = {path.parent.name: yaml.safe_load(path.read_text()) for path in ROOT.glob("profiles/*/config.yaml")}
CLUSTERS = {"slurm": "slurm", "cluster-generic": "cluster_generic"}  # and what their plugins' modules end with


def listed(profile: str, key: str) -> dict[str, str]:
    return dict(entry.split("=") for entry in PROFILES[profile].get(key, []))


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_has_all_that_the_default_one_has(profile: str):
    default, own = PROFILES["default"], PROFILES[profile]
    assert default.keys() - {"cores"} <= own.keys() and ("cores" in own) != ("jobs" in own)
    for key in ("rerun-incomplete", "rerun-triggers", "scheduler"):
        assert own[key] == default[key], key
    assert listed(profile, "resources")["services"] == "1"


@pytest.mark.parametrize("profile", sorted(CLUSTERS))
def test_a_cluster_profile_limits_no_gpu_and_asks_something_for_every_job(profile: str):
    assert "gpu" not in listed(profile, "resources")
    assert {"mem_mb", "runtime"} <= listed(profile, "default-resources").keys()
    assert {"executor", "local-cores", "latency-wait"} <= PROFILES[profile].keys()


def test_the_commands_for_other_queues_ask_for_nothing_that_a_rule_may_lack():
    asked = set(re.findall(r"\{resources\.(\w+)\}", PROFILES["cluster-generic"]["cluster-generic-submit-cmd"]))
    assert asked <= listed("cluster-generic", "default-resources").keys()


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_snakemake_takes_a_profile_and_its_limits_and_downloads_by_itself(profile: str, tmp_path: Path):
    plugin = f"snakemake_executor_plugin_{CLUSTERS.get(profile)}"
    if profile in CLUSTERS and not importlib.util.find_spec(plugin):
        pytest.skip(f"{plugin} is not installed (pip install -r envs/cluster.txt)")
    folder, made = copy_project(tmp_path / "project"), "results/data/raw/comments/sample"
    printed = snakemake(folder, "--workflow-profile", f"profiles/{profile}", "--", made)
    limits = re.findall(r"(\w+)=Resource", re.findall(r"^Provided resources: (.*)$", printed, re.M)[0])
    assert set(limits) == ({"services"} if profile in CLUSTERS else {"gpu", "services"})
    assert "localrule fetch_source:" in printed and (folder / made).exists()
