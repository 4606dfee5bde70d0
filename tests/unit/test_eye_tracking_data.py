"""Corpora of eye movements: what is read, what is left out and counted, what is refused, and the synthetic sample."""

import json
import os
import re
from pathlib import Path

import pytest

from steerlab.data import sample_reading
from steerlab.data.doors import fetch
from steerlab.data.eye_tracking import COLUMNS, FEATURES, reading_json
from steerlab.data.records import BadRows
from steerlab.data.sources import SAMPLE, table
from steerlab.tasks import eye_tracking

SENTENCES = ["It was late.", "Nobody came .", "Two  words"]


def content(**changes):
    features = [[[f + s / 10 + w / 100 for w in range(len(text.split()))] for s, text in enumerate(SENTENCES)]
                for f in range(5)]  # fmt: skip
    return {"sents": SENTENCES, "eye_fs": features} | changes


def written(folder: Path, value: object) -> Path:
    path = folder / "corpus.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_each_word_has_its_own_five_values(tmp_path):
    frame = reading_json(written(tmp_path, content()))
    assert list(frame.columns) == COLUMNS
    assert frame["word"].tolist() == ["It", "was", "late.", "Nobody", "came", ".", "Two", "words"]
    assert frame["sentence"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2] and frame["place"].tolist() == [
        0,
        1,
        2,
        0,
        1,
        2,
        0,
        1,
    ]
    assert frame.loc[4, list(FEATURES)].tolist() == pytest.approx([0.11, 1.11, 2.11, 3.11, 4.11])


@pytest.mark.parametrize("feature", range(5))
def test_sentences_of_another_number_of_words_are_left_out_and_counted(tmp_path, feature):
    given = content()
    given["eye_fs"][feature][1] = [0.1, 0.2]
    frame = reading_json(written(tmp_path, given))
    assert set(frame["sentence"]) == {0, 2} and set(frame["left_out"]) == {1}


def test_values_beyond_1_and_below_0_are_read_as_they_are(tmp_path):
    given = content()
    given["eye_fs"][0][0] = [2.56, -0.01, 1]
    assert reading_json(written(tmp_path, given))["gd"].tolist()[:3] == [2.56, -0.01, 1.0]


def with_value(value):
    given = content()
    given["eye_fs"][1][2][1] = value
    return json.dumps(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{", "no JSON"),
        ("[]", "there is no list 'sents'"),
        ({"sents": SENTENCES}, "there is no list 'eye_fs'"),
        (content(eye_fs=content()["eye_fs"][:4]), "4 features, not the 5 of gd, trt, ffd, sfd, gpt"),
        (content(eye_fs=[*content()["eye_fs"][:4], [[0.1]]]), "gpt has no list for each of the 3 sentences"),
        (content(eye_fs=[*content()["eye_fs"][:4], [1, 2, 3]]), "gpt of sentence 0 is no list of values"),
        (content(sents=["It was late.", 3, "Two words"]), "sentence 1 is no string"),
        (with_value(float("nan")), "sentence 2, word 1: trt is nan, not a finite number"),
        (with_value(float("inf")), "sentence 2, word 1: trt is inf, not a finite number"),
        (with_value(None), "sentence 2, word 1: trt is None, not a finite number"),
        (with_value("0.3"), "sentence 2, word 1: trt is 0.3, not a finite number"),
        (with_value(True), "sentence 2, word 1: trt is True, not a finite number"),
        (content(sents=["a", "b", "c"]), "no sentence has one value a word in each feature"),
    ],
)
def test_what_is_no_corpus_is_told_in_one_line(tmp_path, given, said):
    path = written(tmp_path, given)
    with pytest.raises(BadRows, match=re.escape(said)) as error:
        reading_json(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


# ---- the task's table ----

DOORS = {"provo": "sample", "zuco_nr": "sample"}
RAW = dict.fromkeys(DOORS, SAMPLE)


def made(sentences=None, corpora=("provo", "zuco_nr"), doors=DOORS, raw=RAW):
    return eye_tracking.make_table(raw, doors, {"corpora": list(corpora), "sentences": sentences})


def test_the_table_has_the_corpora_in_order_and_says_that_they_are_synthetic():
    frame = made(corpora=("zuco_nr", "provo"))
    assert list(frame.columns) == eye_tracking.COLUMNS
    assert list(dict.fromkeys(frame["corpus"])) == ["zuco_nr", "provo"]
    assert set(frame["data"]) == {"synthetic sample"}


def test_a_larger_number_of_sentences_keeps_those_of_a_smaller_one():
    few, more = (made(n).groupby("corpus")["sentence"].unique() for n in (5, 9))
    for corpus in DOORS:
        assert len(few[corpus]) == 5 and len(more[corpus]) == 9 and set(few[corpus]) < set(more[corpus])


def test_sentences_keep_all_their_words_in_order():
    whole, some = made(), made(5)
    for (corpus, sentence), words in some.groupby(["corpus", "sentence"]):
        there = whole[(whole["corpus"] == corpus) & (whole["sentence"] == sentence)]
        assert words["word"].tolist() == there["word"].tolist() and words["place"].tolist() == [*range(len(words))]


def test_more_sentences_than_there_are_is_told_with_the_key():
    with pytest.raises(ValueError, match=r"99 sentences are asked for, provo has 36; lower eye_tracking.sentences"):
        made(99)


def test_a_sentence_that_stands_twice_is_two(tmp_path):
    given = content(sents=["It was late.", "It was late.", "Two words"])
    written(tmp_path, given).rename(tmp_path / "geco.json")
    frame = made(2, ["geco"], {"geco": "mirror"}, {"geco": tmp_path})
    assert frame["sentence"].nunique() == 2 and set(frame["data"]) == {"real"}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("corpus", "words", "sentences", "left_out"),
    [("provo", 2620, 133, 0), ("zuco_nr", 6492, 333, 16), ("zuco_tsr", 6681, 326, 64)],
)
def test_the_mirrors_corpora_have_these_counts(tmp_path, corpus, words, sentences, left_out):
    fetch(table()[corpus], "mirror", tmp_path, mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    frame = made(None, [corpus], {corpus: "mirror"}, {corpus: tmp_path})
    counted = len(frame), frame["sentence"].nunique(), frame["left_out"].iloc[0]
    assert counted == (words, sentences, left_out)
    assert frame[list(FEATURES)].max().max() > 1  # which the published values do


# ---- the sample ----


def test_the_sample_is_what_its_module_makes():
    for name, made_now in sample_reading.contents().items():
        assert (SAMPLE / name).read_text(encoding="utf-8") == made_now


@pytest.mark.parametrize("corpus", DOORS)
def test_longer_words_are_looked_at_longer_in_the_sample(tmp_path, corpus):
    fetch(table()[corpus], "sample", tmp_path, mirror=None, environ={})
    frame = made(None, [corpus], DOORS, {corpus: tmp_path})
    lengths = frame["word"].str.len()
    assert all(lengths.corr(frame[feature], method="spearman") > 0.3 for feature in FEATURES)


def test_a_corpus_that_only_a_mirror_can_have_says_so():
    from steerlab.data.sources import choose_doors

    _, faults = choose_doors({"door": "public", "mirror": None, "sources": {}}, ["geco"])
    assert len(faults) == 1 and "geco comes from a mirror, but data.mirror names no folder" in faults[0]
