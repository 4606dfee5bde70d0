"""Cards: what is said of each source, model, scorer and paper, and by which door."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from steerlab import experiment, reference
from steerlab.data import sources
from steerlab.experiment import cards as known
from steerlab.experiment.registry import METHODS
from steerlab.report import audit, cards
from tests.workflow.project import ROOT

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
EVERY_DOOR = [(name, door) for name, source in sources.table().items() for door in source.doors]


def spec(**changes) -> dict:
    return json.loads(experiment.load(DEFAULT | changes).spec("build_report"))


@pytest.mark.parametrize(("name", "door"), EVERY_DOOR)
def test_a_card_tells_the_licence_and_the_origin_of_its_own_door(name: str, door: str):
    source = sources.table()[name]
    licence, citation = (cards.of_door(text, door) for text in (source.licence, source.citation))
    assert licence and citation
    if door == "sample":
        assert "MIT, as this project" in licence and "this project" in citation
    elif len(source.doors) > 1:
        assert "written for this project" not in citation and "as this project" not in licence


def test_what_stands_before_any_door_holds_for_all_and_a_text_without_doors_for_each():
    text = "Lin 2022. hub, mirror: one edition; url: another. sample: ours."
    assert cards.of_door(text, "mirror") == "Lin 2022. hub, mirror: one edition"
    assert cards.of_door(text, "sample") == "Lin 2022. sample: ours."
    assert cards.of_door("wheel: MIT; sample: ours", "wheel") == "MIT"
    assert cards.of_door("wheel: MIT", "hub") == "wheel: MIT"
    assert cards.of_door("CC0", "url") == "CC0"


def test_every_source_of_the_run_has_a_card_that_says_what_it_is_used_for():
    given = spec()["data"]
    assert {each["name"]: each["door"] for each in given} == experiment.load(DEFAULT).doors
    used = {each["name"]: each["used"] for each in given}
    assert all(used.values())
    assert used["rtp_prompts"] == [["toxicity", "prompts"]] and used["comments"] == [["toxicity", "training texts"]]
    assert used["smollm2_135m_instruct"] == [["model smollm2-135m-instruct", ""]]


TABLES = {
    "toxicity": pd.DataFrame(
        {
            "id": ["a", "a", "b", "c", "d", "e"],
            "role": ["prompt", "prompt", "prompt", "prompt", "train", "train"],
            "split": ["dev", "dev", "test", "test", "train", "train"],
            "rendering": ["plain", "instructed", "plain", "plain", "plain", "plain"],
        }
    ),
    "eye_tracking": pd.DataFrame({"corpus": ["provo", "provo", "other"], "data": [sources.SYNTHETIC] * 2 + ["real"]}),
}
GIVEN = {
    "licence": "MIT",
    "citation": "somebody",
    "origin": "",
    "files": [["x/a.txt", 10], ["b.txt", 1000]],
    "door": "mirror",
}


def card(name: str, *used: tuple[str, str], **changes) -> cards.Card:
    (found,) = cards.sources([GIVEN | {"name": name, "used": used} | changes], TABLES)
    return found


def test_prompts_are_counted_once_for_all_renderings_and_each_source_counts_its_own_part():
    assert card("prompts", ("toxicity", "prompts")).facts["Used"] == "toxicity: 1 dev, 2 test prompts"
    assert card("texts", ("toxicity", "training texts")).facts["Used"] == "toxicity: 2 train labelled texts"
    both = card("x", ("toxicity", "questions"), ("figure reasoning", "")).facts["Used"]
    assert both == "toxicity: 1 dev, 2 test questions; 2 train labelled texts; figure reasoning"


def test_a_corpus_counts_its_own_rows_and_says_when_they_are_synthetic():
    provo, other = card("provo", ("eye_tracking", "")), card("other", ("eye_tracking", ""))
    assert (provo.facts["Used"], provo.mark) == ("eye tracking: 2 rows", "synthetic sample")
    assert (other.facts["Used"], other.mark) == ("eye tracking: 1 row", "")
    assert card("x", ("toxicity", "prompts"), door="sample").mark == "sample data"


def test_files_are_told_with_their_size_where_it_is_known():
    assert card("x").facts["Taken"] == "2 files, a.txt to b.txt (1,010 bytes)"
    assert card("x", files=[["a.txt", None]]).facts["Taken"] == "a.txt"
    assert "Used" not in card("x").facts


def test_models_and_scorers_have_licences_of_the_door_that_they_came_through():
    given = spec()
    first, second = cards.named(given["models"])
    assert first.facts["Licence"].startswith("Apache-2.0") and "SmolLM2" in first.facts["What"]
    assert second.facts["What"] == "smollm2-135m-instruct in rotated coordinates, the same function"
    licences = {each.name.partition("==")[0]: each.facts["Licence"] for each in cards.named(given["scorers"])}
    assert licences["alt-profanity-check"] == licences["vaderSentiment"] == "MIT License"
    assert licences["toxic-comment-classifier"].startswith("MIT")


def test_a_package_that_says_nothing_of_its_licence_is_told_so(tmp_path, monkeypatch):
    folder = tmp_path / "silent-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: silent\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert known.package_licence("silent") == "not stated"


def test_every_paper_and_baseline_has_its_licence_and_a_bibtex_entry_of_its_own():
    papers = reference.papers()
    assert [name for name, each in papers.items() if each["role"] == "paper"] == list(reference.PAPERS)
    assert (
        {name for name, each in papers.items() if each["role"] == "baseline"} == {"caa", "iti", "lora"} <= set(METHODS)
    )
    keys = [re.match(r"@(?:article|inproceedings)\{(\w+),\n", each["bibtex"]) for each in papers.values()]
    assert all(keys) and len({key[1] for key in keys}) == len(papers)
    for each, shown in zip(papers.values(), cards.papers(papers)):
        entry = each["bibtex"]
        assert entry.count("{") == entry.count("}") and entry.rstrip().endswith("}")
        surnames = [name.split()[-1] for name in each["authors"].split(", ")]
        plain = entry.replace("{\\'e}", "é")
        assert all(surname in plain for surname in surnames) and re.search(r"year +=", entry)
        assert each["licence"] in shown.facts["Licence"] and each["arxiv"] in shown.facts["In"]
        assert shown.code == entry.strip()


def test_the_page_asks_for_people_and_shows_what_they_said():
    assert audit.sections([], []) == []
    (asked,) = audit.sections(["results/audit/m/caa/toxicity/pairs.csv"], [])
    assert "Nobody has judged" in asked.text and "``results/audit/m/caa/toxicity/pairs.csv``" in asked.text
    assert "audit.sheets" in asked.text and asked.table is None
    table = pd.DataFrame({"judge": ["ann"], "kappa": [np.nan]})
    (said,) = audit.sections(["pairs.csv"], [table])
    assert said.table is table and "Nobody" not in said.text
