"""Multiple-choice questions asked before and after steering: against runs by hand, and the questions themselves."""

import json
from collections import Counter
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml

from scripts import measure_reasoning
from steerlab import harness
from steerlab.analyses import reasoning
from steerlab.analyses.steered import Steered
from steerlab.data import loaders
from steerlab.data.doors import fetch
from steerlab.data.records import BadRows
from steerlab.data.sources import SAMPLE, table
from steerlab.figures import captions, style
from steerlab.figures import reasoning as figure
from steerlab.likelihood import log_likelihoods
from steerlab.models import encode
from tests.laws.subjects import fitted, handle
from tests.unit.test_analyses_hpr import at_picks, caa
from tests.unit.test_ordinary_text import asked
from tests.workflow.project import ROOT

pytestmark = pytest.mark.usefixtures("no_network")
STRENGTHS = {"caa": 4.0, "lm_steer": 1.0, "cogsteer": 2.0}
MEASURES = ["acc", "acc_norm"]
QUESTIONS = pd.DataFrame(  # short ones: a token is a byte here
    [
        ("1 and 1?", ["2", "11", "one", "no"], 0),
        ("Hot?", ["Ice", "Fire", "Rain", "Snow"], 1),
        ("Who flies?", ["A cat", "A dog", "A bat", "A cow"], 2),
        ("Next: a, b?", ["z", "y", "x", "c"], 3),
        ("Red?", ["Grass", "Blood", "Sky", "Sea"], 1),
    ],
    columns=["question", "choices", "answer"],
)


def read() -> pd.DataFrame:
    return loaders.read("reasoning", "sample", SAMPLE)


def steered(method: str, strength: float | None = None) -> Steered:
    return Steered(method, fitted(method, "llama"), STRENGTHS[method] if strength is None else strength)


def found(*of: Steered, n: int | None = None, batch_rows: int = 7) -> pd.DataFrame:
    return reasoning.reasoning(handle("llama"), of, reasoning.chosen(QUESTIONS, n), batch_rows=batch_rows)


def right(values: list[float], choices: list[str], answer: int) -> list[float]:
    """acc and acc_norm of a question whose choices have these log-likelihoods."""
    by_letter = [value / len(choice) for value, choice in zip(values, choices)]
    return [float(each.index(max(each)) == answer) for each in (values, by_letter)]


# ---- the analysis ----


def test_the_unsteered_models_answers_are_those_of_log_likelihoods_by_hand() -> None:
    rows, model, tokenizer = found(steered("caa")), handle("llama").load(), handle("llama").info.tokenizer
    for row, question in zip(
        rows.to_dict("records"), reasoning.chosen(QUESTIONS, None).to_dict("records"), strict=True
    ):
        prompt, values = f"Question: {question['question']}\nAnswer:", []
        for choice in question["choices"]:
            ids = torch.tensor(encode(tokenizer, f"{prompt} {choice}"))
            begins = len(encode(tokenizer, prompt))
            with torch.no_grad():
                log_p = model(ids[None]).logits[0].double().log_softmax(-1)
            values.append(sum(float(log_p[place - 1, ids[place]]) for place in range(begins, len(ids))))
        assert [row["base_acc"], row["base_acc_norm"]] == right(values, question["choices"], question["answer"])
        assert (row["question"], row["choices"]) == (question["id"], 4)


@pytest.mark.parametrize("method", STRENGTHS)
def test_a_steered_models_answers_are_those_of_our_own_log_likelihoods(method: str, tmp_path: Path) -> None:
    questions, one = reasoning.chosen(QUESTIONS, None), steered(method)
    pairs = [
        (f"Question: {question}\nAnswer:", f" {choice}")
        for question, choices in zip(questions.question, questions.choices)
        for choice in choices
    ]
    model, tokenizer = handle("llama").load(), handle("llama").info.tokenizer
    base = [-nll for nll, _ in log_likelihoods(model, tokenizer, pairs, tokens_a_batch=512)]
    with one.steer.attached(model, one.strength):
        ours = [-nll for nll, _ in log_likelihoods(model, tokenizer, pairs, tokens_a_batch=512)]
    with (
        closing(harness.SteerlabLM(str(handle("llama").folder), batch_size=7)) as lm,
        one.steer.attached(lm.model, one.strength),
    ):
        told = harness.samples(lm, harness.write_choice_task(questions, tmp_path))
    theirs = [value for sample in told for value, _ in sample["filtered_resps"]]
    assert theirs == pytest.approx(ours, abs=1e-3) and ours != pytest.approx(base, abs=1e-2)
    rows = found(one)
    assert list(rows.columns) == reasoning.COLUMNS
    for place, (choices, answer) in enumerate(zip(questions.choices, questions.answer)):
        assert rows.loc[place, MEASURES].to_list() == right(ours[4 * place : 4 * place + 4], choices, answer)


