"""The configuration at the door: defaults filled, every error at once, one line each, nothing planned."""

import json
import subprocess
import sys

import pytest
import yaml

from steerlab import experiment
from steerlab.experiment import config
from steerlab.experiment.registry import METHODS, TEXT_SCORERS
from tests.workflow.project import ROOT, SNAKEMAKE, environment


def default() -> dict:
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def errors(**changes: object) -> list[str]:
    with pytest.raises(experiment.ConfigError) as error:
        experiment.load(default() | changes)
    return str(error.value).splitlines()


def test_the_shipped_configuration_is_valid():
    headline = {cell.method for cell in experiment.load(default()).cells.values()} - set(default()["variants"])
    steered = {name for name, line in METHODS.items() if line.steer and not line.is_derived}
    assert headline == {"base", "instructed"} | steered | {f"random_{name}" for name in steered}


@pytest.mark.parametrize(
    ("path", "leaf"),
    list(config.leaves(config.schema())),
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_every_leaf_says_what_it_is_and_where_its_value_comes_from(path: tuple[str, ...], leaf: dict):
    if path == ("models",):
        return  # a table of the user's own; its columns are checked below
    assert leaf["description"] and leaf["source"] and "default" in leaf


def test_every_column_of_the_users_tables_says_what_it_is():
    properties = config.schema()["properties"]
    for table in (properties["models"], properties["scores"]["properties"]["classifiers"]):
        for column in table["additionalProperties"]["properties"].values():
            assert column["description"] and column["source"]


def test_the_schema_names_every_scorer_of_the_registry_under_its_quantity():
    scores = config.schema()["properties"]["scores"]["properties"]
    for name, line in TEXT_SCORERS.items():
        assert name in scores[line.quantity]["description"]


def test_every_classifier_that_ships_can_be_picked():
    scores = default()["scores"]
    picked = {"toxicity": ["profanity_check"], "sentiment": ["vader"]}
    for name, definition in scores["classifiers"].items():
        picked[definition["quantity"]].append(name)
    assert len(picked["toxicity"]) == 4 and len(picked["sentiment"]) == 2
    filled = config.check(default() | {"scores": scores | picked})["scores"]["classifiers"]
    assert (filled["detoxify_unbiased"]["activation"], filled["distilbert_sst2"]["activation"]) == ("sigmoid", "auto")


TOXIC = {"repo": "someone/model", "revision": "0" * 40, "quantity": "toxicity", "label": "toxic"}
OPPOSED = TOXIC | {"quantity": "sentiment", "against": "kind"}


def without(key: str) -> dict:
    return {name: value for name, value in TOXIC.items() if name != key}


@pytest.mark.parametrize(
    ("definition", "line"),
    [
        (without("quantity"), "'quantity' is a required property"),
        (without("label"), "'label' is a required property"),
        (TOXIC | {"labels": ["toxic"]}, "unknown key 'labels'; did you mean 'label'?"),
        (TOXIC | {"revision": "main"}, "'main' does not match"),
        (TOXIC | {"quantity": "sentimen"}, "did you mean 'sentiment'?"),
        (TOXIC | {"activation": "none"}, "'none' is not one of them"),
        ({"quantity": "toxicity", "label": "toxic"}, "it comes from nowhere; give repo and revision, or path"),
        (TOXIC | {"path": "."}, "path stands beside repo, which is of the hub; keep one of them"),
        (without("repo") | {"path": "."}, "path stands beside revision"),
        (without("revision"), "someone/model needs the key 'revision', its full commit"),
        (TOXIC | {"against": "kind"}, "toxicity is the probability of 'toxic' alone; leave against 'kind' out"),
        (TOXIC | {"quantity": "sentiment"}, "sentiment needs the key 'against', the label opposite to 'toxic'"),
        (OPPOSED | {"against": "Toxic"}, "against is 'toxic' itself, and every score would be 0"),
    ],
)
def test_a_classifier_that_cannot_be_is_refused_in_one_line(definition: dict, line: str):
    (found,) = errors(scores={"classifiers": {"mine": definition}})
    assert found.startswith("config: scores.classifiers.mine") and line in found


@pytest.mark.parametrize("name", ["vader", "my-own", "my/own"])
def test_a_classifier_has_a_name_of_its_own_that_can_name_files(name: str):
    (found,) = errors(scores={"classifiers": {name: TOXIC}})
    assert f"scores.classifiers: {name!r} names files beside other scorers" in found


@pytest.mark.parametrize(
    ("picked", "line"),
    [
        (
            {"toxicity": ["profanity_chek"]},
            "toxicity: unknown scorer 'profanity_chek'; did you mean 'profanity_check'?",
        ),
        ({"sentiment": ["min"]}, "sentiment: unknown scorer 'min'; did you mean 'mine'?"),
        ({"sentiment": ["mine"]}, "sentiment: mine scores toxicity; name it under scores.toxicity"),
        ({"toxicity": ["vader"]}, "toxicity: vader scores sentiment; name it under scores.sentiment"),
        ({"toxicity": ["opposed"]}, "toxicity: opposed scores sentiment; name it under scores.sentiment"),
        (
            {"toxicity": ["mine", "again"]},
            "toxicity: tables cannot tell again from mine, both are someone/model==000000000000:toxic; keep one",
        ),
        (
            {"toxicity": ["lost"]},
            "toxicity: nowhere of lost is no folder; correct its path, as seen from where the run starts",
        ),
    ],
)
def test_a_scorer_that_cannot_be_picked_is_refused_in_one_line(picked: dict, line: str):
    lost = {"path": "nowhere", "quantity": "toxicity", "label": "toxic"}
    other = OPPOSED | {"repo": "someone/other"}
    classifiers = {"mine": TOXIC, "again": dict(TOXIC), "opposed": other, "lost": lost}
    assert errors(scores={"classifiers": classifiers} | picked) == [f"config: scores.{line}"]


def test_every_level_refuses_unknown_keys():
    def levels(node: dict):
        if "properties" in node:
            yield node
            for child in node["properties"].values():
                yield from levels(child)

    assert all(level["additionalProperties"] is False for level in levels(config.schema()))


def test_an_empty_level_takes_the_defaults():
    filled = config.check(default() | {"metrics": {}})
    assert filled["metrics"] == {"resamples": 2000, "confidence": 0.95}


def test_all_errors_come_at_once_one_line_each_with_the_nearest_key():
    found = errors(thread=2, device="gpu", metrics={"resample": 10})
    assert len(found) == 3
    assert "config: device: 'gpu' is not one of them; did you mean 'cpu'?" in found
    assert "config: metrics: unknown key 'resample'; did you mean 'resamples'?" in found
    assert "config: unknown key 'thread'; did you mean 'threads'?" in found


def test_unknown_names_are_named_with_the_nearest():
    found = errors(run={"models": ["smollm2-135m-instruc"], "methods": ["cca"], "tasks": ["toxic"]})
    assert [line.rpartition("did you mean ")[2] for line in found] == [
        "'smollm2-135m-instruct'?",
        "'caa'?",
        "'toxicity'?",
    ]


def test_an_impossible_cell_is_refused():
    run = {"models": ["smollm2-135m-instruct"], "methods": ["caa"], "tasks": ["bias"]}
    found = errors(run=run, tasks={"bias": {"methods": None}})
    assert found == ["config: run: caa on bias cannot be run: it learns from labelled_texts, the task offers qa_pairs"]


DERIVED = {"of": "composed_lm_steer", "weights": {"toxicity": 1.0}}


@pytest.mark.parametrize(
    ("variant", "line"),
    [
        ({"of": "lm_steer", "solver": "official_code"}, "unknown key 'solver'"),
        ({"of": "lm_steer", "from": "smollm2-135m-instruct"}, "unknown key 'from'"),
        ({"of": "caa", "values": [1.0]}, "unknown key 'values'"),
        ({"of": "transferred_lm_steer", "weights": {"toxicity": 1.0}}, "unknown key 'weights'"),
        ({"of": "lm_steer", "steps": [20]}, "unknown key 'steps'"),
        ({"of": "lm_steer", "by_task": {"toxicity": {"eps": 0.5}}}, "unknown key 'by_task'"),
        (DERIVED, "nothing is picked on sentiment; give strengths"),
        ({"of": "random_lm_steer", "strengths": [1.0]}, "nothing is picked on sentiment; name tasks without it"),
        (DERIVED | {"tasks": ["toxicity"], "values": [1.0]}, "one value a steer is needed"),
        ({"of": "transferred_lm_steer", "tasks": ["toxicity"]}, "needs from, such as"),
    ],
)
def test_a_variant_that_cannot_be_run_is_refused(variant: dict, line: str):
    found = errors(variants={"mine": variant}, run=default()["run"] | {"variants": ["mine"]})
    assert any("variants.mine" in one and line in one for one in found), found


def test_a_variant_beside_a_method_that_is_not_run_says_that_it_can_go():
    (found,) = errors(run=default()["run"] | {"methods": ["base"], "variants": ["lm_steer_all", "civil"]})
    assert found == (
        "config: run.variants: lm_steer_all, civil stand beside lm_steer, which is not in run.methods; "
        "add it, or take them out"
    )


def test_a_model_is_not_its_own_judge_twice():
    found = errors(scores={"perplexity": {"judges": ["base", "smollm2-135m-instruct"]}})
    assert found == [
        "config: scores.perplexity.judges: base is smollm2-135m-instruct itself for its own texts; "
        "leave smollm2-135m-instruct out"
    ]


def test_a_model_must_have_what_its_kind_needs():
    found = errors(models={"smollm2-135m-instruct": {"kind": "hub", "repo": "a/b"}})
    assert found == ["config: models.smollm2-135m-instruct: a model of kind hub needs the key 'revision'"]


def test_an_unknown_door_is_refused():
    assert "door" in errors(data={"sources": {"comments": "sampel"}})[0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config", "metrics={resamples: 20}"], "write them to a file and pass it with --configfile"),
        (["--config", "run={seeds: one}"], "write them to a file and pass it with --configfile"),
        (["--config", "threds=2"], "config: unknown key 'threds'; did you mean 'threads'?"),
    ],
)
def test_snakemake_stops_before_any_job_with_that_line_alone(arguments: list[str], line: str):
    command = [SNAKEMAKE, "-n", "--configfile", "presets/tiny.yaml", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert result.returncode != 0
    assert line in result.stderr
    assert "Traceback" not in result.stderr and "Job stats" not in result.stdout


def test_what_the_snakefile_imports_leaves_torch_alone():
    code = (
        "import sys, steerlab.experiment; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def of_slim(tasks: dict | None = None, run: dict | None = None, **slim: object) -> list[str]:
    given = default()
    return errors(
        run=given["run"] | (run or {}),
        tasks=given["tasks"] | (tasks or {}),
        steers=given["steers"] | {"slim": given["steers"]["slim"] | slim},
    )


def test_kappa_and_alpha_together_are_refused_wherever_they_meet():
    said = "say one thing twice; set one to null"
    refused = of_slim(alpha=[0.1])
    assert f"config: slim on truthfulness: kappa [1.28, 5, 20] and alpha [0.1] {said}" in refused and len(refused) > 1
    assert any(told.endswith(f"and alpha [0.2] {said}") for told in of_slim(by_task={"truthfulness": {"alpha": [0.2]}}))
    risky = {"of": "slim", "tasks": ["truthfulness"], "strengths": [1.0], "alpha": [0.2]}

    def with_variant(variant: dict, **slim: object) -> dict:
        run = default()["run"]
        return {
            "run": run | {"variants": [*run["variants"], "risky"]},
            "variants": default()["variants"] | {"risky": variant},
            "steers": default()["steers"] | {"slim": default()["steers"]["slim"] | slim},
        }

    twice = f"config: risky on truthfulness: kappa [1.28, 5, 20] and alpha [0.2] {said}"
    assert errors(**with_variant(risky)) == [twice]
    experiment.load(default() | with_variant(risky | {"kappa": None}))
    by_task = default()["steers"]["slim"]["by_task"]
    other = {"by_task": by_task | {"truthfulness": {"kappa": None, "alpha": [0.1]}}}
    (met,) = errors(**with_variant(risky | {"kappa": [5.0], "alpha": [0.1]}, **other))
    assert met.startswith("config: risky on truthfulness: kappa [5.0] and alpha [0.1]")


def test_several_kappas_need_answers_to_choose_by():
    asked = {"methods": ["base", "slim", "lm_steer", "random_lm_steer", "caa", "cogsteer", "random_cogsteer"]}
    (said, _) = of_slim(tasks={"toxicity": default()["tasks"]["toxicity"] | asked}, by_task={})
    assert "slim on toxicity: there are no answers to choose among [1.28, 5, 20] by; give one in" in said


def test_tasks_that_lean_on_another_are_refused_without_it():
    tasks = ["toxicity", "sentiment", "truthfulness"]
    (swapped,) = of_slim(run={"tasks": [*tasks, "truthfulness_swapped"]})
    assert "truthfulness_swapped needs two halves; set tasks.truthfulness.split to halves, or take it" in swapped
    of_methods = {"nq_open": {"methods": ["base", "lm_steer"]}}
    assert of_slim(run={"tasks": [*tasks, "nq_open"]}, tasks=of_methods) == [
        "config: tasks.nq_open.methods: lm_steer is not among those of truthfulness; add it there or take it out"
    ]
    halves = {"truthfulness": default()["tasks"]["truthfulness"] | {"split": "halves"}}
    without = of_slim(run={"tasks": ["toxicity", "sentiment", "truthfulness_swapped"], "variants": []}, tasks=halves)
    assert without == [
        "config: run.tasks: truthfulness_swapped is the other half of truthfulness, which is not there; add it"
    ]
    alone = of_slim(run={"tasks": ["toxicity", "sentiment", "nq_open"], "variants": []})
    assert "config: run.tasks: nq_open takes what was learnt on truthfulness, which is not there; add it" in alone


def of_cogsteer(**changes: object) -> list[str]:
    settings = {"steers": default()["steers"] | {"cogsteer": {"strengths": [1.0]} | changes.pop("cogsteer", {})}}
    return errors(**settings | changes)


def test_a_block_is_picked_by_eye_movements_only_where_there_are_some():
    said = of_cogsteer(eye_tracking={"corpora": []})
    assert said[0].endswith(
        "layer_rule middle_peak goes by eye movements; name eye_tracking.corpora, or set adapter_layer"
    )
    assert any("cogsteer_random on toxicity" in line for line in said)  # which must know what not to draw


def test_a_block_is_picked_by_validation_only_where_some_are_compared():
    said = of_cogsteer(cogsteer={"layer_rule": "validation_middle"})
    assert "cogsteer on toxicity: layer_rule validation_middle compares variants" in said[0]


def test_the_official_decoding_cannot_score_given_answers():
    tasks = default()["tasks"]
    tasks["truthfulness"]["methods"].append("cogsteer")
    said = of_cogsteer(cogsteer={"official_code": True}, tasks=tasks)
    assert any("cogsteer on truthfulness: official_code decodes and does nothing else" in line for line in said)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"layer_rule": "middle_peak"},
            "glue.layer_rule: middle_peak goes by eye movements; name eye_tracking.corpora",
        ),
        (
            {"layer_rule": "validation"},
            "glue.layer_rule: validation picks from all layers; set glue.sweep_layers to all",
        ),
        ({"tasks": ["sst3"]}, "glue.tasks.0: 'sst3' is not one of them; did you mean 'sst2'?"),
    ],
)
def test_classifiers_of_glue_that_cannot_be_are_refused(settings: dict, line: str):
    found = errors(glue={"tasks": ["sst2"]} | settings, eye_tracking={"corpora": []})
    assert any(line in error for error in found)
    experiment.load(default() | {"glue": {"tasks": ["sst2"]}})


