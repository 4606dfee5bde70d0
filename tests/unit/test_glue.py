"""GLUE: its tables, its metrics beside the libraries', the sweep over layers and what is chosen from it."""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, matthews_corrcoef

from scripts import choose_glue_layer, compare_layers, measure_training, sweep_layers, train_classifier
from steerlab import classifiers, layer_choices, measure, models, store
from steerlab.data import doors, glue, glue_files, records, sources
from steerlab.data.sources import SAMPLE
from steerlab.metrics import glue as metrics

ALL = {"train": None, "dev": None, "test": None}


def sample(**rows: int | None) -> pd.DataFrame:
    return glue.make_table("sst2", "sample", SAMPLE, ALL | rows)


def written(folder: Path, **splits: list[tuple]) -> Path:
    """Raw files of a task of pairs, as the hub has them."""
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        first, second, labels = zip(*rows, strict=True)
        columns = {"sentence1": first, "sentence2": second, "label": labels, "idx": range(len(rows))}
        pq.write_table(pa.table({key: list(value) for key, value in columns.items()}), folder / f"{name}.parquet")
    return folder


# ---- tables ----


def test_every_task_comes_from_the_hub_at_one_commit():
    found = {name: sources.table()[glue.source(name)].doors["hub"] for name in glue.TASKS}
    assert len({door.origin for door in found.values()}) == 1 and len(found) == 9
    assert all([file.name for file in door.files] == ["train.parquet", "validation.parquet"] for door in found.values())
    assert found["mnli"].files[1].remote == "mnli/validation_matched-00000-of-00001.parquet"


def test_the_published_validation_set_is_the_test_split_and_nothing_else_is():
    table, published = sample(), glue_files.glue_jsonl(SAMPLE / "glue_reviews.jsonl")
    validation = set(published.text[published.split == "validation"])
    assert set(table.text[table.split == "test"]) == validation and len(validation) == 16
    assert not validation & set(table.text[table.split != "test"])
    assert set(table.split) == {"train", "dev", "test"} and list(table.columns) == glue.COLUMNS


def test_the_sample_has_both_classes_alike():
    published = glue_files.glue_jsonl(SAMPLE / "glue_reviews.jsonl")
    assert published.groupby("split").label.agg(["size", "mean"]).to_numpy().tolist() == [[48, 0.5], [16, 0.5]]
    assert not published.text.duplicated().any() and published.second.isna().all()


def test_a_larger_number_of_rows_keeps_those_of_a_smaller_one():
    small, large = sample(train=8, dev=2), sample(train=20, dev=5)
    for split, n in (("train", 8), ("dev", 2), ("test", 16)):
        ids = [set(table.id[table.split == split]) for table in (small, large)]
        assert len(ids[0]) == n and ids[0] <= ids[1]


def test_a_row_s_split_depends_on_its_text_and_not_on_its_place(tmp_path: Path):
    rows = [(f"first {n}", f"second {n}", n % 2) for n in range(60)]
    there, back = (
        glue.make_table("rte", "hub", written(tmp_path / name, train=order, validation=rows[:1]), ALL)
        for name, order in (("there", rows), ("back", rows[::-1]))
    )
    pd.testing.assert_frame_equal(there, back)


def test_pairs_with_one_first_text_stay_on_one_side_and_doubtful_rows_go(tmp_path: Path):
    pairs = [(f"premise {n // 4}", f"hypothesis {n}", n % 2) for n in range(200)]
    doubtful = [("said twice", "so", 0), ("said twice", "so", 1)]
    train, validation = [*pairs, *doubtful, pairs[0], ("asked", "too", 1)], [("asked", "too", 1), ("asked", "once", 0)]
    table = glue.make_table("rte", "hub", written(tmp_path / "raw", train=train, validation=validation), ALL)
    sides = table[table.split != "test"].groupby("text").split.nunique()
    assert (sides == 1).all() and set(table.split) == {"train", "dev", "test"}
    assert not set(table.text[table.split != "test"]) & {"said twice", "asked"}
    assert len(table) == 202 and not table.id.duplicated().any()
    assert 0.03 < (table.split == "dev").mean() < 0.35


