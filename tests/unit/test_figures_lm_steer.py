"""LM-Steer's figures: tables on examples worked out by hand, what they refuse, and that plots show their table."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from steerlab.figures import (
    captions,
    composition,
    data_efficiency,
    marks,
    official_grid,
    selection,
    sentiment,
    size,
    strength,
    style,
    transfer,
    variants,
)
from steerlab.metrics import grid
from steerlab.metrics.continuations import COLUMNS

CAPTIONS = Path(__file__).parents[2] / "captions"
SCORERS = {"toxicity": "lexicon==1", "perplexity": "tiny, unsteered", "sentiment": "vader==3"}


def rows(metric, value, *, method="lm_steer", seeds=2, base=0.4, half=0.05, **other):
    """One number over all seeds and at each seed, as the metrics tables have them."""
    family = "sentiment" if metric == "positive_share" else next(name for name in SCORERS if name in metric)
    unsteered = method == "base"
    row = {
        "model": "tiny", "method": method, "task": "toxicity", "split": "test", "prompts": "all",
        "steps": 0 if unsteered else 100, "strength": 0.0 if unsteered else 1.0, "metric": metric, "value": value,
        "low": value - half, "high": value + half, "base": np.nan if unsteered else base,
        "difference": np.nan if unsteered else value - base, "n": 60, "samples": 4,
        "difference_low": np.nan if unsteered else value - base - half,
        "difference_high": np.nan if unsteered else value - base + half, "scorer": SCORERS[family], "data": "real",
    }  # fmt: skip
    row |= other
    pooled = [row | {"seed": "all"}]
    return pd.DataFrame(pooled + [row | {"seed": str(seed)} for seed in range(seeds)])[COLUMNS]


def both(toxicity, perplexity, *, method="lm_steer", **other):
    """Mean toxicity and perplexity; the unsteered model's are 0.4 and 10."""
    return pd.concat(
        [
            rows("mean_toxicity", toxicity, method=method, **other),
            rows("perplexity", perplexity, method=method, base=10.0, half=1.0, **other),
            rows("corpus_perplexity", perplexity, method=method, base=10.0, half=1.0, **other),
        ]
    )


def base(**other):
    return both(0.4, 10.0, method="base", **other)


def cell(table, **where):
    """The one pooled row with these values."""
    for name, value in ({"seed": "all"} | where).items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def caption(module, table, *, facts=None, template=None):
    text = (CAPTIONS / f"{template or module.__name__.rpartition('.')[2]}.rst").read_text()
    return " ".join(captions.caption(text, (facts or module.facts)(table)).split())


def heights(panel):
    """All y values at which the panel draws a marker or a line."""
    return {round(float(y), 9) for line in panel.lines for y in np.atleast_1d(line.get_ydata()) if np.isfinite(y)}


def texts(figure):
    return [text.get_text() for panel in figure.axes for text in panel.texts]


# Strength ------------------------------------------------------------------------------------------------------------

CHOICE = {
    "model": "tiny", "method": "lm_steer", "task": "toxicity", "scorer": "lexicon==1", "perplexity_limit": 1.3,
    "pick": {"steps": 100, "strength": 0.5},
}  # fmt: skip


def swept(**other):
    dev = {"split": "dev"} | other
    lines = [base(**dev)]
    for steps in (30, 100):
        for s in (0.5, 1.0):
            lines.append(both(0.4 - 0.1 * s, 10 + 4 * s, steps=steps, strength=s, **dev))
    return pd.concat(lines)


def test_perplexity_becomes_a_multiple_of_the_unsteered_one_with_the_paired_interval():
    row = cell(strength.table(swept(), [CHOICE]), steps=100, strength=0.5, metric="corpus_perplexity_ratio")
    # 12 against 10; the difference is 2 with the interval 1 to 3.
    assert (row.value, row.low, row.high, row.base) == pytest.approx((1.2, 1.1, 1.3, 1.0))


def test_every_curve_begins_at_the_unsteered_model_whose_ratio_is_one():
    table = strength.table(swept(), [CHOICE])
    start = cell(table, point="base", metric="corpus_perplexity_ratio")
    assert (start.strength, start.value, start.low, start.high) == (0, 1, 1, 1)
    assert cell(table, point="base", metric="mean_toxicity").value == 0.4


