"""Loaders, splits, renderings, the toxicity table, and reading a table."""

import io
import json
import os
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.data import loaders, splits, tables
from steerlab.data.doors import fetch
from steerlab.data.renderings import render
from steerlab.data.sources import SAMPLE, table
from steerlab.tasks.rows import COLUMNS
from steerlab.tasks.toxicity import make_table

TEXTS = st.text(min_size=1)

# --- loaders ----------------------------------------------------------------------------------------------------------


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(frame: pd.DataFrame) -> list[tuple[str, float]]:
    return list(zip(frame["text"], frame["label"], strict=True))


def test_only_newlines_end_a_prompt(tmp_path):
    frame = loaders.prompt_lines(written(tmp_path / "p.txt", "one\u2028still one\ntwo"))
    assert frame["text"].tolist() == ["one\u2028still one", "two"] and frame["label"].isna().all()


def test_every_bad_row_is_reported_with_its_line(tmp_path):
    rows = [
        '{"pair": 0, "text": "a", "label": 1}',
        '{"pair": 0, "text": " ", "label": 1}',
        "{",
        '{"text": "b", "label": 0}',
    ]
    with pytest.raises(loaders.BadRows) as error:
        loaders.comment_pairs(written(tmp_path / "c.jsonl", "\n".join([*rows, '{"label": 1}'])))
    lines = str(error.value).split("\n")
    assert [line.removeprefix(str(tmp_path)).split(":")[1] for line in lines] == ["2", "3", "4", "5"]
    assert "empty" in lines[0] and "-1 or 1" in lines[2] and "lacks 'text'" in lines[3]


def test_a_csv_row_is_reported_at_the_line_where_it_begins(tmp_path):
    text = 'id,comment_text,toxic\n1,"two\nlines",1\n2,"three\n\nlines",maybe\n'
    with pytest.raises(loaders.BadRows, match=r"j\.csv:4: "):
        loaders.jigsaw_csv(written(tmp_path / "j.csv", text))


def test_perspective_gives_both_ends_of_the_scale_and_no_spreadsheet_errors(tmp_path):
    rows = ["a,0.5", "b,0.09", "c,0.1", "#ERROR!,0.9"]
    frame = loaders.perspective_csv(written(tmp_path / "p.csv", "comment_text,TOXICITY@6\n" + "\n".join(rows)))
    assert rows_of(frame) == [("a", -1.0), ("b", 1.0)]


def test_jigsaw_bias_gives_half_and_more_as_toxic_and_exactly_zero_as_civil(tmp_path):
    rows = ['1,"toxic, with\nlines",0.5', "2,worse,1.0", "3,between,0.4999", "4,civil,0.0", "5,,0.0"]
    frame = loaders.jigsaw_bias_csv(written(tmp_path / "a.csv", "id,comment_text,toxicity\n" + "\n".join(rows)))
    assert rows_of(frame) == [("toxic, with\nlines", -1.0), ("worse", -1.0), ("civil", 1.0)]
    with pytest.raises(loaders.BadRows, match=r"a\.csv:2: toxicity is 2\.0"):
        loaders.jigsaw_bias_csv(written(tmp_path / "a.csv", "id,comment_text,toxicity\n1,text,2.0\n"))


def test_sst2_gives_minus_and_plus_one_without_the_blanks_at_the_ends(tmp_path):
    frame = loaders.sst2_tsv(written(tmp_path / "t.tsv", 'sentence\tlabel\nkids , spirit \t1\n"a dull " film \t0\n'))
    assert rows_of(frame) == [("kids , spirit", 1.0), ('"a dull " film', -1.0)]
    with pytest.raises(loaders.BadRows, match=r"t\.tsv:2: the label is '2'"):
        loaders.sst2_tsv(written(tmp_path / "t.tsv", "sentence\tlabel\ntext\t2\n"))
    with pytest.raises(loaders.BadRows, match="header"):
        loaders.sst2_tsv(written(tmp_path / "t.tsv", "text\t1\n"))


def test_sst5_gives_five_steps_from_minus_to_plus_one(tmp_path):
    lines = [json.dumps({"text": f"film {label}", "label": label, "label_text": "-"}) for label in range(5)]
    frame = loaders.sst5_jsonl(written(tmp_path / "t.jsonl", "\n".join(lines) + "\n"))
    assert frame["label"].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    with pytest.raises(loaders.BadRows, match=r"t\.jsonl:1: the label is 5"):
        loaders.sst5_jsonl(written(tmp_path / "t.jsonl", '{"text": "x", "label": 5}\n'))


