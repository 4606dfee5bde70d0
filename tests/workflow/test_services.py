"""Services in the workflow: each text paid once, resumed after a stop, and a key that is written nowhere."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from steerlab.scores.services import KEYS
from tests.unit.perspective_server import KEY, Behaviour, PerspectiveServer
from tests.workflow.project import copy_finished, planned, snakemake


@pytest.fixture
def server():
    with PerspectiveServer(Behaviour(faults={"error_500": 0.1, "cut_after": 0.05, "malformed": 0.05})) as running:
        yield running


@pytest.fixture
def project(finished: Path, tmp_path: Path, server: PerspectiveServer) -> Path:
    """A finished run of the tiny preset, with an overlay that adds the local Perspective server as second scorer."""
    folder = copy_finished(finished, tmp_path / "project")
    service = {"address": server.address, "quota": 100, "attributes": ["TOXICITY", "INSULT"]}
    overlay = {"scores": {"toxicity": ["profanity_check", "perspective"], "perspective": service}}
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return folder


ARGUMENTS = ("--configfile", "presets/tiny.yaml", "overlay.yaml")
METRICS = [
    f"results/metrics/tiny-llama/base/{cell}.csv" for cell in ("toxicity/dev", "toxicity/test", "sentiment/test")
]
TARGETS = ("--cores", "2", "--", *METRICS)


def metrics(folder: Path) -> pd.DataFrame:
    return pd.concat(pd.read_csv(folder / path) for path in METRICS)


def test_every_toxicity_text_is_paid_once_and_the_key_is_nowhere_on_disk(project, server, monkeypatch):
    monkeypatch.setenv(KEYS["perspective"], KEY)
    snakemake(project, *ARGUMENTS, *TARGETS)
    assert max(Counter(server.outcomes("scored")).values()) == 1
    found = metrics(project).query("scorer.str.startswith('perspective', na=False)")
    assert set(found.task) == {"toxicity"} and found.metric.str.startswith("toxicity_refused").any()
    assert found.query("metric == 'mean_toxicity'").value.between(0, 1).all()

    asked, table = len(server.log), metrics(project)
    for file in (project / "results/scores").rglob("texts-perspective*"):
        file.unlink()
    monkeypatch.setenv(KEYS["perspective"], "")
    snakemake(project, *ARGUMENTS, *TARGETS)  # without a key: the cache has every answer
    assert len(server.log) == asked
    pd.testing.assert_frame_equal(metrics(project), table)

    assert_nowhere(project, KEY)


def assert_nowhere(folder: Path, key: str) -> None:
    """No result, log, sidecar, file of Snakemake's or of the store has the key."""
    for path in folder.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


def test_a_refused_key_ends_the_run_with_one_line_and_a_good_one_goes_on(project, server, monkeypatch):
    monkeypatch.setenv(KEYS["perspective"], "AIza-no-such-key")
    printed = snakemake(project, *ARGUMENTS, *TARGETS, expect=1)
    told = [line for line in printed.splitlines() if line.startswith("score_texts_by_service: perspective: the key is")]
    assert told and "set PERSPECTIVE_API_KEY" in told[0] and not server.log
    assert "AIza-no-such-key" not in printed
    assert_nowhere(project, "AIza-no-such-key")
    monkeypatch.setenv(KEYS["perspective"], KEY)
    snakemake(project, *ARGUMENTS, *TARGETS)
    assert server.outcomes("scored")


def test_the_quota_reruns_nothing_and_another_attribute_reruns_the_service_alone(project, server, monkeypatch):
    monkeypatch.setenv(KEYS["perspective"], KEY)
    snakemake(project, *ARGUMENTS, *TARGETS)
    overlay = yaml.safe_load((project / "overlay.yaml").read_text())
    overlay["scores"]["perspective"]["quota"] = 50
    (project / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    assert planned(project, *ARGUMENTS, "--", *METRICS) == {}
    overlay["scores"]["perspective"]["attributes"] = ["INSULT"]
    (project / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    assert planned(project, *ARGUMENTS, "--", *METRICS) == {"score_texts_by_service": 2, "compute_metrics": 2}


def test_services_are_asked_by_the_machine_that_plans():
    rules = (Path(__file__).parents[2] / "rules/scores.smk").read_text()
    service = rules.partition("rule score_texts_by_service:")[2].partition("\nrule ")[0]
    assert "localrule: True" in service