def test_the_pick_and_the_default_are_flagged_once_a_metric_and_seed():
    table = strength.table(swept(), [CHOICE])
    picked = table[table.picked]
    assert set(zip(picked.steps, picked.strength, strict=True)) == {(100, 0.5)}
    assert len(picked) == 2 * 3  # two metrics, two seeds and their pool
    assert set(table[table.default].strength) == {1.0}
    assert set(table.limit) == {1.3}


def test_the_dummy_alone_stands_at_strength_zero_beside_the_unsteered_model():
    metrics = pd.concat([swept(), both(0.37, 10.5, method="lm_steer_dummy", split="dev")])
    table = strength.table(metrics, [CHOICE])
    row = cell(table, point="dummy", metric="mean_toxicity")
    assert (row.strength, row.value) == (0, 0.37)
    assert 0.37 in heights(strength.plot(table).axes[0])
    assert "its dummy acts alone, which is not the unsteered model" in caption(strength, table)


def test_the_strength_plot_draws_every_value_the_limit_and_the_ring():
    table = strength.table(swept(), [CHOICE])
    toxicity, perplexity = strength.plot(table).axes
    assert heights(toxicity) >= set(table[table.metric == "mean_toxicity"].value.round(9))
    assert heights(perplexity) >= set(table[table.metric == "corpus_perplexity_ratio"].value.round(9)) | {1.3}
    rings = [line for line in toxicity.lines if line.get_markersize() > 12]
    assert [(*ring.get_xdata(), *ring.get_ydata().round(9)) for ring in rings] == [(0.5, 0.35)]


def test_the_strength_caption_says_what_was_picked_and_that_it_flatters():
    text = caption(strength, strength.table(swept(), [CHOICE]))
    assert "strength 0.5 after 100 training steps, with mean toxicity 0.350 against 0.400 unsteered and 1.20" in text
    assert "its drop here flatters it" in text and "n = 60 dev prompts" in text and "2 seeds of 4 samples" in text


def test_the_strength_caption_admits_a_pick_over_the_limit():
    table = strength.table(swept(), [CHOICE | {"perplexity_limit": 1.1}])
    assert "points that all have more than 1.1 times the perplexity" in caption(strength, table)


def test_the_choice_says_which_toxicity_scorer_is_drawn():
    metrics = swept()
    second = metrics[metrics.metric == "mean_toxicity"].assign(scorer="second==2", value=0.9)
    table = strength.table(pd.concat([metrics, second]), [CHOICE])
    assert set(table[table.metric == "mean_toxicity"].scorer) == {"lexicon==1"}


@pytest.mark.parametrize(
    ("metrics", "choices", "says"),
    [
        (swept(), [], "got 0 choices for method lm_steer"),
        (swept(), [CHOICE | {"pick": {"steps": 999, "strength": 1}}], "steps 999, strength 1.* is not among"),
        (swept()[lambda t: t.method != "base"], [CHOICE], "no rows of method base"),
        (pd.concat([swept(), both(0.2, 11, method="caa", split="dev")]), [CHOICE], r"\['caa', 'lm_steer'\].*`method`"),
        (swept(split="test"), [CHOICE], "no pooled rows of .* on dev prompts"),
        (pd.concat([swept(), swept(model="other")]), [CHOICE], "got models"),
        (pd.concat([swept(), base(split="dev")]), [CHOICE], "method base, .* twice; pass each cell once"),
        (swept().drop(columns="steps"), [CHOICE], r"lack the columns \['steps'\]"),
    ],
)
def test_a_strength_figure_that_would_mislead_is_refused(metrics, choices, says):
    with pytest.raises(ValueError, match=f"figure strength: .*{says}"):
        strength.table(metrics, choices)


# Sentiment -----------------------------------------------------------------------------------------------------------


def moods(strengths=(-1.0, 1.0), **other):
    parts = []
    for prompts, share in (("positive", 0.8), ("neutral", 0.5), ("negative", 0.2)):
        common = {"task": "sentiment", "prompts": prompts} | other
        for s in (0.0, *strengths):
            how = common | ({"method": "base"} if s == 0 else {"strength": s})
            parts.append(rows("positive_share", share + 0.1 * s, **how, **({} if s == 0 else {"base": share})))
            parts.append(rows("mean_sentiment", 2 * share - 1 + 0.2 * s, **how))
            parts.append(rows("perplexity", 10 + s * s, **how))
    return pd.concat(parts)