def test_strength_0_answers_as_the_unsteered_model_which_is_the_same_beside_every_steer() -> None:
    rows = found(steered("cogsteer", 0.0), steered("caa"))
    still, moved = (rows[rows.method == method].reset_index(drop=True) for method in ("cogsteer", "caa"))
    before = [f"base_{name}" for name in MEASURES]
    assert still[MEASURES].to_numpy().tolist() == still[before].to_numpy().tolist()
    pd.testing.assert_frame_equal(still[["question", *before]], moved[["question", *before]])
    pd.testing.assert_frame_equal(found(steered("caa")), moved)


def test_batches_change_no_answer() -> None:
    pd.testing.assert_frame_equal(found(steered("caa"), batch_rows=1), found(steered("caa"), batch_rows=32))


def test_numbers_that_are_not_finite_are_refused_with_the_method() -> None:
    with pytest.raises(FloatingPointError, match="^caa at strength inf: .*use a lower strength"):
        found(steered("caa", float("inf")), n=2)


def test_a_larger_number_of_questions_keeps_those_of_a_smaller_one_and_too_many_are_refused() -> None:
    questions = read()
    few, more = (reasoning.chosen(part, n) for part, n in ((questions, 5), (questions[::-1], 9)))
    assert few.id.to_list() == more.id.to_list()[:5] and few.answer.to_list() == more.answer.to_list()[:5]
    assert len(reasoning.chosen(pd.concat([questions, questions]), None)) == 60
    with pytest.raises(ValueError, match="61 questions are asked for, the source has 60; lower analyses.reasoning"):
        reasoning.chosen(questions, 61)


# ---- the script and its spec ----


def test_the_script_reads_steers_picks_and_questions(tmp_path: Path) -> None:
    steers, choices = [tmp_path / "one", tmp_path / "two"], [tmp_path / "one.json", tmp_path / "two.json"]
    for folder, choice, strength in zip(steers, choices, (1.0, 0.5)):
        caa().save(folder)
        choice.write_text(json.dumps({"pick": {"steps": 0, "strength": strength}}))
    spec = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}
    spec |= {"methods": at_picks("caa", "random_caa"), "door": "sample", "questions": 3, "batch_rows": 4}
    out = tmp_path / "questions.csv"
    measure_reasoning.run(
        model=handle("llama").folder, source=SAMPLE, steers=steers, choices=choices, questions=out, spec=spec
    )
    written = pd.read_csv(out)
    at = written[["method", "strength", "seed"]].drop_duplicates().to_numpy().tolist()
    assert at == [["caa", 1.0, 3], ["random_caa", 0.5, 3]] and len(written) == 6


AT = [("model", "smollm2-135m-instruct"), ("task", "toxicity"), ("seed", "0")]
FIGURE = [AT[0], ("figure", "reasoning")]


def test_the_source_is_asked_for_where_several_methods_are_and_the_figure_where_cogsteer_is() -> None:
    assert asked().doors["reasoning"] == "sample"
    two, one = ({"methods": ["base", "lm_steer", *more], "variants": []} for more in (["random_lm_steer"], []))
    for run in (two, {"tasks": ["truthfulness"], "variants": []}, one):
        x = asked(run=run)
        assert ("reasoning" in x.doors) is (run is not one)
        assert not [path for path in x.figures() if "reasoning" in path]


def test_the_figure_is_drawn_from_a_file_a_seed_of_the_methods_with_a_steer() -> None:
    w = type("Wildcards", (), dict(FIGURE))
    for seeds in (1, 2, None):
        x = asked(analyses={"reasoning": {"questions": 12, "seeds": seeds}})
        of = x.config["run"]["seeds"][:seeds]
        files = [f"results/analyses/smollm2-135m-instruct/reasoning/toxicity/{seed}.csv" for seed in of]
        assert x.figure_input(w) == {"questions": files}
    methods = [one["method"] for one in json.loads(x.spec("measure_reasoning", AT))["methods"]]
    steers = x.measured_steers(type("Wildcards", (), dict(AT)))["steers"]
    assert [Path(path).parts[-3] for path in steers] == methods and {"cogsteer", "random_cogsteer"} < set(methods)


STEERED = ["base", "lm_steer", "hpr"]


