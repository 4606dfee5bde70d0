"""A model's layers against eye movements: a planted layer is found, chance finds none, and the picks follow."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from steerlab import layer_choices, models
from steerlab.analyses.eye_tracking import components, eye_tracking
from steerlab.data.eye_tracking import FEATURES
from steerlab.data.sources import SAMPLE
from steerlab.metrics import eye_tracking as metrics
from steerlab.metrics.eye_tracking import COLUMNS, EMBEDDINGS, INNER, MEAN, PARTIAL, POOLED, SPEARMAN, Corpus
from steerlab.models import ModelHandle
from steerlab.tasks.eye_tracking import make_table

DOORS = {"provo": "sample", "zuco_nr": "sample"}
TABLE = make_table(dict.fromkeys(DOORS, SAMPLE), DOORS, {"corpora": list(DOORS), "sentences": 24})
LAYERS, DRAWS = 9, {"permutations": 299, "resamples": 50}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    folder: Path = tmp_path_factory.mktemp("models") / request.param
    models.prepare({"kind": "random", "family": request.param, "layers": LAYERS, "seed": 0}, folder, name=request.param)
    return ModelHandle(folder)


def corpora(model: ModelHandle) -> dict[str, Corpus]:
    return {
        str(name): components(model, words.reset_index(drop=True), batch_sentences=8)
        for name, words in TABLE.groupby("corpus", sort=False)
    }


def planted(model: ModelHandle, block: int) -> pd.DataFrame:
    """The table with features that are noisy pictures of the block's first component, some of them turned round."""
    random, frames = np.random.default_rng(0), []
    for corpus in corpora(model).values():
        signal = stats.zscore(corpus.components[:, block + 1])
        for place, feature in enumerate(FEATURES):
            noise = random.normal(size=len(signal)) * 0.3
            corpus.words[feature] = 10 + (-1) ** place * (signal + noise)
        frames.append(corpus.words)
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("block", [3, 5])
def test_features_made_of_a_blocks_first_component_pick_that_block(model: ModelHandle, block: int):
    curves = eye_tracking(model, planted(model, block), batch_sentences=8, **DRAWS)
    choice = layer_choices.by_reading(curves)
    assert choice["picks"] == {"middle_peak": block, "peak": block}
    alone = choice["stability"]
    assert [alone[corpus]["peak"] for corpus in DOORS] == [block, block]
    picked = next(one for one in choice["candidates"] if one["layer"] == block)
    assert picked["value"] > 0.9 and picked["p_holm"] == pytest.approx(LAYERS / 300)
    assert picked["low"] <= picked["value"] <= picked["high"]


def test_a_peak_outside_the_middle_third_is_picked_by_the_rule_that_looks_everywhere(model: ModelHandle):
    curves = eye_tracking(model, planted(model, LAYERS - 1), batch_sentences=8, **DRAWS)
    picks = layer_choices.by_reading(curves)["picks"]
    assert picks["peak"] == LAYERS - 1 and picks["middle_peak"] in layer_choices.middle_third(LAYERS)


def test_no_layer_is_significant_where_sentences_features_have_changed_places(model: ModelHandle):
    random, frames = np.random.default_rng(5), []
    for _, words in TABLE.groupby("corpus", sort=False):
        blocks = [rows[list(FEATURES)].to_numpy() for _, rows in words.groupby("sentence")]
        moved = np.concatenate([blocks[place] for place in random.permutation(len(blocks))])
        frames.append(words.assign(**dict(zip(FEATURES, moved.T))))
    curves = eye_tracking(model, pd.concat(frames, ignore_index=True), batch_sentences=8, **DRAWS)
    assert curves["p_holm"].min() > 0.05


@pytest.fixture(scope="module")
def curves(model: ModelHandle) -> pd.DataFrame:
    return eye_tracking(model, TABLE, batch_sentences=8, **DRAWS)


def test_there_is_one_row_a_corpus_measure_feature_and_layer(curves: pd.DataFrame):
    assert list(curves.columns) == COLUMNS
    keys = ["corpus", "measure", "feature", "layer"]
    assert not curves.duplicated(keys).any()
    assert len(curves) == 3 * 8 * 6 * (LAYERS + 1) and curves["value"].notna().all()
    assert sorted(set(curves["layer"])) == [EMBEDDINGS, *range(LAYERS)]
    assert set(curves["data"]) == {"synthetic sample"}


def test_each_measure_is_that_of_scipy(model: ModelHandle, curves: pd.DataFrame):
    corpus = corpora(model)["provo"]
    positive = corpus.words["trt"] > 0
    logs = np.log10(corpus.words["trt"].where(positive))
    for name, statistic in {"pearson": stats.pearsonr, SPEARMAN: stats.spearmanr, "kendall": stats.kendalltau}.items():
        for layer in (EMBEDDINGS, 0, LAYERS - 1):
            component = corpus.components[:, layer + 1]
            expected = statistic(component, corpus.words["trt"])[0], statistic(component[positive], logs[positive])[0]
            at = curves[(curves["corpus"] == "provo") & (curves["feature"] == "trt") & (curves["layer"] == layer)]
            found = at.set_index("measure")["value"]
            assert (abs(found[name]), abs(found[f"log_{name}"])) == pytest.approx(tuple(map(abs, expected)), abs=1e-6)


def test_the_mean_is_over_features_of_absolute_values_and_all_is_over_corpora(curves: pd.DataFrame):
    of_ranks = curves[curves["measure"] == SPEARMAN].assign(value=lambda rows: rows["value"].abs())
    values = of_ranks.set_index(["corpus", "feature", "layer"])["value"]
    by_hand = values.drop(index=MEAN, level="feature").groupby(["corpus", "layer"]).mean()
    found = values.xs(MEAN, level="feature")
    for corpus in DOORS:
        assert_allclose(found[corpus], by_hand[corpus])
    assert_allclose(found[POOLED], (found["provo"] + found["zuco_nr"]) / 2)