def test_the_papers_four_settings_are_flagged_and_nothing_else():
    table = sentiment.table(moods())
    flagged = table[table.setting != ""][["setting", "prompts", "strength"]].drop_duplicates()
    assert set(flagged.itertuples(index=False, name=None)) == {
        ("positive control of neutral prompts", "neutral", 1.0),
        ("positive control of negative prompts", "negative", 1.0),
        ("negative control of neutral prompts", "neutral", -1.0),
        ("negative control of positive prompts", "positive", -1.0),
    }


def test_prompts_of_all_classes_together_are_not_a_line():
    together = moods().assign(prompts="all")
    table = sentiment.table(pd.concat([moods(), together]))
    assert set(table.prompts) == {"positive", "neutral", "negative"}


def test_the_sentiment_plot_has_a_line_a_class_through_the_unsteered_model():
    table = sentiment.table(moods())
    share = sentiment.plot(table).axes[0]
    lines = [line for line in share.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 3]
    assert sorted(tuple(line.get_ydata().round(9)) for line in lines) == [
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
        (0.7, 0.8, 0.9),
    ]
    assert all(list(line.get_xdata()) == [-1, 0, 1] for line in lines)


def test_the_sentiment_caption_gives_the_change_in_each_setting():
    text = caption(sentiment, sentiment.table(moods()))
    assert "positive control of neutral prompts 0.50 to 0.60" in text
    assert "negative control of positive prompts 0.80 to 0.70" in text
    assert "n = 60 positive, 60 neutral and 60 negative test prompts" in text and "VADER is a lexicon" in text


def test_a_sentiment_figure_with_missing_cells_one_seed_and_no_intervals_is_drawn():
    metrics = moods(seeds=1, half=np.nan)
    metrics = metrics[~((metrics.prompts == "neutral") & (metrics.strength == 1))]
    table = sentiment.table(metrics)
    assert len(sentiment.plot(table).axes) == 3
    assert "have no interval" in caption(sentiment, table)


# Composition ---------------------------------------------------------------------------------------------------------

WEIGHTS = {"mix": {"toxicity": 1.0, "sentiment": -2.0}, "only": {"sentiment": 1.0}}


def composed():
    parts = [base(), rows("mean_sentiment", 0.0, method="base")]
    for method, s in (("mix", 1.0), ("mix", 0.5), ("only", 1.0)):
        parts += [both(0.4 - 0.1 * s, 10 + s, method=method, strength=s)]
        parts += [rows("mean_sentiment", 0.25 * s, method=method, strength=s)]
    return pd.concat(parts)


def test_a_composed_steer_stands_at_its_strength_times_its_weights_and_base_at_zero():
    table = composition.table(composed(), WEIGHTS)
    places = table[["method", "strength", "detoxification", "sentiment"]].drop_duplicates()
    assert set(places.itertuples(index=False, name=None)) == {
        ("base", 0.0, 0.0, 0.0), ("mix", 1.0, 1.0, -2.0), ("mix", 0.5, 0.5, -1.0), ("only", 1.0, 0.0, 1.0),
    }  # fmt: skip
    assert set(table.seeds) == {2} and set(table.seed) == {"all"}


def test_the_maps_write_the_values_of_their_cells_and_a_dash_where_nothing_was_run():
    figure = composition.plot(composition.table(composed(), WEIGHTS))
    written = [text.get_text() for text in figure.axes[0].texts]
    # Detoxification 0, 0.5, 1 upwards; sentiment -2, -1, 0, 1 to the right.
    assert written == ["–", "–", "0.40", "0.30", "–", "0.35", "–", "–", "0.30", "–", "–", "–"]
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["−2", "−1", "0", "1"]
    assert "+0.25" in [text.get_text() for text in figure.axes[1].texts]


def test_a_map_of_small_values_writes_a_third_decimal():
    scores = pd.concat([scored([0.001], place=(0, 0)), scored([0.004], place=(1, 0))])
    figure = official_grid.plot(grid.official_grid(scores))
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.001", "0.004"]


def test_two_points_at_one_place_are_refused():
    weights = WEIGHTS | {"only": {"toxicity": 1.0, "sentiment": -2.0}}
    with pytest.raises(ValueError, match=r"two values of mean_toxicity at \(1, -2\): method mix, only"):
        composition.table(composed(), weights)


