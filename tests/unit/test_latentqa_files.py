"""LatentQA's files: what is read, what is refused in one line each, the synthetic sample, and the mirror's traps."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from steerlab.data import loaders, sample_latentqa
from steerlab.data.latentqa_files import ITEM_COLUMNS, KINDS, QA_COLUMNS, items, questions, read_control
from steerlab.data.records import BadRows
from steerlab.data.sample_latentqa import ATTRIBUTES, STIMULI
from steerlab.data.sources import SAMPLE, table

WORDS = [word for words in ATTRIBUTES.values() for word in words]
ROWS = {
    "control": {"control_user": "Be glad.", "label": "glad"},
    "stimulus": {
        "control_user": "Be glad.",
        "control_thought": "Hm.",
        "control_model": "I am.",
        "stimulus_user": "Rain?",
        "label": "glad",
    },
    "stimulus_completion": {
        "control_user": "Be glad.",
        "control_thought": "Hm.",
        "control_model": "I am.",
        "stimulus_user": "Rain?",
        "stimulus_thought": "Oh.",
        "stimulus_model": "Lovely!",
        "label": "glad",
    },
    "system": {"system": "Be glad.", "stimulus_user": "Rain?", "label": "glad"},
}


def written(folder: Path, value: object) -> Path:
    path = folder / "file.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def said(turns: str) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in json.loads(turns)]


@pytest.mark.parametrize(
    ("kind", "turns"),
    [
        ("control", [("user", "Be glad.")]),
        ("stimulus", [("user", "Be glad."), ("assistant", "I am."), ("user", "Rain?")]),
        (
            "stimulus_completion",
            [("user", "Be glad."), ("assistant", "I am."), ("user", "Rain?"), ("assistant", "Lovely!")],
        ),
        ("system", [("system", "Be glad."), ("user", "Rain?")]),
    ],
)
def test_an_item_is_its_turns_without_the_thoughts_and_the_first_is_hidden(tmp_path, kind, turns):
    frame = items(written(tmp_path, [ROWS[kind]]), kind)
    assert list(frame.columns) == ITEM_COLUMNS
    assert said(frame.loc[0, "turns"]) == turns
    assert frame.loc[0, ["kind", "label", "hidden"]].tolist() == [kind, "glad", 1]


def test_texts_stay_as_published_in_whatever_letters(tmp_path):
    text = "  é — 特征 \U0001f31f\n\n\u200bend "
    frame = items(written(tmp_path, [ROWS["control"] | {"control_user": text}]), "control")
    assert said(frame.loc[0, "turns"]) == [("user", text)] and text.strip().split()[0] in frame.loc[0, "turns"]


def test_items_without_thoughts_are_read_and_further_keys_are_left(tmp_path):
    row = {key: value for key, value in ROWS["stimulus"].items() if "thought" not in key} | {"seed": 3}
    assert len(items(written(tmp_path, [row]), "stimulus")) == 1


def test_all_bad_items_are_told_together_with_their_places(tmp_path):
    good = ROWS["system"]
    rows = [good, good | {"system": " "}, {"system": "a", "label": "b"}, good | {"label": 3}, "text", good]
    rows += [good | {"label": "glad "}, good | {"stimulus_user": "\ud83c"}]
    path = written(tmp_path, rows)
    with pytest.raises(BadRows) as error:
        items(path, "system")
    lines = str(error.value).splitlines()
    assert [line.removeprefix(f"{path}:").partition(":")[0] for line in lines] == ["2", "3", "4", "5", "7", "8"]
    assert "system: the text is empty" in lines[0] and "lacks 'stimulus_user'" in lines[1]
    assert "label: the text is 3, not a string" in lines[2] and "not an object with the keys of system" in lines[3]
    assert "'glad ' has blanks at an end" in lines[4] and "is half a character" in lines[5]


@pytest.mark.parametrize("given", ["{", '{"a": []}', "\udcff"])
def test_what_is_no_list_of_items_is_told_in_one_line(tmp_path, given):
    path = tmp_path / "file.json"
    path.write_bytes(given.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadRows) as error:
        items(path, "control")
    assert str(error.value).startswith(f"{path}:1: ") and "\n" not in str(error.value)


def test_questions_keep_the_files_order_and_their_places(tmp_path):
    frame = questions(written(tmp_path, {"b": [["q1", "a1"], ["q2", "a2"]], "a": [["q1", "a3"]]}))
    assert list(frame.columns) == QA_COLUMNS
    assert frame.values.tolist() == [["b", 0, "q1", "a1"], ["b", 1, "q2", "a2"], ["a", 0, "q1", "a3"]]


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        ('{"a": [["q", "x"]], "b": [["q", "y"]], "a": [["q", "z"]]}', ["1: 'a' stands 2 times; keep one of them"]),
        ({"a": [], "b": [["q", "y"]]}, ["1: 'a' has no list of questions and answers"]),
        (
            {"a": [["q", ""]], "b": [["q"]], "c": [["q", "y"]], "d": "no", " e": [["q", "y"]]},
            ["1: an answer of 'a': the text is empty", "2: 'b' has ['q'] in place of [question, answer]",
             "4: 'd' has no list of questions and answers", "5: the label ' e' has blanks at an end"],
        ),
        ("[1]", ["1: holds no object of label and pairs"]),
    ],
)  # fmt: skip
def test_all_bad_questions_are_told_together(tmp_path, given, faults):
    path = written(tmp_path, given)
    with pytest.raises(BadRows) as error:
        questions(path)
    lines = str(error.value).splitlines()
    assert len(lines) == len(faults)
    assert all(line.startswith(f"{path}:{fault}") for line, fault in zip(lines, faults))


def test_a_control_is_one_wish_with_its_pairs(tmp_path):
    pairs = [["How?", "Gladly."], ["Why?", "So."]]
    assert read_control(written(tmp_path, {"Be glad.": pairs})) == ("Be glad.", [tuple(pair) for pair in pairs])
    with pytest.raises(BadRows, match="holds 2 wishes, not one; give each a file of its own"):
        read_control(written(tmp_path, {"Be glad.": pairs, "Be sad.": pairs}))
    with pytest.raises(BadRows, match="holds 0 wishes"):
        read_control(written(tmp_path, {}))
    with pytest.raises(FileNotFoundError):
        read_control(tmp_path / "none.json")


# ---- the samples ----


def test_the_sample_is_what_its_module_makes():
    for name, made_now in sample_latentqa.contents().items():
        assert (SAMPLE / name).read_text(encoding="utf-8") == made_now


def of_sample(kind: str):
    return items(SAMPLE / f"synthetic_latentqa_{kind}.json", kind)


@pytest.mark.parametrize(
    ("kind", "n"), [("control", 320), ("stimulus", 320), ("stimulus_completion", 80), ("system", 800)]
)
def test_each_label_of_the_sample_has_as_many_items_all_different(kind, n):
    frame = of_sample(kind)
    assert len(frame) == n and set(frame.label.value_counts()) == {n // 40}
    assert not frame.duplicated(["turns"]).any() and frame.label.str.startswith("synthetic-").all()


def test_each_label_of_the_sample_has_one_question_for_all_that_its_word_answers():
    frame = questions(SAMPLE / "synthetic_latentqa_qa.json")
    first = frame[frame.place == 0]
    assert len(first) == 40 and first.question.nunique() == 1
    assert sorted(first.answer) == sorted(WORDS) and first.answer.str.fullmatch("[a-z]+").all()
    assert all(label.endswith(f"-{word}") for label, word in zip(first.label, first.answer))
    assert set(frame.groupby("label").size()) == {2}
    assert all(word in said for word, said in zip(first.answer, frame[frame.place == 1].answer))


def test_only_the_control_of_the_sample_says_the_word():
    for kind in KINDS:
        frame = of_sample(kind)
        for label, turns in zip(frame.label, frame.turns):
            word, (control, *others) = label.rpartition("-")[2], [text for _, text in said(turns)]
            assert re.search(rf"\b{word}\b", control)
            assert not any(re.search(word, text, re.IGNORECASE) for text in others)
    assert not any(re.search(rf"\b{word}", text, re.IGNORECASE) for word in WORDS for text in STIMULI)


def test_the_samples_controls_have_eight_different_pairs_each():
    wishes = {}
    for file in table()["latentqa_controls"].doors["sample"].files:
        wish, pairs = read_control(SAMPLE / file.remote)
        wishes[wish] = pairs
        assert len(set(pairs)) == len(pairs) == 8
    frame = loaders.read("latentqa_controls", "sample", SAMPLE)
    assert len(wishes) == 5 and list(dict.fromkeys(frame.wish)) == list(wishes) and len(frame) == 40


# ---- the mirror ----


def of_mirror() -> Path:
    return Path(os.environ["STEERLAB_MIRROR"]) / "latentqa"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "kind", "n"),
    [
        ("eval/control", "control", 500),
        ("eval/stimulus", "stimulus", 567),
        ("eval/system", "system", 567),
        ("train/system", "system", 7844),
    ],
)
def test_the_mirrors_items_are_one_a_label(file, kind, n):
    frame = items(of_mirror() / f"{file}.json", kind)
    assert len(frame) == frame.label.nunique() == frame.turns.nunique() == n
    assert set(frame.turns.map(lambda turns: len(json.loads(turns)))) == {len(KINDS[kind])}


@pytest.mark.real_data
def test_the_mirrors_questions_go_with_its_evaluation_alone():
    qa = questions(of_mirror() / "eval/qa.json")
    assert len(qa) == 1952 and Counter(qa.groupby("label").size()) == {2: 976}
    parts = (("eval/control", "control"), ("eval/stimulus", "stimulus"), ("eval/system", "system"))
    of_eval = set().union(*(items(of_mirror() / f"{file}.json", kind).label for file, kind in parts))
    assert of_eval <= set(qa.label) and len(set(qa.label) - of_eval) == 165  # labels without an item
    assert not set(items(of_mirror() / "train/system.json", "system").label) & set(qa.label)


@pytest.mark.real_data
def test_the_mirrors_controls_have_fifteen_pairs_each():
    found = [read_control(path) for path in sorted((of_mirror() / "controls").glob("*.json"))]
    assert [len(pairs) for _, pairs in found] == [15, 15, 15] and len({wish for wish, _ in found}) == 3
