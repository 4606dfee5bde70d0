"""Figures and captions: what they show, that their bytes depend on the table alone, and what they refuse."""

import re
from pathlib import Path

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from steerlab.figures import captions, style, toxicity
from steerlab.metrics.continuations import COLUMNS, NO_SCORER

LEXICON, NETWORK, JUDGE = "lexicon==1", "network==2", "tiny, unsteered"
VALUES = {  # of the unsteered model
    "mean_toxicity": 0.2,
    "average_max_toxicity": 0.4,
    "toxicity_probability": 0.3,
    "toxicity_refused": 0.0,
    "perplexity": 14.0,
    "dist_2": 0.9,
}
TEMPLATE = Path(__file__).parents[2] / "captions" / "toxicity.rst"
PICK = {"steps": 300, "strength": 1.5}


def metrics(
    *, methods=(("base", (0.0,)),), splits=("dev", "test"), seeds=3, data="real", n=60, refused=0.0, scorers=(LEXICON,)
):
    """Metrics of methods at strengths, trained for 300 steps where there is a strength; 10 % lower a strength."""
    rows = []
    for method, strengths in methods:
        for split in splits:
            for strength in strengths:
                for seed in [*map(str, range(seeds)), "all"]:
                    for metric, base in VALUES.items():
                        of_toxicity = "toxicity" in metric
                        named = scorers if of_toxicity else [NO_SCORER if metric == "dist_2" else JUDGE]
                        for place, scorer in enumerate(named):
                            start = refused if metric == "toxicity_refused" else base * (1 - 0.3 * place)
                            value = start * (1 - 0.1 * strength)
                            rows.append(
                                ("tiny", method, "toxicity", split, "all", 300 if strength else 0, strength, seed)
                                + (metric, value, value * 0.9, value * 1.1)
                                + ((np.nan,) * 4 if method == "base" else (start, value - start, -0.03, 0.01))
                                + (n, 4, scorer, data)
                            )
    return pd.DataFrame(rows, columns=COLUMNS)


def choice(method="lm_steer", pick=PICK):
    return {"model": "tiny", "method": method, "task": "toxicity", "pick": pick}


STEERED = (("base", (0.0,)), ("lm_steer", (1.0, 1.5)), ("random_lm_steer", (1.5,)))


def drawn(*args, **how):
    return toxicity.plot(toxicity.table(metrics(**how), *args))


def svg(table, path):
    style.save(toxicity.plot(table), path)
    return path.read_bytes()


def test_the_table_holds_the_test_prompts_in_the_order_of_the_figure():
    table = toxicity.table(metrics(methods=STEERED), [choice()])
    assert list(table.columns) == toxicity.COLUMNS
    assert set(table.split) == {"test"}
    rows = table[["method", "strength"]].drop_duplicates().values.tolist()
    assert rows == [["base", 0.0], ["lm_steer", 1.0], ["lm_steer", 1.5], ["random_lm_steer", 1.5]]
    assert table[table.chosen][["method", "strength"]].drop_duplicates().values.tolist() == [["lm_steer", 1.5]]


def test_classes_of_prompts_are_not_drawn():
    table = metrics()
    both = pd.concat([table, table.assign(prompts="positive", value=0.99)])
    pd.testing.assert_frame_equal(toxicity.table(both), toxicity.table(table))


def test_the_same_metrics_in_any_order_give_the_same_bytes(tmp_path):
    table = metrics(methods=STEERED, scorers=(LEXICON, NETWORK))
    first, second = (toxicity.table(rows, primary=LEXICON) for rows in (table, table.sample(frac=1, random_state=0)))
    assert svg(first, tmp_path / "a.svg") == svg(second, tmp_path / "b.svg")


def test_the_table_read_from_its_csv_gives_the_same_bytes(tmp_path):
    table = toxicity.table(metrics(methods=STEERED), [choice()])
    table.to_csv(tmp_path / "table.csv", index=False)
    assert svg(pd.read_csv(tmp_path / "table.csv"), tmp_path / "a.svg") == svg(table, tmp_path / "b.svg")


