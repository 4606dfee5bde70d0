"""The cells of a run: which method is asked on which task and split of which model, at what size and which settings.

A method named in `run.methods` is run at the headline size (`run.seeds`, the task's prompts and samples); one that a
task names in `beside`, and a variant, an ablation named in `run.variants`, at the size of `run.sweep`, on the first of
the same prompts and samples, so that the unsteered model's headline texts are its base as well.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from steerlab.experiment.registry import METHODS, TASKS, Method

SPLITS = ("dev", "test")
PICK = "pick"  # in a cell's steps or strengths: what the choice says


@dataclass(frozen=True)
class Instance:
    """A method with its hyperparameters: of a name in METHODS, or of a variant.

    name: as it stands in file names; of: the method's name in METHODS; given: what the configuration says of it,
    without the keys of a variant alone; trained_as: the name that its steers stand under, `of` for a variant that
    learns just what the method does; shuffled: it is trained on labels that have changed places, as a control.
    """

    name: str
    of: str
    given: dict[str, Any]
    trained_as: str
    shuffled: bool = False

    @property
    def method(self) -> Method:
        """The line of its method in the registry."""
        return METHODS[self.of]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What `fit`, or the deriving function, is passed by name."""
        return {key: value for key, value in self.given.items() if key not in NOT_FITTED}

    @property
    def layer_rule(self) -> str | None:
        """The rule by which a block is picked for its fit; None where the configuration says which, or none is."""
        picks = self.method.picks_block and self.given["adapter_layer"] in ("picked", "random")
        return self.given["layer_rule"] if picks else None


NOT_FITTED = ("strengths", "by_task", "layer_rule", "wish", "nudge", "setting")  # what the rules look at


@dataclass(frozen=True)
class Cell:
    """One model, method, task and split with all its seeds.

    prompts: a class of prompts, None for all; samples: continuations a prompt and seed, 0 where the likelihood of given
    answers is scored alone. steps, strengths: the settings are all their pairs; PICK stands for what the choice of
    `chosen_by` (model, method, task) says.
    """

    model: str
    method: str
    task: str
    split: str
    seeds: tuple[int, ...]
    prompts: int | None
    samples: int
    steps: tuple[int | str, ...]
    strengths: tuple[float | str, ...]
    chosen_by: tuple[str, str, str] | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """(model, method, task, split), as `by_key` has it."""
        return self.model, self.method, self.task, self.split


def instance(config: dict, name: str, task: str) -> Instance:
    """The method or variant of a name, with the hyperparameters that hold for a task."""
    variant = config["variants"].get(name)
    of = variant["of"] if variant else name
    given = dict(config["steers"].get(of, {}))
    given |= given.get("by_task", {}).get(TASKS[task].swapped or TASKS[task].learnt_on or task, {})
    own = {key: value for key, value in (variant or {}).items() if key not in VARIANT_KEYS}
    shuffled = bool(variant and variant.get("shuffled_labels"))
    learns_alike = not METHODS[of].is_derived and set(own) <= {"strengths"} and not shuffled
    return Instance(name, of, given | own, of if learns_alike else name, shuffled)


VARIANT_KEYS = ("of", "models", "tasks", "split", "from", "shuffled_labels")


def by_key(config: dict) -> dict[tuple[str, str, str, str], Cell]:
    """Every cell by (model, method, task, split).

    They are listed once: each job of a large run asks for its own, and a checked configuration is never changed.
    """
    global _listed
    if config is not _listed[0]:
        _listed = config, {cell.key: cell for cell in _all_cells(config)}
    return _listed[1]


_listed: tuple[dict, dict[tuple[str, str, str, str], Cell]] = ({}, {})  # of the configuration that was asked of last


def _all_cells(config: dict) -> list[Cell]:
    """Every cell of a checked configuration: methods, those beside them, variants; then what lacks its base."""
    found = [*_methods(config), *_variants(config)]
    have_base = {_place(cell) for cell in found if cell.method == "base"}
    bases = {_place(cell): cell for cell in found if _place(cell) not in have_base}
    plain = {"method": "base", "steps": (0,), "strengths": (0.0,), "chosen_by": None}
    return found + [dataclasses.replace(cell, **plain) for cell in bases.values()]


def _place(cell: Cell) -> tuple[str, str, str]:
    return cell.model, cell.task, cell.split


def methods(config: dict) -> list[str]:
    """The base model first, then the others in the order of the configuration."""
    return ["base", *(method for method in config["run"]["methods"] if method != "base")]


def methods_of(config: dict, task: str) -> list[str]:
    """The methods of the run that a task is asked with."""
    chosen = settings_of(config, task)["methods"]
    if chosen is None and (learnt_on := TASKS[task].learnt_on):
        return methods_of(config, learnt_on)
    return [method for method in methods(config) if method == "base" or chosen is None or method in chosen]


def beside(config: dict, task: str) -> list[str]:
    """The further methods of the run that a task is asked with, at the size of `run.sweep`."""
    further = set(settings_of(config, task).get("beside", ())) - set(methods_of(config, task))
    return [method for method in methods(config) if method in further]


def seeds_of(config: dict, task: str) -> tuple[int, ...]:
    """The seeds of a task: its own (those of the task that it is learnt on), else the run's."""
    own = settings_of(config, TASKS[task].learnt_on or task)["seeds"]
    return tuple(config["run"]["seeds"] if own is None else own)


