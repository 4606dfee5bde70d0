"""Latent reading as part of the experiment: readers by rule, what they are asked, what is told of it, the command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scripts import read_attributes, train_reader
from steerlab import experiment, latent_reads, models
from steerlab.analyses import latent_reading as analysis
from steerlab.experiment import names
from steerlab.figures import captions, latent_reading, reader_training, style
from steerlab.methods.latentqa import Decoder, captured
from steerlab.methods.steer_files import data_digest
from steerlab.metrics import latent_reading as metrics
from steerlab.models import ModelError, ModelHandle
from tests.unit.latentqa_subjects import SETTINGS, TEMPLATE, reader_model
from tests.workflow.project import ROOT

MODEL = "smollm2-135m-instruct"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
METHODS = [method for method in DEFAULT["run"]["methods"] if not method.endswith("latentqa")]
WITHOUT = DEFAULT | {"run": DEFAULT["run"] | {"methods": METHODS}}  # a control of the model through a reader
WORDS = ("red", "blue", "green")
COMPUTE = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "threads": 1, "versions": {}, "capture_code": "c"}
CAPTURED = {"activations": {"batch_rows": 4, "shard_rows": 3}, "seed": 0}
GIVEN = {key: value for key, value in SETTINGS.items() if key != "seed"} | {"official_code": False}


def table() -> pd.DataFrame:
    """Dialogs of three words: dev and test have texts of their own, and one word that train lacks."""
    rows = []
    texts = {"train": ("Hm.", "Well.", "Go on."), "dev": ("And?", "So?"), "test": ("Now?", "Yes?")}
    for split, said in texts.items():
        for word in WORDS if split == "train" else (*WORDS, "black", "white"):
            for text in said:
                turns = [{"role": "system", "content": f"Be {word}."}, {"role": "user", "content": text}]
                seen = {"label": word, "split": split, "label_is_seen": word in WORDS, "hidden": 1, "data": "sample"}
                asked = [("Hue?", word), ("Why?", f"It is {word}.")]
                for question, answer in asked[: 1 if split == "train" else 2]:
                    key = f"{split} {word} {text}"
                    about = {"id": f"{key} {question}", "item": key, "turns": json.dumps(turns)}
                    rows.append(about | seen | {"question": question, "answer": answer})
    return pd.DataFrame(rows).sort_values(["split", "id"], ignore_index=True)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table, a reader of the setting masked, and what it said."""
    folder, model = tmp_path_factory.mktemp("ran"), reader_model("llama")
    table().to_parquet(folder / "table.parquet")
    at = {"model": model.folder, "table": folder / "table.parquet", "store": folder / "store"}
    spec = COMPUTE | CAPTURED | {"setting": "masked", "labels": None}
    how = {"settings": {"checkpoint_every": 2, "tracker": None}, "work": folder / "work"}
    train_reader.run(**at, reader=folder / "reader", spec=spec | {"hyperparameters": GIVEN}, **how)
    of_rows = spec | {"batch_rows": 4, "max_new_tokens": 2}
    read_attributes.run(**at, reader=folder / "reader", rows=folder / "rows.csv", spec=of_rows)
    return folder


@pytest.fixture(scope="module")
def said(ran: Path) -> pd.DataFrame:
    return pd.read_csv(ran / "rows.csv")


# ---- rules' scripts and the analysis ----


def test_a_reader_has_its_training_as_a_csv_and_its_checkpoints_in_the_store(ran: Path):
    training = pd.read_csv(ran / "reader" / "training.csv")
    assert list(training.step) == [1, 2, 3, 4] and training.loss.notna().all()
    assert training.held_out_loss.notna().iloc[-1]  # of dev rows
    assert list((ran / "work").rglob("*.safetensors"))
    assert Decoder.load(ran / "reader").record.config["updates"] == 4


def test_a_reader_is_fitted_on_no_test_row_and_judged_by_dev_rows(ran: Path):
    fitted, test = latent_reads.of_setting(table(), "masked")
    record = Decoder.load(ran / "reader").record
    assert record.data == data_digest(fitted) and set(fitted["split"]) == {"dev", "train"} and len(test) == 20


def test_visible_hides_no_turn_and_masked_those_of_the_table():
    for setting, hidden in (("visible", {0}), ("masked", {1})):
        assert {*pd.concat(latent_reads.of_setting(table(), setting)).hidden} == hidden


