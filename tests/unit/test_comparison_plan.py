"""What a configuration asks of the comparison of all methods: cells beside, the files it is made from, what is said."""

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from steerlab import experiment
from steerlab.experiment import ConfigError, comparison, names
from steerlab.experiment.cells import PICK
from tests.workflow.project import ROOT

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
MODEL = "smollm2-135m-instruct"
METHODS = ["base", "instructed", "lm_steer", "random_lm_steer", "caa", "random_caa", "hpr"]
ASKED = {
    "toxicity": {"methods": ["base", "instructed", "lm_steer", "random_lm_steer"], "beside": ["caa", "random_caa"]},
    "sentiment": {"methods": ["base", "lm_steer"], "beside": ["caa"]},
    "truthfulness": {"methods": ["base", "hpr"], "beside": []},
}
SWEEP = {"seeds": [0], "prompts": 5, "samples": 1}


def config(run: dict | None = None, tasks: dict | None = None, **changes: Any) -> dict:
    """The shipped configuration with few methods, some of them beside; changes of whole sections."""
    given = copy.deepcopy(DEFAULT)
    given["run"] |= {"methods": METHODS, "tasks": list(ASKED), "variants": [], "sweep": SWEEP} | (run or {})
    given["run"]["models"] = [MODEL]
    for task, asked in ASKED.items():
        given["tasks"][task] |= asked | (tasks or {}).get(task, {})
    return given | changes


def loaded(**changes: Any) -> experiment.Experiment:
    return experiment.load(config(**changes))


