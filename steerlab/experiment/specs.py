"""The spec of each stage: exactly the leaves that change its bytes, and what its script needs to know.

One function a rule, `(config, doors, **wildcards) -> dict`. The rules turn it into sorted JSON; a change in it, and in
nothing else of the configuration, reruns the rule.
"""

import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from steerlab.data import sources
from steerlab.experiment import cells, figures
from steerlab.experiment.codes import ROOT, code_digest
from steerlab.experiment.registry import FIGURES, METHODS, TASKS, TEXT_SCORERS


def fetch_source(config: dict, doors: dict, *, source: str, door: str) -> dict:
    return {"source": source, "door": door, "pinned": sources.source_spec(source, door)}


def make_task_table(config: dict, doors: dict, *, task: str) -> dict:
    used = {name: doors[name] for name in task_sources(config, task)}
    settings = {key: value for key, value in config["tasks"][task].items() if key not in ("seeds", "methods", "source")}
    settings |= {"renderings": ["plain", "instructed"]}
    return {"module": TASKS[task].module, "doors": used, "settings": settings}


def prepare_model(config: dict, doors: dict, *, model: str) -> dict:
    versions = _versions("torch", "transformers")
    return {"name": model, "definition": config["models"][model], "versions": versions}


def prepare_scorer(config: dict, doors: dict, *, scorer: str) -> dict:
    line = TEXT_SCORERS[scorer]
    return {"scorer": line.scorer, "source": line.source}


def capture_activations(config: dict, doors: dict, *, model: str, task: str, site: str, positions: str) -> dict:
    return _captured(config, site, positions)


