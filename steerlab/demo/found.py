"""What a folder of results offers the demo: its models, their steers with what was picked for them, local scorers.

What is not there is a line that names the command which makes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steerlab import models, scores
from steerlab.experiment import names
from steerlab.experiment.scorers import text_scorer
from steerlab.figures import style
from steerlab.methods import load_class, steer_files

Reads = Literal["evidence", "probe"]

WIDEST = 3.0  # the strengths that a slider offers of a range without end


class NotFound(ValueError):
    """Something that is not among the results; the message names the command that makes it."""


@dataclass(frozen=True)
class Saved:
    """A steer among the results.

    name: <method>/<task>/<seed>. steps, strength: what was picked on dev prompts (for a random control with the method
    that it controls), None where nothing was, which stands for the last step and 1. strengths: the range that the steer
    accepts. reads: what it says of each token of a text, None if it says nothing.
    """

    name: str
    folder: Path
    steps: int | None
    strength: float | None
    strengths: tuple[float, float]
    reads: Reads | None

    @property
    def task(self) -> str:
        """The task that it was trained on."""
        return self.name.split("/")[1]

    @property
    def label(self) -> str:
        """Method, task and seed, as a list of choices shows them."""
        method, task, seed = self.name.split("/")
        return f"{style.label(method)}, {task}, seed {seed}"

    @property
    def offered(self) -> tuple[float, float, float]:
        """The least and the largest strength that the page offers, of a range without end a part, and the first one."""
        begin = 1.0 if self.strength is None else self.strength
        reach = max(WIDEST, abs(begin))
        return max(self.strengths[0], -reach), min(self.strengths[1], reach), begin


def model_names(results: Path) -> list[str]:
    """The prepared models, those with steers first; raises NotFound where there is none."""
    if not results.is_dir():
        raise NotFound(f"there is no folder {results}; make it with: make run")
    found = [path.parent.name for path in _path(results, names.MODEL, model="any").parent.glob(f"*/{models.RECORD}")]
    if not found:
        raise NotFound(f"there is no prepared model in {results}; make the configuration's with: snakemake models")
    return sorted(found, key=lambda model: (not steers(results, model), model))


def model_folder(results: Path, model: str) -> Path:
    """The folder of a prepared model; raises NotFound for a name that is not one of `model_names`."""
    found = model_names(results)
    if model not in found:
        folder = names.MODEL.format(model=model)
        there = ", ".join(found)
        raise NotFound(f"there is no model {model!r} in {results}, only {there}; make it with: snakemake {folder}")
    return _path(results, names.MODEL, model=model)


def steers(results: Path, model: str) -> list[Saved]:
    """The steers of a model, in the order of figures and tables; random controls stand after their method."""
    top = _path(results, names.STEER, model=model, method="any", task="any", seed="any").parents[2]
    found = [_saved(results, model, path.parent) for path in top.glob(f"*/*/*/{steer_files.RECORD}")]

    def place(saved: Saved) -> tuple[int, str, str, int, str]:
        method, task, seed = saved.name.split("/")
        return style.rank(method), method, task, len(seed), seed

    return sorted(found, key=place)


def steer(results: Path, model: str, name: str) -> Saved:
    """The steer of this name; raises NotFound for one that is not there."""
    for saved in steers(results, model):
        if saved.name == name:
            return saved
    raise NotFound(f"there is no steer {name!r} of {model}; {_making(model, *name.split('/'))}")


def no_steers(results: Path, model: str) -> str:
    """The line for a model without steers."""
    return f"there is no steer for {model} in {results}; {_making(model)}; until then both sides are unsteered"


def local_scorers(config: Mapping[str, Any], results: Path) -> tuple[list[tuple[str, Path | None]], list[str]]:
    """The configuration's toxicity scorers that ask no network, as arguments of `scores.load`, and a line for each
    whose files are not there."""
    found, missing = [], []
    for name in config["scores"]["toxicity"]:
        line = text_scorer(dict(config), name)
        folder = _path(results, names.SCORER, scorer=name) if line.prepared else None
        if folder and not (folder / scores.RECORD).is_file():
            made = names.SCORER.format(scorer=name)
            missing.append(f"the toxicity scorer {name} is not in {results}; make it with: snakemake {made}")
        elif not line.service:
            found.append((line.scorer, folder))
    return found, missing


def _saved(results: Path, model: str, folder: Path) -> Saved:
    about = json.loads((folder / steer_files.RECORD).read_text())
    method, task, seed = folder.parts[-3:]
    steps, strength = _pick(results, model, method, task)
    strengths = load_class(about["steer"]).strengths
    return Saved(f"{method}/{task}/{seed}", folder, steps, strength, strengths, _reads(about))


def _pick(results: Path, model: str, method: str, task: str) -> tuple[int | None, float | None]:
    for chosen in dict.fromkeys((method, method.removeprefix(style.RANDOM))):
        choice = _path(results, names.CHOICE, model=model, method=chosen, task=task)
        pick = json.loads(choice.read_text())["pick"] if choice.is_file() else None
        if pick:
            return pick["steps"] or None, pick["strength"]
    return None, None


def _reads(about: Mapping[str, Any]) -> Reads | None:
    """A random control says nothing, nor does an LM-Steer without a matrix, or one whose label has no value."""
    config = about["config"]
    if config.get("random"):
        return None
    if about["method"] == "lm_steer":
        return "evidence" if config["adaptor"] == "multiply" and config["values"][0] else None
    return "probe" if about["method"] == "hpr" else None


def _making(model: str, *cell: str) -> str:
    if len(cell) == 3:
        method, task, seed = cell
        return f"make it with: snakemake {names.STEER.format(model=model, method=method, task=task, seed=seed)}"
    return "make the configuration's with: snakemake steers"


def _path(results: Path, pattern: str, **wildcards: str) -> Path:
    """A file of the workflow in this folder of results."""
    return results / Path(pattern.format(**wildcards)).relative_to("results")
