"""The sentiment table: rated texts to learn from, prompts of three classes to go on from."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.data import splits
from steerlab.data.doors import fetch
from steerlab.data.sources import table
from steerlab.tasks import rows
from steerlab.tasks.sentiment import make_table

SETTINGS = {
    "prompts": {"test": 5},
    "texts": 40,
    "renderings": ["plain", "instructed"],
    "wording": "Go on, gladly: {text}",
}
DOORS = {"sentiment_prompts": "mirror", "sentiment_texts": "hub"}
CLASSES = ("negative", "neutral", "positive")


@pytest.fixture
def raw(tmp_path):
    """Raw folders as the doors leave them: 40 prompts a class, and 60 texts of five steps of sentiment."""
    folders = {name: tmp_path / name for name in DOORS}
    for folder in folders.values():
        folder.mkdir()
    for name in CLASSES:
        write_prompts(folders, name, [f"This {name} prompt has number {i}" for i in range(40)])
    write_texts(folders, [(f"Text {i} of a film review", i % 5) for i in range(60)])
    return folders


def write_prompts(raw: dict[str, Path], name: str, texts: list[str]) -> None:
    lines = [json.dumps({"prompt": {"text": text}}) for text in texts]
    (raw["sentiment_prompts"] / f"{name}_prompts.jsonl").write_text("\n".join(lines) + "\n")


def write_texts(raw: dict[str, Path], texts: list[tuple[str, int]]) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in texts]
    (raw["sentiment_texts"] / "train.jsonl").write_text("\n".join(lines) + "\n")


def made(raw, **changed) -> pd.DataFrame:
    return make_table(raw, DOORS, SETTINGS | changed)


def test_the_table_has_n_prompts_a_class_and_rendering_and_n_texts_in_all(raw):
    frame = made(raw)
    assert list(frame.columns) == rows.COLUMNS
    counts = frame.query("role == 'prompt'").groupby(["split", "rendering", "label"]).size().to_dict()
    assert counts == {("test", kind, label): 5 for kind in SETTINGS["renderings"] for label in (-1.0, 0.0, 1.0)}
    texts = frame.query("role == 'train'")
    assert len(texts) == 40 and set(texts["rendering"]) == {"plain"} and set(texts["split"]) == {"train"}
    assert set(texts["label"]) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert frame.equals(frame.sort_values(["role", "split", "rendering", "id"], ignore_index=True))


def test_a_prompt_keeps_its_class_its_id_and_its_split(raw):
    frame = made(raw, prompts={"dev": 4, "test": 4}).query("role == 'prompt'")
    names = {-1.0: "negative", 0.0: "neutral", 1.0: "positive"}
    for row in frame.itertuples():
        plain = row.text.removeprefix("Go on, gladly: ")
        assert plain.startswith(f"This {names[row.label]} prompt") and row.id == splits.row_id(plain)
        assert row.split == splits.dev_or_test(plain) and row.start == row.end == len(row.text)
        assert (row.text != plain) == (row.rendering == "instructed")


def test_raising_n_keeps_the_earlier_rows_and_no_text_is_in_two_splits(raw):
    small, large = made(raw), made(raw, prompts={"dev": 8, "test": 9}, texts=None)
    assert set(small["text"]) < set(large["text"])
    assert (large.groupby("id")["split"].nunique() == 1).all()


def test_prompts_of_two_classes_and_texts_of_two_ratings_are_left_out(raw):
    write_prompts(raw, "positive", ["Both of these are here", "A glad one is here"])
    write_prompts(raw, "negative", ["Both of these are here", "A sad one is here", "A sad one is here"])
    write_texts(
        raw, [("rated in two ways", 0), ("rated in two ways", 1), ("rated twice alike", 3), ("rated twice alike", 3)]
    )
    frame = made(raw, prompts={"dev": None, "test": None}, texts=None)
    assert set(frame.query("label == 1")["text"]) == {"A glad one is here", "Go on, gladly: A glad one is here"}
    assert "Both of these are here" not in set(frame["text"])
    assert frame.query("role == 'train'")["text"].tolist() == ["rated twice alike"]


def test_no_sentence_is_trained_on_that_a_prompt_opens(raw):
    write_prompts(raw, "neutral", ["The film that was", "Alone"])
    goes_on = ["The film that was shown here", "The film  that was", "Alone", "Alone at home today"]
    is_free = ["The film that", "The film that wasn't shown"]
    write_texts(raw, [(text, 2) for text in goes_on + is_free])
    kept = made(raw, prompts={}, texts=None)["text"]
    assert sorted(kept) == is_free


def test_texts_have_3_to_48_words(raw):
    write_texts(raw, [(" ".join(["word"] * n), 2) for n in range(1, 60)])
    assert sorted(len(text.split()) for text in made(raw, prompts={}, texts=None)["text"]) == list(range(3, 49))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": {"test": 400}}, r"400 test \w+ prompts are asked for, .*; lower sentiment\.prompts"),
        ({"texts": 61}, r"61 texts are asked for, the source has 60; lower sentiment\.texts"),
        ({"wording": "{text} - go on"}, "sentiment: wording .* does not end with {text}"),
    ],
)
def test_what_cannot_be_had_names_its_key(raw, changed, said):
    with pytest.raises(ValueError, match=said):
        made(raw, **changed)


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(WORDS, st.floats(-1, 1), max_size=8), st.lists(WORDS, max_size=4))
def test_texts_free_of_prompts_are_those_that_no_prompt_opens(texts, prompts):
    kept = rows.without_prompts(texts, prompts)
    assert kept == {
        text: label
        for text, label in texts.items()
        if not any((text + " ").startswith(prompt + " ") for prompt in prompts)
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([-1.0, 1.0, float("nan")])), max_size=12))
def test_unambiguous_texts_are_those_with_one_label_only(pairs):
    frame = pd.DataFrame(pairs, columns=["text", "label"]).astype({"text": "str", "label": "float64"})
    seen: dict[str, set[str]] = {}
    for text, label in pairs:
        seen.setdefault(text, set()).add(str(label))
    assert set(rows.unambiguous(frame, "texts")) == {text for text, labels in seen.items() if len(labels) == 1}


@pytest.mark.real_data
def test_the_table_of_the_real_mirror_has_all_classes(tmp_path):
    raw = {name: tmp_path / name for name in DOORS}
    for name, folder in raw.items():
        fetch(table()[name], "mirror", folder, mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    frame = make_table(
        raw, dict.fromkeys(DOORS, "mirror"), SETTINGS | {"prompts": {"dev": 1000, "test": 1000}, "texts": 6000}
    )
    assert frame["split"].value_counts().to_dict() == {"dev": 6000, "test": 6000, "train": 6000}
    assert set(frame.query("role == 'train'")["label"]) == {-1.0, 1.0}