def test_states_are_captured_once_for_the_training_and_the_judging(ran: Path):
    kept = {path.name for path in (ran / "store" / "activations").rglob("*.safetensors")}
    (context,) = {path.parent for path in (ran / "store" / "activations").rglob("*.safetensors")}
    # 10 dev and 9 train reads in shards of 3, and 10 test reads
    assert len(kept) == 7 + 4 and context.parent == ran / "store" / "activations"


def test_every_dev_and_test_row_stands_under_each_condition(said: pd.DataFrame):
    about = {"model": "tiny-llama-7", "rank": 2, "label_share": 1.0, "trained_labels": 3, "trained_rows": 9}
    assert list(said.columns) == ["setting", *analysis.COLUMNS, *about]
    assert {name: set(said[name]) for name in about} == {name: {value} for name, value in about.items()}
    judged = table()[lambda rows: rows["split"] != "train"]
    for condition in ("true", "shuffled", "none"):
        rows = said[said.condition == condition]
        assert set(rows.id) == set(judged.id) and rows.loss.gt(0).all() and rows.tokens.gt(0).all()


def test_losses_are_the_readers_own_of_the_rows_own_states(ran: Path, said: pd.DataFrame):
    model, decoder = reader_model("llama"), Decoder.load(ran / "reader")
    for condition, how in (("true", {}), ("none", {"patch": False})):
        for split, data in table().groupby("split"):
            wanted = decoder.losses(model, data, batch_rows=4, **how).set_index("id").loss
            rows = said[(said.condition == condition) & (said["split"] == split)].set_index("id").loss
            assert_allclose(rows, wanted[rows.index], rtol=1e-4)


def test_one_word_answers_alone_are_read_out(said: pd.DataFrame):
    true = said[said.condition == "true"]
    assert (true.right.notna() == true.id.str.endswith("Hue?")).all()
    assert set(true.right.dropna()) <= {0.0, 1.0}


def test_the_probe_is_asked_for_seen_labels_once_an_item(said: pd.DataFrame):
    probe = said[said.condition == "probe"]
    assert probe.label_is_seen.all() and not probe["item"].duplicated().any() and len(probe) == 12
    assert set(probe.answer) <= set(WORDS)
    assert_allclose(probe.chance, 1 / 3)
    assert (probe.right == (probe.answer == probe.label)).all()


def test_where_labels_cannot_be_shuffled_that_condition_is_left_out(ran: Path, tmp_path: Path):
    data, model = table(), reader_model("llama")
    alone = data[(data["split"] == "train") | ((data["split"] == "test") & (data.label == "red"))]
    states = {"folder": tmp_path, "batch_rows": 4, "shard_rows": 8, "read_layer": 1}
    parts = [(part, captured(model, part, **states)) for part in latent_reads.of_setting(alone, "masked")]
    how = {"seed": 0, "batch_rows": 4, "max_new_tokens": 1}
    found = analysis.attributes(Decoder.load(ran / "reader"), model, *parts, **how)
    assert set(found.condition) == {"true", "none", "probe"} and set(found["split"]) == {"test"}


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.integers(0, 5))
def test_a_derangement_gives_each_row_once_and_none_its_own_label(labels: list[str], seed: int):
    found = analysis.deranged(labels, seed)
    most = max(labels.count(label) for label in set(labels))
    assert (found is None) == (2 * most > len(labels))
    if found is not None:
        assert sorted(found) == list(range(len(labels)))
        assert all(labels[other] != label for other, label in zip(found, labels, strict=True))
        assert found == analysis.deranged(labels, seed)


# ---- what is told ----


def rows(*, settings=("visible", "masked"), seeds=(0, 1, 2), labels=8, n=3, gap=2.0) -> pd.DataFrame:
    """Rows of readers whose loss is 1 with own states, and higher without by the gap and by the label's own share."""
    found = []
    for setting in settings:
        for seed in seeds:
            for split in ("dev", "test"):
                for place in range(labels):
                    for row in range(n):
                        seen, key = place % 2 == 0, f"{split} {place} {row}"
                        about = (setting, seed, key, key, f"label {place}", split, seen, "synthetic sample")
                        more = 0 if setting == "masked" else gap + 0.1 * place
                        found.append((*about, "true", 1.0 + 0.01 * seed, 2.0, "red", float(row == 0), np.nan))
                        found.append((*about, "shuffled", 1.0 + more, 2.0, "", np.nan, np.nan))
                        found.append((*about, "none", 0.5 + more, 2.0, "", np.nan, np.nan))
                        if seen:
                            found.append((*about, "probe", np.nan, np.nan, "x", float(row < 2), 0.25))
    return pd.DataFrame(found, columns=["setting", *analysis.COLUMNS])