def test_readers_of_a_setting_may_have_other_hyperparameters():
    given = {
        "settings": ["visible", "masked"],
        "reader": {"by_setting": {"masked": {"read_layer": 0.25, "updates": 9}}},
    }
    x = experiment.load(default() | {"latentqa": given})
    at = [("model", "smollm2-135m-instruct"), ("seed", "0")]
    visible, masked = (
        json.loads(x.spec("train_reader", [*at, ("setting", setting)])) for setting in ("visible", "masked")
    )
    assert masked["hyperparameters"] == visible["hyperparameters"] | {"read_layer": 0.25, "updates": 9}
    assert "by_setting" not in visible["hyperparameters"] and visible["hyperparameters"]["read_layer"] != 0.25
    assert "processes" not in visible  # one alone is as before there were several


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"reader": {"by_setting": {"maskd": {}}}},
            "latentqa.reader.by_setting: 'maskd' is not one of them; did you mean 'masked'?",
        ),
        (
            {"reader": {"by_setting": {"masked": {"read_laye": 1}}}},
            "latentqa.reader.by_setting.masked: unknown key 'read_laye'; did you mean 'read_layer'?",
        ),
        (
            {"reader": {"by_setting": {"masked": {"by_setting": {}}}}},
            "latentqa.reader.by_setting.masked: unknown key 'by_setting'",
        ),
        (
            {"processes": 4, "reader": {"accumulation": 6}},
            "latentqa.processes: 4 cannot share 6 batches of an update alike; set latentqa.reader.accumulation to a "
            "multiple of 4",
        ),
        (
            {"processes": 2, "reader": {"accumulation": 2, "by_setting": {"visible": {"accumulation": 1}}}},
            "latentqa.processes: 2 cannot share 1 batches",
        ),
        ({"sharding": "fsdp"}, "latentqa.sharding: fsdp needs several processes; raise latentqa.processes"),
    ],
)
def test_readers_that_cannot_be_trained_are_refused_in_one_line(given: dict, line: str):
    (found,) = errors(latentqa=given)
    assert found.startswith(f"config: {line}")


