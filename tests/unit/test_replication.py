"""The replication table and its picture: what stands beside what, what is called not run, and what is drawn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steerlab import reference
from steerlab.figures import captions, replication, side_by_side, style

PAPER = reference.read("lm_steer")
TEMPLATE = Path(__file__).parents[2] / "captions" / "replication.rst"
SCORERS = {"average_max_toxicity": "lexicon==1", "toxicity_probability": "lexicon==1", "positive_share": "vader==1"}
BASE = {"average_max_toxicity": 0.4, "toxicity_probability": 0.3, "perplexity": 20.0, "dist_2": 0.8}
CHOICE = {"model": "tiny", "method": "lm_steer", "task": "toxicity", "scorer": "lexicon==1"}
CHOICE |= {"pick": {"steps": 300, "strength": 0.4}}


def rows(method, strength, values, *, task="toxicity", model="tiny", prompts="all", steps=300, base=BASE, data="real"):
    for metric, value in values.items():
        for seed in ("0", "1", "all"):
            change = value - base[metric]
            yield {
                "model": model, "method": method, "task": task, "split": "test", "prompts": prompts,
                "steps": 0 if method == "base" else steps, "strength": strength, "seed": seed, "metric": metric,
                "value": value, "low": 0.9 * value, "high": 1.1 * value, "base": base[metric], "difference": change,
                "difference_low": change - 0.1, "difference_high": change + 0.1, "n": 1000, "samples": 4,
                "scorer": SCORERS.get(metric, "tiny, unsteered"), "data": data,
            }  # fmt: skip


def metrics(*more):
    steered = {"average_max_toxicity": 0.2, "toxicity_probability": 0.15, "perplexity": 22.0, "dist_2": 0.82}
    strong = {"average_max_toxicity": 0.1, "toxicity_probability": 0.03, "perplexity": 40.0, "dist_2": 0.6}
    detox = [*rows("base", 0.0, BASE), *rows("lm_steer", 0.4, steered), *rows("lm_steer", 1.0, strong)]
    return pd.DataFrame([*detox, *(row for part in more for row in part)])


def sentiment():
    share = {"positive_share": 0.5}
    for prompts in ("neutral", "negative"):
        yield from rows("base", 0.0, share, task="sentiment", prompts=prompts, base=share)
        yield from rows("lm_steer", 1.0, {"positive_share": 0.8}, task="sentiment", prompts=prompts, base=share)


def table(*more, reference=PAPER, **changes):
    return replication.table(metrics(*more), reference, **({"choices": [CHOICE]} | changes))


def line(compared, row, metric="average_max_toxicity", **keys):
    keys |= {"row": row, "metric": metric}
    for key, wanted in keys.items():
        compared = compared[compared[key] == wanted]
    (found,) = compared.to_dict("records")
    return found


def test_the_papers_number_ours_and_the_difference_stand_side_by_side():
    found = line(table(), "LM-Steer, our pick (0.4)")
    assert (found["paper"], found["paper_spread"], found["ours"]) == (0.249, 0.007, 0.2)
    assert found["difference"] == pytest.approx(-0.049)
    assert (found["status"], found["grade"], found["paper_table"]) == ("both", "A", "Table 1")


def test_models_scales_and_scorers_of_both_sides_stand_in_every_compared_row():
    found = line(table(), "LM-Steer, 1")
    assert (found["paper_model"], found["our_model"]) == ("gpt2-large", "tiny")
    assert (found["paper_scale"], found["our_scale"]) == ("10,000 x 25", "1,000 x 4 x 2 seeds")
    assert (found["paper_scorer"], found["our_scorer"]) == ("Perspective TOXICITY", "lexicon==1")


def test_changes_are_percent_of_the_unsteered_value_of_the_same_side():
    found = line(table(), "LM-Steer, our pick (0.4)")
    assert found["paper_change_percent"] == pytest.approx(100 * (0.249 / 0.527 - 1))
    changes = [found[name] for name in ("our_change_percent", "our_change_percent_low", "our_change_percent_high")]
    assert changes == pytest.approx([-50, -75, -25])
    assert np.isnan(
        [line(table(), "unsteered", section="detoxification")[f"{side}_change_percent"] for side in ("paper", "our")]
    ).all()


def test_what_was_not_run_has_the_papers_number_and_none_of_ours():
    compared = table()
    for row, section in (("LM-Steer, 0.2", "strength"), ("gpt-j-6b", "size"), ("transferred to gpt2", "transfer")):
        found = line(compared, row, section=section)
        assert (
            found["status"] == "not run" and found["paper"] > 0 and np.isnan([found["ours"], found["difference"]]).all()
        )


def test_strengths_are_the_papers_steer_values_over_five():
    found = line(table(), "LM-Steer, 0.4", section="strength")
    assert (found["paper"], found["ours"]) == (0.293, 0.2)
    assert found["paper_setting"].startswith("2 eps0") and found["paper_change_percent"] == pytest.approx(
        100 * (0.293 / 0.527 - 1)
    )


def test_a_pick_of_strength_1_is_one_row():
    compared = table(choices=[CHOICE | {"pick": {"steps": 300, "strength": 1.0}}])
    detox = compared[(compared.section == "detoxification") & (compared.metric == "perplexity")]
    assert list(detox.row) == ["unsteered", "LM-Steer, 1 (our pick)"]


def test_of_several_numbers_of_steps_the_picks_are_compared():
    longer = rows("lm_steer", 1.0, {"average_max_toxicity": 0.05}, steps=900)
    assert line(table(longer), "LM-Steer, 1")["ours"] == 0.1
    assert (
        line(table(rows("lm_steer", 1.0, {"average_max_toxicity": 0.05}, steps=900), choices=[]), "LM-Steer, 1")["ours"]
        == 0.05
    )


def test_sentiment_is_compared_by_class_of_prompts_in_shares():
    found = line(table(sentiment()), "LM-Steer to positive, 1", "positive_share", prompts="neutral")
    assert found["paper"] == pytest.approx(0.907) and found["paper_spread"] == pytest.approx(0.0251)
    assert (found["ours"], found["our_change_percent"]) == (0.8, pytest.approx(60))
    assert (
        line(table(sentiment()), "LM-Steer to negative, 1", "positive_share", prompts="neutral")["status"] == "not run"
    )


def test_a_change_from_nothing_is_left_empty():
    # None of the paper's unsteered texts after negative prompts is positive.
    found = line(table(sentiment()), "LM-Steer to positive, 1", "positive_share", prompts="negative")
    assert (
        found["status"] == "both"
        and np.isnan(found["paper_change_percent"])
        and found["our_change_percent"] == pytest.approx(60)
    )


def test_our_other_targets_and_models_stand_as_not_in_the_paper():
    moved = rows("transferred", 0.5, {"average_max_toxicity": 0.3}, model="turned")
    compared = table(moved, transferred=["transferred"])
    assert line(compared, "transferred to turned, 0.5")["status"] == "not in the paper"
    assert line(compared, "tiny, 0.4", section="size")["status"] == "not in the paper"


def test_a_target_of_the_paper_is_compared_and_the_texts_number_goes_before_the_figures():
    moved = rows("to_medium", 0.1, {"average_max_toxicity": 0.3}, model="gpt2-medium")
    found = line(table(moved, transferred=["to_medium"]), "transferred to gpt2-medium")
    assert (found["paper"], found["grade"], found["ours"]) == (0.308, "A", 0.3)
    assert found["paper_change_percent"] == pytest.approx(100 * (0.308 / 0.373 - 1))


def test_each_name_stands_at_the_height_of_its_own_points():
    fluency = {"perplexity": 20.0}  # of both tasks, under one heading
    towards = rows("lm_steer", 1.0, {"perplexity": 51.0}, task="sentiment", base=fluency)
    compared = table(sentiment(), towards, rows("few", 0.4, {"average_max_toxicity": 0.02}), few=["few"])
    drawn = side_by_side.drawn(compared)
    panel = replication.plot(compared).axes[0]
    names = {tick.get_position()[1]: tick.get_text() for tick in panel.get_yticklabels()}
    ours = {line.get_ydata()[0]: line.get_xdata()[0] for line in panel.lines if line.get_marker() == "o"}
    for row in drawn.to_dict("records"):
        at = [height for height, value in ours.items() if value == row["our_change_percent"]]
        assert replication._short(row["row"]) in [names[height] for height in at]


def test_few_texts_are_compared_at_the_pick_of_all_texts():
    few = rows("thirty", 0.4, {"average_max_toxicity": 0.35})
    compared = table(few, few=["thirty"])
    assert line(compared, "30 texts, 0.4", section="data")["ours"] == 0.35
    assert line(table(few), "30 texts, 0.4", section="data")["status"] == "not run"


def test_parameters_are_compared_in_numbers_and_shares():
    sizes = pd.DataFrame(
        [("tiny", "lm_steer", 165_888, 134_515_008)], columns=["model", "method", "learnable", "model_parameters"]
    )
    compared = table(parameters=sizes)
    found = line(compared, "LM-Steer (poster, efficiency)", "trainable_parameters")
    assert (found["paper"], found["ours"]) == (1.6e6, 165_888)
    share = line(compared, "LM-Steer (README and abstract)", "trainable_share")
    assert share["paper"] == pytest.approx(0.002) and share["ours"] == pytest.approx(165_888 / 134_515_008)
    assert line(compared, "LM-Steer (Table 6)", "decode_time_ratio")["status"] == "not run"


def test_the_papers_own_model_is_the_headline_where_it_was_run():
    large = metrics().to_dict("records")
    compared = table([row | {"model": "gpt2-large", "value": 0.7} for row in large], choices=[])
    assert line(compared, "LM-Steer, 1")["our_model"] == "gpt2-large" and line(compared, "LM-Steer, 1")["ours"] == 0.7


def test_third_party_numbers_never_stand_in_the_papers_column():
    shouting = PAPER.assign(
        value=PAPER.value.where(PAPER.grade != "T", 12345.0), table=PAPER.table.where(PAPER.grade != "T", "Table 1")
    )
    compared = table(reference=shouting)
    assert 12345.0 not in set(compared.paper) and "T" not in set(compared.grade)


def test_dev_rows_and_single_seeds_are_no_results():
    dev = metrics().assign(split="dev")
    compared = replication.table(dev, PAPER)
    assert set(compared.status) == {"not run"}
    seeds = metrics()
    assert set(replication.table(seeds[seeds.seed != "all"], PAPER).status) == {"not run"}


def test_rows_that_both_have_come_first():
    status = list(table(sentiment()).status)
    assert status == sorted(status, key=["both", "not in the paper", "paper's not found", "not run"].index)


def test_two_scorers_need_a_word_on_which():
    other = [
        row | {"scorer": "other==2", "value": 0.33}
        for row in metrics().to_dict("records")
        if "toxicity" in row["metric"]
    ]
    with pytest.raises(ValueError, match=r"average_max_toxicity on tiny comes from .*; name one with `scorers`"):
        table(other, choices=[])
    assert line(table(other), "LM-Steer, 1")["ours"] == 0.1  # the choice names its scorer
    assert line(table(other, choices=[], scorers=["other==2"]), "LM-Steer, 1")["ours"] == 0.33


def test_metrics_without_the_unsteered_value_are_refused():
    with pytest.raises(ValueError, match=r"lack the columns \['base'\]; compute the metrics again"):
        replication.table(metrics().drop(columns="base"), PAPER)


def test_the_picture_marks_both_sides_changes_in_percent():
    compared = table(sentiment())
    (panel,) = replication.plot(compared).axes
    drawn = compared[compared.paper_change_percent.notna() & compared.our_change_percent.notna()]
    for marker, column in (("D", "paper_change_percent"), ("o", "our_change_percent")):
        points = sorted(float(mark.get_xdata()[0]) for mark in panel.lines if mark.get_marker() == marker)
        assert points == sorted(drawn[column])
    labels = [tick.get_text() for tick in panel.get_yticklabels()]
    assert labels.count("strength 1") == 4 and "positive share, neutral prompts" in labels
    assert "(%)" in panel.get_xlabel()


def test_the_same_table_gives_the_same_picture_bytes(tmp_path):
    compared = table(sentiment())
    for name in ("a", "b"):
        style.save(replication.plot(compared), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_table_written_and_read_again_draws_the_same(tmp_path):
    compared = table(sentiment())
    compared.to_csv(tmp_path / "t.csv", index=False)
    again = pd.read_csv(tmp_path / "t.csv")
    style.save(replication.plot(compared), tmp_path / "a.svg")
    style.save(replication.plot(again), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert replication.facts(again) == replication.facts(compared)


def test_a_run_without_any_common_number_still_has_a_picture_that_says_so(tmp_path):
    compared = replication.table(metrics().assign(split="dev"), PAPER)
    style.save(replication.plot(compared), tmp_path / "a.svg")
    assert filled(compared)


def test_a_change_of_many_times_the_base_does_not_squeeze_the_others():
    huge = rows("lm_steer", 0.2, {"perplexity": 9000.0})
    (panel,) = replication.plot(table(huge)).axes
    assert panel.get_xscale() == "symlog"


def filled(compared):
    return " ".join(captions.caption(TEMPLATE.read_text(), replication.facts(compared)).split())


def test_the_caption_says_that_only_direction_and_relative_change_compare():
    text = filled(table(sentiment()))
    assert "Only the direction and the relative change can be compared" in text
    assert "scales, prompts, models and scorers differ" in text
    assert "gpt2-large" in text and "tiny, 1,000 x 4 x 2 seeds" in text and "toxicity by lexicon==1" in text
    assert "sample data" not in text


def test_the_caption_counts_agreements_of_direction_and_what_was_not_run():
    compared = table()
    words = replication.facts(compared)
    drawn = compared[compared.paper_change_percent.notna() & compared.our_change_percent.notna()]
    agree = (np.sign(drawn.paper_change_percent) == np.sign(drawn.our_change_percent)).sum()
    assert words["drawn"] == f"{len(drawn)} pairs" and words["same_direction"] == str(agree)
    assert words["not_run"] == str((compared.status == "not run").sum())


def test_the_caption_marks_sample_data():
    part = metrics().assign(data="sample")
    assert "Ours rest on sample data" in filled(replication.table(part, PAPER, choices=[CHOICE]))
