"""Control as part of the experiment: what it learns from, through which reader, its random control, figure, command."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from scripts import derive_steer, make_control_table, train_steer
from steerlab import cli, experiment, latentqa_commands, methods
from steerlab.data import sources, tables
from steerlab.data.latentqa_files import read_control
from steerlab.data.sources import SAMPLE
from steerlab.experiment import names
from steerlab.experiment.cells import PICK
from steerlab.figures import captions, control_sentiment, style
from steerlab.methods.latentqa import Decoder
from steerlab.methods.latentqa_control import LatentQAControl
from steerlab.methods.random_direction import mean_edit
from steerlab.metrics.continuations import COLUMNS
from steerlab.tasks import control
from tests.unit.latentqa_subjects import SETTINGS, reader_model, table
from tests.workflow.project import ROOT

MODEL = "smollm2-135m-instruct"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
METHODS = [method for method in DEFAULT["run"]["methods"] if not method.endswith("latentqa")]
WITHOUT = DEFAULT | {"run": DEFAULT["run"] | {"methods": METHODS}}  # a control of the model through a reader
DOORS = {"instructions": "sample", "latentqa_controls": "sample"}
RAW = dict.fromkeys(DOORS, SAMPLE)


def loaded(**changes: Any) -> experiment.Experiment:
    """The default with the control's overlay; changes are laid over its sections."""
    overlay = yaml.safe_load((ROOT / "presets/control.yaml").read_text())
    sections = DEFAULT | {name: DEFAULT.get(name, {}) | part for name, part in overlay.items()}
    return experiment.load(sections | {name: sections.get(name, {}) | part for name, part in changes.items()})


def given(**steer: Any) -> dict[str, dict]:
    return {"steers": DEFAULT["steers"] | {"latentqa": steer}}


def job(method: str = "latentqa", task: str = "sentiment", seed: int = 0) -> SimpleNamespace:
    return SimpleNamespace(model=MODEL, method=method, task=task, split="test", seed=str(seed))


def spec(x: experiment.Experiment, rule: str, **wildcards: str) -> dict:
    return json.loads(x.spec(rule, wildcards.items()))


# ---- the table ----


def made(*wishes: str, nudge: str = "", own: list[Path] | None = None, doors: dict | None = None) -> pd.DataFrame:
    raw = dict.fromkeys(doors or DOORS, SAMPLE)
    return control.make_table(raw, doors or DOORS, {"wishes": list(wishes), "nudge": nudge}, own or [])


def test_every_instruction_stands_with_every_pair_of_the_wish():
    found, (_, pairs) = made("be_civil", nudge="Mind this."), read_control(SAMPLE / "be_civil.json")
    assert found.turns.nunique() == 60 and len(found) == 60 * 8 and found.id.is_unique
    assert list(zip(found.question, found.answer))[:8] == pairs
    said = [json.loads(turns) for turns in found.turns]
    assert {tuple(turn["role"] for turn in turns) for turns in said} == {("user", "assistant")}
    assert all(turns[0]["content"].startswith("Mind this. ") for turns in said)


def test_an_instruction_with_several_answers_is_asked_once(tmp_path: Path):
    row = {"instruction": "Say it.", "context": "", "response": "It."}
    lines = [row, row | {"response": "That."}, row | {"context": "Here."}]
    (tmp_path / "instructions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    raw = RAW | {"instructions": tmp_path}
    found = control.make_table(raw, DOORS, {"wishes": ["be_fair"], "nudge": ""})
    said = [json.loads(turns)[1]["content"] for turns in found.turns.unique()]
    assert said == ["It.", "It."]


def test_a_wish_can_be_a_file_of_the_users_own_alone_or_among_names(tmp_path: Path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"Be mine.": [["Whose?", "Yours."]]}))
    alone = made(str(mine), own=[mine], doors={"instructions": "sample"})
    assert set(alone.question) == {"Whose?"} and "layer" not in alone
    by_block = made("be_fair", str(mine), "be_civil", own=[mine])
    assert by_block.groupby("layer").question.nunique().tolist() == [8, 1, 8]
    assert set(by_block[by_block.layer == 1].answer) == {"Yours."}