@pytest.mark.parametrize(
    "changes",
    [
        {"analyses": {"reasoning": {"questions": 5}}},
        {"analyses": {"reasoning": {"questions": 12, "batch_rows": 3}}},
        {"data": {"sources": {"reasoning": "hub"}}},
        {
            "tasks": {
                "toxicity": {"prompts": {"dev": 30, "test": 45}, "methods": ["base", "lm_steer", "hpr", "cogsteer"]}
            }
        },
    ],
    ids=["questions", "batch_rows", "door", "methods"],
)
def test_the_spec_changes_with_what_changes_the_bytes(changes: dict) -> None:
    spec = asked().spec("measure_reasoning", AT)
    assert asked(**changes).spec("measure_reasoning", AT) != spec
    assert asked(metrics={"resamples": 20}).spec("measure_reasoning", AT) == spec


@pytest.mark.parametrize(
    ("doors", "phrase"),
    [
        ({"comments": "sample", "reasoning": "sample"}, "sample data"),
        ({"comments": "kaggle", "reasoning": "sample"}, "sample data (the questions)"),
        ({"comments": "sample", "reasoning": "hub"}, "sample data (what the steers learnt from)"),
        ({"comments": "kaggle", "reasoning": "hub"}, ""),
    ],
)
def test_the_caption_says_which_part_rests_on_sample_data(doors: dict[str, str], phrase: str) -> None:
    sources = yaml.safe_load((ROOT / "config.yaml").read_text())["data"]["sources"]
    spec = json.loads(asked(data={"sources": sources | doors}).spec("plot_figure", FIGURE))
    assert spec["sample_data"] == phrase


# ---- the questions ----


def test_the_sample_questions_are_the_pinned_ones_and_their_right_answers_stand_at_every_place(tmp_path: Path) -> None:
    fetch(table()["reasoning"], "sample", tmp_path / "raw", mirror=None, environ={})
    questions = loaders.read("reasoning", "sample", tmp_path / "raw")
    assert len(questions) == questions.question.nunique() == 60
    assert set(questions.choices.map(len)) == {4}
    for begin in range(0, 60, 12):
        assert Counter(questions.answer[begin : begin + 12]) == dict.fromkeys(range(4), 3)


def test_no_one_length_of_a_choice_gives_the_right_answer_away() -> None:
    lengths = [[len(choice) for choice in choices] for choices in read().choices]
    for extreme in (min, max):
        alone = [each[answer] == extreme(each) and each.count(extreme(each)) == 1
                 for each, answer in zip(lengths, read().answer)]  # fmt: skip
        assert sum(alone) <= 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choices": ["a", "b", "c"]}, "the question has 3 choices; give 4"),
        ({"answer": 4}, "the answer is 4; give the index of a choice, from 0 to 3"),
        ({"answer": -1}, "the answer is -1; give the index"),
        ({"answer": "A"}, "the answer is 'A'; give the index"),
        ({"choices": ["a", "b", "a", "d"]}, "a choice stands twice among"),
        ({"question": " "}, "the text is empty"),
    ],
)
def test_a_line_that_is_no_question_is_told_with_its_number_and_the_remedy(
    fields: dict, message: str, tmp_path: Path
) -> None:
    good = {"question": "Why?", "choices": ["a", "b", "c", "d"], "answer": 0}
    (tmp_path / "q.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(good | fields)}\n")
    with pytest.raises(BadRows, match=rf"q\.jsonl:2: {message}"):
        loaders.FORMATS["choices_jsonl"](tmp_path / "q.jsonl")


def arc(path: Path, *keys: str) -> Path:
    """Questions with the labels A to C, whose answers are these keys."""
    choices = {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}
    rows = [
        {"id": f"q{n}", "question": f"Which, {n}?", "choices": choices, "answerKey": key} for n, key in enumerate(keys)
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_arcs_answers_are_found_by_their_labels(tmp_path: Path) -> None:
    frame = loaders.FORMATS["arc_parquet"](arc(tmp_path / "arc.parquet", "B", "A"))
    assert frame.answer.to_list() == [1, 0] and frame.choices[0] == ["one", "two", "three"]
    with pytest.raises(BadRows, match=r"arc\.parquet:2: the answer 'D' is none of the labels"):
        loaders.FORMATS["arc_parquet"](arc(tmp_path / "arc.parquet", "B", "D"))


@pytest.mark.parametrize("preset", [None, "tiny"])
def test_the_sample_has_as_many_questions_as_are_asked_for(preset: str | None) -> None:
    config = yaml.safe_load((ROOT / (f"presets/{preset}.yaml" if preset else "config.yaml")).read_text())
    assert config["data"]["sources"]["reasoning"] == "sample"
    assert config["analyses"]["reasoning"]["questions"] <= 60


# ---- the figure ----

BASE = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]


