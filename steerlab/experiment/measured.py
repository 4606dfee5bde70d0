"""The specs of what is measured of steers: on the model itself, side by side, and on the card of each.

As in steerlab.experiment.specs, one function a rule: `(config, doors, **wildcards) -> dict`.
"""

from steerlab.data import sources
from steerlab.experiment import cells, comparison
from steerlab.experiment.lookups import compute, effect_label, judge_label, versions_of
from steerlab.experiment.registry import METHODS, TASKS
from steerlab.experiment.specs import rests_on_sample, used_sources

NORM_PROMPTS = 8  # dev prompts that norms are measured on


def measure_norms(config: dict, doors: dict, *, model: str, task: str, seed: str) -> dict:
    """The methods, at their picks, and the prompts on which norms are measured."""
    return (
        compute(config)
        | config["metrics"]
        | {"seed": int(seed), "prompts": NORM_PROMPTS, "methods": _steers(config, model, task, seed)}
    )


def measure_ordinary_text(config: dict, doors: dict, *, model: str, task: str, seed: str) -> dict:
    """The methods, at their picks, and the texts and tokens at a time that they are measured on."""
    batches = {"tokens_a_batch": config["scores"]["perplexity"]["tokens_a_batch"]}
    asked = {"door": doors["ordinary_text"], "methods": _steers(config, model, task, seed)}
    return compute(config) | config["analyses"]["ordinary_text"] | batches | asked


def measure_reasoning(config: dict, doors: dict, *, model: str, task: str, seed: str) -> dict:
    """The methods, at their own settings, and how many questions the installed harness asks."""
    steers = _steers(config, model, task, seed)
    asked = {"door": doors["reasoning"], "methods": steers, "versions": versions_of("lm_eval")}
    how = {key: config["analyses"]["reasoning"][key] for key in ("questions", "batch_rows")}
    return compute(config) | how | asked


def _steers(config: dict, model: str, task: str, seed: str, *, own: bool = True) -> list[dict]:
    """The steers that an analysis measures, at their own settings, or at all that are tested."""
    return [comparison.asked(config, cell, own=own) for cell in comparison.measured(config, model, task, int(seed))]


def measure_divergence(config: dict, doors: dict, *, model: str, task: str, seed: str) -> dict:
    """The methods, at all settings that are tested, with how many prompts' continuations they are held to."""
    return (
        compute(config)
        | config["analyses"]["divergence"]
        | {
            "tokens_a_batch": config["scores"]["perplexity"]["tokens_a_batch"],
            "methods": _steers(config, model, task, seed, own=False),
            "renderings": comparison.renderings(config, model, task),
        }
    )


def measure_speed(config: dict, doors: dict, *, model: str, task: str) -> dict:
    """The methods, at their own settings, and the batch that each draws."""
    seed = comparison.first_seed(config, task)
    asked = {"methods": _steers(config, model, task, str(seed)), "seed": seed}
    asked |= {"renderings": comparison.renderings(config, model, task)}
    return compute(config) | config["analyses"]["speed"] | asked


def compare_methods(config: dict, doors: dict, *, model: str, task: str) -> dict:
    """The methods of a task with their own settings, and what is compared, by whom and with which bootstrap."""
    objective, found = TASKS[task].compared, comparison.compared(config, model, task)
    assert objective, f"nothing is compared on {task}"
    base = cells.by_key(config)[model, "base", task, "test"]
    steers = [cell.method for cell in found if comparison.of(config, cell).method.steer]
    return {
        "cells": {cell.method: comparison.main(cell) | {"seeds": list(cell.seeds)} for cell in [base, *found]},
        "metric": objective.metric,
        "goal": objective.goal,
        "scorer": effect_label(config, task),
        "judge": judge_label(config, model),
        "controls": [cell.method for cell in found if comparison.is_control(config, cell)],
        "ours": [method for method in steers if task not in _published_on(cells.instance(config, method, task).of)],
        "kl": config["comparison"]["kl"],
        **config["metrics"],
        "model": model,
        "task": task,
        "data": "sample" if any(rests_on_sample(config, doors, cell.method, task) for cell in found) else "real",
    }


def _published_on(method: str) -> tuple[str, ...]:
    """The tasks that a method's paper has; a control's are those of what it is derived from."""
    return METHODS[METHODS[method].derived_from or method].published_on


def write_card(config: dict, doors: dict, *, model: str, method: str, task: str) -> dict:
    """Whose steers the card is of, beside which control, and the sources that they rest on."""
    objective, found = TASKS[task].compared, {cell.method: cell for cell in comparison.compared(config, model, task)}
    assert objective, f"nothing is compared on {task}"
    cell, line = found[method], cells.instance(config, method, task).method
    controls = [name for name, other in found.items() if comparison.of(config, other).method.is_control]
    control = next((name for name in controls if METHODS[name].derived_from == method), None)
    definition, table = config["models"][model], sources.table()
    used = sorted(used_sources(config, method, task) | {definition.get("source")} - {None})
    return {
        "model": model,
        "base_model": definition.get("repo", model),
        "method": method,
        "task": task,
        "seeds": list(cell.seeds),
        "base_seeds": list(cells.by_key(config)[model, "base", task, "test"].seeds),
        "signal": line.needs,
        "ours": not line.has_parts and task not in line.published_on,
        "control": control,
        "setting": comparison.main(cell),
        "metric": objective.metric,
        "goal": objective.goal,
        "scorer": effect_label(config, task),
        "sources": [{"source": name, "door": doors[name], "licence": table[name].licence} for name in used],
        "data": "sample" if rests_on_sample(config, doors, method, task) else "real",
    }