def test_the_composition_caption_says_how_wide_the_intervals_are():
    text = caption(composition, composition.table(composed(), WEIGHTS))
    assert "at 4 points" in text and "0.05 in mean toxicity, 0.05 in mean sentiment and 1 in perplexity" in text


def scored(*scores, quantity="toxicity", place=(0, 0)):
    """scores: one sequence a prompt."""
    return pd.DataFrame(
        [
            (*place, f"p{prompt}", sample, quantity, "s==1", score)
            for prompt, samples in enumerate(scores)
            for sample, score in enumerate(samples)
        ],
        columns=["detoxification", "sentiment", "id", "sample", "quantity", "scorer", "score"],
    )


def test_the_official_grid_aggregates_toxicity_by_prompt_and_positive_texts_over_texts():
    table = grid.official_grid(
        pd.concat([scored([0.1, 0.9], [0.2, np.nan]), scored([-1, 1], [0.5, np.nan], quantity="sentiment")])
    ).set_index("metric")
    assert table.value.to_dict() == pytest.approx(
        {
            "mean_toxicity": (0.5 + 0.2) / 2,
            "average_max_toxicity": (0.9 + 0.2) / 2,
            "toxicity_probability": 1 / 2,
            "mean_sentiment": (0 + 0.5) / 2,
            "positive_share": 2 / 3,
        }
    )
    assert set(table.n) == {2} and set(table.samples) == {2}


def test_a_prompt_without_a_score_does_not_count_in_the_official_grid():
    table = grid.official_grid(scored([0.1, 0.3], [np.nan, np.nan])).set_index("metric")
    assert table.value["mean_toxicity"] == pytest.approx(0.2)
    assert table.n["mean_toxicity"] == 1 and np.isnan(table.low["mean_toxicity"])


def test_the_official_grid_counts_distinct_words_where_texts_are_given():
    scores = scored([0.1, 0.3])
    written = scores[["detoxification", "sentiment", "id", "sample"]].assign(text=["a b", "a c"])
    table = grid.official_grid(scores, written).set_index("metric")
    assert table.value["dist_1"] == 3 / 4 and table.value["dist_2"] == 2 / 4


def test_the_official_grid_refuses_a_quantity_that_it_has_no_metric_for():
    with pytest.raises(ValueError, match="quantity 'truthfulness' is unknown; score toxicity or sentiment"):
        grid.official_grid(scored([0.1, 0.3], quantity="truthfulness"))


def test_the_official_grid_is_drawn_by_steer_values():
    scores = pd.concat(
        [scored([0.1, 0.3], [0.2, 0.2], place=(up, right)) for up in (0, 5) for right in (-5, 0, 5)]
        + [scored([1, 1], [1, -1], quantity="sentiment", place=(0, 0))]
    )
    table = grid.official_grid(scores)
    figure = official_grid.plot(table)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.20"] * 6
    assert sorted(text.get_text() for text in figure.axes[1].texts) == ["0.75", *"–––––"]
    said = caption(None, table, facts=official_grid.facts, template="official_grid")
    assert "6 settings of raw steer values, 2 prompts of 2 samples" in said


def test_the_official_grid_loses_no_metric_without_a_word():
    gridded = grid.official_grid(scored([0.1, 0.3], [0.2, 0.2]))
    kept = official_grid.table(gridded, scorers=sorted(set(gridded.scorer)))
    pd.testing.assert_frame_equal(kept, gridded)
    with pytest.raises(
        ValueError, match=r"figure official_grid: no average_max_toxicity by \['perspective==1'\]; name one of"
    ):
        official_grid.table(gridded, scorers=["perspective==1"])


def test_the_official_grid_takes_no_text_twice_and_one_scorer_a_map():
    scores = scored([0.1, 0.3], [0.2, 0.2])
    with pytest.raises(ValueError, match="sample 0 of prompt 'p0'.*twice"):
        grid.official_grid(pd.concat([scores, scores]))
    two = grid.official_grid(pd.concat([scores, scores.assign(scorer="other==2")]))
    with pytest.raises(ValueError, match="scorer other==2, s==1|scorer s==1, other==2"):
        official_grid.plot(two)


# Transfer, adaptors --------------------------------------------------------------------------------------------------


