"""The truthfulness table: questions that are asked, answers to choose from, answers to learn from."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.data import loaders, questions, splits
from steerlab.data.doors import fetch
from steerlab.data.sources import SAMPLE, table
from steerlab.tasks import rows
from steerlab.tasks.truthfulness import make_table

SETTINGS = {
    "prompts": {"dev": 3, "test": 10},
    "questions": 12,
    "split": "seeded",
    "shares": {"train": 0.4, "dev": 0.1},
    "split_seed": 0,
    "training": "question",
    "preamble": "none",
    "renderings": ["plain", "instructed"],
    "wording": "Be truthful.\n\n{text}",
}
ALL = {"prompts": {"dev": None, "test": None}, "questions": None}
SAMPLE_DOOR = {"truthfulqa": "sample"}


def a_question(number: int) -> dict:
    correct = [f"Right {number}.", f"Also right {number}."]
    return {"question": f"What is {number}?", "best": correct[0], "correct": correct, "incorrect": [f"Wrong {number}."]}


def put(folder: Path, asked: list[dict]) -> dict[str, Path]:
    folder.mkdir(exist_ok=True, parents=True)
    lines = [json.dumps(question) for question in asked]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"truthfulqa": folder}


@pytest.fixture
def raw(tmp_path):
    """The raw folder of 100 questions with two correct answers and one incorrect answer each."""
    return put(tmp_path / "raw", [a_question(number) for number in range(100)])


def made(raw, doors=SAMPLE_DOOR, **changed) -> pd.DataFrame:
    return make_table(raw, doors, SETTINGS | changed)


# --- the rows ---------------------------------------------------------------------------------------------------------


def test_the_table_has_n_questions_a_split_in_each_rendering_and_all_their_answers(raw):
    frame = made(raw)
    assert list(frame.columns) == rows.COLUMNS
    counts = frame.groupby(["role", "split", "rendering"]).size().to_dict()
    assert counts == {
        ("prompt", "dev", "plain"): 3, ("prompt", "dev", "instructed"): 3, ("prompt", "test", "plain"): 10,
        ("prompt", "test", "instructed"): 10, ("answer", "dev", "plain"): 9, ("answer", "test", "plain"): 30,
        ("train", "train", "plain"): 36, ("train", "dev", "plain"): 9, ("train", "test", "plain"): 30,
    }  # fmt: skip
    assert frame.equals(frame.sort_values(["role", "split", "rendering", "id"], ignore_index=True))
    assert not frame.duplicated(["role", "rendering", "id"]).any()


def test_only_the_splits_that_are_named_are_asked(raw):
    frame = made(raw, prompts={"test": 4})
    assert set(frame["split"]) == {"train", "test"}
    assert len(frame.query("role == 'prompt' and rendering == 'plain'")) == 4


def test_a_prompt_has_the_questions_id_and_ends_where_the_answer_begins(raw):
    prompts = made(raw).query("role == 'prompt'")
    assert (prompts["id"] == prompts["group"]).all()
    assert prompts["label"].isna().all() and prompts["mc1"].isna().all()
    assert (prompts["start"] == prompts["text"].str.len()).all() and (prompts["end"] == prompts["start"]).all()
    for row in prompts.itertuples():
        plain = row.text.removeprefix("Be truthful.\n\n")
        assert (plain != row.text) == (row.rendering == "instructed")
        assert row.id == splits.row_id(plain.removeprefix("Q: ").removesuffix("\nA:"))


def test_a_training_row_is_about_its_answer_after_its_question(raw):
    frame = made(raw).query("role == 'train'")
    assert frame["mc1"].isna().all() and set(frame["label"]) == {-1.0, 1.0}
    for row in frame.itertuples():
        asked, answer = row.text[: row.start], row.text[row.start : row.end]
        assert asked.startswith("Q: What is ") and asked.endswith("?\nA: ") and row.end == len(row.text)
        question = asked.removeprefix("Q: ").removesuffix("\nA: ")
        assert row.group == splits.row_id(question) and row.id == splits.row_id(f"{question}\0{answer}")
        assert (row.label == 1) == ("right" in answer.lower())


def test_an_answer_row_is_the_answer_alone_with_its_part_in_mc1_and_mc2(raw):
    frame = made(raw).query("role == 'answer'")
    assert (frame["start"] == 0).all() and (frame["end"] == frame["text"].str.len()).all()
    for row in frame.itertuples():
        assert row.label == (-1 if row.text.startswith("Wrong") else 1)
        if row.text.startswith("Also"):
            assert row.mc1 != row.mc1
        else:
            assert row.mc1 == row.label
    asked = made(raw).query("role == 'prompt'")
    assert set(frame["group"]) == set(asked["group"])


def test_an_answer_of_mc1_alone_is_not_learnt_from(tmp_path):
    targets = {"mc1_targets": {"Yes.": 1, "Never.": 0}, "mc2_targets": {"Yes.": 1, "No.": 0}}
    (tmp_path / "multiple_choice.json").write_text(json.dumps([{"question": "Is it?"} | targets]))
    shares = {"train": 0.0, "dev": 0.0}
    frame = made({"truthfulqa": tmp_path}, {"truthfulqa": "mirror"}, shares=shares, **ALL)
    answers = frame.query("role == 'answer'").set_index("text")
    assert pd.isna(answers["label"]["Never."]) and answers["mc1"]["Never."] == -1 and pd.isna(answers["mc1"]["No."])
    assert {text.rsplit(" ")[-1] for text in frame.query("role == 'train'")["text"]} == {"Yes.", "No."}


# --- choices ----------------------------------------------------------------------------------------------------------


def test_choices_are_a_chat_whose_answer_is_a_line_of_the_users_list(raw):
    frame = made(raw, training="choices").query("role == 'train'")
    assert set(frame["rendering"]) == {"chat"}
    for row in frame.itertuples():
        turn, line = row.text[: row.start], row.text[row.start : row.end]
        lines = turn.split("\n")
        assert lines[0].startswith("Question: What is ") and lines[1] == "Choices:" and lines[-2:] == ["Answer:", ""]
        assert [shown[:3] for shown in lines[2:5]] == ["A. ", "B. ", "C. "] and line in lines[2:5]
        question = lines[0].removeprefix("Question: ")
        assert row.id == splits.row_id(f"{question}\0{line[3:]}") and (row.label == -1) == ("Wrong" in line)


def test_the_letter_tells_nothing_of_the_answer_and_all_rows_of_a_question_show_one_list(raw):
    frame = made(raw, training="choices", **ALL).query("role == 'train'")
    assert (frame.groupby("group")["start"].nunique() == 1).all()
    letters = [text[start] for text, start in zip(frame["text"], frame["start"])]
    wrong = pd.Series(letters)[frame["label"].to_numpy() == -1].value_counts()
    assert set(wrong.index) == {"A", "B", "C"} and wrong.min() > 18  # of 100; 33 expected, 3 standard deviations


def test_more_choices_than_letters_are_refused(tmp_path):
    asked = a_question(0) | {"incorrect": [f"Wrong {place}." for place in range(25)]}
    raw = put(tmp_path, [asked])
    assert len(made(raw, shares={"train": 1.0, "dev": 0.0}, prompts={}, questions=1)) == 27
    with pytest.raises(ValueError, match="'What is 0\\?' has 27 choices, and there are 26 letters"):
        made(raw, shares={"train": 1.0, "dev": 0.0}, prompts={}, questions=1, training="choices")


# --- the splits -------------------------------------------------------------------------------------------------------


def sides(frame: pd.DataFrame) -> dict[str, str]:
    return dict(zip(frame["group"], frame["split"]))


def test_a_question_is_in_one_split_with_all_its_rows(raw):
    frame = made(raw, **ALL)
    assert (frame.groupby("group")["split"].nunique() == 1).all() and frame["group"].nunique() == 100
    shares = pd.Series(sides(frame)).value_counts()
    assert 25 <= shares["train"] <= 55 and 2 <= shares["dev"] <= 20


def test_seeds_split_differently(raw):
    first, second = (sides(made(raw, split_seed=seed, **ALL)) for seed in (0, 1))
    assert first != second


@settings(max_examples=15, deadline=None)
@given(st.randoms(), st.integers(5, 40))
def test_a_question_keeps_its_split_when_rows_are_shuffled_and_others_leave(tmp_path_factory, random, n):
    folder = tmp_path_factory.mktemp("some")
    asked = [a_question(number) for number in range(40)]
    whole = sides(made(put(folder / "all", asked), **ALL))
    some = sides(made(put(folder / "some", random.sample(asked, n)), **ALL))
    assert some == {id: whole[id] for id in some} and len(some) == n


def test_raising_n_keeps_the_earlier_rows_and_the_order_of_the_raw_rows_does_not_matter(raw, tmp_path):
    small, large = made(raw), made(raw, prompts={"dev": 4, "test": 30}, questions=25)
    assert set(small["id"]) < set(large["id"])
    again = put(tmp_path / "again", [a_question(number) for number in reversed(range(100))])
    assert made(again).equals(small)


@pytest.mark.parametrize("shares", [{"train": 0.8, "dev": 0.3}, {"train": -0.1, "dev": 0.3}])
def test_shares_that_are_none_are_refused(raw, shares):
    with pytest.raises(ValueError, match="are no shares; give two that sum to 1 at most"):
        made(raw, shares=shares)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"prompts": {"test": 500}},
            r"500 test questions are asked for, the source has \d+; lower truthfulness.prompts",
        ),
        ({"questions": 500}, r"500 train questions are asked for, the source has \d+; lower truthfulness.questions"),
        ({"wording": "{text} - be true"}, "does not end with {text}"),
        ({"preamble": "mine"}, "no 'mine'; choose harness or none"),
        ({"training": "pairs"}, "no form 'pairs'; choose question or choices"),
        ({"split": "published"}, "needs the source hpr_split"),
    ],
)
def test_what_cannot_be_made_is_said_with_its_key(raw, changed, said):
    with pytest.raises(ValueError, match=said):
        made(raw, **changed)


def test_the_published_split_of_other_questions_is_refused(raw, tmp_path):
    (tmp_path / "ids_splits.json").write_text(json.dumps({"train": [0], "eval": [1], "test": [2]}))
    with pytest.raises(ValueError, match="it counts other questions, or another order, than these 100"):
        made(raw | {"hpr_split": tmp_path}, SAMPLE_DOOR | {"hpr_split": "url"}, split="published")


# --- other sources ----------------------------------------------------------------------------------------------------


def test_the_questions_may_come_from_bbq_and_one_that_two_files_have_is_taken_once(tmp_path):
    fields = {"context": "Two came.", "ans0": "One", "ans1": "The other", "ans2": "Unknown", "label": 2}
    for file in table()["bbq"].doors["url"].files:
        asked = [
            fields | {"question": f"Who is in {file.name}?"},
            fields | {"question": "Who left?", "ans1": file.name},
        ]
        (tmp_path / file.name).write_text("\n".join(json.dumps(question) for question in asked), encoding="utf-8")
    frame = made({"bbq": tmp_path}, {"bbq": "url"}, **ALL)
    assert frame["group"].nunique() == 12
    twice = frame[frame["group"] == splits.row_id("Two came.\n\nWho left?")]
    assert twice.groupby(["role", "rendering"]).size().max() == 3
    assert "Age.jsonl" in " ".join(twice["text"]) and "SES.jsonl" not in " ".join(twice["text"])


def test_the_sample_is_enough_for_a_table(tmp_path):
    frame = made({"truthfulqa": SAMPLE}, **ALL)
    assert frame["group"].nunique() == 160 and frame.query("role == 'train'").shape[0] == 647


# --- two halves, and questions that are asked alone -------------------------------------------------------------------

HALVES = ALL | {"split": "halves", "halves": "hash", "validation": 0.2}


def splits_of(frame: pd.DataFrame) -> dict[str, set[str]]:
    return {str(split): set(rows["group"]) for split, rows in frame.groupby("split")}


@pytest.mark.parametrize("cut", ["hash", "order"])
def test_the_halves_are_each_tested_once_and_the_other_one_is_learnt_from_and_chosen_by(raw, cut):
    one, other = (splits_of(made(raw, **HALVES | {"halves": cut, "swapped": swapped})) for swapped in (False, True))
    for fold in (one, other):
        assert len(fold["test"]) == 50 and 4 <= len(fold["dev"]) <= 18  # about 10 of 50
        assert not fold["test"] & (fold["train"] | fold["dev"]) and not fold["train"] & fold["dev"]
    assert one["test"] == other["train"] | other["dev"] and other["test"] == one["train"] | one["dev"]


def test_halves_by_order_are_those_of_the_source_and_halves_by_hash_are_not(raw):
    first = {splits.row_id(f"What is {number}?") for number in range(50)}
    by_order = splits_of(made(raw, **HALVES | {"halves": "order", "swapped": True}))
    assert by_order["test"] == first
    by_hash = [splits_of(made(raw, **HALVES | {"split_seed": seed}))["test"] for seed in (0, 0, 1)]
    assert by_hash[0] == by_hash[1] != by_hash[2] and first not in by_hash


def test_questions_that_are_asked_alone_need_no_more_settings_and_make_no_rows_to_learn_from(raw):
    given = {key: SETTINGS[key] for key in ("preamble", "renderings", "wording")}
    frame = make_table(raw, SAMPLE_DOOR, given | {"prompts": {"test": 30}, "split": "test_only"})
    assert set(frame["split"]) == {"test"} and set(frame["role"]) == {"prompt", "answer"}
    assert frame["group"].nunique() == 30


# --- the real files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path) -> dict[str, Path]:
    for name in ("truthfulqa", "hpr_split"):
        fetch(table()[name], "mirror", tmp_path / name, mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    return {name: tmp_path / name for name in ("truthfulqa", "hpr_split")}


REAL_DOORS = {"truthfulqa": "mirror", "hpr_split": "mirror"}


@pytest.mark.real_data
def test_the_real_table_has_hprs_split_and_all_its_answers(real):
    frame = make_table(real, REAL_DOORS, SETTINGS | ALL | {"split": "published", "training": "choices"})
    groups = frame.groupby("split")["group"].nunique().to_dict()
    assert groups == {"train": 367, "dev": 41, "test": 409}
    learnt = frame.query("role == 'train' and split == 'train'")
    assert len(learnt) == 2632  # counted in the mirror's JSON by HPR's places, and so are the pairs
    by_label = learnt.groupby(["group", "label"]).size().unstack()
    assert (by_label[1.0] * by_label[-1.0]).sum() == 4911
    asked = frame.query("role == 'answer' and split == 'test'")
    assert (asked.groupby("group")["mc1"].apply(lambda values: (values == 1).sum()) == 1).all()


@pytest.mark.real_data
def test_the_real_prompts_are_those_of_the_harness(real):
    utils = pytest.importorskip("lm_eval.utils", reason="lm_eval is not installed")
    template = yaml.safe_load((Path(utils.__file__).parent / "tasks/truthfulqa/truthfulqa_mc1.yaml").read_text())[
        "doc_to_text"
    ]
    frame = make_table(real, REAL_DOORS, SETTINGS | ALL | {"split": "published", "preamble": "harness"})
    prompts = frame.query("role == 'prompt' and rendering == 'plain'").set_index("id")["text"]
    hub = loaders.read("truthfulqa", "mirror", real["truthfulqa"])
    asked = {splits.row_id(question): question for question in hub["question"]}
    assert len(prompts) == 450
    assert prompts.to_dict() == {id: utils.apply_template(template, {"question": asked[id]}) for id in prompts.index}
    assert questions.questions_digest(dict.fromkeys(hub["question"])) == questions.HUB_ORDER
