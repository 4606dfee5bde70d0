"""The papers' numbers: that they are those of the tables, that third parties stay apart, that faults are named."""

import re
import subprocess
import sys

import pytest
import yaml

from steerlab import reference
from steerlab.experiment.figures import REPLICATIONS

LM_STEER, SLIM, LATENTQA, COGSTEER = (reference.read(paper) for paper in ("lm_steer", "slim", "latentqa", "cogsteer"))


def value(numbers, **keys):
    for key, wanted in keys.items():
        numbers = numbers[numbers[key] == wanted]
    (row,) = numbers.to_dict("records")
    return row["value"]


@pytest.mark.parametrize("paper", reference.PAPERS)
def test_every_paper_reads_with_the_documented_columns_and_no_number_twice(paper):
    table = reference.read(paper)
    assert list(table.columns) == reference.COLUMNS
    assert set(table.paper) == {paper} and set(table.grade) <= set(reference.GRADES)
    names = ["table", "source", "task", "model", "method", "setting", "prompts", "steer_value", "metric"]
    assert not table.duplicated(names).any()


@pytest.mark.parametrize("paper", reference.PAPERS)
def test_a_number_is_reported_or_not_found_and_only_one_read_off_a_figure_has_an_error(paper):
    table = reference.read(paper)
    assert (table.value.isna() == (table.status == reference.NOT_FOUND)).all()
    assert (table.error.notna() == (table.grade == "A-fig")).all()


@pytest.mark.parametrize(
    ("paper", "rows", "of_third_parties", "not_found"),
    [("lm_steer", 317, 88, 3), ("hpr", 16, 6, 7), ("slim", 191, 70, 0), ("latentqa", 39, 0, 1), ("cogsteer", 59, 0, 0)],
)
def test_as_many_numbers_stand_here_as_were_found(paper, rows, of_third_parties, not_found):
    table = reference.read(paper)
    counts = [len(table), (table.grade == "T").sum(), (table.status == reference.NOT_FOUND).sum()]
    assert counts == [rows, of_third_parties, not_found]


@pytest.mark.parametrize("paper", reference.PAPERS)
def test_third_party_numbers_never_come_through_as_the_papers(paper):
    table = reference.read(paper)
    own, theirs = reference.paper_rows(table), reference.third_party_rows(table)
    assert "T" not in set(own.grade) and set(theirs.grade) <= {"T"}
    assert len(own) + len(theirs) == len(table)


def test_every_metric_that_is_known_is_used_and_has_a_name():
    used = {metric for paper in reference.PAPERS for metric in reference.read(paper).metric}
    assert used == set(reference.METRICS) and all(reference.METRICS.values())


@pytest.mark.parametrize("paper", reference.PAPERS)
def test_every_number_says_where_it_stands_and_in_which_unit(paper):
    table = reference.read(paper)
    assert (table[["table", "source", "task", "metric"]] != "").all(axis=None)
    assert set(table.unit) <= set(reference.UNITS)


@pytest.mark.parametrize("paper", reference.PAPERS)
def test_what_numbers_are_compared_with_or_follow_from_stands_in_the_same_file(paper):
    table = reference.read(paper)
    for _, block in table[table.against != ""].groupby(["table", "source"]):
        assert set(block.against) <= set(block.method)
    assert set(table.follows_from) - {""} <= set(table.table)


@pytest.mark.parametrize("paper", [paper for paper in reference.PAPERS if paper != "lm_steer"])
def test_our_numbers_come_from_the_tables_that_the_papers_figure_waits_for(paper):
    said = {ours["figure"] for ours in reference.read(paper).ours if ours}
    assert said == set(REPLICATIONS[f"replication_{paper}"])


def test_of_hpr_nothing_was_found_but_its_demos_layers():
    found = reference.paper_rows(reference.read("hpr"))
    assert found[found.value.notna()].value.tolist() == [13, 14, 15]
    assert set(found[found.value.notna()].metric) == {"selected_layer"}


