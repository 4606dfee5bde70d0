"""Readers on shares of the labels and of other ranks: who is trained, on what, and what is told and drawn of them."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from steerlab import experiment, latent_reads
from steerlab.analyses import latent_reading as analysis
from steerlab.experiment import ConfigError, names
from steerlab.figures import captions, scale_decoder, style
from steerlab.metrics import latent_reading, reader_scaling
from tests.workflow.project import ROOT

MODEL = "smollm2-135m-instruct"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
SIZES = [{"labels": 0.25}, {"labels": 0.5, "rank": 4}, {"labels": 1.0}, {"rank": 16}, {"rank": 4}]


def loaded(**sections) -> experiment.Experiment:
    return experiment.load(DEFAULT | sections)


def spec(x: experiment.Experiment, rule: str, setting: str) -> dict:
    return json.loads(x.spec(rule, [("model", MODEL), ("setting", setting), ("seed", "0")]))


# ---- who is trained ----


def test_by_default_no_further_reader_is_trained():
    assert loaded().figures(named="scale_decoder") == []


def test_each_size_has_a_reader_of_the_first_setting_beside_the_one_of_all_labels():
    x = loaded(latentqa={"settings": ["masked", "visible"], "seeds": [0, 1], "scaling": SIZES})
    sizes = ["masked-labels0.25", "masked-labels0.5-rank4", "masked", "masked-rank4"]
    assert experiment.figures.inputs(x.config, x.cells, "all", "scale_decoder") == {
        "reads": [
            names.LATENT_READING.format(model=MODEL, setting=size, seed=seed) for size in sizes for seed in (0, 1)
        ]
    }
    assert x.figures(named="scale_decoder") == ["results/figures/all/scale_decoder.svg"]
    assert "LatentQA: 10 readers" in x.summary and len(x.readers) == 4


def test_a_size_is_told_to_the_training_and_to_the_judging_alike():
    x = loaded(latentqa={"seeds": [0], "scaling": SIZES})
    plain, sized = (spec(x, "train_reader", setting) for setting in ("visible", "visible-labels0.5-rank4"))
    assert (plain["setting"], plain["labels"]) == ("visible", None)
    assert (sized["setting"], sized["labels"]) == ("visible", 0.5)
    changed = {key for key, value in plain["hyperparameters"].items() if sized["hyperparameters"][key] != value}
    assert changed == {"rank", "alpha"}
    scales = [each["hyperparameters"]["alpha"] / each["hyperparameters"]["rank"] for each in (plain, sized)]
    assert scales[0] == scales[1]
    judged = spec(x, "read_attributes", "visible-labels0.5-rank4")
    assert (judged["setting"], judged["labels"]) == ("visible", 0.5)


def test_every_name_of_a_reader_fits_the_rules_and_no_other_does():
    (allowed,) = re.findall(r'setting=r"(.*)"', (ROOT / "rules/common.smk").read_text())
    for name in ("visible", "masked", "visible-labels0.25", "masked-rank4", "visible-labels0.125-rank64"):
        assert re.fullmatch(allowed, name)
    assert not any(re.fullmatch(allowed, name) for name in ("all", "visible-", "visible/0", "visible-rank"))


@pytest.mark.parametrize("size", [{"labels": 0}, {"labels": 1.5}, {"rank": 0}, {"share": 0.5}])
def test_an_impossible_size_is_refused(size: dict):
    with pytest.raises(ConfigError, match="latentqa.scaling"):
        loaded(latentqa={"scaling": [size]})


# ---- what they are trained on ----


def table(labels: int) -> pd.DataFrame:
    """Rows of seen labels in all splits, and of two unseen ones."""
    rows = [
        (f"{split} {label}", f"label {label}", split, label < labels)
        for label in range(labels + 2)
        for split in (("train", "dev", "test") if label < labels else ("dev", "test"))
    ]
    return pd.DataFrame(rows, columns=["id", "label", "split", "label_is_seen"]).assign(hidden=1)


@given(st.integers(1, 12), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_share_keeps_so_many_seen_labels_all_unseen_ones_and_those_of_a_smaller_share(
    labels: int, a: float, b: float
):
    data, kept = table(labels), []
    for share in sorted((a, b)):
        fitted, test = latent_reads.of_setting(data, "masked", share)
        trained = set(fitted.label[fitted["split"] == "train"])
        assert len(trained) == max(1, round(share * labels))
        assert set(test.label[test.label_is_seen]) == trained and (~test.label_is_seen).sum() == 2
        kept.append(trained)
    assert kept[0] <= kept[1]
    whole = [latent_reads.of_setting(data, "masked", share)[0] for share in (1.0, None)]
    assert whole[0].equals(whole[1])


# ---- what is told ----


def rows(sizes=((0.25, 2), (0.5, 4), (1.0, 8)), *, model="tiny", rank=16, seeds=(0, 1)) -> pd.DataFrame:
    """Rows of readers whose own states help the more labels they were trained on; label i's loss is higher by i."""
    found = []
    for share, labels in sizes:
        for seed in seeds:
            for split in ("dev", "test"):
                for label in [*range(labels), 98, 99]:
                    for row in range(2):
                        key = f"{split} {label} {row}"
                        about = ("visible", seed, key, key, f"label {label}", split, label < labels, "synthetic sample")
                        known = (np.nan, "", np.nan)
                        found.append((*about, "true", 1.0 + label, 2.0, "x", float(row), np.nan, share, labels))
                        found.append(
                            (*about, "shuffled", 1.0 + 2 * label + labels, 2.0, *known[1:], np.nan, share, labels)
                        )
                        found.append((*about, "none", 9.0, 2.0, *known[1:], np.nan, share, labels))
    columns = ["setting", *analysis.COLUMNS, "label_share", "trained_labels"]
    return pd.DataFrame(found, columns=columns).assign(model=model, rank=rank, trained_rows=100)