# ---- the experiment ----


def test_a_control_is_learnt_from_its_own_table_and_no_other_steer_is():
    x = loaded()
    assert x.training_table(job()) == "results/data/controls/latentqa/sentiment.parquet"
    assert x.training_table(job("gloomy")) == "results/data/controls/gloomy/sentiment.parquet"
    assert x.training_table(job("caa", "toxicity")) == "results/data/toxicity.parquet"
    assert x.reader_input(job("caa", "toxicity")) == [] and x.training_input(job()) == []
    raw = {name: [f"results/data/raw/{name}/sample"] for name in DOORS}
    assert x.control_input(job()) == raw | {"own": []}


def test_each_task_has_a_wish_and_another_can_be_given_for_one_or_in_a_variant():
    def wished(x: experiment.Experiment, method: str, task: str) -> list[str]:
        return spec(x, "make_control_table", method=method, task=task)["settings"]["wishes"]

    x = loaded()
    of_tasks = {"toxicity": "be_civil", "sentiment": "be_cheerful", "truthfulness": "be_truthful", "bias": "be_fair"}
    assert {task: wished(x, "latentqa", task) for task in of_tasks} == {task: [of_tasks[task]] for task in of_tasks}
    assert wished(x, "gloomy", "sentiment") == ["be_gloomy"]
    other = loaded(**given(by_task={"bias": {"wish": "be_civil"}}))
    assert wished(other, "latentqa", "bias") == ["be_civil"] and wished(other, "latentqa", "toxicity") == ["be_civil"]
    assert wished(other, "latentqa", "sentiment") == ["be_cheerful"]


@pytest.mark.parametrize(
    ("latentqa", "seed", "reader"),
    [
        ({"seeds": [0, 2]}, 2, "visible/2"),
        ({"seeds": [2, 0]}, 1, "visible/2"),
        ({"seeds": None}, 1, "visible/1"),
        ({"settings": ["masked", "visible"]}, 0, "masked/0"),
    ],
)
def test_the_reader_is_of_the_steers_own_seed_or_the_first_one(latentqa: dict, seed: int, reader: str):
    x = loaded(latentqa=latentqa)
    wanted = f"results/steers/{MODEL}/latentqa/readers/{reader}"
    assert x.reader_input(job(task="toxicity", seed=seed)) == [wanted] and wanted in x.readers


def test_the_reader_can_be_of_another_setting():
    x = loaded(latentqa={"settings": ["visible", "masked"]}, **given(by_task={"bias": {"setting": "masked"}}))
    readers = [x.reader_input(job(task=task))[0].split("/")[-2] for task in ("sentiment", "bias")]
    assert readers == ["visible", "masked"]


def test_what_the_fit_is_given_reruns_the_fit_and_what_the_table_is_made_of_the_table_alone():
    at = {"method": "latentqa", "task": "sentiment"}
    of_fit, of_table = at | {"model": MODEL, "seed": "0"}, at
    before = loaded(**given())
    found = spec(before, "train_steer", **of_fit)
    assert found["site"] is None and found["hyperparameters"]["learning_rate"] == 1e-4
    assert not {"wish", "nudge", "setting", "strengths", "reader"} & set(found["hyperparameters"])
    for steer, changed in (({"updates": 3}, "train_steer"), ({"nudge": "Please."}, "make_control_table")):
        x = loaded(**given(**steer))
        for rule, wildcards in (("train_steer", of_fit), ("make_control_table", of_table)):
            assert (spec(x, rule, **wildcards) == spec(before, rule, **wildcards)) == (rule != changed)