def test_lm_steers_detoxification_table():
    of = {"table": "Table 1", "metric": "average_max_toxicity"}
    assert [value(LM_STEER, method=method, **of) for method in ("base", "dexperts", "lm_steer")] == [
        0.527,
        0.302,
        0.249,
    ]
    table = LM_STEER[LM_STEER.table == "Table 1"]
    # Column sums of the table, added up by hand.
    sums = {"average_max_toxicity": 3.310, "toxicity_probability": 2.193, "perplexity": 600.36}
    sums |= {"dist_1": 4.59, "dist_2": 6.63, "dist_3": 6.58}
    assert table.groupby("metric")["value"].sum().to_dict() == pytest.approx(sums)
    spreads = table[table.spread.notna()]
    assert spreads.set_index("metric")["spread"].to_dict() == {
        "average_max_toxicity": 0.007, "toxicity_probability": 0.009,
    }  # fmt: skip


def test_the_largest_strength_of_the_ablation_is_the_detoxification_tables_lm_steer():
    columns = ["metric", "value"]
    strongest = LM_STEER[(LM_STEER.table == "Table 5") & (LM_STEER.steer_value == 5)][columns]
    headline = LM_STEER[(LM_STEER.table == "Table 1") & (LM_STEER.method == "lm_steer")][columns]
    assert strongest.values.tolist() == headline.values.tolist()


def test_the_size_sweep_agrees_with_the_table_within_its_error_of_reading():
    sweep = LM_STEER[(LM_STEER.setting == "size sweep") & (LM_STEER.model == "gpt2-large")].iloc[0]
    table = value(LM_STEER, table="Table 1", method="lm_steer", metric="average_max_toxicity")
    assert abs(sweep.value - table) <= sweep.error
    dexperts = value(LM_STEER, setting="baselines", method="dexperts", model="small")
    assert abs(dexperts - value(LM_STEER, table="Table 1", method="dexperts", metric="average_max_toxicity")) <= 0.002


def test_transfer_in_the_figure_agrees_with_the_text():
    moved = LM_STEER[(LM_STEER.method == "transferred_lm_steer")]
    text, figure = (
        moved[moved.table == table].set_index("model")["value"] for table in ("section 5.2", "figure of transfer")
    )
    assert (figure[text.index] - text).abs().max() <= 0.003


def test_sentiment_numbers_are_shares_in_percent_by_class_of_prompts():
    shares = LM_STEER[(LM_STEER.metric == "positive_share") & (LM_STEER.grade == "A")]
    assert set(shares.unit) == {"percent"} and shares.value.between(0, 100).all() and len(shares) == 31
    of = {"method": "lm_steer", "metric": "positive_share"}
    assert value(shares, setting="target positive", prompts="neutral", **of) == 90.70
    assert value(shares, setting="target negative", prompts="positive", **of) == 54.84


def test_the_final_papers_perplexities_and_speed_are_those_of_its_first_version():
    final, first = LM_STEER[LM_STEER.grade == "C"], LM_STEER[LM_STEER.table.isin(["Table 2", "Table 6"])]
    for row in final.itertuples():
        setting = {"setting": row.setting} if row.setting else {}
        assert value(first, metric=row.metric, method=row.method, **setting) == row.value


def test_latentqas_stated_gains_follow_from_its_table():
    table = LATENTQA[LATENTQA.table == "relation extraction"]
    means = table.groupby("method")["value"].mean()
    assert means["latentqa"] - means["linear_probe"] == pytest.approx(32.2, abs=0.05)
    assert means["latentqa"] - means["patchscope"] == pytest.approx(38.2, abs=0.05)


def test_cogsteers_stated_gains_follow_from_its_table():
    table = COGSTEER[COGSTEER.table == "GLUE (test)"]
    for row in COGSTEER[COGSTEER.table == "GLUE, stated gains"].itertuples():
        metric = row.metric.removesuffix("_gain")
        best, every = (
            value(table, model=row.model, method=method, metric=metric) for method in ("cogsteer", "all_layers")
        )
        assert best - every == pytest.approx(row.value, abs=0.051)
    scores = COGSTEER[(COGSTEER.metric == "detoxification_score") & (COGSTEER.model == "llama2-7b")]
    assert value(scores, method="last_layer") / value(scores, method="cogsteer") == pytest.approx(1.24, abs=0.005)