def test_scores_stay_scores_and_a_missing_label_is_told_with_its_line(tmp_path: Path):
    rows = [(f"a {n}", f"b {n}", n / 12) for n in range(60)]
    table = glue.make_table("stsb", "hub", written(tmp_path, train=rows, validation=rows[:2]), ALL)
    assert table.label.max() == pytest.approx(59 / 12) and table.label.nunique() > 50
    with pytest.raises(records.BadRows, match="train.parquet:2: the label is -1"):
        glue_files.glue_parquet(written(tmp_path, train=[("a", "b", 0), ("c", "d", -1)]) / "train.parquet")


def test_an_empty_split_is_told(tmp_path: Path):
    rows = [("a", "b", 1)]
    with pytest.raises(ValueError, match="rte: its (train|dev) split is empty"):
        glue.make_table("rte", "hub", written(tmp_path, train=rows, validation=[("c", "d", 0)]), ALL)


@pytest.mark.real_data
def test_the_mirror_has_sst2(tmp_path: Path):
    folder = tmp_path / "raw"
    folder.mkdir()
    doors.fetch(sources.table()["glue_sst2"], "mirror", folder, mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    table = glue.make_table("sst2", "mirror", folder, ALL)
    assert table.split.value_counts().to_dict() == {"train": 6806, "dev": 1190, "test": 872}
    assert table[table.split == "test"].label.sum() == 444 and not table.text.str.endswith(" ").any()


# ---- metrics ----

CLASSES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60)


@given(CLASSES)
def test_accuracy_and_matthews_are_scikit_learn_s(pairs: list[tuple[int, int]]):
    labels, predictions = np.array(pairs, dtype=float).T
    assert_allclose(metrics.score("accuracy", labels, predictions), accuracy_score(labels, predictions))
    wanted = matthews_corrcoef(labels, predictions)
    assert_allclose(metrics.score("matthews", labels, predictions), wanted, atol=1e-12)


@given(st.integers(0, 1000), st.integers(3, 80), st.floats(-50, 50))
def test_pearson_is_scipy_s(seed: int, n: int, offset: float):
    x, y = np.random.default_rng(seed).normal(size=(2, n)) + offset
    assert_allclose(metrics.score("pearson", x, y), pearsonr(x, y)[0], atol=1e-9)


def test_predictions_that_are_all_alike_have_no_pearson_and_matthews_0():
    assert math.isnan(metrics.score("pearson", [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]))
    assert metrics.score("matthews", [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]) == 0.0
    with pytest.raises(ValueError, match="unknown metric 'f1'"):
        metrics.score("f1", [0.0], [0.0])