def test_on_a_task_without_a_choice_the_random_control_stands_beside_every_strength():
    x = loaded(**given(strengths=[0.5, 2.0]))
    for task in ("sentiment", "bias"):
        learnt, random = (x.cells[MODEL, method, task, "test"] for method in ("latentqa", "random_latentqa"))
        assert (random.steps, random.strengths, random.chosen_by) == ((0,), (0.5, 2.0), None)
        assert learnt.strengths == random.strengths and random.seeds == learnt.seeds
        assert x.sizing_table(job("random_latentqa", task)) == names.CONTROL_TABLE.format(method="latentqa", task=task)
        assert x.subjects(job("random_latentqa", task))["choices"] == []
    picked = x.cells[MODEL, "random_latentqa", "toxicity", "test"]
    assert (picked.strengths, picked.chosen_by) == ((PICK,), (MODEL, "latentqa", "toxicity"))
    assert x.sizing_table(job("random_latentqa", "toxicity")) == "results/data/toxicity.parquet"
    assert (MODEL, "random_latentqa", "toxicity", "dev") not in x.cells


def test_random_controls_of_other_methods_are_sized_on_the_texts_there_and_have_no_unwished_side():
    run = {"methods": ["base", "lm_steer", "random_lm_steer"], "tasks": ["sentiment"], "variants": []}
    x = loaded(run=run, tasks={"sentiment": DEFAULT["tasks"]["sentiment"] | {"methods": run["methods"], "beside": []}})
    learnt, random = (x.cells[MODEL, method, "sentiment", "test"] for method in run["methods"][1:])
    assert random.strengths == tuple(each for each in learnt.strengths if each > 0) != learnt.strengths
    assert x.sizing_table(job("random_lm_steer")) == "results/data/sentiment.parquet"


def test_texts_to_size_on_are_spread_over_the_table(tmp_path: Path):
    rows = [{"role": "train", "split": "train", "text": f"text {number}"} for number in range(100)]
    rows += [{"role": role, "split": "test", "text": "held out, or asked"} for role in ("train", "prompt")]
    pd.DataFrame(rows).to_parquet(tmp_path / "sentiment.parquet")
    found = tables.to_derive_on(tmp_path / "sentiment.parquet", is_chosen=False, texts=24)
    assert found == [f"text {number}" for number in range(0, 96, 4)]


def test_readers_and_their_data_are_asked_for_where_a_control_is_and_nowhere_else():
    assert DOORS.items() <= loaded().doors.items() and not set(DOORS) & set(experiment.load(WITHOUT).doors)
    own = loaded(**given(wish=str(SAMPLE / "be_fair.json")), run={"variants": []})
    assert "latentqa_controls" not in own.doors
    assert own.control_input(job())["own"] == [str(SAMPLE / "be_fair.json")]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"latent_reading": {"corpora": []}}, "it learns through a reader, and none is trained; name latent_reading"),
        (given(setting="masked"), "no reader of the setting masked is trained; add it to latentqa.settings"),
        (given(wish="be_cheerfull"), "has no wish 'be_cheerfull'; did you mean 'be_cheerful'?"),
        (
            given(wish=["be_civil", "be_fair"]),
            "a wish a block needs a loss a block; set steers.latentqa.per_layer_loss",
        ),
        (given(by_task={"bias": {"wish": "no/where.json"}}), "there is no wish no/where.json; correct its path"),
    ],
    ids=["corpora", "setting", "name", "list", "path"],
)
def test_what_cannot_be_controlled_is_one_line_a_fault(changes: dict, told: str):
    with pytest.raises(experiment.ConfigError) as error:
        loaded(**changes)
    lines = str(error.value).splitlines()
    assert all(line.startswith("config: ") for line in lines) and any(told in line for line in lines)
    assert len(set(lines)) == len(lines)


