"""What people are shown of a run: the cell whose continuations they judge blind, beside the unsteered model's."""

from collections.abc import Iterator
from pathlib import Path

from steerlab.experiment import names
from steerlab.experiment.cells import Cell, by_key
from steerlab.experiment.registry import METHODS, TASKS

TASK = "toxicity"


def cell(config: dict) -> Cell | None:
    """The test cell of the first model's first steer with a chosen strength on toxicity; None where there is none."""
    found = (each for each in by_key(config).values() if (each.task, each.split) == (TASK, "test") and each.samples)
    return next((each for each in found if each.chosen_by and _is_steer(each.method)), None)


def _is_steer(method: str) -> bool:
    return method in METHODS and METHODS[method].derived_from is None


def file(config: dict, pattern: str) -> list[str]:
    """A file of the audit, by its pattern of names.py; none where nothing can be judged, or has been."""
    of = cell(config)
    if of is None or (pattern == names.AUDIT and not config["audit"]["sheets"]):
        return []
    return [pattern.format(model=of.model, method=of.method, task=of.task)]


def impossible(config: dict) -> Iterator[str]:
    """Sheets that are not there, or share a name, or about which the run has nothing to say."""
    sheets = config["audit"]["sheets"]
    for sheet in sheets:
        if not Path(sheet).is_file():
            yield f"audit.sheets: no file {sheet!r}; name a filled copy of pairs.csv"
    stems = [Path(sheet).stem for sheet in sheets]
    for stem in sorted({stem for stem in stems if stems.count(stem) > 1}):
        yield f"audit.sheets: two are called {stem!r}; call each after the person who filled it"
    if sheets and cell(config) is None:
        yield f"audit.sheets: the run has no steer with a choice on {TASK}'s prompts to judge; leave the sheets out"


def sample_audit(config: dict, doors: dict, *, model: str, method: str, task: str) -> dict:
    """The spec of the sample; doors is not asked."""
    cells = by_key(config)
    at = {"model": model, "task": task, "split": "test"}
    return {
        "pairs": config["audit"]["pairs"],
        "seed": config["audit"]["seed"],
        "seeds": list(cells[model, method, task, "test"].seeds),
        "base_seeds": list(cells[model, "base", task, "test"].seeds),
        "about": {"quantity": TASKS[task].quantity, **at, "method": method, "against": "base"},
    }


def compare_audit(config: dict, doors: dict, *, model: str, method: str, task: str) -> dict:
    """The spec of the table; the rest stands in its files."""
    return {"model": model, "method": method}
