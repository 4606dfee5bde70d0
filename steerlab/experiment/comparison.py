"""The comparison of all methods: on which tasks, of which cells, at which settings, and from which files."""

from collections.abc import Mapping
from typing import Any

from steerlab.experiment import names
from steerlab.experiment.cells import PICK, Cell, Instance, by_key, instance, seeds_of
from steerlab.experiment.registry import METHODS, TASKS


def tasks(config: dict, model: str) -> list[str]:
    """The tasks of the run on which several methods stand beside the unsteered model."""
    asked = [task for task in config["run"]["tasks"] if TASKS[task].compared]
    return [task for task in asked if len(compared(config, model, task)) > 1]


def compared(config: dict, model: str, task: str) -> list[Cell]:
    """The test cells of all methods of a task but the unsteered model, with several methods at once and with those
    trained on shuffled labels. Other variants have figures of their own.
    """
    of_task = (cell for cell in by_key(config).values() if (cell.model, cell.task, cell.split) == (model, task, "test"))
    others = [cell for cell in of_task if cell.method != "base"]
    return [cell for cell in others if cell.method in METHODS or _is_compared(of(config, cell))]


def _is_compared(variant: Instance) -> bool:
    return variant.shuffled or variant.method.has_parts


def of(config: dict, cell: Cell) -> Instance:
    """The method or variant of a cell."""
    return instance(config, cell.method, cell.task)


def is_control(config: dict, cell: Cell) -> bool:
    """True for a random control, and for what was trained on shuffled labels."""
    return of(config, cell).method.is_control or of(config, cell).shuffled


def measured(config: dict, model: str, task: str, seed: int) -> list[Cell]:
    """The test cells of a seed whose steers' effect on the model itself is measured, with their controls."""
    asked = compared(config, model, task)
    return [cell for cell in asked if of(config, cell).method.steer and seed in cell.seeds]


def carded(config: dict, model: str) -> list[Cell]:
    """The compared cells whose steers have a card: a control has none of its own."""
    found = (cell for task in tasks(config, model) for cell in compared(config, model, task))
    return [cell for cell in found if of(config, cell).method.steer and not is_control(config, cell)]


def main(cell: Cell) -> dict[str, Any]:
    """The setting of a cell that is its method's own: what was picked, or else the published strength."""
    strength = next((one for one in (PICK, 1.0) if one in cell.strengths), cell.strengths[-1])
    return {"steps": cell.steps[-1], "strength": strength}


def asked(config: dict, cell: Cell, *, own: bool = False) -> dict[str, Any]:
    """What an analysis is told of a cell's steer: at all its settings, or at its own alone."""
    at = {"steps": list(cell.steps), "strengths": list(cell.strengths)}
    at = {"steps": [main(cell)["steps"]], "strengths": [main(cell)["strength"]]} if own else at
    line, made_of = of(config, cell).method, config["variants"].get(cell.method, {})
    parts = {"parts": made_of["parts"]} if line.has_parts else {}
    chosen = {"chosen": cell.chosen_by is not None, "has_checkpoints": not line.is_derived}
    return {"method": cell.method} | chosen | at | parts


def renderings(config: dict, model: str, task: str) -> dict[str, str]:
    """The rendering of each compared method that changes the prompt alone."""
    found = {cell.method: of(config, cell).method for cell in compared(config, model, task)}
    return {name: line.rendering for name, line in found.items() if not line.steer}


def first_seed(config: dict, task: str) -> int:
    """The seed that analyses beside the comparison are of."""
    return seeds_of(config, task)[0]


def analyses(config: dict, model: str, task: str) -> dict[str, list[str]]:
    """The analyses that the comparison of a task takes its prices from, by the name under which it takes them."""
    at = {"model": model, "task": task, "seed": first_seed(config, task)}
    base = by_key(config)[model, "base", task, "test"]
    times = config["analyses"]["speed"]["tokens"]
    return {
        "divergence": [names.DIVERGENCE.format(**at)] if base.samples else [],
        "questions": [names.REASONING.format(**at)],
        "speed": [names.SPEED.format(**at)] if times else [],
    }


def figure_inputs(config: dict, cells: Mapping, model: str, **tables: str) -> dict[str, list[str]]:
    """What a figure of the comparison is drawn from: files of these patterns, by kind."""
    asked = tasks(config, model)
    if not asked:
        return {}
    return {kind: [name.format(model=model, task=task) for task in asked] for kind, name in tables.items()}