def test_slims_layer_of_choice_has_the_rate_that_its_list_of_layers_gives_it():
    layers = SLIM[SLIM.setting.str.startswith("layer ")]
    assert len(layers) == 32
    chosen = SLIM[(SLIM.table == "probe outputs") & (SLIM.model == "llama-7b") & (SLIM.setting == "fold 0")]
    layer = int(value(chosen, metric="selected_layer"))
    assert value(layers, setting=f"layer {layer}") == value(chosen, metric="false_negative_rate") == 0.094


def written(folder, **changes):
    block = {"table": "Table 1", "source": "v1", "grade": "A", "method": "slim", "columns": ["model", "mc1"]}
    block |= {"rows": [["llama", 0.5]]} | changes
    document = {"sources": {"v1": "a paper", "blank": " "}, "numbers": [block]}
    (folder / "slim.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grade": "D"}, "unknown grade 'D'; choose one of A, A-fig, B, C, T"),
        ({"grade": "A-fig"}, "grade A-fig and error None"),
        ({"error": 0.1}, "grade A and error 0.1"),
        ({"columns": ["model", "mc3"]}, "unknown metric 'mc3'; add it to METRICS"),
        ({"unit": "per cent"}, "unknown unit 'per cent'; choose one of , percent, points, million"),
        ({"source": "blank"}, "source 'blank' is empty; say what was read"),
        ({"ours": {"figur": "folds"}}, "ours has or lacks ['figur']"),
        ({"ours": {"where": {}}}, "ours has or lacks ['figure']"),
        ({"source": "v2"}, "unknown source 'v2'; list it under sources"),
        ({"tabel": "Table 2"}, "unknown key ['tabel']"),
        ({"rows": [["llama", "0.5"]]}, "mc1 of ['llama'] is '0.5'; write a number"),
        ({"rows": [["llama", True]]}, "mc1 of ['llama'] is True; write a number"),
        ({"rows": [["llama", [0.5, 0.1, 0.2]]]}, "is [0.5, 0.1, 0.2]; write a number"),
        ({"rows": [["llama", float("nan")]]}, "is nan; write a number"),
        ({"rows": [["llama"]]}, "row ['llama'] has 1 cells for 2 columns"),
    ],
)
def test_a_fault_in_a_file_is_one_line_that_names_it(tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        reference.read("slim", written(tmp_path, **changes))
    assert str(error.value).startswith("reference slim.yaml, 'Table 1'") and "\n" not in str(error.value)


def test_an_empty_cell_is_no_row_and_not_found_is_a_row_without_a_value(tmp_path):
    table = reference.read("slim", written(tmp_path, rows=[["a", None], ["b", "not found"], ["c", [0.5, 0.1]]]))
    assert list(table.model) == ["b", "c"] and list(table.status) == ["not found", "reported"]
    assert table.value.isna().tolist() == [True, False] and table.spread[1] == 0.1


def test_ours_stands_where_its_block_says_value_by_value(tmp_path):
    ours = {"figure": "folds", "where": {"seed": "all", "task": "one"}, "model": {"a": {"task": "two", "value": "low"}}}
    table = reference.read("slim", written(tmp_path, rows=[["a", 0.5], ["b", 0.5]], ours=ours))
    found, none = table.ours
    assert (found["figure"], found["rows"], found["value"]) == ("folds", {"seed": "all", "task": "two"}, "low")
    assert none is None


def test_an_unknown_paper_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no paper 'dexperts'; choose one of lm_steer, hpr"):
        reference.read("dexperts")


def test_reading_the_numbers_imports_no_torch():
    code = "import sys; from steerlab import reference; reference.read('slim'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