def test_methods_that_cannot_learn_on_a_task_are_refused_where_they_are_asked_alone():
    run = {"methods": ["base", "latentqa", "lora"], "variants": []}
    tasks = DEFAULT["tasks"] | {"bias": {"methods": ["base", "latentqa"]}}
    assert (MODEL, "lora", "bias", "test") not in loaded(run=run, tasks=tasks).cells
    with pytest.raises(experiment.ConfigError, match="lora on bias cannot be run: .* the task offers qa_pairs"):
        loaded(run=run, tasks=tasks | {"bias": {"methods": None}})


@pytest.mark.parametrize(
    ("doors", "data"),
    [
        ({}, "sample"),
        ({"instructions": "hub"}, "sample"),
        ({"instructions": "hub", "latentqa": "mirror"}, "real"),
    ],
)
def test_a_control_rests_on_sample_data_where_reader_or_dialogs_do(doors: dict, data: str, tmp_path: Path):
    for file in sources.table()["latentqa"].doors["mirror"].files:
        (tmp_path / file.remote).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.remote).touch()
    x = loaded(data={"mirror": str(tmp_path), "sources": DEFAULT["data"]["sources"] | doors})
    for method in ("latentqa", "random_latentqa"):
        at = {"model": MODEL, "method": method, "task": "sentiment", "split": "test"}
        assert spec(x, "compute_metrics", **at)["data"] == data
    assert spec(x, "compute_metrics", **at | {"method": "base"})["data"] == "real"


# ---- the scripts ----

