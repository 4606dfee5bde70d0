"""The table of latent reading: what is trained on, what is held out and how, what is left out, what is refused."""

import json
import logging
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab import experiment
from steerlab.data import sources
from steerlab.data.doors import fetch
from steerlab.data.sources import File, table
from steerlab.experiment import ConfigError
from steerlab.tasks import latent_reading
from tests.unit.test_eye_tracking_plan import DEFAULT

SECTION = "latent_reading"
SHARES = {"dev_labels": 0.1, "test_labels": 0.2, "dev_texts": 0.1, "test_texts": 0.2}
ALL = dict.fromkeys(latent_reading.SPLITS)
SYSTEM = {"corpora": ["latentqa"], "kinds": ["system"], "questions": None, "crossed": 0, "shares": SHARES, "rows": ALL}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    fetch(table()["latentqa"], "sample", folder, mirror=None, environ={})
    return folder


def made(folder: Path, door: str = "sample", **changes) -> pd.DataFrame:
    return latent_reading.make_table({"latentqa": folder}, {"latentqa": door}, SYSTEM | changes)


def texts(frame: pd.DataFrame) -> pd.Series:
    """The user's last words of each row."""
    return frame.turns.map(lambda turns: [turn["content"] for turn in json.loads(turns) if turn["role"] == "user"][-1])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that makes the table of a corpus that the test writes: {file: content}."""

    def table_of(files: dict[str, object], **changes) -> pd.DataFrame:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        given = tuple(File(f"{name}.json", None, None, f"latentqa_{name}", f"{name}.json") for name in files)
        source = sources.Source("latentqa", "none", "none", {"mirror": sources.Door("mirror", given)})
        monkeypatch.setattr(latent_reading, "table", lambda: {"latentqa": source})
        return made(tmp_path, "mirror", **changes)

    return table_of


KINDS = ["control", "stimulus", "stimulus_completion", "system"]


@pytest.mark.parametrize("kinds", [["system"], ["stimulus"], ["control"], KINDS])
def test_no_unseen_label_and_no_held_out_text_is_trained_on(sample, kinds):
    frame = made(sample, kinds=kinds)
    train, judging = frame[frame.split == "train"], frame[frame.split != "train"]
    assert list(frame.columns) == latent_reading.COLUMNS and set(frame.kind) == set(kinds)
    seen, unseen = judging[judging.label_is_seen], judging[~judging.label_is_seen]
    assert train.label_is_seen.all() and set(seen.label) <= set(train.label)
    assert not set(unseen.label) & set(train.label)
    assert not set(texts(seen)) & set(texts(train))
    assert not set(unseen[unseen.split == "dev"].label) & set(unseen[unseen.split == "test"].label)


def test_the_sample_has_four_labels_to_choose_by_and_eight_to_report(sample):
    frame = made(sample)
    labels = frame[~frame.label_is_seen].groupby("split").label.nunique()
    assert labels.to_dict() == {"dev": 4, "test": 8} and frame[frame.split == "train"].label.nunique() == 28
    counted = frame.groupby(["split", "label_is_seen"]).size().to_dict()
    assert counted == {
        ("dev", False): 160, ("dev", True): 136, ("test", False): 320, ("test", True): 174, ("train", True): 810,
    }  # fmt: skip
    assert set(frame.data) == {"synthetic sample"} and set(frame.hidden) == {1} and not frame.crossed.any()


def test_a_label_and_a_text_are_on_the_same_side_whatever_the_kinds(sample):
    both, alone = made(sample, kinds=KINDS), made(sample)
    for frame in (both, alone):
        assert (frame.assign(text=texts(frame)).groupby(["label", "text"]).split.nunique() == 1).all()
    sides = both.set_index("id").split
    assert (sides.loc[alone.id].to_numpy() == alone.split.to_numpy()).all()


def test_ids_are_of_the_content_and_name_each_row_once(sample):
    frame = made(sample, kinds=KINDS)
    assert frame.id.is_unique and (frame.groupby("item").turns.nunique() == 1).all()
    assert (frame.groupby("item").size() == 2).all()  # each label has two questions
    assert frame.equals(frame.sort_values(["split", "id"], ignore_index=True))


def test_the_first_question_alone_is_answered_in_one_word(sample):
    frame = made(sample, questions=1)
    assert frame.question.nunique() == 1 and (frame.groupby("item").size() == 1).all()
    assert (frame.answer == frame.label.str.rpartition("-")[2]).all()


def test_the_order_of_the_files_rows_changes_nothing(sample, tmp_path):
    for file in sample.glob("*.json"):
        content = json.loads(file.read_text())
        back = content[::-1] if isinstance(content, list) else dict(reversed(content.items()))
        (tmp_path / file.name).write_text(json.dumps(back))
    pd.testing.assert_frame_equal(made(sample, crossed=2), made(tmp_path, crossed=2))


@settings(max_examples=6, deadline=None)
@given(train=st.integers(60, 300), dev=st.integers(1, 30), test=st.integers(1, 30))
def test_limits_take_so_many_of_each_group_and_hold_nothing_trained_on(sample, train, dev, test):
    frame = made(sample, rows={"train": train, "dev": dev, "test": test}, questions=1)
    trained = frame[frame.split == "train"]
    assert len(trained) == train
    for split, n in (("dev", dev), ("test", test)):
        unseen = frame[(frame.split == split) & ~frame.label_is_seen]
        assert len(unseen) == n and not set(unseen.label) & set(trained.label)
    assert set(frame[frame.label_is_seen].label) == set(trained.label)


def rows_of(frame: pd.DataFrame, split: str) -> set[str]:
    return set(frame[frame.split == split].id)


def test_a_larger_limit_keeps_the_rows_of_a_smaller_one(sample):
    few, more = (made(sample, rows={"train": n, "dev": None, "test": 9}) for n in (300, 400))
    assert rows_of(few, "train") < rows_of(more, "train") and len(rows_of(more, "test")) == 18


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"train": 9999}, "9999 train rows are asked for, there are 810; lower latent_reading.rows.train"),
        ({"dev": 150}, "150 dev rows of seen labels are asked for, there are 136; lower latent_reading.rows.dev"),
        ({"test": 321}, "321 test rows of .*seen labels are asked for, there are .*; lower latent_reading.rows.test"),
    ],
)
def test_more_rows_than_there_are_is_told_with_the_key(sample, rows, said):
    with pytest.raises(ValueError, match=said):
        made(sample, rows=ALL | rows)


def test_further_stimuli_than_there_are_and_no_train_rows_are_told_with_their_keys(sample):
    with pytest.raises(ValueError, match="99 stimuli of other items .* has 39; lower latent_reading.crossed"):
        made(sample, crossed=99)
    with pytest.raises(ValueError, match="no row falls to train; lower latent_reading.shares"):
        made(sample, shares=SHARES | {"test_labels": 0.9})


# ---- a corpus with one item a label, as the published one ----

LETTERS = [f"{letter}{n}" for letter in "abcdefgh" for n in range(5)]
QA = {label: [["How?", f"So {label}."], ["Why?", f"For {label}."]] for label in LETTERS}
ONE_EACH = [{"system": f"Be {label}.", "stimulus_user": f"Say {label}?", "label": label} for label in LETTERS]


def test_with_one_item_a_label_only_crossed_stimuli_are_new_texts_of_seen_labels(own):
    alone, crossed = (own({"system": ONE_EACH, "qa": QA}, crossed=n) for n in (0, 3))
    assert not alone[alone.split != "train"].label_is_seen.any()
    assert set(alone.item) & set(crossed.item) and set(alone.data) == {"real"}
    seen = crossed[(crossed.split != "train") & crossed.label_is_seen]
    assert len(seen) and set(crossed[crossed.crossed].kind) == {"system"}
    for label, turns, is_crossed in zip(crossed.label, crossed.turns, crossed.crossed):
        control, stimulus = (turn["content"] for turn in json.loads(turns))
        assert control == f"Be {label}." and (stimulus == f"Say {label}?") != is_crossed
    assert (crossed.drop_duplicates("item").groupby("label").size() <= 4).all()


def test_items_without_questions_and_turns_of_two_labels_are_left_out_and_counted(own, caplog):
    twins = [{"system": "Be it.", "stimulus_user": "Hm?", "label": label} for label in LETTERS[:2]]
    files = {
        "system": [*ONE_EACH, ONE_EACH[3], *twins, ONE_EACH[0] | {"label": "unasked"}],
        "qa": QA | {"none": QA["a0"]},
    }
    with caplog.at_level(logging.INFO):
        frame = own(files, shares=SHARES | {"dev_texts": 0, "test_texts": 0})
    assert "left out: 1 of labels without questions, 2 whose turns have several labels" in caplog.text
    assert "1 labels with questions have no item" in caplog.text
    assert set(frame.label) == set(LETTERS) and frame.item.nunique() == 40


def test_a_kind_that_the_corpus_lacks_is_told(own):
    with pytest.raises(
        ValueError, match=r"latentqa \(mirror\) has no items of kind stimulus; leave it out of latent_r"
    ):
        own({"system": ONE_EACH, "qa": QA}, kinds=["system", "stimulus"])


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("kinds", "crossed", "counts"),
    [
        (["system"], 0, {("dev", False): 126, ("test", False): 212, ("train", True): 560}),
        (
            ["control", "stimulus", "system"],
            2,
            {
                ("dev", False): 862,
                ("dev", True): 436,
                ("test", False): 1484,
                ("test", True): 1048,
                ("train", True): 3750,
            },
        ),
    ],
)
def test_the_mirrors_table_has_these_counts(tmp_path, kinds, crossed, counts):
    fetch(table()["latentqa"], "mirror", tmp_path, mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    frame = made(tmp_path, "mirror", kinds=kinds, crossed=crossed)
    assert frame.groupby(["split", "label_is_seen"]).size().to_dict() == counts
    seen = frame[(frame.split != "train") & frame.label_is_seen]
    assert not set(texts(seen)) & set(texts(frame[frame.split == "train"])) and set(frame.data) == {"real"}


# ---- the plan ----


def loaded(**changes) -> experiment.Experiment:
    return experiment.load(DEFAULT | {"latent_reading": DEFAULT["latent_reading"] | changes})


def test_the_table_is_planned_from_the_sample_with_all_that_its_rows_depend_on():
    x = loaded(crossed=1)
    assert "latent_reading" in x.tasks
    assert x.task_sources("latent_reading") == {"latentqa": "results/data/raw/latentqa/sample"}
    spec = json.loads(x.spec("make_task_table", [("task", "latent_reading")]))
    assert spec["module"] == "steerlab.tasks.latent_reading" and spec["doors"] == {"latentqa": "sample"}
    asked = {"questions": 1, "rows": {"train": None, "dev": 20, "test": 40}}  # by config.yaml
    assert spec["settings"] == SYSTEM | asked | {"crossed": 1}
    none = DEFAULT["run"] | {"methods": ["base", "lm_steer"], "variants": []}  # no control through a reader
    corpora = DEFAULT["latent_reading"] | {"corpora": []}
    assert "latent_reading" not in experiment.load(DEFAULT | {"run": none, "latent_reading": corpora}).tasks


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpora": ["latentq"]}, f"{SECTION}.corpora: no corpus of {SECTION} 'latentq'; did you mean 'latentqa'?"),
        ({"corpora": ["provo"]}, f"{SECTION}.corpora: no corpus of {SECTION} 'provo'"),
        ({"corpora": ["latentqa_generated"]}, "latentqa_generated comes from a mirror, but data.mirror names no"),
        ({"shares": {"dev_labels": 0.5, "test_labels": 0.5}}, "dev_labels and test_labels leave nothing to train on"),
        ({"shares": {"test_texts": 0.95}}, "dev_texts and test_texts leave nothing to train on"),
    ],
)  # fmt: skip
def test_what_is_no_corpus_or_leaves_nothing_is_told(changes, said):
    with pytest.raises(ConfigError) as error:
        loaded(**changes)
    assert said in str(error.value)