def measured(method: str = "cogsteer", gains: tuple[int, ...] = (1,), *, seeds=(0, 1), strength: float = 1.0):
    """Questions of which a steer answers those of `gains` right as well; by letter, two before and after."""
    rows = [
        (method, seed, strength, f"q{n}", 4, float(bool(base) or n in gains), base, float(n < 2), float(n < 2))
        for seed in seeds
        for n, base in enumerate(BASE)
    ]
    return pd.DataFrame(rows, columns=reasoning.COLUMNS)


def drawn(*methods: pd.DataFrame, **how) -> pd.DataFrame:
    return figure.table(pd.concat(methods or [measured(), measured("random_cogsteer", ())]), model="tiny", **how)


def test_the_unsteered_model_stands_first_and_controls_after_their_methods() -> None:
    rows = drawn(measured("random_cogsteer"), measured("lm_steer"), measured(), measured("caa"))
    assert list(rows.columns) == figure.COLUMNS and set(rows.chance) == {0.25} and set(rows.n) == {8}
    methods = list(rows.method.unique())
    assert methods[0] == "base" and methods.index("random_cogsteer") == methods.index("cogsteer") + 1
    base = rows[rows.method == "base"].set_index("metric")
    assert base.value.to_dict() == {"acc": 0.375, "acc_change": 0, "acc_norm": 0.25, "acc_norm_change": 0}


def test_questions_are_pooled_over_seeds_and_differences_are_paired() -> None:
    both = pd.concat([measured(seeds=[0]), measured(gains=(1, 2, 4), seeds=[1])])
    rows = drawn(both).query("method == 'cogsteer'").set_index(["metric", "seed"])
    assert rows.value["acc_change"].to_dict() == pytest.approx({"all": 0.25, "0": 0.125, "1": 0.375})
    assert rows.value["acc", "all"] == pytest.approx(0.625)
    widths = rows.high - rows.low
    assert widths["acc_change", "0"] < widths["acc", "0"] and rows.low["acc_change", "all"] >= 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (measured().head(0), "no questions were read"),
        (pd.concat([measured(), measured(strength=2.0)]), "cogsteer has several strengths"),
        (pd.concat([measured(), measured()]), "a question of cogsteer stands twice"),
        (measured().iloc[:-1], "the seeds of cogsteer have different questions"),
    ],
)
def test_tables_that_cannot_be_pooled_are_refused(rows: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figure.table(rows)


def test_points_stand_at_the_values_of_the_table_beside_a_line_at_chance(tmp_path: Path) -> None:
    rows = drawn()
    drawing = figure.plot(rows)
    assert drawing.get_size_inches()[0] == pytest.approx(style.WIDTH)
    for panel, metric in zip(drawing.axes, figure.PANELS, strict=True):
        points = {round(float(x), 9) for line in panel.lines if line.get_marker() == "o" for x in line.get_xdata()}
        assert points == {round(value, 9) for value in rows[rows.metric == metric].value}
        assert any(list(line.get_xdata()) == [0.25, 0.25] for line in panel.lines), "a blind guess"
        assert panel.get_xlim()[1] > 0.25 and panel.get_xlabel()
    labels = [tick.get_text() for tick in drawing.axes[0].get_yticklabels()]
    assert labels[0] == "unsteered" and labels[1].endswith(", 1") and labels[2].startswith("random")
    assert "a blind guess" in [text.get_text() for text in drawing.legends[0].get_texts()]
    rows.to_csv(tmp_path / "table.csv", index=False)
    for name, table_ in (("a", rows), ("b", pd.read_csv(tmp_path / "table.csv"))):
        style.save(figure.plot(table_), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_caption_says_what_was_asked_and_tells_paired_differences() -> None:
    facts = {"sample_data": "sample data (the questions)"} | figure.facts(drawn())
    text = " ".join(captions.caption((ROOT / "captions/reasoning.rst").read_text(), facts).split())
    assert "on 8 questions" in text and "over 2 seeds" in text and not set("{}") & set(text)
    assert "95 % percentile bootstrap interval over questions" in text and "a blind guess, 0.25" in text
    assert "two accuracies are 0.375 and 0.250" in text and ", 1: +0.125 [+0.000, " in text
    assert "rests on sample data (the questions)" in text and "random control" in text and "four of five" in text
    alone = figure.facts(drawn(measured(gains=(), seeds=[0])))
    assert alone["seeds"] == "1 seed" and not alone["controls"] and not alone["detectable"]