def test_sheets_that_people_filled_are_there_each_with_a_name_of_its_own(tmp_path):
    sheets = [tmp_path / "a" / "ann.csv", tmp_path / "b" / "ann.csv", tmp_path / "gone.csv"]
    for sheet in sheets[:2]:
        sheet.parent.mkdir()
        sheet.touch()
    assert errors(audit={"sheets": [str(sheet) for sheet in sheets]}) == [
        f"config: audit.sheets: no file {str(sheets[2])!r}; name a filled copy of pairs.csv",
        "config: audit.sheets: two are called 'ann'; call each after the person who filled it",
    ]


def test_sheets_without_a_steer_to_judge_are_refused(tmp_path):
    (tmp_path / "ann.csv").touch()
    run = {"models": ["smollm2-135m-instruct"], "methods": ["base"], "tasks": ["toxicity"], "variants": []}
    (line,) = errors(run=run, audit={"sheets": [str(tmp_path / "ann.csv")]})
    assert line.startswith("config: audit.sheets: the run has no steer with a choice on toxicity's prompts to judge")


def test_people_are_shown_the_first_steer_whose_strength_is_chosen():
    pairs = "results/audit/smollm2-135m-instruct/{}/toxicity/pairs.csv"
    assert experiment.load(default()).audit(experiment.names.AUDIT_PAIRS) == [pairs.format("lm_steer")]
    run = default()["run"] | {"methods": ["random_caa", "caa"], "variants": []}
    loaded = experiment.load(default() | {"run": run})
    assert loaded.audit(experiment.names.AUDIT_PAIRS) == [pairs.format("caa")]
    assert loaded.audit(experiment.names.AUDIT) == []
