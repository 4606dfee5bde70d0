"""The configuration at the door: defaults filled, every error at once, one line each, nothing planned."""

import subprocess
import sys

import pytest
import yaml

from steerlab import experiment
from steerlab.experiment import config
from steerlab.experiment.registry import TEXT_SCORERS
from tests.workflow.project import ROOT, SNAKEMAKE, environment


def default() -> dict:
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def errors(**changes: object) -> list[str]:
    with pytest.raises(experiment.ConfigError) as error:
        experiment.load(default() | changes)
    return str(error.value).splitlines()


def test_the_shipped_configuration_is_valid():
    headline = {cell.method for cell in experiment.load(default()).cells.values()} - set(default()["variants"])
    assert headline == {"base", "instructed", "lm_steer", "random_lm_steer", "caa"}


@pytest.mark.parametrize(
    ("path", "leaf"),
    list(config.leaves(config.schema())),
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_every_leaf_says_what_it_is_and_where_its_value_comes_from(path: tuple[str, ...], leaf: dict):
    if path == ("models",):
        return  # a table of the user's own; its columns are checked below
    assert leaf["description"] and leaf["source"] and "default" in leaf


def test_every_column_of_the_models_table_says_what_it_is():
    for column in config.schema()["properties"]["models"]["additionalProperties"]["properties"].values():
        assert column["description"] and column["source"]


def test_the_scorers_of_the_schema_are_those_of_the_registry():
    scores = config.schema()["properties"]["scores"]["properties"]
    for quantity in ("toxicity", "sentiment"):
        named = {name for name, line in TEXT_SCORERS.items() if line.quantity == quantity}
        assert set(scores[quantity]["items"]["enum"]) == named


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


def test_an_impossible_cell_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(experiment.METHODS, "needy", experiment.Method("steerlab.methods.caa:CAA", needs="qa_pairs"))
    found = errors(run={"models": ["smollm2-135m-instruct"], "methods": ["needy"]})
    assert found == [
        "config: run: needy on toxicity cannot be run: it learns from qa_pairs, the task offers labelled_texts"
    ]


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
