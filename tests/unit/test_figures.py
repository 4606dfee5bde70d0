"""Figures and captions: what they show, that their bytes depend on the table alone, and what they refuse."""

import re
from pathlib import Path

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from steerlab.figures import captions, style, toxicity
from steerlab.metrics.toxicity import COLUMNS

SCORERS = {"average_max_toxicity": "lexicon==1", "toxicity_refused": "lexicon==1", "perplexity": "tiny, unsteered"}
TEMPLATE = Path(__file__).parents[2] / "captions" / "toxicity.rst"


def metrics(*, methods=(("base", (0.0,)),), splits=("dev", "test"), seeds=3, data="real", n=60, refused=0.0):
    rows = []
    for method, strengths in methods:
        for split in splits:
            for strength in strengths:
                for seed in [*map(str, range(seeds)), "all"]:
                    for rank, (metric, scorer) in enumerate(SCORERS.items()):
                        value = refused if metric == "toxicity_refused" else 0.3 + strength / 10 + 14 * (rank == 2)
                        rows.append(
                            ("tiny", method, "toxicity", split, strength, seed, metric)
                            + (value, value * 0.9, value * 1.1, n, 4, scorer, data)
                        )
    return pd.DataFrame(rows, columns=COLUMNS)


def svg(table, path):
    style.save(toxicity.plot(table), path)
    return path.read_bytes()


def test_the_same_table_gives_the_same_bytes(tmp_path):
    table = metrics(methods=[("base", (0.0,)), ("lm_steer", (0.5, 1.0))])
    assert svg(table, tmp_path / "a.svg") == svg(table.sample(frac=1, random_state=0), tmp_path / "b.svg")


def test_another_value_gives_other_bytes(tmp_path):
    table = metrics()
    assert svg(table, tmp_path / "a.svg") != svg(table.assign(value=table.value * 1.01), tmp_path / "b.svg")


def test_the_readers_own_matplotlib_settings_change_nothing_and_are_left_as_they_were(tmp_path):
    plain = svg(metrics(), tmp_path / "a.svg")
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.hashsalt": "other"}):
        before = dict(mpl.rcParams)
        assert svg(metrics(), tmp_path / "b.svg") == plain
        assert dict(mpl.rcParams) == before


def test_no_date_and_no_version_stand_in_the_file(tmp_path):
    text = svg(metrics(), tmp_path / "a.svg").decode()
    assert not re.search(r"\d{4}-\d{2}-\d{2}|Matplotlib v", text)


def test_every_method_and_strength_has_a_labelled_row():
    figure = toxicity.plot(metrics(methods=[("lm_steer", (0.5, 1.0)), ("base", (0.0,)), ("new_method", (1.0,))]))
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["unsteered", "LM-Steer, 0.5", "LM-Steer, 1", "new method, 1"]


def test_points_and_intervals_stand_at_the_values_of_the_table():
    table = metrics()
    panel = toxicity.plot(table).axes[0]
    points = sorted(float(x) for line in panel.lines for x in line.get_xdata() if line.get_marker() == "o")
    shown = table[table.metric == "average_max_toxicity"]
    assert points == sorted(shown.value)
    ends = sorted(float(x) for lines in panel.collections for path in lines.get_paths() for x in path.vertices[:, 0])
    assert ends == sorted([*shown[shown.seed == "all"].low, *shown[shown.seed == "all"].high])


def test_axes_are_labelled_with_units_in_readable_type():
    figure = toxicity.plot(metrics())
    assert [panel.get_xlabel() for panel in figure.axes] == list(toxicity.PANELS.values())
    assert all("(" in label for label in toxicity.PANELS.values())
    sizes = [tick.get_fontsize() for panel in figure.axes for tick in panel.get_xticklabels()]
    assert min(sizes) >= 8


def test_colours_differ_also_for_readers_who_see_no_red_or_no_green():
    # Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
    protan = np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    )
    deutan = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in style.COLOURS.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for seen_as in (np.eye(3), protan, deutan):
        seen = np.clip(linear @ seen_as.T, 0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
        assert distances.min() > 0.15  # of 1.7 between black and white


def test_a_method_that_the_style_does_not_know_keeps_one_colour():
    assert style.colour("a_new_method") == style.colour("a_new_method") not in style.COLOURS.values()


def test_two_scorers_are_not_mixed_on_one_axis():
    table = metrics()
    mixed = pd.concat([table, table.assign(scorer="other==2")])
    with pytest.raises(ValueError, match="average_max_toxicity comes from .*lexicon==1.*other==2"):
        toxicity.plot(mixed)


def test_a_table_without_pooled_rows_is_refused():
    table = metrics()
    with pytest.raises(ValueError, match="no pooled rows of"):
        toxicity.plot(table[table.seed != "all"])


def test_the_caption_says_n_seeds_samples_interval_and_scorers():
    text = " ".join(captions.caption(TEMPLATE.read_text(), metrics()).split())
    assert "n = 60 dev and 60 test prompts" in text
    assert "3 seeds of 4 samples a prompt" in text
    assert "95 % percentile bootstrap interval over prompts" in text
    assert "toxicity by lexicon==1; perplexity under tiny, unsteered" in text
    assert "sample data" not in text and "Left out" not in text


def test_the_caption_names_the_methods_that_rest_on_sample_data():
    table = pd.concat([metrics(), metrics(methods=[("lm_steer", (1.0,))], data="sample")])
    assert "sample data (LM-Steer)" in captions.caption(TEMPLATE.read_text(), table)


def test_the_caption_says_what_was_left_out():
    assert "2.5 % of a row's texts refused" in captions.caption(TEMPLATE.read_text(), metrics(refused=0.025))


def test_the_smallest_detectable_difference_is_that_of_a_two_sided_test_with_power_80_percent():
    # The interval is 0.27 to 0.33: standard error 0.03 / 1.960; (1.960 + 0.842) * sqrt(2) * 0.0153 = 0.0607.
    assert captions.facts(metrics())["detectable"] == "0.061"


def test_an_unknown_word_in_a_template_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="promts"):
        captions.caption("n = {{ promts }}", metrics())


def test_names_that_look_like_markup_are_escaped():
    assert captions.caption("{{ model }}", metrics().assign(model="a_*b*")) == "a\\_\\*b\\*\n"