def refused(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        loaded(**changes)
    return str(error.value).splitlines()


def at(task: str, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(model=MODEL, task=task, **more)


def told(x: experiment.Experiment, rule: str, task: str, **more: str) -> dict:
    return json.loads(x.spec(rule, {"model": MODEL, "task": task, **more}.items()))


# ---- cells beside ----


def test_a_method_beside_has_the_size_of_the_sweep_its_own_choice_and_the_headlines_base():
    x = loaded()
    dev, test, control = (x.cells[MODEL, method, "toxicity", split] for method, split in (
        ("caa", "dev"), ("caa", "test"), ("random_caa", "test")
    ))  # fmt: skip
    for cell in (dev, test, control):
        assert (list(cell.seeds), cell.prompts, cell.samples) == (SWEEP["seeds"], SWEEP["prompts"], SWEEP["samples"])
    assert list(dev.strengths) == DEFAULT["steers"]["caa"].get("strengths", list(dev.strengths)) and not dev.chosen_by
    assert (test.strengths, test.chosen_by) == ((PICK, 1.0), (MODEL, "caa", "toxicity"))
    assert control.chosen_by == (MODEL, "caa", "toxicity") and control.strengths[0] == PICK
    for split in ("dev", "test"):
        assert x.cells[MODEL, "base", "toxicity", split].prompts is None
    assert x.choice_input(at("toxicity", method="caa", split="test")) == [
        names.CHOICE.format(model=MODEL, method="caa", task="toxicity")
    ]


def test_a_task_without_an_objective_has_a_method_beside_on_test_prompts_alone():
    x = loaded()
    assert (MODEL, "caa", "sentiment", "test") in x.cells and (MODEL, "caa", "sentiment", "dev") not in x.cells
    assert x.cells[MODEL, "caa", "sentiment", "test"].chosen_by is None


def test_a_method_that_a_task_has_anyway_or_the_run_has_not_is_not_beside_it():
    x = loaded(tasks={"toxicity": {"beside": ["lm_steer", "caa"]}}, run={"methods": METHODS[:-1]})
    assert x.cells[MODEL, "lm_steer", "toxicity", "test"].prompts is None
    without = loaded(run={"methods": ["base", "lm_steer", "hpr"]})
    assert not [key for key in without.cells if key[1] in ("caa", "random_caa")]


def test_an_unknown_method_beside_is_named_with_the_nearest():
    (line,) = refused(tasks={"sentiment": {"beside": ["cca"]}})
    assert line == "config: tasks.sentiment.beside: unknown method 'cca'; did you mean 'caa'?"


def test_a_control_beside_without_what_it_is_made_from_is_refused():
    (line,) = refused(tasks={"toxicity": {"beside": ["random_caa"]}})
    assert line == "config: tasks.toxicity.beside: random_caa is made from caa, which is not there; add it"


# ---- what is compared ----


def test_tasks_with_several_methods_are_compared_each_with_its_own_setting():
    x = loaded()
    assert comparison.tasks(x.config, MODEL) == ["toxicity", "sentiment"]
    spec = told(x, "compare_methods", "toxicity")
    assert set(spec["cells"]) == {"base", "instructed", "lm_steer", "random_lm_steer", "caa", "random_caa"}
    seeds = {method: cell["seeds"] for method, cell in spec["cells"].items()}
    assert seeds["lm_steer"] == DEFAULT["run"]["seeds"] and seeds["caa"] == SWEEP["seeds"]
    assert {spec["cells"][method]["strength"] for method in ("lm_steer", "caa", "random_caa")} == {PICK}
    assert told(x, "compare_methods", "sentiment")["cells"]["lm_steer"]["strength"] == 1.0
    assert (spec["metric"], spec["goal"], spec["kl"]) == ("mean_toxicity", "lower", None)
    assert set(spec["controls"]) == {"random_lm_steer", "random_caa"}
    assert set(spec["ours"]) == {"caa", "random_caa"}, "their paper has another task"


def test_figures_of_a_paper_show_the_headline_alone_and_the_comparison_shows_all():
    x = loaded()
    shown = " ".join(x.figure_input(SimpleNamespace(model=MODEL, figure="toxicity"))["metrics"])
    assert "/lm_steer/" in shown and "caa" not in shown
    for figure in ("comparison", "equal_kl"):
        of = x.figure_input(SimpleNamespace(model=MODEL, figure=figure))
        assert of["compared"] == [names.COMPARISON.format(model=MODEL, task=task) for task in ("toxicity", "sentiment")]
    assert set(of) == {"compared", "compared_pairs"}
    assert {f"results/figures/{MODEL}/{figure}.svg" for figure in ("comparison", "equal_kl")} <= set(x.figures())


def test_one_method_is_compared_with_none():
    x = loaded(run={"methods": ["base", "lm_steer"]})
    assert comparison.tasks(x.config, MODEL) == []
    assert not [path for path in x.figures() if "comparison" in path or "equal_kl" in path]


def test_the_comparison_is_made_from_all_cells_of_the_task_and_its_analyses():
    x = loaded()
    files = x.compared(at("toxicity"))
    seed = DEFAULT["run"]["seeds"][0]
    expected = {"divergence": names.DIVERGENCE, "questions": names.REASONING, "speed": names.SPEED}
    assert {kind: files[kind] for kind in expected} == {
        kind: [pattern.format(model=MODEL, task="toxicity", seed=seed)] for kind, pattern in expected.items()
    }
    methods = {"base", "instructed", "lm_steer", "random_lm_steer", "caa", "random_caa"}
    kinds = ("continuations", "scores", "perplexity", "answers", "choice")
    assert set(files) == set(expected) | {f"{kind}_of_{method}" for kind in kinds for method in methods}
    assert len(files["continuations_of_lm_steer"]) == len(DEFAULT["run"]["seeds"])
    assert len(files["continuations_of_caa"]) == 1 and not files["answers_of_caa"]
    assert files["choice_of_random_caa"] == files["choice_of_caa"] != [] == files["choice_of_base"]


def test_without_tokens_no_time_is_measured():
    x = loaded(analyses={"speed": {"tokens": 0}})
    assert x.compared(at("toxicity"))["speed"] == []


# ---- what analyses are told ----


def test_divergence_is_measured_at_all_settings_and_times_at_the_methods_own():
    x = loaded()
    everywhere, own = told(x, "measure_divergence", "toxicity", seed="0"), told(x, "measure_speed", "toxicity")
    for spec, strengths in ((everywhere, [PICK, 1.0]), (own, [PICK])):
        of = {one["method"]: one for one in spec["methods"]}
        assert list(of) == ["lm_steer", "random_lm_steer", "caa", "random_caa"]
        assert of["caa"]["strengths"] == strengths and of["caa"]["chosen"]
        assert {name for name, one in of.items() if one["has_checkpoints"]} == {"lm_steer", "caa"}
        assert spec["renderings"] == {"instructed": "instructed"}
    steers = x.measured_steers(at("toxicity", seed="0"))
    assert [path.split("/")[-3] for path in steers["steers"]] == list(of) and len(steers["choices"]) == 4


def test_a_seed_that_methods_beside_do_not_have_measures_the_headline_alone():
    named = [one["method"] for one in told(loaded(), "measure_divergence", "toxicity", seed="1")["methods"]]
    assert named == ["lm_steer", "random_lm_steer"]


SPECS = {
    "compare_methods": {"task": "toxicity"},
    "measure_divergence": {"task": "toxicity", "seed": "0"},
    "measure_speed": {"task": "toxicity"},
}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"comparison": {"kl": 0.5}}, {"compare_methods"}),
        ({"metrics": {"resamples": 20}}, {"compare_methods"}),
        ({"metrics": {"confidence": 0.9}}, {"compare_methods"}),
        ({"analyses": {"divergence": {"prompts": 3}}}, {"measure_divergence"}),
        ({"analyses": {"speed": {"tokens": 5}}}, {"measure_speed"}),
        ({"analyses": {"speed": {"rows": 5}}}, {"measure_speed"}),
        ({"analyses": {"speed": {"turns": 5}}}, {"measure_speed"}),
        ({"tasks": {"toxicity": {"beside": ["caa"]}}}, set(SPECS)),
        ({"run": {"methods": METHODS[:2] + METHODS[2:5] + ["hpr"]}}, set(SPECS)),
        ({"run": {"seeds": [0, 1]}}, {"compare_methods"}),
        ({"tasks": {"sentiment": {"beside": []}}}, set()),
        ({"run": {"sweep": SWEEP | {"prompts": 4}}}, set()),
        ({"device": "cuda"}, {"measure_divergence", "measure_speed"}),
        ({"dtype": "bfloat16"}, {"measure_divergence", "measure_speed"}),
    ],
    ids=lambda given: str(sorted(given) if isinstance(given, set) else given),
)
def test_the_specs_change_with_what_changes_the_bytes(changes: dict, changed: set[str]):
    default = loaded()
    if "analyses" in changes:
        changes = {"analyses": {key: default.config["analyses"][key] | own for key, own in changes["analyses"].items()}}
        changes["analyses"] = default.config["analyses"] | changes["analyses"]
    before, after = default, loaded(**changes)
    assert {
        rule for rule, w in SPECS.items() if told(before, rule, **w) != told(after, rule, **w)
    } == changed  # fmt: skip


def test_the_table_of_a_task_does_not_change_with_what_is_asked_beside_it():
    w = [("task", "sentiment")]
    assert loaded().spec("make_task_table", w) == loaded(tasks={"sentiment": {"beside": []}}).spec("make_task_table", w)