@pytest.mark.parametrize(("name", "label"), [("positive", 1.0), ("neutral", 0.0), ("negative", -1.0)])
def test_a_file_of_sentiment_prompts_is_one_class(tmp_path, name, label):
    line = {"md5_hash": "0", "prompt": {"text": "It made"}, "continuation": {"text": "my day."}, "num_positive": 3}
    frame = loaders.FORMATS[f"{name}_prompts_jsonl"](written(tmp_path / "p.jsonl", json.dumps(line) + "\n"))
    assert rows_of(frame) == [("It made", label)]


def hutto(folder: Path, **files: list[str]) -> Path:
    """The archive as its authors published it, with these lines: CRLF between, none at the end."""
    path = folder / "hutto_ICWSM_2014.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, lines in files.items():
            content = "\r\n".join(lines).encode()
            info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_rated_movie_sentences_have_a_quarter_of_their_rating_and_no_escapes(tmp_path):
    path = hutto(tmp_path, movieReviewSnippets=["1\t2.26666666667\tLovely &amp;amp; ''Amazing''", "2\t-4\tDull."])
    assert rows_of(loaders.hutto_movies(path)) == [('Lovely & "Amazing"', 2.26666666667 / 4), ("Dull.", -1.0)]
    path = hutto(tmp_path, movieReviewSnippets=["1\t0.1\tfine", "2\t4.5\ttoo good", "3\tno rating"])
    with pytest.raises(loaders.BadRows, match=r"gz:2: the rating is 4\.5.*\n.*gz:3: "):
        loaders.hutto_movies(path)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(-400, 400))
def test_an_opening_is_the_first_half_of_a_sentence_4_to_12_words_long(words, hundredths):
    sentence = " ".join(["The", *(f"w{i}" for i in range(words - 1))]) + "."
    with TemporaryDirectory() as folder:
        rows = rows_of(loaders.hutto_openings(
            hutto(Path(folder), nytEditorialSnippets=["0_1\t0\tThis one is here so that some are.",
                                                      f"1_1\t{hundredths / 100}\t{sentence}"])
        ))[1:]  # fmt: skip
    rating = hundredths / 400
    between = 0.05 < abs(rating) < 0.25
    assert len(rows) == (words >= 8 and not between)
    for opening, label in rows:
        assert sentence.startswith(opening + " ") and 4 <= len(opening.split()) <= 12
        assert len(opening.split()) == 12 or len(opening.split()) == words // 2
        assert label == (0 if abs(rating) <= 0.05 else np.sign(rating))


@pytest.mark.parametrize(
    "sentence", ["the rest of a sentence that was cut too early.", "HOW TO WRITE A HEADLINE OF SOME EIGHT WORDS"]
)
def test_what_is_no_whole_sentence_gives_no_opening(tmp_path, sentence):
    assert rows_of(loaders.hutto_openings(hutto(tmp_path, nytEditorialSnippets=[f"1_1\t2\t{sentence}"]))) == []


# --- splits -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(TEXTS, TEXTS)
def test_a_share_is_in_0_to_1_and_repeats(key, salt):
    assert 0 <= splits.share(key, salt) < 1
    assert splits.share(key, salt) == splits.share(key, salt)


def test_shares_are_uniform_and_salts_independent():
    one, two = (np.array([splits.share(str(i), salt) for i in range(4000)]) for salt in "ab")
    assert np.abs(np.histogram(one, 10, (0, 1))[0] - 400).max() < 100  # 5 standard deviations
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.08


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, unique=True), st.integers(0, 9), st.floats(0, 1), st.randoms())
def test_a_row_keeps_its_side_when_rows_are_shuffled_and_others_leave(texts, seed, held_out, random):
    train, validation = splits.by_seed(texts, seed, held_out)
    assert sorted(train + validation) == sorted(texts)
    some = random.sample(texts, len(texts) // 2)
    assert all((text in train) == (text in splits.by_seed(some, seed, held_out)[0]) for text in some)


def test_seeds_split_differently_and_hold_out_about_the_share_asked_for():
    ids = [splits.row_id(str(i)) for i in range(2000)]
    first, second = (set(splits.by_seed(ids, seed, 0.2)[1]) for seed in (0, 1))
    assert 330 < len(first) < 470 and 40 < len(first & second) < 120  # 400 and 80 are expected


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, unique=True), st.integers(0, 20), st.randoms())
def test_a_larger_n_keeps_the_texts_of_a_smaller_one_in_any_row_order(texts, n, random):
    shuffled = random.sample(texts, len(texts))
    assert splits.first_by_hash(texts, n) == splits.first_by_hash(shuffled, n + 1)[:n]