def settings_of(config: dict, task: str) -> dict[str, Any]:
    """What `tasks` says of a task."""
    return config["tasks"][TASKS[task].swapped or task]


def drawn_of(config: dict, task: str) -> dict[str, Any]:
    """What `generations` says of a task; of one whose given answers alone are scored, that nothing is drawn."""
    return config["generations"].get(TASKS[task].swapped or task, {"samples": {}})


def is_chosen(config: dict, method: str, task: str) -> bool:
    """True if strength and steps of a method are chosen on the task's dev prompts."""
    line = METHODS[method]
    return TASKS[task].objective is not None and line.steer is not None and not line.is_derived


SIZED_ON = 24  # of the texts, or the dialogs, that a method learnt from


def is_sized(method: str, task: str) -> bool:
    """True for a random control on a task without dev prompts: its size is taken on SIZED_ON of what its method learnt
    from, and it stands beside every strength of that above 0, as random directions have no wished side."""
    return METHODS[method].is_control and TASKS[TASKS[task].learnt_on or task].objective is None


def _methods(config: dict) -> Iterator[Cell]:
    """Those of the headline size, then those beside them, model by model and task by task."""
    sweep = config["run"]["sweep"]
    for model in config["run"]["models"]:
        for task in config["run"]["tasks"]:
            drawn = drawn_of(config, task)["samples"]
            sizes = [(method, seeds_of(config, task), None, drawn) for method in methods_of(config, task)]
            swept = dict.fromkeys(SPLITS, _swept_samples(config, task))
            sizes += [(method, tuple(sweep["seeds"]), sweep["prompts"], swept) for method in beside(config, task)]
            for method, seeds, prompts, samples in sizes:
                for split in SPLITS if TASKS[task].objective else ("test",):
                    settings = _settings(config, model, method, task, split)
                    if settings is not None:
                        yield Cell(model, method, task, split, seeds, prompts, samples.get(split, 0), *settings)


def _swept_samples(config: dict, task: str) -> int:
    """Continuations a prompt of what is run at the size of `run.sweep`; of answers those that are given are scored."""
    return 0 if TASKS[task].answers or TASKS[task].given else config["run"]["sweep"]["samples"]


def _settings(config: dict, model: str, method: str, task: str, split: str):
    """(steps, strengths, chosen_by) of a method's cell; None where it is not run."""
    here = instance(config, method, task)
    if here.method.steer is None:  # on dev prompts the base alone is needed, for the choices
        return ((0,), (0.0,), None) if split == "test" or method == "base" else None
    if learnt_on := TASKS[task].learnt_on:
        parent = (model, here.method.derived_from or method, learnt_on)
        return ((PICK,), (PICK,), parent) if is_chosen(config, parent[1], learnt_on) else None
    if of := here.method.derived_from:
        # A control or a transfer stands beside the pick of what it is derived from.
        if is_chosen(config, of, task):
            return ((PICK,), (PICK,), (model, of, task)) if split == "test" else None
        if not is_sized(method, task):
            return None
        beside = instance(config, of, task)
        return (_steps(beside)[-1:], tuple(each for each in beside.given["strengths"] if each > 0), None)
    steps, strengths = _steps(here), tuple(here.given["strengths"])
    if not is_chosen(config, method, task):
        return (steps[-1:], strengths, None)
    return (steps, strengths, None) if split == "dev" else ((PICK,), (PICK, 1.0), (model, method, task))


def _variants(config: dict) -> Iterator[Cell]:
    sweep = config["run"]["sweep"]
    for name in config["run"]["variants"]:
        variant = config["variants"][name]
        for task in variant.get("tasks", config["run"]["tasks"]):
            for model in variant.get("models", config["run"]["models"]):
                here = instance(config, name, task)
                parent = here.method.derived_from or here.of
                own = variant.get("strengths")
                is_open = is_chosen(config, parent, task) and not (own and _is_settled(here))
                chosen_by = (variant.get("from", model), parent, task) if is_open else None
                samples = _swept_samples(config, task)
                steps = (PICK,) if chosen_by else _steps(here)[-1:]
                given = here.given.get("strengths", (1.0,))  # of several methods at once: each one's own pick
                strengths = tuple(own) if own else (PICK,) if chosen_by else tuple(given)
                yield Cell(
                    model, name, task, variant.get("split", "test"), tuple(sweep["seeds"]),
                    sweep["prompts"], samples, steps, strengths, chosen_by,
                )  # fmt: skip


def _is_settled(here: Instance) -> bool:
    """True if nothing of a variant with strengths of its own is left to a choice."""
    return not here.method.is_derived and "steps" not in here.given


def swept_layers(config: dict, model: str, method: str, task: str) -> dict[str, int]:
    """The variants that adapt one block each on dev prompts, with the block: what `layer_rule` validation compares."""
    found = {}
    for cell in _variants(config):
        variant = config["variants"].get(cell.method, {})
        is_asked = (cell.model, variant.get("of"), cell.task, cell.split) == (model, method, task, "dev")
        if is_asked and isinstance(variant.get("adapter_layer"), int):
            found[cell.method] = variant["adapter_layer"]
    return found


def _steps(here: Instance) -> tuple[int, ...]:
    """The checkpoints of a method that is trained in steps; (0,) for one that is not."""
    return tuple(sorted(here.given.get("steps", [0])))
