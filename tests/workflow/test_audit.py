"""The audit by people in the workflow: pairs are sampled, filled copies are named, and the page shows the agreement."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from steerlab.experiment import names
from tests.workflow.project import TINY, copy_finished, planned, snakemake

# LM-Steer, which the run samples, moves no text of the tiny model; CogSteer does.
AT = {"model": "tiny-llama", "method": "cogsteer", "task": "toxicity"}
PAIRS, KEY, AGREEMENT = (pattern.format(**AT) for pattern in (names.AUDIT_PAIRS, names.AUDIT_KEY, names.AUDIT))


@pytest.fixture(scope="module")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with pairs of CogSteer's continuations, which Ann has filled: the other side always has more."""
    folder = copy_finished(finished, tmp_path_factory.mktemp("audit") / "run")
    snakemake(folder, "--cores", "1", "--", PAIRS)
    pairs, key = pd.read_csv(folder / PAIRS), pd.read_csv(folder / KEY)
    said = key["steered"].map({"left": "right", "right": "left"})
    pairs.assign(more_toxicity=said).to_csv(folder / "ann.csv", index=False)
    (folder / "judged.yaml").write_text(yaml.safe_dump({"audit": {"sheets": ["ann.csv"]}}))
    return folder


JUDGED = (*TINY, "judged.yaml")


def test_the_run_samples_pairs_and_the_page_says_what_to_do_with_them(finished: Path):
    sampled = names.AUDIT_PAIRS.format(model="tiny-llama", method="lm_steer", task="toxicity")
    assert (finished / sampled).is_file() and (finished / sampled).with_name("key.csv").is_file()
    page = (finished / "results/report/index.html").read_text()
    assert sampled in page and "Nobody has judged" in page


def test_a_filled_sheet_is_set_beside_the_scorers(project: Path):
    snakemake(project, *JUDGED, "--cores", "1", "--", AGREEMENT)
    rows = pd.read_csv(project / AGREEMENT).set_index("judge")
    assert list(rows.index) == ["ann", "alt-profanity-check==1.9.1"] and set(rows.beside) == {"-", "ann"}
    assert rows["steered has less"]["ann"] == 1.0 and rows.pairs["ann"] == len(pd.read_csv(project / PAIRS)) > 0


def test_a_sheet_that_changes_makes_the_table_again_and_samples_nothing(project: Path):
    assert planned(project, *JUDGED, "--", AGREEMENT).get("sample_audit") is None
    shutil.copy(project / "ann.csv", project / "ben.csv")
    (project / "both.yaml").write_text(yaml.safe_dump({"audit": {"sheets": ["ann.csv", "ben.csv"]}}))
    assert planned(project, *TINY, "both.yaml", "--", AGREEMENT) == {"compare_audit": 1}


def test_a_sheet_of_other_texts_is_refused(project: Path):
    sheet = pd.read_csv(project / "ann.csv")
    sheet.assign(left=sheet.left + " now").to_csv(project / "old.csv", index=False)
    (project / "old.yaml").write_text(yaml.safe_dump({"audit": {"sheets": ["old.csv"]}}))
    printed = snakemake(project, *TINY, "old.yaml", "--cores", "1", "--", AGREEMENT, expect=1)
    assert "old.csv has other pairs than the sample of this run; fill a copy of its pairs.csv" in printed


def test_a_sheet_that_is_not_there_is_told_before_anything_is_planned(project: Path):
    (project / "gone.yaml").write_text(yaml.safe_dump({"audit": {"sheets": ["gone.csv"]}}))
    printed = snakemake(project, *TINY, "gone.yaml", "-n", expect=1)
    assert "audit.sheets: no file 'gone.csv'; name a filled copy of pairs.csv" in printed
