"""The tables of HPR, SLIM, LatentQA and CogSteer beside ours: which rows are ours, what is compared, what is marked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steerlab import reference
from steerlab.figures import captions, replications, side_by_side, style

TEMPLATE = Path(__file__).parents[2] / "captions" / "replications.rst"
PAPERS = {paper: reference.read(paper) for paper in ("hpr", "slim", "latentqa", "cogsteer")}


def questions(*rows):
    """The table behind `truthfulness`: rows are (method, strength, metric, value)."""
    base = {metric: value for method, _, metric, value in rows if method == "base"}
    return pd.DataFrame(
        {
            "method": method, "strength": strength, "metric": metric, "seed": seed, "value": value,
            "low": value - 0.02, "high": value + 0.02, "base": base[metric],
            "difference_low": np.nan if method == "base" else value - base[metric] - 0.01,
            "difference_high": np.nan if method == "base" else value - base[metric] + 0.01,
            "n": 60, "samples": 1, "scorer": "log-likelihood", "data": "sample",
        }
        for method, strength, metric, value in rows
        for seed in ("0", "1", "all")
    )  # fmt: skip


def classifiers(task="rte", intervention="bottleneck", picked=0.7, every=0.8):
    """The table behind `glue`: test rows and what training cost."""
    test = [
        {"split": "test", "layers": layers, "metric": "accuracy", "value": value, "low": value - 0.05, "high": value}
        for layers, value in (("picked", picked), ("all", every), ("none", 0.5))
    ]
    cost = [
        {"split": "training", "layers": layers, "metric": metric, "value": value}
        for metric, values in (("parameters", (500, 10_000)), ("seconds", (0.3, 0.4)))
        for layers, value in zip(("picked", "all"), values)
    ]
    about = {"task": task, "intervention": intervention, "against": "", "seed": "all", "n": 200}
    return pd.DataFrame([about | row for row in [*test, *cost]])


def pairs():
    """The table behind `control_bias`."""
    values = {"base": (0.0, 4.0, 0.6), "latentqa": (1.0, 3.0, 0.5)}
    return pd.DataFrame(
        {"method": method, "strength": strength, "metric": metric, "seed": seed, "value": value, "low": value - 0.3,
         "high": value + 0.3, "n": 48}
        for method, (strength, *both) in values.items()
        for metric, value in zip(("difference", "share"), both)
        for seed in ("0", "all")
    )  # fmt: skip


def table(paper, model="smollm", **tables):
    return replications.table(tables, PAPERS[paper], paper=paper, model=model)


def line(compared, **keys):
    for key, wanted in keys.items():
        compared = compared[compared[key] == wanted]
    (found,) = compared.to_dict("records")
    return found


def filled(compared):
    facts = {"sample_data": ""} | replications.facts(compared)
    return " ".join(captions.caption(TEMPLATE.read_text(), facts).split())


@pytest.mark.parametrize("paper", PAPERS)
def test_every_measured_number_has_a_row_and_without_a_run_none_has_ours(paper):
    compared = table(paper)
    measured = PAPERS[paper][(PAPERS[paper].follows_from == "") & (PAPERS[paper].task != "data")]
    assert len(compared) == len(measured) and compared.ours.isna().all()
    assert set(compared.status) <= {"not run", "not found, not run"}
    found = measured[(measured.grade != "T") & measured.value.notna()]
    assert sorted(compared.paper.dropna()) == pytest.approx(sorted(found.value * found.unit.map(reference.UNITS)))


def test_the_papers_number_and_ours_stand_in_one_unit_with_models_scales_and_scorers():
    found = line(table("latentqa", control_bias=pairs()), row="LatentQA", metric="stereotype_share")
    assert (found["paper"], found["ours"]) == (pytest.approx(0.609), 0.5)
    assert found["difference"] == pytest.approx(-0.109) and found["status"] == "both"
    assert (found["our_model"], found["our_scale"]) == ("smollm", "48 pairs x 1 seed")
    assert found["paper_scorer"] == found["our_scorer"] == "the model's log-likelihoods"


def test_changes_are_from_the_row_that_the_paper_compares_with_on_each_side():
    found = line(table("latentqa", control_bias=pairs()), row="LatentQA", metric="loglikelihood_difference")
    assert found["paper_change_percent"] == pytest.approx(100 * (3.70 / 4.05 - 1))
    changes = [found[f"our_change_percent{end}"] for end in ("", "_low", "_high")]
    assert changes == pytest.approx([-25, 100 * (2.7 / 4 - 1), 100 * (3.3 / 4 - 1)])


def test_the_unsteered_row_itself_is_no_change():
    found = line(table("latentqa", control_bias=pairs()), row="unsteered", metric="stereotype_share")
    assert found["status"] == "both" and found["compared"] == "" and np.isnan(found["our_change_percent"])


def test_what_lacks_a_counterpart_is_not_run():
    compared = table("latentqa", control_bias=pairs())
    assert line(compared, row="DPO", metric="stereotype_share")["status"] == "not run"
    assert line(compared, row="LatentQA", metric="accuracy_country_curr")["status"] == "not run"


def test_ours_without_the_papers_number_stand_as_not_found():
    compared = table("hpr", truthfulness=questions(("base", 0.0, "mc2", 0.4), ("hpr", 1.0, "mc2", 0.5)))
    found = line(compared, row="HPR", metric="mc2")
    assert found["status"] == "paper's not found" and np.isnan(found["paper"]) and found["ours"] == 0.5
    assert line(compared, metric="mc1", row="HPR")["status"] == "not found, not run"
    assert len(side_by_side.drawn(compared)) == 0


def test_a_third_partys_number_stands_in_its_own_column_and_is_compared_with_ours():
    judged = questions(("base", 0.0, "truthful_and_informative", 0.4), ("hpr", 1.0, "truthful_and_informative", 0.5))
    found = line(table("hpr", truthfulness=judged), row="HPR", metric="truthful_and_informative")
    assert (found["third_party"], found["grade"], found["status"]) == (pytest.approx(0.504), "T", "others' and ours")
    assert np.isnan(found["paper"]) and np.isnan(found["difference"])
    assert found["third_party_change_percent"] == pytest.approx(100 * (50.4 / 39.3 - 1))
    assert found["our_change_percent"] == pytest.approx(25)


def test_where_the_difference_from_the_unsteered_model_is_paired_its_interval_is_drawn():
    compared = table("slim", truthfulness=questions(("base", 0.0, "mc1", 0.25), ("iti", 1.0, "mc1", 0.3)))
    found = line(compared, row="ITI, llama-7b", metric="mc1")
    changes = [found[f"our_change_percent{end}"] for end in ("", "_low", "_high")]
    assert changes == pytest.approx([20, 16, 24])


def test_what_measures_something_else_is_marked_and_has_no_difference():
    rows = [("base", 0.0, "mc2", 0.4), ("slim_risk_aware", 1.0, "mc2", 0.5), ("slim_cross_entropy", 1.0, "mc2", 0.4)]
    found = line(table("slim", slim_ablations=questions(*rows)), paper_table="Table 4", row="SLIM")
    assert (found["status"], found["ours"], found["compared"]) == ("not comparable", 0.5, "")
    assert (
        np.isnan(found["difference"])
        and found["differs"] == "ours is the change of MC2 from the unsteered model, the paper's True*Info"
    )


def layers(picked):
    return pd.DataFrame(
        {"seed": seed, "layer": layer, "fnr": 0.1, "fpr": 0.3, "threshold": 2.0, "picked": float(layer == picked)}
        for seed in ("0", "all")
        for layer in range(20)
    )


@pytest.mark.parametrize(("model", "status"), [("smollm", "not comparable"), ("llama-7b", "both")])
def test_a_layer_compares_with_the_same_models_alone(model, status):
    compared = table("slim", model=model, slim_layers=layers(14))
    found = line(compared, row="SLIM, fold 0, llama-7b", metric="selected_layer")
    assert (found["ours"], found["status"]) == (14, status)


def test_with_one_of_the_papers_models_its_other_models_have_none_of_ours():
    compared = table("slim", model="llama-7b", slim_layers=layers(14))
    ours = compared[(compared.paper_table == "probe outputs") & compared.ours.notna()]
    assert set(ours.paper_model) == {"llama-7b"}


def test_rates_are_compared_as_they_are():
    compared = table("slim", slim_layers=layers(14))
    found = line(compared, row="SLIM, fold 0, llama-7b", metric="false_negative_rate")
    assert (found["compared"], found["paper"], found["ours"]) == ("share", 0.094, 0.1)
    drawn = side_by_side.drawn(compared)
    assert set(drawn.compared) == {"share"} and list(drawn.theirs) == list(drawn.paper)


def test_of_several_interventions_the_papers_is_taken_where_it_is_there():
    both = pd.concat([classifiers(), classifiers(intervention="prefix", picked=0.6)])
    found = line(table("cogsteer", glue=both), row="CogSteer, layer 19 of 36, gpt2-large", metric="rte")
    assert found["ours"] == 0.6 and "intervention prefix" in found["our_setting"]
    found = line(table("cogsteer", glue=classifiers()), row="CogSteer, layer 19 of 36, gpt2-large", metric="rte")
    assert found["ours"] == 0.7 and found["our_change_percent"] == pytest.approx(-12.5)
    assert found["paper_change_percent"] == pytest.approx(100 * (64.6 / 62.6 - 1))


def test_shares_of_what_training_takes_are_those_of_our_two_rows():
    compared = table("cogsteer", glue=classifiers())
    shares = compared[(compared.metric == "trainable_share") & (compared.paper_model == "gpt2-large")]
    assert shares.ours.tolist() == [pytest.approx(0.05)] and shares.paper.tolist() == [pytest.approx(0.027)]
    assert line(compared, metric="training_time_saved")["ours"] == pytest.approx(0.25)
    assert line(compared, metric="compute_saved")["status"] == "not run"


def test_a_column_that_a_table_lacks_and_rows_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"the table of control_bias has no \['method'\]; correct the reference"):
        table("latentqa", control_bias=pairs().drop(columns="method"))
    twice = pd.concat([pairs(), pairs().assign(value=9.0)])
    with pytest.raises(ValueError, match="rows of control_bias are .*; name one in the reference"):
        table("latentqa", control_bias=twice)


def test_the_picture_has_a_panel_of_changes_and_one_of_shares():
    found = questions(("base", 0.0, "mc1", 0.25), ("iti", 1.0, "mc1", 0.3))
    compared = table("slim", truthfulness=found, slim_layers=layers(14))
    changes, shares = replications.plot(compared).axes
    assert "(%)" in changes.get_xlabel() and shares.get_xlabel() == "Share"
    drawn = side_by_side.drawn(compared)
    for panel, kind in ((changes, "change"), (shares, "share")):
        ours = sorted(float(mark.get_xdata()[0]) for mark in panel.lines if mark.get_marker() == "o")
        assert ours == sorted(drawn[drawn.compared == kind].mine)
    marked = {mark.get_color() for mark in changes.lines if mark.get_marker() == "o"}
    assert marked == {style.colour("iti")}  # a method has one colour in all figures
    squares = [mark for mark in changes.lines if mark.get_marker() == "s"]
    assert len(squares) == (drawn.side == "third_party").sum() > 0


@pytest.mark.parametrize("paper", PAPERS)
def test_a_table_written_and_read_again_draws_and_says_the_same(paper, tmp_path):
    given = {"control_bias": pairs(), "glue": classifiers(), "slim_layers": layers(3)}
    given |= {"truthfulness": questions(("base", 0.0, "mc1", 0.25), ("iti", 1.0, "mc1", 0.3))}
    compared = table(paper, **given)
    compared.to_csv(tmp_path / "t.csv", index=False)
    again = pd.read_csv(tmp_path / "t.csv")
    style.save(replications.plot(compared), tmp_path / "a.svg")
    style.save(replications.plot(again), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert replications.facts(again) == replications.facts(compared)


def test_a_run_that_has_nothing_of_a_paper_still_has_a_picture_and_a_caption_that_say_so(tmp_path):
    compared = table("latentqa")
    style.save(replications.plot(compared), tmp_path / "a.svg")
    assert "no number that both sides have" in (tmp_path / "a.svg").read_text()
    text = filled(compared)
    assert (
        "nothing is drawn" in text
        and f"{(compared.status == 'not run').sum()} of theirs that were not run here" in text
    )


def test_the_caption_tells_both_sides_the_grades_and_what_is_not_comparable():
    text = filled(table("cogsteer", glue=classifiers()))
    assert "CogSteer as its paper reports it" in text and "adapters in all layers" in text
    assert "gpt2-large" in text and "smollm, 200 rows" in text and "B, copied by others who read the paper" in text
    assert "of another model" in text  # counts of parameters
