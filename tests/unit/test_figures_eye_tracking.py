"""The figure of eye movements: its table, what it refuses, its caption, and that the plot shows the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from steerlab import layer_choices
from steerlab.data.eye_tracking import FEATURES
from steerlab.figures import captions, eye_tracking, style
from steerlab.metrics.eye_tracking import COLUMNS, EMBEDDINGS, INNER, MEAN, PARTIAL, POOLED, SPEARMAN

CAPTION = (Path(__file__).parents[2] / "captions" / "eye_tracking.rst").read_text()
LAYERS = 9
LEFT_OUT = {"provo": 0, "zuco_nr": 16, "zuco_tsr": 64}


def curves(corpora=("provo", "zuco_nr", "zuco_tsr"), data="real", peak=4):
    """The nearer a block is to the peak the higher its value; corpora and features differ a little."""
    rows, names = [], [*corpora, *([POOLED] if len(corpora) > 1 else [])]
    for place, corpus in enumerate(names):
        for measure in (SPEARMAN, PARTIAL, INNER, "kendall"):
            for nth, feature in enumerate([*FEATURES, MEAN]):
                for layer in range(EMBEDDINGS, LAYERS):
                    value = (0.6 - 0.05 * abs(layer - peak) - 0.01 * place) * (0.1 if measure == PARTIAL else 1)
                    value = value * (-1 if feature == "gpt" else 1) + 0.001 * nth
                    has = feature == MEAN and measure in (SPEARMAN, PARTIAL)
                    interval = (value - 0.02, value + 0.02) if has and measure == SPEARMAN else (np.nan, np.nan)
                    chance = (0.01, 0.03, 0.001, np.nan if layer < 0 else 0.009) if has else (np.nan,) * 4
                    about = (2620, 133, LEFT_OUT.get(corpus, 80))
                    rows.append((corpus, data, measure, feature, layer, value, *interval, *chance, *about))
    return pd.DataFrame(rows, columns=COLUMNS)


def table(**how):
    given = curves(**how)
    return eye_tracking.table(given, layer_choices.by_reading(given), model="tiny")


TABLES = {"three": table(), "one": table(corpora=("provo",)), "made_up": table(data="synthetic sample")}
of_all_tables = pytest.mark.parametrize("shown", TABLES.values(), ids=TABLES)


def caption(shown, sample_data=""):
    facts = {"sample_data": sample_data} | eye_tracking.facts(shown)
    return " ".join(captions.caption(CAPTION, facts).split())


def svg(shown, path):
    style.save(eye_tracking.plot(shown), path)
    return path.read_bytes()


def points(panel, **look):
    """The lines of a panel with these properties, as lists of their heights."""
    return [
        np.asarray(line.get_ydata(), dtype=float)
        for line in panel.lines
        if all(getattr(line, f"get_{name}")() == value for name, value in look.items())
    ]


@of_all_tables
def test_the_same_table_gives_the_same_bytes_also_from_its_csv(shown, tmp_path):
    assert list(shown.columns) == eye_tracking.COLUMNS
    shown.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    assert svg(shown, tmp_path / "a.svg") == svg(read, tmp_path / "b.svg")
    assert eye_tracking.facts(shown) == eye_tracking.facts(read)


@of_all_tables
def test_captions_know_all_their_words_and_have_no_template_left(shown):
    assert all(isinstance(phrase, str) for phrase in eye_tracking.facts(shown).values())
    text = caption(shown)
    assert "tiny" in text and not set("{}") & set(text) and "nan" not in text


def test_the_table_holds_what_is_drawn_and_nothing_else():
    drawn = TABLES["three"].groupby(["corpus", "measure", "feature"]).size()
    assert set(drawn) == {LAYERS + 1}
    alone = [(corpus, SPEARMAN, MEAN) for corpus in LEFT_OUT]
    over_all = [(POOLED, SPEARMAN, feature) for feature in (*FEATURES, MEAN)]
    over_all += [(POOLED, measure, MEAN) for measure in (PARTIAL, INNER)]
    assert set(drawn.index) == {*alone, *over_all}


def test_curves_and_their_choice_stand_at_the_values_of_the_table():
    shown = TABLES["three"]
    above, features, below = eye_tracking.plot(shown).axes
    mean = shown[shown.feature == MEAN].set_index(["corpus", "measure"])["value"]
    (drawn,) = points(above, color="black", linestyle="-")
    assert_allclose(drawn, mean[POOLED, SPEARMAN])
    (dashed,) = points(above, linestyle="--")
    assert_allclose(dashed, mean[POOLED, INNER])
    thin = points(above, linewidth=0.8)
    assert_allclose(thin, [mean[corpus, SPEARMAN] for corpus in LEFT_OUT])
    of_features = shown[(shown.feature != MEAN)].groupby("feature")["value"]
    assert_allclose(
        [line.get_ydata() for line in features.lines], [of_features.get_group(name).abs() for name in FEATURES]
    )
    (partial,) = points(below, linestyle="-")
    assert_allclose(partial, mean[POOLED, PARTIAL])
    for panel, measure in ((above, SPEARMAN), (below, PARTIAL)):
        (ring,) = [line for line in panel.lines if line.get_marker() == "o"]
        assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (4, mean[POOLED, measure].iloc[5])


def test_the_bands_are_the_interval_and_chance_and_the_middle_third_is_shaded():
    shown = TABLES["three"]
    above, features, below = eye_tracking.plot(shown).axes
    bands = [band.get_datalim(above.transData).get_points().round(6).tolist() for band in above.collections]
    of_mean = shown[(shown.corpus == POOLED) & (shown.measure == SPEARMAN) & (shown.feature == MEAN)]
    assert [EMBEDDINGS, 0.01] in [band[0] for band in bands] and [LAYERS - 1, 0.03] in [band[1] for band in bands]
    assert round(of_mean.high.max(), 6) in [band[1][1] for band in bands]
    assert len(below.collections) == 1  # no interval was drawn for the partial curve
    for panel in (above, features, below):
        (third,) = panel.patches
        assert (third.get_x(), third.get_width()) == (2.5, 3.0)


@of_all_tables
def test_axes_have_readable_labels_and_begin_at_0(shown):
    figure = eye_tracking.plot(shown)
    assert figure.get_figwidth() == style.WIDTH
    for panel in figure.axes:
        sizes = [tick.get_fontsize() for tick in (*panel.get_xticklabels(), *panel.get_yticklabels())]
        assert min(sizes) >= 8 and panel.get_ylabel() and panel.get_ylim()[0] == 0
    assert figure.axes[-1].get_xticklabels()[0].get_text() == "E"


def test_the_caption_counts_words_and_what_is_left_out_and_names_every_pick():
    text = caption(TABLES["three"])
    assert "ZuCo TSR: 2,620 words of 133 sentences, 64 left out" in text
    assert "block 4, the peak of the middle third: 0.575 [0.555, 0.595], p 0.009 after Holm's correction" in text
    assert "The peak there is 4 by Provo, 4 by ZuCo NR, 4 by ZuCo TSR, and 4 without first words" in text
    assert "95 % percentile bootstrap interval over sentences" in text and "synthetic" not in text


def test_synthetic_data_are_called_so_in_caption_and_legend():
    shown = TABLES["made_up"]
    text = caption(shown, "a synthetic sample")
    assert "Provo (synthetic): 2,620 words" in text and "This rests on a synthetic sample" in text
    names = [entry.get_text() for entry in eye_tracking.plot(shown).legends[0].get_texts()]
    assert "Provo (synthetic) alone" in names


def test_one_corpus_has_one_curve():
    above, *_ = eye_tracking.plot(TABLES["one"]).axes
    assert points(above, linewidth=0.8) == [] and len(points(above, color="black", linestyle="-")) == 1
    assert "over the corpora" not in caption(TABLES["one"])


def test_a_choice_of_other_curves_is_refused():
    given = curves()
    choice = layer_choices.by_reading(given[given["layer"] < 6])
    with pytest.raises(ValueError, match="other layers than the curves; choose the layer again"):
        eye_tracking.table(given, choice)