def train_steer(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    instance = cells.instance(config, method, task)
    line = instance.method
    where = _captured(config, line.captures, line.positions) if line.captures else _compute(config)
    return where | {
        "steer": line.steer,
        "hyperparameters": instance.hyperparameters,
        "seed": int(seed),
    }


def derive_steer(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    instance = cells.instance(config, method, task)
    _, tasks = derivation(config, model, method, task)
    return _compute(config) | {
        "derive": instance.method.derive,
        "hyperparameters": instance.hyperparameters,
        "tasks": tasks,
        "chosen": [name in chosen_tasks(config, method, tasks) for name in tasks],
        "seed": int(seed),
    }


def generate_continuations(
    config: dict, doors: dict, *, model: str, method: str, task: str, split: str, seed: str
) -> dict:
    cell, line = _cell(config, model, method, task, split), cells.instance(config, method, task).method
    decoding = {key: value for key, value in config["generations"][task].items() if key != "samples"}
    return _compute(config) | {
        "steer": line.steer,
        "has_checkpoints": line.derived_from is None,
        "rendering": line.rendering,
        "steps": list(cell.steps),
        "strengths": list(cell.strengths),
        "decoding": decoding | {"samples": cell.samples},
        "prompts": cell.prompts,
        "split": split,
        "seed": int(seed),
    }


def score_texts(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    seeds = list(_cell(config, model, method, task, split).seeds)
    return _scorers(text_scorers(config)) | {"seeds": seeds, "split": split}


def score_perplexity(config: dict, doors: dict, *, model: str, method: str, task: str, split: str, judge: str) -> dict:
    seeds = list(_cell(config, model, method, task, split).seeds)
    settings = {"tokens_a_batch": config["scores"]["perplexity"]["tokens_a_batch"]}
    return _compute(config) | settings | {"seeds": seeds, "split": split, "unsteered": judge in ("base", model)}


def compute_metrics(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    base = _cell(config, model, "base", task, split)
    return config["metrics"] | {
        "model": model,
        "method": method,
        "task": task,
        "split": split,
        "seeds": list(_cell(config, model, method, task, split).seeds),
        "base_seeds": list(base.seeds),
        "data": "sample" if _rests_on_sample(config, doors, method, task) else "real",
    }


def choose_settings(config: dict, doors: dict, *, model: str, method: str, task: str) -> dict:
    return {
        "objective": TASKS[task].objective,
        "scorer": scorer_label(config["scores"]["toxicity"][0]),
        "judge": judge_label(config, model),
        "perplexity_limit": config["choices"]["perplexity_limit"],
    }


def interpret_steer(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    settings = cells.instance(config, method, task)
    return (
        _captured(config, METHODS[method].captures, METHODS[method].positions)
        | _scorers([reader(config)])
        | config["analyses"]["interpretation"]
        | {"seed": int(seed), "held_out": settings.given["held_out"]}
    )


def score_official_generations(config: dict, doors: dict) -> dict:
    return _scorers(text_scorers(config)) | config["metrics"]


def plot_figure(config: dict, doors: dict, *, model: str, figure: str) -> dict:
    caption = ROOT / "captions" / f"{figure}.rst"
    return {
        "figure": figure,
        "module": FIGURES[figure].module,
        "caption": caption.read_text() if caption.is_file() else "",
        "arguments": figures.arguments(config, model, figure),
        "intervals": {} if figure in WITHOUT_INTERVALS else {"confidence": config["metrics"]["confidence"]},
        "sample_data": "sample data" if doors.get(TASKS["toxicity"].sources[1]) == "sample" else "",
    }


WITHOUT_INTERVALS = ("directions", "evidence", "spectrum")


GROUPS = {"comparison": "Methods side by side", "lm_steer": "LM-Steer"}


def build_report(config: dict, doors: dict) -> dict:
    sourced = {name: sources.table()[name] for name in doors}
    return {
        "config": config,
        "groups": {name: GROUPS[figure.group] for name, figure in FIGURES.items()},
        "sources": [
            {"source": name, "door": doors[name], "licence": source.licence, "citation": source.citation}
            for name, source in sourced.items()
        ],
        "not_run": [
            f"{method}: not among run.methods of this configuration"
            for method in sorted(set(METHODS) - {"base"} - {cell.method for cell in cells.all_cells(config)})
            if not any(config["variants"][name]["of"] == method for name in config["run"]["variants"])
        ],
    }


# ---- what several stages ask of a configuration ----


def task_sources(config: dict, task: str) -> list[str]:
    """The sources of a task: of its prompts (the configuration may name another), and of its training texts."""
    prompts, texts = TASKS[task].sources
    return [config["tasks"][task]["source"] or prompts, texts]


def text_scorers(config: dict) -> list[str]:
    """The scorers of texts, those of toxicity first."""
    return [*config["scores"]["toxicity"], *config["scores"]["sentiment"]]


def reader(config: dict) -> str:
    """The scorer that judges the words of an interpretation."""
    return config["scores"]["toxicity"][0]


def judges(config: dict) -> list[str]:
    """The models whose perplexity is taken; "base" is the unsteered model of the cell."""
    return config["scores"]["perplexity"]["judges"]


def scorer_label(name: str) -> str:
    """How tables name a scorer of texts."""
    line = TEXT_SCORERS[name]
    if line.package:
        return f"{line.package}=={_versions(line.package)[line.package]}"
    door = next(iter(sources.table()[line.source or ""].doors.values()))
    file, version = re.split("==|@", door.origin.rpartition("/")[2])
    return f"{file}=={version[:12]}"


def judge_label(config: dict, model: str) -> str:
    """How tables name the first judge of a model's perplexity."""
    first = judges(config)[0]
    return f"{model}, unsteered" if first in ("base", model) else first


def derivation(config: dict, model: str, method: str, task: str) -> tuple[str, list[str]]:
    """What a derived steer is made from: the model and the tasks of the steers that it takes."""
    variant = config["variants"].get(method, {})
    return variant.get("from", model), list(variant.get("weights", {task: 1.0}))


def chosen_tasks(config: dict, method: str, tasks: list[str]) -> list[str]:
    """Those of the tasks on which the method that this one is derived from has a choice."""
    of = cells.instance(config, method, tasks[0]).method.derived_from
    return [task for task in tasks if of and cells.is_chosen(config, of, task)]


def has_official_generations(config: dict) -> bool:
    """True if a mirror holds the official code's continuations; nothing else does."""
    mirror = config["data"]["mirror"]
    return bool(mirror) and not sources.mirror_lacks(Path(mirror), {"official_generations": "mirror"})


def _cell(config: dict, *key: str) -> cells.Cell:
    return next(cell for cell in cells.all_cells(config) if cell.key == key)


def _compute(config: dict) -> dict:
    where = {key: config[key] for key in ("device", "dtype", "attention", "threads")}
    return where | {"versions": _versions("torch", "transformers")}


def _captured(config: dict, site: str | None, positions: str) -> dict:
    """What activations are captured with; whoever opens them needs the same, and finds the same shards."""
    code = code_digest("scripts/capture_activations.py")
    return _compute(config) | {
        "site": site,
        "positions": positions,
        "activations": config["activations"],
        "capture_code": code,
    }


def _scorers(names: list[str]) -> dict:
    """The scorers of texts in their order, with whatever decides their scores; `prepared`: whether one has a folder."""
    lines = [TEXT_SCORERS[name] for name in names]
    packages = [line.package for line in lines if line.package]
    return {
        "scorers": [{"scorer": line.scorer, "prepared": bool(line.source)} for line in lines],
        "versions": _versions(*packages, "scikit-learn"),
    }


def _versions(*packages: str) -> dict[str, str | None]:
    """Installed versions of the packages that compute; None where one is not installed here."""
    found = dict.fromkeys(packages)
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _rests_on_sample(config: dict, doors: dict, method: str, task: str) -> bool:
    """True if anything that the cell was trained or prompted with is sample data."""
    line = cells.instance(config, method, task).method
    used = {task_sources(config, task)[0]}
    if (METHODS[line.derived_from] if line.derived_from else line).needs:
        used |= {task_sources(config, name)[1] for name in derivation(config, "", method, task)[1]}
    return any(doors[source] == "sample" for source in used)
