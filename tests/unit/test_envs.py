"""The conda environments: pins are the lock's, and each holds what its rules import."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from steerlab.experiment import codes
from steerlab.experiment.registry import FIGURES, METHODS, TASKS, TEXT_SCORERS
from steerlab.experiment.scorers import CLASSIFIER
from tests.workflow.project import ROOT

ENVS = sorted(path.name for path in (ROOT / "envs").glob("*.yaml"))
SCORERS = [CLASSIFIER, *(line.scorer for line in TEXT_SCORERS.values() if not line.service)]
LOADED = {  # modules that a script loads by name
    "make_task_table": [task.module for task in TASKS.values()],
    "plot_figure": [figure.module for figure in FIGURES.values()],
    "score_texts": SCORERS,
    "score_texts_by_service": [line.scorer for line in TEXT_SCORERS.values() if line.service],
    "prepare_scorer": SCORERS,
    "interpret_steer": [METHODS["lm_steer"].steer, *SCORERS],
    "score_official_generations": SCORERS,
    "calibrate_scorers": SCORERS,
    "train_steer": [method.steer for method in METHODS.values() if method.steer],
    "derive_steer": [method.derive for method in METHODS.values() if method.derive],
    "generate_continuations": [method.steer for method in METHODS.values() if method.steer],
}


def pins(env: str) -> dict[str, str]:
    listed = yaml.safe_load((ROOT / "envs" / env).read_text())["dependencies"][-1]["pip"]
    return {name.lower(): version for name, _, version in (pin.partition("==") for pin in listed)}


def locked() -> dict[str, str]:
    lines = (ROOT / "envs" / "requirements.lock").read_text().splitlines()
    found = dict(line.split()[0].lower().split("==") for line in lines if not line.startswith("#"))
    torch = re.search(r"torch==(\S+)", (ROOT / "Makefile").read_text())
    assert torch
    return found | {"torch": torch[1]}


def bodies() -> list[str]:
    """The text of every rule that runs something."""
    text = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    return [
        body for body in re.split(r"^rule ", text, flags=re.M)[1:] if re.search(r"^ +(script|shell|run):", body, re.M)
    ]


def rules() -> list[tuple[str, str]]:
    """(environment, script's name) of every rule that runs something."""
    found = [
        (re.search(r'conda:\n +"\.\./envs/(\S+)"', body), re.search(r"scripts/(\w+)\.py", body)) for body in bodies()
    ]
    return [(env[1], script[1]) for env, script in found if env and script]


def test_every_rule_that_runs_something_names_an_environment_that_is_there_and_each_is_used():
    assert len(rules()) == len(bodies()) > 30
    assert {env for env, _ in rules()} == set(ENVS)


@pytest.mark.parametrize("env", ENVS)
def test_an_environment_is_one_channel_the_python_of_the_lock_and_exact_pins(env: str):
    python = re.search(r"version_info\[:2\] != \((\d), (\d+)\)", (ROOT / "Makefile").read_text())
    assert python
    known = yaml.safe_load((ROOT / "envs" / env).read_text())
    assert known.keys() == {"channels", "dependencies"} and known["channels"] == ["conda-forge"]
    base, pip, pinned = known["dependencies"]
    assert (base, pip, [*pinned]) == (f"python={python[1]}.{python[2]}", "pip", ["pip"])
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pinned["pip"])
    assert len(pins(env)) == len(pinned["pip"]) and pinned["pip"] == sorted(pinned["pip"], key=str.lower)


@pytest.mark.parametrize("env", ENVS)
def test_the_pins_of_an_environment_are_those_of_the_lock(env: str):
    assert pins(env).items() <= locked().items()


@pytest.mark.parametrize(("env", "script"), rules())
def test_an_environment_has_what_its_rules_import(env: str, script: str):
    files: set[Path] = {ROOT / "steerlab" / "job.py", ROOT / "steerlab" / "progress.py"}
    for name in ["", *LOADED.get(script, [])]:
        path = codes._module_path(name.partition(":")[0]) if name else ROOT / "scripts" / f"{script}.py"
        codes._walk(path, files)
    imported = {module for file in files for module in _imported(file)} - {*sys.stdlib_module_names, "steerlab"}
    distributions = packages_distributions()
    lacking = {module for module in imported if not {name.lower() for name in distributions[module]} & pins(env).keys()}
    assert not lacking


def _imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found
