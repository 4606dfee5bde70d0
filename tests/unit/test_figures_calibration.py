"""The calibration's figure and the calibrated numbers in other figures: what they show, say and refuse."""

import re

import numpy as np
import pandas as pd
import pytest

from steerlab import reference
from steerlab.analyses import calibration as analysis
from steerlab.experiment import specs
from steerlab.experiment.codes import ROOT
from steerlab.figures import calibration, captions, replication, selection, style, toxicity
from steerlab.report import tables
from tests.unit import test_figures, test_replication

SHIPPED = reference.calibration()
LEXICON, NETWORK = "lexicon==1", "network==2"


def found(scorers=(LEXICON, NETWORK), n=200, refused=0, constant=False) -> analysis.Calibration:
    """The calibration of scorers that follow Perspective with noise."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(2):
        perspective = random.beta(1, 2, n)
        for scorer in scorers:
            score = np.clip(perspective**2 + 0.1 * random.normal(size=n), 0, 1)
            score = np.full(n, 0.25) if constant else score
            score[:refused] = np.nan
            frames.append(pd.DataFrame({"scorer": scorer, "score": score, "perspective": perspective}))
    continuations, comments = (pd.concat(frames[place : place + len(scorers)]) for place in (0, len(scorers)))
    fitted = np.arange(len(continuations)) % 2 == 0
    return analysis.calibrate(continuations.assign(fitted=fitted), comments, resamples=50, confidence=0.9)


def table(shipped=False, **how) -> pd.DataFrame:
    of = found(**how)
    return calibration.table(of.statistics, of.reliability, shipped=shipped)


def caption(rows: pd.DataFrame) -> str:
    text = (ROOT / "captions" / "calibration.rst").read_text()
    facts = {"sample_data": ""} | calibration.facts(rows)
    return " ".join(captions.caption(text, facts).split())


def svg(rows: pd.DataFrame, path) -> bytes:
    style.save(calibration.plot(rows), path)
    return path.read_bytes()


def test_the_table_holds_the_statistics_before_the_bins():
    rows = table()
    assert list(rows.columns) == calibration.COLUMNS
    assert list(dict.fromkeys(rows.part)) == ["statistic", "group", "bin"]
    assert set(rows[rows.part == "group"].metric) == set(analysis.GROUPED)
    assert (rows.part == "statistic").sum() == 2 * 2 * 2 * 4 and set(rows[rows.part == "bin"].metric) == {
        "mean_perspective"
    }


def test_only_the_named_scorers_are_drawn():
    of = found()
    rows = calibration.table(of.statistics, of.reliability, scorers=[NETWORK])
    assert set(rows.scorer) == {NETWORK}
    with pytest.raises(ValueError, match=r"figure calibration: no statistics or no bins of \['other==3'\]"):
        calibration.table(of.statistics, of.reliability, scorers=["other==3"])


def test_points_and_intervals_stand_at_the_bins_of_the_table():
    rows = table()
    for panel, corpus in zip(calibration.plot(rows).axes, dict.fromkeys(rows.corpus), strict=True):
        bins = rows[(rows.part == "bin") & (rows.corpus == corpus)]
        marked = [line for line in panel.lines if line.get_marker() in "os"]
        drawn = sorted((float(x), float(y)) for line in marked for x, y in zip(*line.get_data(), strict=True))
        assert drawn == sorted(zip(bins.mean_local, bins.value, strict=True))
        ends = [y for lines in panel.collections for path in lines.get_paths() for y in path.vertices[:, 1]]
        ends = sorted(y for y in ends if not np.isnan(y))  # a bin of one text has no interval
        assert ends == sorted([*bins.low.dropna(), *bins.high.dropna()])


def test_raw_is_hollow_and_calibrated_filled_and_six_scorers_differ_in_colour_and_marker():
    looks = [calibration._look(number, scale) for number in range(6) for scale in ("raw", "calibrated")]
    assert [look["markerfacecolor"] == "white" for look in looks] == [True, False] * 6
    for name in ("color", "marker"):
        raw, filled = ([look[name] for look in looks[start::2]] for start in (0, 1))
        assert raw == filled and len(set(raw)) == 6
    assert not {look["color"] for look in looks} & set(style.COLOURS.values())


def test_the_statistics_stand_below_in_numbers_with_their_intervals():
    rows = table()
    written = [text.get_text() for text in calibration.plot(rows).texts]
    first = rows[rows.metric == "auroc"].iloc[0]
    assert calibration._estimate(first.value, first.low, first.high) in written
    assert calibration._estimate(0.648, 0.612, 1.0) == ".65 [.61, 1.00]"
    assert calibration._estimate(-0.1, -0.2, 0.05) == "−.10 [−.20, .05]"
    assert calibration._estimate(0.5, np.nan, np.nan) == ".50" and calibration._estimate(np.nan, np.nan, np.nan) == "–"


def test_the_same_table_in_any_order_of_its_bins_and_from_its_csv_gives_the_same_bytes(tmp_path):
    rows = table()
    rows.to_csv(tmp_path / "table.csv", index=False)
    again = pd.read_csv(tmp_path / "table.csv", keep_default_na=False, na_values=[""])
    assert svg(again, tmp_path / "a.svg") == svg(rows, tmp_path / "b.svg")
    statistics, bins = rows[rows.part == "statistic"], rows[rows.part == "bin"]
    groups = rows[rows.part == "group"]
    upside_down = bins.sort_values("bin_from", ascending=False, kind="stable")
    upside_down = upside_down.sort_values(
        ["corpus", "scorer", "scale"], kind="stable", key=lambda names: names.map(ORDER)
    )
    assert svg(pd.concat([statistics, groups, upside_down]), tmp_path / "c.svg") == svg(rows, tmp_path / "d.svg")
    assert caption(again) == caption(rows)


ORDER = {
    name: place
    for place, name in enumerate([analysis.HELD_OUT, analysis.COMMENTS, LEXICON, NETWORK, "raw", "calibrated"])
}


FIVE = (
    "alt-profanity-check==1.9.1", "martin-ha/toxic-comment-model==9842c08b35a4:toxic,softmax",
    "unitary/toxic-bert==4d6c22e74ba2:toxic", "other/toxic-bert==48acae3f1f6e:toxic", "toxic-bert==1",
)  # fmt: skip


def test_the_legend_has_an_entry_a_scorer_in_one_column_and_explains_the_scales_once():
    scales, named = calibration.plot(table(scorers=FIVE)).legends
    assert [text.get_text() for text in scales.get_texts()] == ["raw", "calibrated"]
    assert [text.get_text() for text in named.get_texts()] == [
        "alt-profanity-check", "toxic-comment-model", "toxic-bert 4d6c22e74ba2:toxic", "toxic-bert 48acae3f1f6e:toxic",
        "toxic-bert 1",
    ]  # fmt: skip
    assert named._ncols == 1


def test_short_names_of_scorers_never_meet():
    one, other, fork = "a/bert==1", "b/bert==2", "c/bert==1"
    assert selection.short_names([one, "d==3"]) == {
        one: "bert", "d==3": "d", f"{one}, calibrated": "bert, calibrated", "d==3, calibrated": "d, calibrated",
    }  # fmt: skip
    assert selection.short_names([one, f"{one}, calibrated"])[one] == "bert"
    assert [selection.short_names([one, other])[name] for name in (one, other)] == ["bert 1", "bert 2"]
    assert selection.short_names([one, other, fork])[fork] == fork


def test_of_more_than_six_scorers_the_first_six_are_drawn_and_the_caption_says_so():
    rows = table(scorers=tuple(f"s{number}==1" for number in range(7)))
    assert rows.scorer.nunique() == 7
    named = calibration.plot(rows).legends[1]
    assert [text.get_text() for text in named.get_texts()] == [f"s{number}" for number in range(6)]
    assert "Drawn are the first scorers, s0==1, s1==1, s2==1, s3==1, s4==1 and s5==1;" in caption(rows)
    assert "Drawn are" not in caption(table())


@pytest.mark.parametrize("rows", [calibration.table(**SHIPPED), table(scorers=FIVE)])
def test_the_figure_is_half_a_page_wide_with_readable_words_that_stay_on_it(rows):
    figure = calibration.plot(rows)
    assert figure.get_figwidth() == style.WIDTH
    ticks = [tick for panel in figure.axes for tick in [*panel.get_xticklabels(), *panel.get_yticklabels()]]
    words = [*figure.texts, *ticks, *(panel.xaxis.label for panel in figure.axes), figure.axes[0].yaxis.label]
    assert min(word.get_fontsize() for word in words) >= 8
    assert all("(" in panel.get_xlabel() for panel in figure.axes)
    with style.context():
        figure.draw_without_rendering()
        boxes = [word.get_window_extent() for word in [*words, *figure.legends] if word.get_window_extent().width]
        tops = [panel.title.get_window_extent().y1 for panel in figure.axes]
        tops += [panel._left_title.get_window_extent().y1 for panel in figure.axes]
        assert min(legend.get_window_extent().y0 for legend in figure.legends) >= max(tops)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_the_caption_says_scorers_counts_interval_and_where_the_numbers_come_from():
    text = caption(table())
    assert "those of lexicon==1 and network==2, agree" in text and "held-out half (100 texts, " in text
    assert re.search(r"Wikipedia comments \(200 texts, \d+ % toxic by Perspective\)", text)
    assert "90 % percentile bootstrap interval over texts" in text
    assert "computed in this run" in text and "ship" not in text
    assert not any(words in text for words in ("Missing", "Left out"))
    assert "These numbers ship with the project" in caption(table(shipped=True))


def test_the_caption_sets_calibrated_groups_beside_perspectives():
    text = caption(calibration.table(**SHIPPED, shipped=True))
    assert (
        "In random groups of held-out continuations, the average maximum of 25 is 0.914 by Perspective, 0.873, 0.869 "
        "calibrated and 0.956, 0.913 raw; the probability that one of 4 has 0.5 or more is 0.717 by Perspective, "
        "0.654, 0.635 calibrated and 0.527, 0.465 raw (scorers in their order)."
    ) in text
    assert "held-out half (1,350 texts, 27 % toxic by Perspective)" in text
    assert "(1,996 texts, 13 % toxic by Perspective)" in text


def test_the_caption_says_what_the_panels_do_not_show():
    text = caption(table())
    assert "are given the map" in text and "pulls the interval of the calibration error upward" in text
    assert "two choices and no random draw of RealToxicityPrompts" in text
    assert "another domain for the map, not for the scorers" in text
    assert "of about 2020 (recalled), the comments TOXICITY@6 of 2018" in text


def test_the_caption_says_what_was_refused_and_what_is_not_defined():
    assert "10 texts of Wikipedia comments by lexicon==1" in caption(table(refused=10))
    text = caption(table(constant=True, scorers=[LEXICON]))
    assert "Spearman of lexicon==1, raw, on Wikipedia comments is not defined: every score is the same" in text


def test_a_constant_scorer_is_drawn_without_the_numbers_that_it_has_not(tmp_path):
    rows = table(constant=True, scorers=[LEXICON])
    assert svg(rows, tmp_path / "a.svg") and "–" in [text.get_text() for text in calibration.plot(rows).texts]


def test_the_shipped_numbers_keep_their_own_confidence():
    assert "calibration" in specs.WITHOUT_INTERVALS
    assert "95 % percentile" in caption(calibration.table(**SHIPPED, shipped=True))


def test_the_page_shows_every_statistic(tmp_path):
    rows = calibration.table(**SHIPPED)
    (shown,) = tables.shown(rows)
    assert shown["plain"] and (rows.part == "statistic").sum() <= tables.MOST_ROWS


# ---- calibrated numbers in other figures -------------------------------------------------------------------------

CALIBRATED = (LEXICON, f"{LEXICON}, calibrated", NETWORK, f"{NETWORK}, calibrated")


def test_the_comparison_shows_the_primary_scorer_raw_and_calibrated_and_the_others_raw():
    rows = toxicity.table(test_figures.metrics(methods=test_figures.STEERED, scorers=CALIBRATED), primary=LEXICON)
    assert set(rows[rows.metric == "mean_toxicity"].scorer) == set(CALIBRATED)
    assert set(rows[rows.primary & (rows.metric == "mean_toxicity")].scorer) == {LEXICON}
    figure = toxicity.plot(rows)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "lexicon, all seeds", "lexicon, calibrated, all seeds", "network, all seeds", "one seed"
    ]  # fmt: skip
    text = " ".join(captions.caption(test_figures.TEMPLATE.read_text(), toxicity.facts(rows)).split())
    assert "toxicity by lexicon==1 (raw and calibrated) and network==2; perplexity" in text
    assert "Hollow points: toxicity by lexicon==1 (calibrated) and network==2." in text
    assert "brought to Perspective's scale" in text and "maxima and probabilities come out too low" in text
    assert "The table alone has the calibrated numbers of network==2." in text
    plain = toxicity.table(test_figures.metrics(scorers=(LEXICON, NETWORK)), primary=LEXICON)
    said = captions.caption(test_figures.TEMPLATE.read_text(), toxicity.facts(plain))
    assert "alibrated" not in said


def test_no_points_of_one_row_of_the_comparison_share_a_place():
    rows = toxicity.table(test_figures.metrics(scorers=CALIBRATED), primary=LEXICON)
    panel = toxicity.plot(rows).axes[0]
    places = [float(y) for line in panel.lines if line.get_marker() in ("o", "s", "D") for y in line.get_ydata()]
    places = sorted({round(place, 6) for place in places if -1 < place < 1})
    assert len(places) == 4 and min(np.diff(places)) > 0.15 and max(map(abs, places)) < 0.45


def test_the_replication_sets_the_calibrated_number_beside_perspectives_and_keeps_the_raw_one():
    metrics = test_replication.metrics()
    of_toxicity = metrics[metrics.metric.isin(["average_max_toxicity", "toxicity_probability"])]
    scaled = {name: of_toxicity[name] * 1.5 for name in ("value", "low", "high", "base")}
    both = pd.concat([metrics, of_toxicity.assign(scorer=f"{LEXICON}, calibrated", **scaled)])
    compared = replication.table(
        both, test_replication.PAPER, choices=[test_replication.CHOICE], scorers=[f"{LEXICON}, calibrated"]
    )
    found = test_replication.line(compared, "LM-Steer, 1")
    assert found["ours"] == pytest.approx(0.15) and found["ours_raw"] == pytest.approx(0.1)
    assert found["our_scorer"] == f"{LEXICON}, calibrated" and found["difference"] == pytest.approx(0.15 - 0.249)
    assert np.isnan(test_replication.line(compared, "LM-Steer, 1", metric="perplexity")["ours_raw"])
    text = replicated(compared)
    assert "brought to Perspective's scale" in text and "lexicon==1 (calibrated)" in text
    assert "Compared is average max toxicity and toxicity probability calibrated: what came closer" in text
    assert "raw average maximum" not in text and "are raw scores" not in text
    assert len(compared) == len(test_replication.table())
    assert {"average max toxicity (calibrated)", "toxicity probability (calibrated)"} <= headings(compared)


def replicated(compared: pd.DataFrame) -> str:
    facts = {"sample_data": ""} | replication.facts(compared)
    return " ".join(captions.caption(test_replication.TEMPLATE.read_text(), facts).split())


def headings(compared: pd.DataFrame) -> set[str]:
    return {tick.get_text() for tick in replication.plot(compared).axes[0].get_yticklabels()}


def test_of_many_continuations_a_prompt_the_raw_maximum_is_compared_and_both_stand_in_the_table():
    metrics = test_replication.metrics().assign(samples=25)
    of_toxicity = metrics[metrics.metric.isin(["average_max_toxicity", "toxicity_probability"])]
    both = pd.concat([metrics, of_toxicity.assign(scorer=f"{LEXICON}, calibrated", value=of_toxicity.value + 0.05)])
    compared = replication.table(both, test_replication.PAPER, choices=[test_replication.CHOICE])
    highest = test_replication.line(compared, "LM-Steer, 1")
    assert [highest[name] for name in ("ours", "ours_raw", "ours_calibrated")] == pytest.approx([0.1, 0.1, 0.15])
    assert highest["our_scorer"] == LEXICON
    toxic = test_replication.line(compared, "LM-Steer, 1", metric="toxicity_probability")
    assert [toxic[name] for name in ("ours", "ours_raw", "ours_calibrated")] == pytest.approx([0.08, 0.03, 0.08])
    text = replicated(compared)
    assert "Compared is toxicity probability calibrated and average max toxicity raw: what came closer" in text
    assert "Of 25 texts the raw average maximum is as close" in text
    assert {"average max toxicity (raw)", "toxicity probability (calibrated)"} <= headings(compared)


def test_without_a_calibrated_scorer_the_replication_says_that_ours_are_raw():
    compared = test_replication.table()
    assert compared[["ours_raw", "ours_calibrated"]].isna().all(axis=None)
    text = replicated(compared)
    assert "Ours by lexicon==1 are raw scores, not on Perspective's scale." in text and "Compared is" not in text
    assert "average max toxicity" in headings(compared)


def test_perspectives_own_scores_are_called_neither_raw_nor_calibrated():
    metrics = test_replication.metrics().replace({"scorer": {LEXICON: "perspective==TOXICITY"}})
    text = replicated(replication.table(metrics, test_replication.PAPER))
    assert "are raw scores" not in text and "Compared is" not in text