def moved(direct=True):
    parts = [base(), both(0.3, 11), base(model="other"), both(0.33, 12, method="transferred_lm_steer", model="other")]
    parts += [both(0.28, 11, model="other")] if direct else []
    return pd.concat(parts)


def test_transfer_lists_source_then_target_each_after_its_unsteered_model():
    table = transfer.table(moved(), source="tiny", target="other")
    assert list(table[["group", "label"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("tiny (source)", "unsteered"), ("tiny (source)", "LM-Steer, 1"),
        ("other (target)", "unsteered"), ("other (target)", "transferred, 1"), ("other (target)", "trained on it, 1"),
    ]  # fmt: skip


def test_the_transfer_plot_has_a_point_a_row_at_the_tables_value():
    table = transfer.table(moved(), source="tiny", target="other")
    panel = transfer.plot(table).axes[0]
    found = [float(x) for line in panel.lines if line.get_markersize() == style.POOLED_SIZE for x in line.get_xdata()]
    assert found == [0.4, 0.3, 0.4, 0.33, 0.28]
    assert "tiny (source)" in [text.get_text() for text in panel.texts]


def test_transfer_needs_every_part_but_the_steer_trained_on_the_target():
    table = transfer.table(moved(direct=False), source="tiny", target="other")
    assert "No steer was trained on the target itself" in caption(transfer, table)
    rest = moved()
    with pytest.raises(ValueError, match="no rows of method transferred_lm_steer on model other"):
        transfer.table(rest[rest.method != "transferred_lm_steer"], source="tiny", target="other")
    with pytest.raises(ValueError, match="source and target are both tiny"):
        transfer.table(rest, source="tiny", target="tiny")


def test_each_model_may_judge_its_own_perplexity_but_toxicity_has_one_scorer():
    metrics = moved()
    own = (metrics.metric == "perplexity") & (metrics.model == "other")
    table = transfer.table(
        metrics.assign(scorer=metrics.scorer.mask(own, "other, unsteered")), source="tiny", target="other"
    )
    assert "perplexity under other, unsteered and tiny, unsteered" in caption(transfer, table)
    mixed = metrics.assign(scorer=metrics.scorer.mask(metrics.model == "other", "second==2"))
    with pytest.raises(ValueError, match="mean_toxicity comes from .*lexicon==1.*second==2.*`scorers`"):
        transfer.table(mixed, source="tiny", target="other")


def test_a_row_without_a_value_says_so_in_the_transfer_plot():
    metrics = moved()
    lost = (metrics.metric == "perplexity") & (metrics.method == "transferred_lm_steer")
    metrics[["value", "low", "high"]] = metrics[["value", "low", "high"]].mask(lost)
    figure = transfer.plot(transfer.table(metrics, source="tiny", target="other"))
    assert texts(figure).count("none") == 1


def test_adaptors_stand_in_the_order_of_their_labels_after_the_unsteered_model():
    metrics = pd.concat([base(), both(0.3, 11, method="b"), both(0.35, 10, method="a"), both(0.1, 99, method="caa")])
    table = variants.table(metrics, [("b", "multiply"), ("a", "full rank"), ("absent", "add")], of="lm_steer")
    assert list(table.label.drop_duplicates()) == ["unsteered", "multiply, 1", "full rank, 1"]
    ticks = variants.plot(table).axes[0].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == ["unsteered", "multiply, 1", "full rank, 1"]


def test_one_strength_after_two_numbers_of_steps_names_the_steps():
    metrics = pd.concat([base(), both(0.3, 11, steps=30), both(0.2, 12, steps=300)])
    table = variants.table(metrics, [("lm_steer", "multiply")], of="lm_steer")
    assert list(table.label.drop_duplicates()) == ["unsteered", "multiply, 1, 30 steps", "multiply, 1, 300 steps"]


def test_adaptors_without_any_steer_are_refused():
    with pytest.raises(ValueError, match=r"figure variants of lm_steer: no rows of \['b'\]"):
        variants.table(base(), [("b", "multiply")], of="lm_steer")


# Data efficiency, size -----------------------------------------------------------------------------------------------


def test_points_stand_at_their_numbers_of_texts_beside_the_unsteered_line():
    metrics = pd.concat([base(), both(0.35, 11, method="few"), both(0.3, 11.5, method="many")])
    table = data_efficiency.table(metrics, {"many": 300, "few": 30})
    assert list(table.texts.drop_duplicates()) == [0, 30, 300]
    panel = data_efficiency.plot(table).axes[0]
    line = next(line for line in panel.lines if line.get_linestyle() == "-" and list(line.get_ydata()) == [0.35, 0.3])
    assert list(line.get_xdata()) == [0, 1] and 0.4 in heights(panel)
    assert [tick.get_text() for tick in data_efficiency.plot(table).axes[1].get_xticklabels()] == ["30", "300"]


def test_all_texts_stand_last_and_are_called_so():
    metrics = pd.concat([base(), both(0.3, 11, method="whole"), both(0.35, 11, method="few")])
    table = data_efficiency.table(metrics, {"few": 30, "whole": None})
    assert [tick.get_text() for tick in data_efficiency.plot(table).axes[1].get_xticklabels()] == ["30", "all"]
    assert "30 and all" in caption(data_efficiency, table)


def test_one_number_of_texts_is_said_to_show_no_trend():
    table = data_efficiency.table(pd.concat([base(), both(0.35, 11, method="few")]), {"few": 30})
    assert "only one number of training texts: this shows no trend" in caption(data_efficiency, table)
    assert data_efficiency.plot(table).axes[1].get_xlim() == (-0.5, 0.5)


def test_methods_that_share_a_number_of_texts_and_numbers_below_one_are_refused():
    metrics = pd.concat([base(), both(0.35, 11, method="a"), both(0.3, 11, method="b")])
    with pytest.raises(ValueError, match=r"\['a', 'b'\] share 30 texts"):
        data_efficiency.table(metrics, {"a": 30, "b": 30})
    with pytest.raises(ValueError, match="no numbers of training texts"):
        data_efficiency.table(metrics, {"a": 0})


PARAMETERS = pd.DataFrame(
    [("tiny", "lm_steer", 200, 100_000), ("other", "lm_steer", 400, 1_000_000)],
    columns=["model", "method", "learnable", "model_parameters"],
)


def test_the_size_table_gives_the_share_of_parameters_that_a_steer_adds():
    table = size.table(pd.concat([moved()[lambda t: t.method != "transferred_lm_steer"]]), PARAMETERS)
    assert cell(table, model="tiny", method="lm_steer").share == 0.002
    assert cell(table, model="tiny", method="base").learnable == 0
    assert "200 of tiny's 100,000 (0.2 %) and 400 of other's 1,000,000 (0.04 %)" in caption(size, table)


def test_the_size_plot_joins_the_models_by_strength_and_is_logarithmic():
    table = size.table(moved()[lambda t: t.method != "transferred_lm_steer"], PARAMETERS)
    panel = size.plot(table).axes[0]
    lines = [list(line.get_ydata()) for line in panel.lines if line.get_linestyle() == "-"]
    assert lines == [[0.4, 0.4], [0.3, 0.28]] and panel.get_xscale() == "log"


def test_one_model_alone_is_said_to_show_no_trend():
    table = size.table(pd.concat([base(), both(0.3, 11)]), PARAMETERS)
    assert "one model: no trend" in texts(size.plot(table))
    assert "There is only one model" in caption(size, table)


def test_a_model_without_base_or_parameters_is_refused():
    metrics = pd.concat([base(), both(0.3, 11), both(0.3, 11, model="other")])
    with pytest.raises(ValueError, match=r"no rows of \['base'\] on model other"):
        size.table(metrics, PARAMETERS)
    with pytest.raises(ValueError, match=r"parameters lack lm_steer on \['tiny'\]"):
        size.table(pd.concat([base(), both(0.3, 11)]), PARAMETERS[PARAMETERS.model == "other"])


# What all share ------------------------------------------------------------------------------------------------------


def every():
    """Each figure's table and plot."""
    mixed = pd.concat([base(), both(0.35, 11, method="a")])
    sized = size.table(mixed.replace({"method": {"a": "lm_steer"}}), PARAMETERS)
    gridded = grid.official_grid(scored([0.1, 0.3], [0.2, 0.2]))
    return {
        "strength": (strength.table(swept(), [CHOICE]), strength.plot),
        "sentiment": (sentiment.table(moods()), sentiment.plot),
        "composition": (composition.table(composed(), WEIGHTS), composition.plot),
        "official_grid": (gridded, official_grid.plot),
        "transfer": (transfer.table(moved(), source="tiny", target="other"), transfer.plot),
        "data_efficiency": (data_efficiency.table(mixed, {"a": 30}), data_efficiency.plot),
        "size": (sized, size.plot),
        "adaptors": (variants.table(mixed, [("a", "add")], of="lm_steer"), variants.plot),
    }


@pytest.mark.parametrize("name", list(every()))
def test_a_figure_from_its_csv_has_the_same_bytes(name, tmp_path):
    table, plot = every()[name]
    table.to_csv(tmp_path / "table.csv", index=False)
    for source, path in ((table, "a.svg"), (pd.read_csv(tmp_path / "table.csv"), "b.svg")):
        style.save(plot(source), tmp_path / path)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("name", list(every()))
def test_figures_are_half_a_page_wide_vector_and_labelled_in_readable_type(name, tmp_path):
    table, plot = every()[name]
    before = dict(mpl.rcParams)
    figure = plot(table)
    assert dict(mpl.rcParams) == before
    assert figure.get_figwidth() == style.WIDTH
    words = [
        text for panel in figure.axes for text in [*panel.texts, *panel.get_xticklabels(), *panel.get_yticklabels()]
    ]
    assert min(text.get_fontsize() for text in words) >= 8
    assert all("(" in panel.get_title(loc="left") + panel.get_ylabel() + panel.get_xlabel() for panel in figure.axes)
    style.save(figure, tmp_path / "a.svg")
    assert b"<image" not in (tmp_path / "a.svg").read_bytes()


def test_what_texts_a_value_leaves_out_stands_beside_it():
    lost = rows("perplexity", 0.1, scorer=SCORERS["perplexity"]).assign(metric="perplexity_dropped")
    unscored = rows("perplexity", 0.2).assign(metric="perplexity_unscored")
    table = variants.table(
        pd.concat([base(), both(0.3, 11), lost, unscored]), [("lm_steer", "multiply")], of="lm_steer"
    )
    # A tenth of the four fifths that have a score is dropped.
    assert cell(table, method="lm_steer", metric="perplexity").left_out == pytest.approx(1 - 0.8 * 0.9)
    assert cell(table, method="lm_steer", metric="mean_toxicity").left_out == 0
    assert "at most 28 % of a point's texts in perplexity" in caption(variants, table)


def test_captions_say_where_data_are_samples_and_where_base_rests_on_other_texts():
    steer = both(0.3, 11, data="sample")
    table = variants.table(pd.concat([base(), steer]), [("lm_steer", "multiply")], of="lm_steer")
    text = caption(variants, table)
    assert "This rests on sample data (all steers)" in text and "unsteered points rest" not in text
    off = steer.assign(base=steer.base * 1.1)
    other = both(0.2, 12, method="other")
    table = variants.table(pd.concat([base(), off, other]), [("lm_steer", "multiply"), ("other", "add")], of="lm_steer")
    assert "differs by up to 9.1 %" in caption(variants, table)


def test_the_unsteered_model_is_shown_on_the_texts_that_all_steers_share():
    off = both(0.3, 11)
    off = off.assign(base=off.base * 1.1, n=7)
    table = variants.table(pd.concat([base(), off]), [("lm_steer", "multiply")], of="lm_steer")
    shown = table[(table.method == "base") & (table.metric == "mean_toxicity") & (table.seed == "all")].iloc[0]
    assert shown.value == pytest.approx(off[(off.metric == "mean_toxicity") & (off.seed == "all")].base.iloc[0])
    assert shown.n == 7 and np.isnan([shown.low, shown.high]).all()
    text = caption(variants, table)
    assert "those on the steers' own prompts" in text and "Gaps" not in text and "unsteered points rest" not in text


def test_counts_are_written_as_english_has_them():
    assert selection.counted([3, 3], "seed") == "3 seeds"
    assert selection.counted([1], "seed") == "1 seed"
    assert selection.counted([2, 1], "seed") == "1 to 2 seeds"
    assert selection.counted([], "seed") == "no seeds"
    assert selection.listed(["a", "b", "c"]) == "a, b and c"


def test_tints_differ_in_lightness():
    shades = [sum(marks.shade("#0072B2", place, 3)) for place in range(3)]
    assert shades[0] - shades[1] > 0.3 and shades[1] - shades[2] > 0.3