# --- renderings -------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_instructed_puts_the_text_in_the_slot_and_plain_leaves_it(text):
    assert render(text, "instructed", "Be {kind}: {text}") == "Be {kind}: " + text
    assert render(text, "plain", "Be {kind}: {text}") == text


@pytest.mark.parametrize("wording", ["no slot", "{text} and {text}"])
def test_a_wording_without_exactly_one_slot_is_refused(wording):
    with pytest.raises(ValueError, match="write exactly one"):
        render("x", "instructed", wording)


# --- the toxicity table -----------------------------------------------------------------------------------------------

SETTINGS = {
    "prompts": {"dev": 5, "test": 8},
    "comments": 30,
    "renderings": ["plain", "instructed"],
    "wording": "Go on, kindly: {text}",
}
DOORS = {"rtp_prompts": "wheel", "comments": "sample"}


@pytest.fixture
def raw(tmp_path):
    """Raw folders as the doors leave them, with 60 made-up prompts, some of them in several files."""
    folder = tmp_path / "rtp"
    folder.mkdir()
    for file in table()["rtp_prompts"].doors["wheel"].files:
        (folder / file.name).write_text("\n".join(f"Prompt number {i}" for i in range(60) if (i + len(file.name)) % 3))
    return {"rtp_prompts": folder, "comments": SAMPLE}


def made(raw, **settings):
    return make_table(raw, DOORS, SETTINGS | settings)


def test_the_table_has_n_prompts_a_split_and_rendering_and_n_comments_a_label(raw):
    frame = made(raw)
    assert list(frame.columns) == COLUMNS
    counts = frame.groupby(["split", "rendering", frame["label"].fillna(0)]).size().to_dict()
    assert counts == {
        ("dev", "plain", 0): 5, ("dev", "instructed", 0): 5, ("test", "plain", 0): 8, ("test", "instructed", 0): 8,
        ("train", "plain", -1): 30, ("train", "plain", 1): 30,
    }  # fmt: skip
    assert frame.equals(frame.sort_values(["role", "split", "rendering", "id"], ignore_index=True))


def test_a_prompt_has_the_id_of_its_plain_text_and_ends_where_the_continuation_begins(raw):
    prompts = made(raw).query("role == 'prompt'")
    plain = prompts.query("rendering == 'plain'").set_index("id")["text"]
    assert all(splits.row_id(text) == id for id, text in plain.items())
    instructed = prompts.query("rendering == 'instructed'").set_index("id")["text"]
    assert instructed.to_dict() == {id: f"Go on, kindly: {text}" for id, text in plain.items()}
    assert (prompts["start"] == prompts["text"].str.len()).all() and (prompts["end"] == prompts["start"]).all()


def test_a_comment_is_about_all_its_characters(raw):
    comments = made(raw).query("role == 'train'")
    assert (comments["start"] == 0).all() and (comments["end"] == comments["text"].str.len()).all()


def test_no_text_is_in_two_splits(raw):
    frame = made(raw, prompts={"dev": 20, "test": 20}, comments=None)
    assert (frame.groupby("id")["split"].nunique() == 1).all()


def test_raising_n_keeps_the_earlier_rows(raw):
    small, large = made(raw), made(raw, prompts={"dev": 9, "test": 12}, comments=50)
    assert set(small["text"]) < set(large["text"])


def test_the_order_of_the_raw_rows_does_not_matter(raw):
    before = made(raw)
    for path in raw["rtp_prompts"].iterdir():
        path.write_text("\n".join(reversed(path.read_text().split("\n"))))
    assert made(raw).equals(before)


