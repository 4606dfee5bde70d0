"""Training on labels that have changed places: a control that sees the same texts and is to learn nothing."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from scripts import shuffle_labels
from steerlab import experiment
from steerlab.data import shuffled as labels
from steerlab.experiment import names
from tests.unit.test_config import default

VARIANT = "shuffled_lm_steer"


def table(groups: list[str] | None = None) -> pd.DataFrame:
    """40 labelled texts of two splits, each a group of its own unless groups are named, and a prompt."""
    ids = [f"id{number:02d}" for number in range(40)]
    texts = pd.DataFrame({"id": ids, "group": groups or ids, "role": "train", "text": ids})
    texts = texts.assign(split=["train"] * 30 + ["dev"] * 10, label=[1.0, -1.0] * 20)
    prompt = pd.DataFrame([{"id": "p", "group": "p", "role": "prompt", "text": "p", "split": "test", "label": 1.0}])
    return pd.concat([texts, prompt], ignore_index=True)


def test_labels_move_and_everything_else_stays():
    given = table()
    found = labels.with_shuffled_labels(given)
    pd.testing.assert_frame_equal(found.drop(columns="label"), given.drop(columns="label"))
    moved = (found.label != given.label).sum()
    assert 10 < moved < 30, "of 40 texts of two labels half may keep theirs"
    assert found.groupby(["role", "split"]).label.sum().equals(given.groupby(["role", "split"]).label.sum())


def test_the_order_of_the_rows_changes_no_label_where_labels_are_alike():
    given = table()
    again = labels.with_shuffled_labels(given)
    assert again.equals(labels.with_shuffled_labels(given))


def test_answers_change_labels_with_answers_of_their_own_question():
    questions = [f"q{number // 4}" for number in range(40)]
    given = table(questions)
    found = labels.with_shuffled_labels(given)
    assert found.groupby(["group", "split"]).label.sum().equals(given.groupby(["group", "split"]).label.sum())
    assert not found.label.equals(given.label)


def test_the_script_writes_such_a_table(tmp_path: Path):
    there, out = tmp_path / "task.parquet", tmp_path / "shuffled.parquet"
    table().to_parquet(there, index=False)
    shuffle_labels.run(table=there, shuffled=out)
    assert pd.read_parquet(out).equals(labels.with_shuffled_labels(pd.read_parquet(there)))


@pytest.fixture(scope="module")
def x() -> experiment.Experiment:
    return experiment.load(default())


def test_such_a_variant_is_trained_by_itself_on_shuffled_labels_and_the_same_states(x: experiment.Experiment):
    own, plain = (
        SimpleNamespace(model="smollm2-135m-instruct", method=method, task="toxicity", seed="0")
        for method in (VARIANT, "lm_steer")
    )
    assert x.training_table(own) == names.SHUFFLED_TABLE.format(task="toxicity")
    assert x.training_table(plain) == names.TABLE.format(task="toxicity")
    assert x.training_input(own) == x.training_input(plain)
    steer = x.steer_input(SimpleNamespace(**vars(own), split="test"))
    assert steer == [names.STEER.format(model=own.model, method=VARIANT, task="toxicity", seed=0)]


def test_it_stands_in_the_comparison_as_a_control_at_the_pick_of_its_method(x: experiment.Experiment):
    at = SimpleNamespace(model="smollm2-135m-instruct", task="toxicity")
    spec = json.loads(x.spec("compare_methods", vars(at).items()))
    assert VARIANT in spec["controls"] and "lm_steer" not in spec["controls"]
    assert spec["cells"][VARIANT]["strength"] == "pick" and spec["cells"][VARIANT]["seeds"] == [0]
    choice = x.compared(at)[f"choice_of_{VARIANT}"]
    assert choice == [names.CHOICE.format(model=at.model, method="lm_steer", task="toxicity")]


def test_the_key_is_true_or_left_out():
    variants = default()["variants"] | {"odd": {"of": "lm_steer", "shuffled_labels": False}}
    with pytest.raises(experiment.ConfigError, match="shuffled_labels"):
        experiment.load(default() | {"variants": variants})
