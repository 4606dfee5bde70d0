"""GLUE's part of the experiment: which classifiers are trained, on what, and what the figure compares.

For each model, task and intervention: a sweep over layers on dev rows, from which a rule picks one; then, on test rows,
that layer against a random other one, all layers, and the head alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from steerlab.data import glue
from steerlab.experiment import names
from steerlab.experiment.lookups import compute
from steerlab.layer_choices import BY_READING

HEAD = "head"  # a classifier without intervention
CHOSEN = ("picked", "random")  # layers that a choice decides
OF_TRAINING = ("batch_rows", "epochs", "warmup", "weight_decay", "max_tokens")


@dataclass(frozen=True)
class Glue:
    """What the rules ask of GLUE. config: checked, with all defaults; doors: of each needed source."""

    config: dict
    doors: dict[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration's section `glue`."""
        return self.config["glue"]

    # ---- inputs ----

    def raw(self, w: SimpleNamespace) -> str:
        """Folder of a task's raw files."""
        source = glue.source(w.task)
        return names.RAW.format(source=source, door=self.doors[source])

    def choice(self, w: SimpleNamespace) -> list[str]:
        """The choice that a classifier's layer comes from; empty where it stands in the configuration."""
        return [self._choice(w.model, w.task, w.intervention)] if w.layers in CHOSEN else []

    def choices(self, w: SimpleNamespace) -> list[str]:
        """The choices of all interventions, in their order."""
        return [self._choice(w.model, w.task, each) for each in self.settings["interventions"]]

    def swept(self, w: SimpleNamespace) -> list[str]:
        """The sweeps over layers of all interventions; empty where the rule needs none."""
        if self.settings["layer_rule"] in BY_READING:
            return []
        at = {"model": w.model, "task": w.task}
        return [names.LAYER_SWEEP.format(**at, intervention=each) for each in self.settings["interventions"]]

    def trained(self, w: SimpleNamespace) -> list[str]:
        """The test predictions of all classifiers of a model and task."""
        return list(self._classifiers(w.model, w.task))

    # ---- targets ----

    def comparisons(self, model: str) -> list[str]:
        """The comparisons of layers of all tasks."""
        return [names.LAYER_COMPARISON.format(model=model, task=task) for task in self.settings["tasks"]]

    def costs(self, model: str) -> list[str]:
        """What training costs, for the first task; empty where it is not measured."""
        tasks = self.settings["tasks"][: 1 if self.settings["measured_steps"] else 0]
        return [names.TRAINING_COST.format(model=model, task=task) for task in tasks]

    @property
    def metrics(self) -> list[str]:
        """The comparisons of all models."""
        return [file for model in self.config["run"]["models"] for file in self.comparisons(model)]

    @property
    def summary(self) -> str:
        """What is asked for, for the plan's line; "" for nothing."""
        tasks, models = self.settings["tasks"], self.config["run"]["models"]
        if not tasks:
            return ""
        trained = sum(len(list(self._classifiers(model, task))) for model in models for task in tasks)
        sweeps = sum(len(self.swept(SimpleNamespace(model=model, task=task))) for model in models for task in tasks)
        return f"; GLUE: {len(tasks)} tasks, {trained} classifiers and {sweeps} sweeps over layers"

    def _choice(self, model: str, task: str, intervention: str) -> str:
        if self.settings["layer_rule"] in BY_READING:
            return names.READING_CHOICE.format(model=model)
        return names.GLUE_CHOICE.format(model=model, task=task, intervention=intervention)

    def _classifiers(self, model: str, task: str) -> Iterator[str]:
        for intervention in (HEAD, *self.settings["interventions"]):
            for layers in ["none"] if intervention == HEAD else self.settings["layers"]:
                for seed in self.settings["seeds"] or self.config["run"]["seeds"]:
                    at = {"model": model, "task": task, "intervention": intervention}
                    yield names.CLASSIFIER.format(**at, layers=layers, seed=seed)


# ---- specs, one a rule, as in steerlab.experiment.specs ----


def make_glue_table(config: dict, doors: dict, *, task: str) -> dict:
    """How many rows of each split are taken through which door; null takes all."""
    rows = {split: config["glue"][f"{split}_rows"] for split in ("train", "dev", "test")}
    return {"task": task, "door": doors[glue.source(task)], "rows": rows}


def sweep_layers(config: dict, doors: dict, *, model: str, intervention: str, task: str) -> dict:
    """What fits a classifier, and the layers, seeds and training rows of the sweep."""
    settings = config["glue"]
    asked = {"layers": settings["sweep_layers"], "seeds": settings["sweep_seeds"], "rows": settings["sweep_rows"]}
    return _fitted(config, intervention, task) | asked


def choose_glue_layer(config: dict, doors: dict, *, model: str, intervention: str, task: str) -> dict:
    """The metric that is compared on dev rows."""
    return {"metric": glue.TASKS[task].metric}


def train_classifier(
    config: dict, doors: dict, *, model: str, intervention: str, task: str, layers: str, seed: str
) -> dict:
    """What fits a classifier in `layers` with a seed; the rule only where a choice decides the layers."""
    rule = {"rule": config["glue"]["layer_rule"]} if layers in CHOSEN else {}
    return _fitted(config, intervention, task) | rule | {"layers": layers, "seed": int(seed)}


def measure_training(config: dict, doors: dict, *, model: str, task: str) -> dict:
    """What fits the classifiers whose training steps are timed, and how many steps."""
    settings = config["glue"]
    fitted = {each: _fitted(config, each, task) for each in (HEAD, *settings["interventions"])}
    asked = {"rule": settings["layer_rule"], "steps": settings["measured_steps"]}
    return asked | {"interventions": settings["interventions"], "fitted": fitted}


def compare_layers(config: dict, doors: dict, *, model: str, task: str) -> dict:
    """The metric of the figure, and how its intervals are drawn."""
    return {"model": model, "task": task, "metric": glue.TASKS[task].metric, **config["metrics"]}


def _fitted(config: dict, intervention: str, task: str) -> dict:
    settings = config["glue"]
    own = dict(settings[intervention])
    training = {key: settings[key] for key in OF_TRAINING} | {"learning_rate": own.pop("learning_rate")}
    about = {"intervention": intervention, "settings": own, "training": training}
    return compute(config) | about | {"classes": glue.TASKS[task].classes}