@pytest.mark.parametrize(("metric", "reference"), [("matthews", matthews_corrcoef), ("accuracy", accuracy_score)])
def test_intervals_are_those_of_a_bootstrap_by_rows(metric: str, reference):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300).astype(float)
    seeds = [np.where(generator.random(300) < 0.8, labels, 1 - labels) for _ in range(2)]
    found = metrics.estimate(metric, labels, seeds)
    drawn = []
    for _ in range(500):
        rows = generator.integers(0, 300, 300)
        drawn.append(np.mean([reference(labels[rows], each[rows]) for each in seeds]))
    assert_allclose(found.value, np.mean([reference(labels, each) for each in seeds]))
    assert_allclose([found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=0.02)


def predictions(split: str, layers: str, layer: int | None, seed: int, right: float, n: int = 200) -> pd.DataFrame:
    labels = np.arange(n) % 2.0
    generator = np.random.default_rng([seed, len(layers), layer or 0])
    guesses = np.where(generator.random(n) < right, labels, 1 - labels)
    about = {"model": "m", "task": "sst2", "split": split, "intervention": "bottleneck", "layers": layers, "seed": seed}
    rows = {"id": [str(i) for i in range(n)], "label": labels, "prediction": guesses, "parameters": 9, "blocks": 6}
    return pd.DataFrame(about | rows).assign(layer=pd.array([layer] * n, dtype="Int64"))


def test_the_table_has_seeds_their_mean_and_the_pick_s_gain_paired_by_row():
    parts = [
        predictions("test", name, at, seed, p)
        for name, at, p in (("picked", 3, 0.9), ("all", None, 0.8))
        for seed in (0, 1)
    ]
    parts += [predictions("dev", "swept", at, 0, 0.7) for at in (2, 3)]
    found = metrics.table(pd.concat(parts), "accuracy", resamples=400, confidence=0.95)
    assert list(found.columns) == metrics.COLUMNS
    picked = found[(found.layers == "picked") & (found.against == "")].set_index("seed")
    assert set(picked.index) == {"0", "1", "all"} and set(picked.layer) == {3}
    assert picked.value["all"] == pytest.approx((picked.value["0"] + picked.value["1"]) / 2)
    (gain,) = found[found.against != ""].to_dict("records")
    others = found[(found.layers == "all") & (found.seed == "all")].value.item()
    assert gain["against"] == "all" and gain["value"] == pytest.approx(picked.value["all"] - others)
    assert gain["low"] < gain["value"] < gain["high"]
    assert list(found[found.split == "dev"].layer) == [2, 3]


def test_classifiers_that_were_asked_about_other_rows_are_not_compared():
    one, other = predictions("test", "picked", 3, 0, 0.9), predictions("test", "all", None, 0, 0.8)
    with pytest.raises(ValueError, match="asked about different rows"):
        metrics.table(pd.concat([one, other.assign(id="x" + other.id)]), "accuracy", resamples=10, confidence=0.95)


# ---- the sweep and the choice ----


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tiny model of six blocks, a table of the sample, and specs as the rules write them."""
    folder = tmp_path_factory.mktemp("glue")
    models.prepare({"kind": "random", "family": "gpt2", "layers": 6, "seed": 0}, folder / "model", name="tiny")
    sample(train=16, dev=6, test=8).to_parquet(folder / "table.parquet", index=False)
    training = {"learning_rate": 0.01, "batch_rows": 8, "epochs": 1, "max_tokens": 64}
    spec = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "classes": 2, "training": training}
    spec |= {"intervention": "bottleneck", "settings": {"reduction": 4}}
    inputs = {"model": folder / "model", "table": folder / "table.parquet"}
    return SimpleNamespace(folder=folder, spec=spec, inputs=inputs)


def sweep(at: SimpleNamespace, name: str, **more: object) -> pd.DataFrame:
    spec = at.spec | {"layers": "middle", "seeds": [0], "rows": None} | more
    sweep_layers.run(**at.inputs, predictions=at.folder / name, spec=spec, work=at.folder / f"{name}.work")
    return pd.read_parquet(at.folder / name)


def test_the_sweep_predicts_the_dev_rows_alone(at: SimpleNamespace):
    found, table = sweep(at, "dev.parquet"), pd.read_parquet(at.inputs["table"])
    assert set(found.id) == set(table.id[table.split == "dev"]) and set(found.split) == {"dev"}
    assert sorted(found.layer.unique()) == list(layer_choices.middle_third(6)) == [2, 3]
    assert sorted(sweep(at, "listed.parquet", layers=[5, 0], rows=4).layer.unique()) == [0, 5]


def test_a_killed_sweep_goes_on_from_the_layers_that_were_finished(
    at: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    whole, trained, own = sweep(at, "whole.parquet", layers="all"), [], classifiers.fit_and_predict

    def killed(*args, layers, **more):
        if layers == [3] and trained.count([3]) == 0:
            trained.append([3])
            raise KeyboardInterrupt
        trained.append(layers)
        return own(*args, layers=layers, **more)

    monkeypatch.setattr(classifiers, "fit_and_predict", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(at, "resumed.parquet", layers="all")
    assert not (at.folder / "resumed.parquet").exists()
    pd.testing.assert_frame_equal(sweep(at, "resumed.parquet", layers="all"), whole)
    assert trained == [[0], [1], [2], [3], [3], [4], [5]]


def test_the_choice_is_the_best_layer_of_the_sweep_and_refuses_test_rows(at: SimpleNamespace):
    rights = {1: 0.95, 2: 0.6, 3: 0.8, 5: 0.55}
    swept = pd.concat([predictions("dev", "swept", layer, 0, right) for layer, right in rights.items()])
    swept.to_parquet(at.folder / "swept.parquet")
    paths = {"predictions": at.folder / "swept.parquet", "choice": at.folder / "choice.json"}
    choose_glue_layer.run(**paths, spec={"metric": "accuracy"})
    choice = json.loads(paths["choice"].read_text())
    assert choice["picks"] == {"validation_middle": 3, "validation": 1} and choice["rows"] == 200
    assert [one["layer"] for one in choice["candidates"]] == [1, 2, 3, 5]
    swept.assign(split="test").to_parquet(at.folder / "swept.parquet")
    with pytest.raises(ValueError, match="predictions of split test were given; choose a layer by dev rows alone"):
        choose_glue_layer.run(**paths, spec={"metric": "accuracy"})


def test_the_layers_of_a_classifier_are_those_of_its_name(at: SimpleNamespace):
    choice = at.folder / "pick.json"
    store.write_json(choice, {"picks": {"validation_middle": 3}})
    found = {}
    for layers in ("picked", "random", "all", "4"):
        spec = at.spec | {"layers": layers, "rule": "validation_middle", "seed": 0}
        path = at.folder / f"{layers}.parquet"
        train_classifier.run(**at.inputs, choice=[choice], predictions=path, spec=spec)
        found[layers] = pd.read_parquet(path)
    one = 2 * (2 * 16 * 4 + 4 + 16)
    assert found["picked"].layer.unique().tolist() == [3] and found["4"].layer.unique().tolist() == [4]
    assert found["random"].layer.unique().tolist() == [layer_choices.another_layer(6, 3, 0)] != [3]
    assert found["all"].layer.isna().all()
    assert {name: rows.parameters.iloc[0] for name, rows in found.items()} == dict.fromkeys(found, one) | {
        "all": 6 * one
    }
    table = pd.read_parquet(at.inputs["table"])
    assert all(set(rows.id) == set(table.id[table.split == "test"]) for rows in found.values())


def test_the_comparison_reads_what_the_jobs_wrote(at: SimpleNamespace):
    folder = at.folder / "classifiers/tiny/bottleneck/sst2"
    swept, trained = folder / "dev/layers.parquet", folder / "test/4/0.parquet"
    for path in (swept, trained):
        path.parent.mkdir(parents=True)
    sweep(at, "again.parquet").to_parquet(swept)
    spec = at.spec | {"layers": "4", "seed": 0}
    train_classifier.run(**at.inputs, choice=[], predictions=trained, spec=spec)
    about = {"model": "tiny", "task": "sst2", "metric": "accuracy", "resamples": 20, "confidence": 0.9}
    compare_layers.run(swept=[swept], trained=[trained], metrics=at.folder / "metrics.csv", spec=about)
    found = pd.read_csv(at.folder / "metrics.csv")
    assert found[["split", "intervention", "layers"]].drop_duplicates().to_numpy().tolist() == [
        ["dev", "bottleneck", "swept"], ["test", "bottleneck", "4"],
    ]  # fmt: skip


def test_the_cost_of_training_is_measured_in_a_process_of_its_own(at: SimpleNamespace):
    head = at.spec | {"intervention": "head", "settings": {}}
    spec = {"rule": "validation_middle", "steps": 3, "interventions": [], "fitted": {"head": head}}
    measure_training.run(**at.inputs, choices=[], costs=at.folder / "costs.csv", spec=spec)
    (cost,) = pd.read_csv(at.folder / "costs.csv").to_dict("records")
    assert (cost["intervention"], cost["layers"], cost["parameters"], cost["steps"]) == ("head", "none", 0, 3)
    assert 0 < cost["low"] <= cost["seconds"] <= cost["high"] and 50 < cost["loaded_mib"] <= cost["peak_mib"]


@pytest.mark.parametrize("layers", [[3], list(range(6))])
def test_the_cost_counts_what_the_layers_learn(at: SimpleNamespace, layers: list[int]):
    rows = glue.of_split(pd.read_parquet(at.inputs["table"]), "train")
    found = measure._train({"folder": at.inputs["model"]}, rows, layers, at.spec, 2)
    assert found["parameters"] == len(layers) * 2 * (2 * 16 * 4 + 4 + 16) and found["steps"] == 2


def test_every_setting_is_measured_on_the_same_batches(at: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    drawn, batches = [], classifiers._batches

    def noted(*how):
        drawn.append(list(batches(*how)))
        return drawn[-1]

    monkeypatch.setattr(classifiers, "_batches", noted)
    rows = glue.of_split(pd.read_parquet(at.inputs["table"]), "train")
    for layers in ([3], list(range(6))):
        measure._train({"folder": at.inputs["model"]}, rows, layers, at.spec, 2)
    one, all_of_them = drawn
    assert len(one) == 4 and one == all_of_them