def number(table: pd.DataFrame, quantity: str, setting="visible", seen=True, seed="all") -> pd.Series:
    part = metrics.PARTS[seen]
    keys = (table.setting == setting) & (table.part == part) & (table.quantity == quantity) & (table.seed == seed)
    return table[keys & (table["split"] == "test")].iloc[0]


def test_differences_are_paired_by_row_and_pooled_over_seeds():
    found = metrics.table(rows(), resamples=50)
    # labels 0, 2, 4, 6: 2.0, 2.2, 2.4, 2.6 more; seeds 0, 1, 2: 0, 0.01, 0.02 more
    assert_allclose(number(found, "true_minus_shuffled").value, -(2.3 - 0.01))
    assert_allclose(number(found, "true_minus_shuffled", seed="2").value, -(2.3 - 0.02))
    assert_allclose(number(found, "true_minus_none").value, -(1.8 - 0.01))
    assert_allclose(number(found, "exact").value, 1 / 3)


def test_intervals_draw_labels_with_all_their_rows():
    few, many = (number(metrics.table(rows(n=n), resamples=400), "true_minus_shuffled") for n in (1, 9))
    assert (few.labels, few.rows, many.rows) == (4, 4, 36)
    assert_allclose([few.low, few.high], [many.low, many.high])  # more rows of the same labels tell nothing new
    assert -2.6 <= few.low < few.value < few.high <= -2.0


def test_the_probe_counts_once_beside_the_readers_of_all_seeds():
    found = metrics.table(rows(), resamples=50)
    probe = found[(found.quantity == "probe") & (found["split"] == "test")]
    assert set(probe.seed) == {"all"} and set(probe.rows) == {12} and set(probe.chance) == {0.25}
    assert_allclose(probe.value, 2 / 3)


TABLES = {
    "both": latent_reading.table(rows(), model="tiny", resamples=50),
    "one": latent_reading.table(rows(settings=("visible",), seeds=(0,)), model="tiny", resamples=50),
}


def training() -> pd.DataFrame:
    steps = [(s, seed, i, 3.0 / i, 1e-3, 2.0 / i if i % 2 == 0 else np.nan) for s in ("visible", "masked")
             for seed in (0, 1) for i in range(1, 7)]  # fmt: skip
    return pd.DataFrame(steps, columns=["setting", "seed", "step", "loss", "learning_rate", "held_out_loss"])


@pytest.mark.parametrize("name", TABLES)
def test_the_same_table_gives_the_same_bytes_and_words_also_from_its_csv(name: str, tmp_path: Path):
    shown = TABLES[name]
    shown.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    drawn = []
    for place, given_table in enumerate((shown, read)):
        style.save(latent_reading.plot(given_table), tmp_path / f"{place}.svg")
        drawn.append((tmp_path / f"{place}.svg").read_bytes())
    assert drawn[0] == drawn[1] and latent_reading.facts(shown) == latent_reading.facts(read)


def caption(module, shown: pd.DataFrame, sample_data: str) -> str:
    template = (ROOT / "captions" / f"{module.FIGURE}.rst").read_text()
    return " ".join(captions.caption(template, {"sample_data": sample_data} | module.facts(shown)).split())


def test_the_caption_tells_settings_numbers_and_synthetic_data():
    text = caption(latent_reading, TABLES["both"], "a synthetic sample")
    assert "is no latent reading" in text and "the paper's setting" in text and "rests on a synthetic sample" in text
    assert "3 seeds" in text and "12 rows of 4 labels" in text and "chance is 0.25" in text and "-2.29" in text
    one = caption(latent_reading, TABLES["one"], "")
    assert "the paper's setting" not in one and "sample" not in one and "nan" not in one


def test_points_stand_at_the_values_of_the_table():
    shown = TABLES["both"]
    pooled, panels = shown[shown.seed == "all"], latent_reading.plot(shown).axes
    each = [(setting, quantities) for setting in latent_reading.SETTINGS for quantities in latent_reading.PANELS]
    for panel, (setting, quantities) in zip(panels, each, strict=True):
        drawn = [x for line in panel.lines if line.get_markersize() == style.POOLED_SIZE for x in line.get_xdata()]
        assert_allclose(
            sorted(drawn), sorted(pooled[(pooled.setting == setting) & pooled.quantity.isin(quantities)].value)
        )
    assert set(shown["split"]) == {"test"}