COMPUTE = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "site": None, "seed": 0}
GIVEN = {"rank": 2, "alpha": 4.0, "samples": 3, "updates": 3, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reader, a control's table and the control."""
    folder, model = tmp_path_factory.mktemp("ran"), reader_model("llama")
    Decoder.fit(model, table(), None, **SETTINGS | {"learning_rate": 0.05}).save(folder / "reader")
    made = {"doors": DOORS, "settings": {"wishes": ["be_fair"], "nudge": ""}}
    make_control_table.run(sources=RAW, own=[], table=folder / "table.parquet", spec=made)
    spec = COMPUTE | {"steer": "steerlab.methods.latentqa_control:LatentQAControl", "hyperparameters": GIVEN}
    train_steer.run(
        model=model.folder, table=folder / "table.parquet", steer=folder / "steer", spec=spec, store=folder / "store",
        reader=[folder / "reader"], resumed={"checkpoints": folder / "work", "checkpoint_every": 2},
    )  # fmt: skip
    return folder


def test_the_script_trains_the_control_that_the_class_does_and_keeps_checkpoints(ran: Path):
    found, data = LatentQAControl.load(ran / "steer"), pd.read_parquet(ran / "table.parquet")
    again = LatentQAControl.fit(reader_model("llama"), data, seed=0, reader=ran / "reader", **GIVEN)
    assert found.record == again.record and len(found.training) == 3
    assert all(torch.equal(each, again.tensors[name]) for name, each in found.tensors.items())
    assert list((ran / "work").rglob("*.safetensors"))


def test_the_random_control_is_sized_on_the_instructions_where_nothing_is_chosen(ran: Path, tmp_path: Path):
    model = reader_model("llama")
    spec = COMPUTE | {"of": ["bias"], "chosen": [False], "texts": 24, "hyperparameters": {}}
    derive_steer.run(
        model=model.folder, source=model.folder, table=ran / "table.parquet", steers=[ran / "steer"], choices=[],
        steer=tmp_path / "random", spec=spec | {"derive": "steerlab.methods.random_direction:randomised"},
    )  # fmt: skip
    prompts = tables.to_derive_on(ran / "table.parquet", is_chosen=False, texts=24)
    learnt, random = (methods.load(folder, model) for folder in (ran / "steer", tmp_path / "random"))
    sizes = [mean_edit(model, steer, 1.0, prompts) for steer in (learnt, random)]
    assert len(prompts) == 24 and sizes[0] > 0 and sizes[1] == pytest.approx(sizes[0], rel=0.01)


# ---- the figure ----

VALUES = {"positive_share": 0.4, "mean_sentiment": 0.1, "perplexity": 20.0}
DRAWN = (("base", 0.0), ("instructed", 0.0), ("latentqa", 0.5), ("latentqa", 1.0), ("random_latentqa", 1.0))


def metrics(rows: tuple = DRAWN, data: str = "real") -> pd.DataFrame:
    found = []
    for method, strength in rows:
        for prompts in ("negative", "neutral", "positive", "all"):
            for seed in ("0", "1", "all"):
                for metric, base in VALUES.items():
                    change = 0.1 * strength * (metric != "perplexity") * (not method.startswith("random"))
                    beside = (None,) * 4 if method == "base" else (base, change, change - 0.05, change + 0.05)
                    scorer = "tiny, unsteered" if metric == "perplexity" else "vader==3"
                    value = (
                        metric,
                        base + change,
                        base + change - 0.1,
                        base + change + 0.1,
                        *beside,
                        16,
                        2,
                        scorer,
                        data,
                    )
                    found.append(("tiny", method, "sentiment", "test", prompts, 0, strength, seed, *value))
    ends = ("base", "difference", "difference_low", "difference_high")
    return pd.DataFrame(found, columns=COLUMNS).astype(dict.fromkeys(ends, float))


def test_methods_stand_below_the_class_of_their_prompts_in_the_order_of_the_style():
    rows = control_sentiment.table(metrics().sample(frac=1, random_state=0))
    assert list(rows.columns) == control_sentiment.COLUMNS
    assert list(rows.group.unique()) == ["neutral prompts", "negative prompts", "positive prompts"]
    labels = ["unsteered", "instructed prompt", "LatentQA, 0.5", "LatentQA, 1", "random directions, 1"]
    for _, part in rows.groupby("group"):
        assert list(part.label.unique()) == labels


def test_the_caption_tells_each_change_with_its_interval_and_who_else_is_there():
    both = metrics((*DRAWN, ("gloomy", 1.0)), data="sample")
    said = control_sentiment.facts(control_sentiment.table(both))
    assert "LatentQA, 1 on neutral prompts: +0.100 [+0.050, +0.150]" in said["changes"]
    assert (said["others"], said["controls"], said["sample_data"]) == ("gloomy", "yes", "sample data")
    template = (ROOT / "captions" / "control_sentiment.rst").read_text()
    text = captions.caption(template, said)
    assert "The rows of gloomy wish something else" in text and "random control" in text and "16 neutral" in text
    alone = captions.caption(template, control_sentiment.facts(control_sentiment.table(metrics(DRAWN[:4:2]))))
    assert "random control" not in alone and "wish something else" not in alone


def test_the_figure_from_its_csv_has_the_same_bytes(tmp_path: Path):
    rows = control_sentiment.table(metrics())
    rows.to_csv(tmp_path / "rows.csv", index=False)
    for name, drawn in (("a", rows), ("b", pd.read_csv(tmp_path / "rows.csv"))):
        style.save(control_sentiment.plot(drawn), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_one_model_with_its_unsteered_texts_is_drawn():
    with pytest.raises(ValueError, match="pass the metrics of base"):
        control_sentiment.table(metrics(DRAWN[2:]))
    with pytest.raises(ValueError, match="pass the metrics of one"):
        control_sentiment.table(pd.concat([metrics(), metrics().assign(model="other")]))


def test_the_targets_are_the_figures_that_the_cells_are_there_for():
    x = loaded()
    for name in ("control_sentiment", "control_bias"):
        assert x.figures(named=name) == [f"results/figures/{MODEL}/{name}.svg"]
        assert experiment.load(WITHOUT).figures(named=name) == []
    drawn = x.figure_input(SimpleNamespace(model=MODEL, figure="control_sentiment"))["metrics"]
    methods_drawn = [Path(file).parts[-3] for file in drawn]
    assert methods_drawn == ["base", "instructed", "latentqa", "random_latentqa", "gloomy"]


# ---- the command line ----


def controlled(folder: Path, *more: str, reader: str = "reader") -> subprocess.CompletedProcess[str]:
    where = ["--model", str(reader_model("llama").folder), "--reader", reader]
    quick = ["--updates", "2", "--samples", "2", "--max-new-tokens", "3"]
    command = [sys.executable, "-m", "steerlab", "control", *where, *quick, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


def test_a_control_is_trained_from_the_command_line(ran: Path):
    asked = ["--ask", "Hue?", "--answer", "Pink.", "--learning-rate", "0.05"]
    printed = controlled(ran, *asked, "--prompt", "Hello?", "--prompt", "Who?", "--out", "mine")
    assert printed.returncode == 0, printed.stderr
    assert "control, seed 0" in printed.stderr and printed.stdout.endswith("written to mine\n")
    assert json.loads((ran / "mine/pairs.json").read_text()) == {"as asked": [["Hue?", "Pink."]]}
    outputs = json.loads((ran / "mine/outputs.json").read_text())["outputs"]
    steer, model = methods.load(ran / "mine/steer", reader_model("llama")), reader_model("llama")
    how = {"strength": 1.0, "max_new_tokens": 3}
    assert outputs == latentqa_commands.compared(model, steer, ["Hello?", "Who?"], **how)
    again = controlled(ran, *asked, "--prompt", "Hello?", "--out", "mine")
    assert again.returncode == 1 and again.stderr == "control: mine is there already; name a new folder with --out\n"


def test_a_wish_comes_from_a_file_and_names_the_folder(ran: Path):
    printed = controlled(ran, "--qa", str(SAMPLE / "be_fair.json"), "--prompt", "Hello?")
    assert printed.returncode == 0, printed.stderr
    folder = ran / names.CONTROL.format(model=reader_model("llama").folder.name, wish="be_fair")
    wish, pairs = read_control(SAMPLE / "be_fair.json")
    assert read_control(folder / "pairs.json") == (wish, pairs)


PAIR = ("--ask", "Hue?", "--answer", "Pink.")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (PAIR, "control: there is no prompt; give --prompt"),
        (("--prompt", "Hi"), "control: there are 0 --ask and 0 --answer; give each question its answer"),
        (("--prompt", "Hi", *PAIR, "--ask", "Who?"), "control: there are 2 --ask and 1 --answer"),
        (("--prompt", "Hi", *PAIR, "--qa", "x.json"), "control: --qa stands beside --ask"),
        (("--prompt", "Hi", "--qa", "x.json"), "control: [Errno 2] No such file"),
        (("--prompt", "Hi", *PAIR, "--updates", "0"), "control: --samples, --updates and --max-new-tokens begin at 1"),
        (("--prompt", "Hi", *PAIR, "--reader", "nowhere"), "control: nowhere holds no steer"),
        (("--prompt", "Hi", *PAIR, "--device", "mars"), "control: device 'mars' cannot be used"),
    ],
)
def test_what_cannot_be_controlled_from_the_command_line_is_one_line(
    ran: Path, more: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ran)
    where = ["--model", str(reader_model("llama").folder), "--reader", "reader", "--out", "never"]
    with pytest.raises(SystemExit) as error:
        cli.main(["control", *where, *more])
    assert str(error.value.code).startswith(told) and "\n" not in str(error.value.code)
    assert not (ran / "never").exists()


def test_outputs_without_and_with_a_change_are_the_models_own(ran: Path):
    model = reader_model("llama")
    steer = methods.load(ran / "steer", model)
    (still,) = latentqa_commands.compared(model, steer, ["Hello?"], strength=0.0, max_new_tokens=4)
    assert still["before"] == still["after"]
    (moved,) = latentqa_commands.compared(model, steer.scaled(50.0), ["Hello?"], strength=1.0, max_new_tokens=4)
    assert moved["before"] == still["before"] != moved["after"]