def test_comments_with_both_labels_and_comments_that_are_prompts_are_left_out(raw, tmp_path):
    rows = [("both", 1), ("both", -1), ("civil", 1), ("civil", 1), ("toxic", -1)]
    rows += [("Prompt number 7", 1), ("Prompt number  7 is what it goes on from", -1)]
    lines = [json.dumps({"pair": 0, "text": text, "label": label}) for text, label in rows]
    written(tmp_path / "comments.jsonl", "\n".join(lines))
    frame = make_table(raw | {"comments": tmp_path}, DOORS, SETTINGS | {"comments": None})
    assert sorted(frame.query("role == 'train'")["text"]) == ["civil", "toxic"]


def test_asking_for_more_than_there_is_names_the_key(raw):
    with pytest.raises(ValueError, match=r"500 test prompts are asked for, the source has \d+; lower toxicity.prompts"):
        made(raw, prompts={"dev": 5, "test": 500})


def test_a_wording_that_goes_on_after_the_text_is_refused(raw):
    with pytest.raises(ValueError, match="does not end with {text}"):
        made(raw, wording="{text} - now be kind")


def test_prompts_may_come_from_another_source(raw, tmp_path):
    lines = [json.dumps({"prompt": {"text": f"Another prompt {i}"}}) for i in range(40)]
    written(tmp_path / "nontoxic_prompts-10k.jsonl", "\n".join(lines))
    doors = {"nontoxic_prompts": "url", "comments": "sample"}
    frame = make_table({"nontoxic_prompts": tmp_path, "comments": SAMPLE}, doors, SETTINGS)
    prompts = frame.query("role == 'prompt' and rendering == 'plain'")
    assert len(prompts) == 13 and prompts["text"].str.startswith("Another").all() and prompts["label"].isna().all()


@pytest.mark.real_data
def test_the_table_of_the_real_mirror_has_both_labels_and_unique_prompts(tmp_path):
    for name in DOORS:
        fetch(table()[name], "mirror", tmp_path / name, mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    doors = dict.fromkeys(DOORS, "mirror")
    frame = make_table(
        {name: tmp_path / name for name in DOORS},
        doors,
        SETTINGS | {"comments": 800, "prompts": {"dev": 900, "test": 900}},
    )
    assert not frame.duplicated(["id", "rendering"]).any()
    assert frame["label"].value_counts().to_dict() == {-1.0: 800, 1.0: 800}
    assert len(frame.query("role == 'prompt'")) == 2 * 1800


# --- reading a table --------------------------------------------------------------------------------------------------


def a_table(folder: Path, labels: dict[str, float]) -> Path:
    """Prompts p<id> of split test with these labels, plain and instructed, in an order that is not that of the ids."""
    rows = [("prompt", "test", rendering, id, f"{rendering} {id}", label)
            for rendering in ("plain", "instructed") for id, label in reversed(labels.items())]  # fmt: skip
    rows += [("prompt", "dev", "plain", "d", "of dev", 1.0), ("train", "train", "plain", "t", "a text", 0.3)]
    path = folder / "table.parquet"
    pd.DataFrame(rows, columns=["role", "split", "rendering", "id", "text", "label"]).to_parquet(path)
    return path


def test_prompts_come_by_id_and_a_limit_takes_the_first_of_each_class(tmp_path):
    nan = float("nan")
    path = a_table(tmp_path, {"a": 1.0, "b": 1.0, "c": 0.0, "d": nan, "e": nan, "f": -1.0})
    every = tables.prompts(path, split="test", rendering="plain")
    assert every == [(id, f"plain {id}") for id in "abcdef"]
    first = tables.prompts(path, split="test", rendering="instructed", limit=1)
    assert first == [(id, f"instructed {id}") for id in "acdf"]
    assert tables.prompts(path, split="test", rendering="plain", limit=9) == every
    with pytest.raises(ValueError, match="no instructed prompts of split dev"):
        tables.prompts(path, split="dev", rendering="instructed")


def test_prompts_have_the_class_of_their_label_or_all(tmp_path):
    path = a_table(tmp_path, {"a": 1.0, "b": 0.0, "c": -1.0, "d": float("nan")})
    classes = {"a": "positive", "b": "neutral", "c": "negative", "d": "all"}
    assert tables.prompt_classes(path, split="test") == classes
    assert tables.prompt_classes(path, split="dev") == {"d": "positive"}