def of(told: pd.DataFrame, share: float, part: str, quantity="true_minus_shuffled", seed="all"):
    keys = (told.label_share == share) & (told.part == part) & (told.quantity == quantity) & (told.seed == seed)
    (found,) = told[keys].itertuples()
    return found


SEEN, UNSEEN = latent_reading.PARTS[True], latent_reading.PARTS[False]


def test_rows_of_seen_labels_are_those_that_every_reader_has_seen():
    told = reader_scaling.table(rows(), resamples=50)
    for share, labels in ((0.25, 2), (0.5, 4), (1.0, 8)):
        seen, unseen = of(told, share, SEEN), of(told, share, UNSEEN)
        assert (seen.labels, seen.rows, seen.trained_labels) == (2, 4, labels)  # labels 0 and 1
        assert_allclose(seen.value, -(0.5 + labels))
        assert (unseen.labels, unseen.rows) == (2, 4)
        assert_allclose(unseen.value, -(98.5 + labels))
    assert of(told, 0.5, SEEN, "exact").value == 0.5 and of(told, 0.5, SEEN, seed="1").rows == 4


def test_two_shares_of_as_many_labels_stay_two_readers():
    told = reader_scaling.table(rows(((0.25, 2), (0.3, 2))), resamples=50)
    assert of(told, 0.25, SEEN).rows == of(told, 0.3, SEEN).rows == 4


def test_other_models_and_ranks_are_told_apart():
    several = [rows(), rows(model="large"), rows(rank=4, sizes=((1.0, 8),))]
    told = reader_scaling.table(pd.concat(several), resamples=50)
    assert set(told[["model", "rank"]].itertuples(index=False, name=None)) == {("tiny", 16), ("large", 16), ("tiny", 4)}
    assert set(told.trained_labels[told["rank"] == 4]) == {8}


TABLES = {
    "one": scale_decoder.table(rows(), resamples=50),
    "several": scale_decoder.table(pd.concat([rows(), rows(model="large"), rows(rank=4)]), resamples=50),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_same_table_gives_the_same_bytes_and_words_also_from_its_csv(name: str, tmp_path: Path):
    shown = TABLES[name]
    shown.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    drawn = []
    for place, shown_table in enumerate((shown, read)):
        style.save(scale_decoder.plot(shown_table), tmp_path / f"{place}.svg")
        drawn.append((tmp_path / f"{place}.svg").read_bytes())
    assert drawn[0] == drawn[1] and scale_decoder.facts(shown) == scale_decoder.facts(read)


def test_curves_go_through_the_values_against_the_labels_trained_on():
    shown = TABLES["one"]
    panels = scale_decoder.plot(shown).axes
    assert len(panels) == 4
    (line,) = [line for line in panels[0].lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    assert list(line.get_xdata()) == [2, 4, 8]
    assert_allclose(line.get_ydata(), [-2.5, -4.5, -8.5])


def test_the_caption_tells_sizes_rows_and_numbers():
    template = (ROOT / "captions/scale_decoder.rst").read_text()
    told = {"sample_data": "a synthetic sample"} | scale_decoder.facts(TABLES["several"])
    text = " ".join(captions.caption(template, told).split())
    assert "2 labels (100 rows), 4 labels (100 rows) and 8 labels (100 rows)" in text and "tiny and large" in text
    assert "tiny, rank 4, 8 labels, unseen labels: -106.500" in text and "rests on a synthetic sample" in text
    assert "2 seeds" in text and "nan" not in text


def test_a_figure_without_test_rows_is_refused():
    with pytest.raises(ValueError, match="there are no test rows"):
        scale_decoder.table(rows()[lambda told: told["split"] == "dev"])