def test_the_sign_of_a_component_changes_nothing(model: ModelHandle):
    given = corpora(model)
    turned = {name: Corpus(one.words, -one.components, -one.inner) for name, one in given.items()}
    how = {**DRAWS, "confidence": 0.95}
    pd.testing.assert_frame_equal(metrics.curves(given, **how), metrics.curves(turned, **how))


def test_intervals_and_chance_are_of_the_curve_and_of_what_length_and_frequency_leave(curves: pd.DataFrame):
    with_p = curves[curves["p"].notna()]
    assert set(with_p["measure"]) == {SPEARMAN, PARTIAL} and set(with_p["feature"]) == {MEAN}
    assert (with_p["chance_low"] < with_p["chance_high"]).all()
    assert set(curves[curves["low"].notna()]["measure"]) == {SPEARMAN}
    blocks = with_p[with_p["layer"] != EMBEDDINGS]
    assert (blocks["p_holm"] >= blocks["p"]).all() and with_p[with_p["layer"] == EMBEDDINGS]["p_holm"].isna().all()


def test_what_length_and_frequency_explain_is_gone_given_them():
    words = TABLE[TABLE["corpus"] == "provo"].reset_index(drop=True)
    lengths = words["word"].map(lambda word: len(metrics._bare(word))).to_numpy(dtype=float)
    noise = np.random.default_rng(0).normal(size=len(words))
    inner = (words["place"] > 0).to_numpy()
    both = np.stack([lengths, noise], axis=1)
    found = metrics.curves({"provo": Corpus(words, both, both[inner])}, confidence=0.95, **DRAWS)
    mean = found[found["feature"] == MEAN].set_index(["measure", "layer"])["value"]
    assert mean[SPEARMAN, EMBEDDINGS] > 0.3 and mean[PARTIAL, EMBEDDINGS] == pytest.approx(0, abs=1e-9)
    assert mean[INNER, EMBEDDINGS] > 0.3


def test_frequency_counts_words_whatever_their_case_and_punctuation():
    found = metrics.log_frequency(pd.Series(["The", "the,", "cat", "“the”", "-", "-"]))
    assert found.to_dict() == pytest.approx(
        {"The": np.log10(3), "the,": np.log10(3), "cat": 0, "“the”": np.log10(3), "-": np.log10(2)}
    )


def test_one_corpus_has_no_mean_over_corpora_and_is_chosen_by(model: ModelHandle):
    found = eye_tracking(model, TABLE[TABLE["corpus"] == "provo"], batch_sentences=8, **DRAWS)
    choice = layer_choices.by_reading(found)
    assert set(found["corpus"]) == {"provo"} and choice["corpora"] == ["provo"]
    assert choice["stability"]["provo"] == choice["picks"]


def test_a_feature_that_never_varies_is_told(model: ModelHandle):
    with pytest.raises(ValueError, match="sfd of provo is the same for all words; take more sentences"):
        eye_tracking(model, TABLE.assign(sfd=1.0), batch_sentences=8, **DRAWS)


# ---- the choice ----


def drawn(values: dict[str, list[float]], inner: list[float] | None = None) -> pd.DataFrame:
    rows = []
    for corpus, of_corpus in values.items():
        for measure, curve in ((SPEARMAN, of_corpus), (INNER, inner or of_corpus)):
            for layer, value in enumerate(curve, start=EMBEDDINGS):
                rows.append((corpus, "real", measure, MEAN, layer, value, value - 0.1, value + 0.1, 0.01))
    columns = ["corpus", "data", "measure", "feature", "layer", "value", "low", "high", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


EARLY = [0.9, 0.8, 0.1, 0.2, 0.5, 0.4, 0.5, 0.1, 0.2, 0.3]  # the embeddings, then nine blocks
LATE = [0.9, 0.0, 0.1, 0.2, 0.3, 0.6, 0.1, 0.1, 0.9, 0.1]


def test_the_embeddings_are_no_candidate_and_the_lowest_of_equal_blocks_is_picked():
    choice = layer_choices.by_reading(drawn({"provo": EARLY}))
    assert [one["layer"] for one in choice["candidates"]] == [*range(9)]
    assert choice["candidates"][3] == {"layer": 3, "value": 0.5, "low": 0.4, "high": 0.6, "p_holm": 0.01}
    assert choice["picks"] == {"middle_peak": 3, "peak": 0}
    assert choice["buckets"] == {"early": [0, 1, 2], "middle": [3, 4, 5], "late": [6, 7, 8]}


def test_the_mean_over_corpora_picks_and_each_corpus_alone_stands_beside_it():
    mean = [(one + other) / 2 for one, other in zip(EARLY, LATE, strict=True)]
    choice = layer_choices.by_reading(drawn({"provo": EARLY, "zuco_nr": LATE, POOLED: mean}, inner=LATE))
    assert choice["picks"] == {"middle_peak": 4, "peak": 7}
    assert choice["stability"] == {
        "provo": {"middle_peak": 3, "peak": 0},
        "zuco_nr": {"middle_peak": 4, "peak": 7},
        "without first words": {"middle_peak": 4, "peak": 7},
    }
    assert layer_choices.picked_layer(choice, "middle_peak") == 4


def test_curves_without_blocks_are_refused():
    with pytest.raises(ValueError, match="have no block; correlate the eye movements again"):
        layer_choices.by_reading(drawn({"provo": [0.5]}))