def test_the_figure_of_the_training_draws_each_update_and_tells_the_lowest_loss_on_dev_rows():
    shown = reader_training.table(training(), model="tiny")
    panels = reader_training.plot(shown).axes
    assert [panel.get_title(loc="left") for panel in panels] == list(latent_reading.SETTINGS.values())
    assert_allclose(panels[0].lines[0].get_ydata(), [3.0 / i for i in range(1, 7)])
    assert "Control masked 0.333 after 6 updates" in caption(reader_training, shown, "")
    with pytest.raises(ValueError, match="an update stands twice"):
        reader_training.table(pd.concat([training(), training()]))


def test_a_figure_without_test_rows_is_refused():
    with pytest.raises(ValueError, match="there are no test rows"):
        latent_reading.table(rows()[lambda given_rows: given_rows["split"] == "dev"])


# ---- the experiment ----


def loaded(**sections) -> experiment.Experiment:
    return experiment.load(WITHOUT | sections)


def test_each_model_setting_and_seed_has_a_reader_and_its_rows():
    x = loaded(latentqa={"settings": ["visible", "masked"], "seeds": [0, 3]})
    assert x.readers == [
        names.READER.format(model=MODEL, setting=setting, seed=seed)
        for setting in ("visible", "masked")
        for seed in (0, 3)
    ]
    assert x.figures("latentqa") == [
        f"results/figures/{MODEL}/{name}.svg" for name in ("latent_reading", "reader_training", "replication_latentqa")
    ]
    assert "LatentQA: 4 readers" in x.summary


def test_without_a_corpus_no_reader_is_trained():
    x = loaded(latent_reading={"corpora": []})
    assert x.readers == [] and x.figures("latentqa") == [] and "latentqa" not in x.doors and "LatentQA" not in x.summary


def test_the_captions_are_told_of_the_synthetic_sample():
    for figure in ("latent_reading", "reader_training"):
        spec = json.loads(loaded().spec("plot_figure", [("model", MODEL), ("figure", figure)]))
        assert spec["sample_data"] == "a synthetic sample"


def test_both_rules_open_the_same_states():
    at = [("model", MODEL), ("setting", "masked"), ("seed", "0")]
    train, judge = (json.loads(loaded().spec(rule, at)) for rule in ("train_reader", "read_attributes"))
    shared = {"activations", "capture_code", "threads", "versions", "dtype", "device", "attention", "setting", "seed"}
    assert {key: train[key] for key in shared} == {key: judge[key] for key in shared}


# ---- a model without a chat template ----


def test_a_model_gets_the_chat_template_of_its_entry(tmp_path: Path):
    definition = {"kind": "random", "family": "llama", "layers": 1, "seed": 0}
    turns = [{"role": "user", "content": "Hi."}]
    models.prepare(definition, tmp_path / "without", name="without")
    with pytest.raises(ModelError, match="give its entry under models a chat_template"):
        latent_reads.read(ModelHandle(tmp_path / "without").info.tokenizer, turns)
    models.prepare(definition | {"chat_template": TEMPLATE}, tmp_path / "with", name="with")
    assert latent_reads.read(ModelHandle(tmp_path / "with").info.tokenizer, turns).selected
    copied = {"kind": "folder", "path": str(tmp_path / "with"), "chat_template": TEMPLATE.replace("[", "<")}
    models.prepare(copied, tmp_path / "other", name="other")
    assert "<user" in ModelHandle(tmp_path / "other").info.tokenizer.apply_chat_template(turns, tokenize=False)


# ---- the command line ----


def read_out(folder: Path, *more: str, model: Path | None = None) -> subprocess.CompletedProcess[str]:
    where = ["--model", str(model or reader_model("llama").folder), "--reader", str(folder / "reader")]
    command = [sys.executable, "-m", "steerlab", "read", *where, "--user", "Hello?", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


def test_a_reader_is_asked_from_the_command_line(ran: Path):
    printed = read_out(ran, "--system", "Be red.", "--ask", "Hue?", "--ask", "Why?", "--max-new-tokens", "2")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith("Hue?\n  ") and "\nWhy?\n  " in printed.stdout


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "read: there is no question; give --ask"),
        (["--ask", "Hue?", "--hide", "2"], "read: 2 turns are to be hidden, the dialog has 1"),
        (["--ask", "Hue?", "--reader", "nowhere"], "read: nowhere holds no steer"),
        (["--ask", "Hue?", "--max-new-tokens", "0"], "read: --max-new-tokens begins at 1"),
    ],
)
def test_what_cannot_be_read_is_one_line(ran: Path, more: list[str], told: str):
    printed = read_out(ran, *more)
    assert printed.returncode == 1 and printed.stderr.startswith(told) and len(printed.stderr.splitlines()) == 1
