"""The experiment as data: what is run, what each file is called, what each job depends on. Pure and torch-free.

The rules see one object, `load(config)`; nothing here touches the network, a model or a result.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace

from steerlab.data import sources
from steerlab.experiment import codes, names, plan, resources, specs
from steerlab.experiment.config import ConfigError, check
from steerlab.experiment.registry import METHODS, TASKS, TOXICITY_SCORERS, Method

__all__ = ["METHODS", "TASKS", "ConfigError", "Experiment", "Method", "load", "load_or_exit", "names"]

SPLITS = ("dev", "test")


def load(raw: dict) -> "Experiment":
    """Check a configuration and resolve device, dtype and doors; raises ConfigError with one line an error."""
    config = resources.resolve(check(raw))
    needed = {name for task in config["run"]["tasks"] for name in TASKS[task].sources}
    needed |= {config["models"][model].get("source") for model in config["run"]["models"]} - {None}
    doors, errors = sources.choose_doors(config["data"], sorted(needed))
    if errors:
        raise ConfigError("\n".join(f"config: {error}" for error in errors))
    return Experiment(config, doors)


def load_or_exit(raw: dict) -> "Experiment":
    """`load` for the command line and the Snakefile: errors are printed as they are, and nothing is planned."""
    try:
        return load(raw)
    except ConfigError as error:
        sys.exit(str(error))


@dataclass(frozen=True)
class Experiment:
    """A checked configuration with the questions that the rules ask of it.

    config: all defaults filled, device and dtype resolved; doors: the door of each needed source.
    """

    config: dict
    doors: dict[str, str]

    @property
    def models(self) -> list[str]:
        return self.config["run"]["models"]

    @property
    def methods(self) -> list[str]:
        """The base model first, then the others in the order of the configuration."""
        return ["base", *(method for method in self.config["run"]["methods"] if method != "base")]

    @property
    def tasks(self) -> list[str]:
        return self.config["run"]["tasks"]

    @property
    def seeds(self) -> list[int]:
        return self.config["run"]["seeds"]

    @property
    def summary(self) -> str:
        """What is printed before a run: where models run, and how much is asked of them."""
        where = ", ".join(f"{key}: {self.config[key]}" for key in ("device", "dtype", "store"))
        return f"{where}\nplan: {plan.summary(plan.cells(self.config, self.methods))}"

    @property
    def steered(self) -> list[str]:
        """The methods that have a steer."""
        return [method for method in self.methods if METHODS[method].steer]

    @property
    def gpu(self) -> int:
        """GPUs that a model job asks for."""
        return int(self.config["device"] == "cuda")

    def method(self, name: str) -> Method:
        return METHODS[name]

    def spec(self, rule: str, wildcards: Iterable[tuple[str, str]] = ()) -> str:
        """Sorted JSON of exactly the leaves that change the bytes of the rule's output."""
        return json.dumps(getattr(specs, rule)(self.config, self.doors, **dict(wildcards)), sort_keys=True)

    def code(self, rule: str, *, method: str | None = None, task: str | None = None) -> str:
        """Digest of the rule's script with the package modules it imports, and those it loads by name."""
        loaded = [METHODS[method].steer] if method else []
        loaded += [TASKS[task].module] if task else []
        loaded += [TOXICITY_SCORERS[self.config["scores"]["toxicity"]["scorer"]]] if rule == "score_toxicity" else []
        modules = tuple(path.partition(":")[0] for path in loaded if path)
        return codes.code_digest(f"scripts/{rule}.py", modules, FILES.get(rule, ()))

    def raw(self, name: str) -> str:
        """Folder of a source's raw files."""
        return names.RAW.format(source=name, door=self.doors[name])

    def model_source(self, model: str) -> list[str]:
        """What a model is made from: a raw folder, the files of the user's own, or nothing here."""
        definition = self.config["models"][model]
        if definition["kind"] == "folder":
            return sorted(str(file) for file in Path(definition["path"]).glob("*") if file.is_file())
        return [self.raw(definition["source"])] if definition["kind"] == "gguf" else []

    def task_sources(self, task: str) -> dict[str, str]:
        """Raw folder of each source of a task."""
        return {name: self.raw(name) for name in TASKS[task].sources}

    def training_input(self, wildcards: SimpleNamespace) -> list[str]:
        """The activations that a method is trained on; empty where it needs none."""
        method = METHODS[wildcards.method]
        if not method.captures:
            return []
        return [
            names.ACTIVATIONS.format(
                model=wildcards.model, task=wildcards.task, site=method.captures, positions=method.positions
            )
        ]

    def steer_input(self, wildcards: SimpleNamespace) -> list[str]:
        """The steer that a cell is generated with; empty for the model as it is."""
        if not METHODS[wildcards.method].steer:
            return []
        return [
            names.STEER.format(model=wildcards.model, method=wildcards.method, task=wildcards.task, seed=wildcards.seed)
        ]

    def every(self, pattern: str, **fixed: object) -> list[str]:
        """The pattern's file names over the whole matrix; fixed wildcards take a value, or a list of them."""
        axes = {"model": self.models, "method": self.methods, "task": self.tasks, "split": SPLITS, "seed": self.seeds}
        axes |= {key: value if isinstance(value, list) else [value] for key, value in fixed.items()}
        used = [key for key in axes if f"{{{key}}}" in pattern]
        return [pattern.format(**dict(zip(used, values))) for values in product(*(axes[key] for key in used))]


FILES = {"build_report": ("steerlab/report/page.html.j2",)}