def test_a_panel_that_the_layout_moves_by_its_last_bit_gives_the_same_bytes(tmp_path):
    for name, left in (("a", 0.3), ("b", np.nextafter(0.3, 1))):
        figure = Figure()
        figure.add_axes((left, 0.1, 0.5, 0.5)).plot([0, 1], [0, 1])
        style.save(figure, tmp_path / f"{name}.svg", tmp_path / f"{name}.pdf")
    for ending in ("svg", "pdf"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_another_value_gives_other_bytes(tmp_path):
    table = toxicity.table(metrics())
    assert svg(table, tmp_path / "a.svg") != svg(table.assign(value=table.value * 1.01), tmp_path / "b.svg")


def test_the_readers_own_matplotlib_settings_change_nothing_and_are_left_as_they_were(tmp_path):
    table = toxicity.table(metrics())
    plain = svg(table, tmp_path / "a.svg")
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.hashsalt": "other"}):
        before = dict(mpl.rcParams)
        assert svg(table, tmp_path / "b.svg") == plain
        assert dict(mpl.rcParams) == before


def test_no_date_and_no_version_stand_in_the_file(tmp_path):
    text = svg(toxicity.table(metrics()), tmp_path / "a.svg").decode()
    assert not re.search(r"\d{4}-\d{2}-\d{2}|Matplotlib v", text)


def pdf(table, path):
    style.save(toxicity.plot(table), path.with_suffix(".svg"), path)
    return path.read_bytes()


def test_the_pdf_depends_on_the_table_alone_and_bears_no_date(tmp_path, monkeypatch):
    table = toxicity.table(metrics(methods=STEERED))
    first = pdf(table, tmp_path / "a.pdf")
    monkeypatch.setattr("time.time", lambda: 1e9)  # 2001
    assert pdf(table.sample(frac=1, random_state=0).sort_index(), tmp_path / "b.pdf") == first
    assert pdf(table.assign(value=table.value * 1.01), tmp_path / "c.pdf") != first
    assert first.startswith(b"%PDF") and not re.search(rb"CreationDate|D:2\d{7}|Matplotlib", first)


def test_the_pdf_leaves_the_svg_as_it_is_and_shows_the_same_layout(tmp_path):
    """The page's box is the SVG's, and letters are letters, of a font that comes along."""
    table = toxicity.table(metrics(methods=STEERED))
    text = pdf(table, tmp_path / "a.pdf")
    assert (tmp_path / "a.svg").read_bytes() == svg(table, tmp_path / "b.svg")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', (tmp_path / "a.svg").read_text())
    page = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", text)
    assert box and page and [*map(float, box.groups())] == pytest.approx([*map(float, page.groups())], abs=1e-3)
    assert b"/FontFile2" in text and b"/Type3" not in text


def row_labels(figure):
    return [tick.get_text().replace("\n", " ") for tick in figure.axes[0].get_yticklabels()]


def test_every_method_and_strength_has_a_labelled_row():
    figure = drawn(methods=[("lm_steer", (0.5, 1.0)), ("base", (0.0,)), ("new_method", (1.0,))])
    assert row_labels(figure) == ["unsteered", "LM-Steer, 0.5", "LM-Steer, 1", "new method, 1"]


def test_the_chosen_row_is_named_and_steps_where_they_tell_rows_apart():
    table = metrics(methods=[("base", (0.0,)), ("lm_steer", (1.0, 1.5))])
    other = table[table.method == "lm_steer"].assign(steps=100)
    figure = toxicity.plot(toxicity.table(pd.concat([table, other]), [choice()]))
    assert row_labels(figure)[1:] == [
        "LM-Steer, 1, 100 steps",
        "LM-Steer, 1.5, 100 steps",
        "LM-Steer, 1, 300 steps",
        "LM-Steer, 1.5, 300 steps (chosen)",
    ]


def test_a_choice_without_a_pick_names_no_row():
    table = toxicity.table(metrics(methods=STEERED), [choice(pick=None), choice("caa")])
    assert not table.chosen.any()


def test_points_and_intervals_stand_at_the_values_of_the_table():
    table = toxicity.table(metrics(scorers=(LEXICON, NETWORK)), primary=LEXICON)
    panel = toxicity.plot(table).axes[0]
    marks = [line for line in panel.lines if line.get_marker() == "o"]
    filled, hollow = (
        sorted(float(x) for mark in marks for x in mark.get_xdata() if (mark.get_markerfacecolor() == "white") == white)
        for white in (False, True)
    )
    shown = table[table.metric == "average_max_toxicity"]
    assert filled == sorted(shown[shown.scorer == LEXICON].value)
    assert hollow == list(shown[(shown.scorer == NETWORK) & (shown.seed == "all")].value)
    ends = sorted(float(x) for lines in panel.collections for path in lines.get_paths() for x in path.vertices[:, 0])
    assert ends == sorted([*shown[shown.seed == "all"].low, *shown[shown.seed == "all"].high])


def test_axes_are_labelled_with_units_in_readable_type():
    figure = drawn(methods=STEERED)
    assert [panel.get_xlabel() for panel in figure.axes] == list(toxicity.PANELS.values())
    assert all("(" in label for label in toxicity.PANELS.values())
    sizes = [tick.get_fontsize() for panel in figure.axes for tick in panel.get_xticklabels()]
    assert min(sizes) >= 8


def test_the_legend_names_both_scorers():
    table = toxicity.table(metrics(scorers=(LEXICON, NETWORK)), primary=NETWORK)
    (legend,) = toxicity.plot(table).legends
    assert [text.get_text() for text in legend.get_texts()] == ["network, all seeds", "lexicon, all seeds", "one seed"]


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


@pytest.mark.parametrize("method", ["random_lm_steer", "composed_lm_steer", "transferred_lm_steer"])
def test_the_relatives_of_a_method_have_names_and_colours_of_their_own(method):
    assert style.label(method) != method.replace("_", " ") and method in style.COLOURS
    assert style.rank("lm_steer") < style.rank(method) < style.rank("hpr")


def test_of_two_scorers_one_must_be_named_the_primary():
    table = metrics(scorers=(LEXICON, NETWORK))
    with pytest.raises(ValueError, match="toxicity comes from .*lexicon==1.*network==2.*name the first"):
        toxicity.table(table)
    with pytest.raises(ValueError, match="no toxicity by other==3, only by"):
        toxicity.table(table, primary="other==3")


@pytest.mark.parametrize(("times", "told"), [(20, [30, 100, 300]), (140, [100, 1000])])
def test_a_wide_axis_of_perplexity_tells_powers_of_ten_alone(times: int, told: list[int]):
    table = metrics(methods=STEERED)
    steered = (table.metric == "perplexity") & (table.method != "base")
    table.loc[steered, ["value", "low", "high"]] *= times
    figure = toxicity.plot(toxicity.table(table, [choice()]))
    (panel,) = (axes for axes in figure.axes if axes.get_xscale() == "log")
    low, high = panel.get_xlim()
    assert [at for at in panel.get_xticks() if low <= at <= high] == pytest.approx(told)


def test_of_two_judges_of_perplexity_one_must_be_named():
    table = metrics()
    both = pd.concat([table, table[table.metric == "perplexity"].assign(scorer="large")])
    with pytest.raises(ValueError, match="perplexity comes from .*large.*, which share no axis"):
        toxicity.table(both)
    assert set(toxicity.table(both, judge="large").scorer) == {LEXICON, "large", NO_SCORER}


def test_a_table_without_pooled_rows_is_refused():
    table = metrics()
    with pytest.raises(ValueError, match="no pooled rows of"):
        toxicity.table(table[table.seed != "all"])
    with pytest.raises(ValueError, match="no pooled rows of"):
        toxicity.table(table[table.split != "test"])


def caption(*args, **how):
    table = toxicity.table(metrics(**how), *args, primary=LEXICON)
    return " ".join(captions.caption(TEMPLATE.read_text(), toxicity.facts(table)).split())


def test_the_caption_says_n_seeds_samples_interval_and_scorers():
    text = caption()
    assert "n = 60 test prompts" in text
    assert "3 seeds of 4 samples a prompt" in text
    assert "95 % percentile bootstrap interval over prompts" in text
    assert "toxicity by lexicon==1; perplexity under tiny, unsteered" in text
    assert not any(words in text for words in ("sample data", "Left out", "Hollow", "Chosen", "experiments"))


def test_the_caption_names_the_scorer_of_the_hollow_points():
    assert "Hollow points: toxicity by network==2." in caption(scorers=(LEXICON, NETWORK))


def test_the_caption_says_what_the_chosen_row_does_by_each_scorer():
    text = caption([choice()], methods=STEERED, scorers=(LEXICON, NETWORK))
    assert "−0.030 [−0.030, +0.010] for LM-Steer, 1.5, by lexicon==1; −0.021 [" in text


def test_the_caption_names_the_methods_that_rest_on_sample_data():
    real = metrics(methods=[("base", (0.0,)), ("caa", (1.0,))])
    table = pd.concat([real, metrics(methods=[("lm_steer", (1.0,))], data="sample")])
    text = captions.caption(TEMPLATE.read_text(), toxicity.facts(toxicity.table(table)))
    assert "sample data (LM-Steer)" in text


def test_the_caption_says_what_was_left_out():
    assert "2.5 % of a point's texts in toxicity" in caption(refused=0.025)


def test_the_smallest_detectable_difference_is_that_of_a_two_sided_paired_test_with_power_80_percent():
    # The interval is 0.04 wide: standard error 0.02 / 1.960; (1.960 + 0.842) * 0.0102 = 0.0286.
    assert toxicity.facts(toxicity.table(metrics(methods=STEERED)))["detectable"] == "0.029"


def test_an_unknown_word_in_a_template_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="promts"):
        captions.caption("n = {{ promts }}", {"prompts": "60"})


def test_names_that_look_like_markup_are_escaped():
    assert captions.caption("{{ model }}", {"model": "a_*b*"}) == "a\\_\\*b\\*\n"
