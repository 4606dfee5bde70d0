"""What the report's cards say of the data, the models and the scorers that a configuration uses, before it is run."""

from importlib.metadata import metadata
from typing import Any

from steerlab.data import glue as glue_data
from steerlab.data import sources
from steerlab.experiment import latentqa, lookups
from steerlab.experiment.cells import by_key
from steerlab.experiment.registry import ANALYSED, TASKS
from steerlab.experiment.scorers import text_scorer

Card = dict[str, Any]
PROMPTS, TRAINING, QUESTIONS, PAIRS = "prompts", "training texts", "questions", "pairs"
HUB = "as its card on the hub says; not read here"


def data(config: dict, doors: dict[str, str], models: list[str]) -> list[Card]:
    """A card a source: name, door, licence, citation, origin, files (name and bytes), used: pairs of a table, or what
    else it is for, and the part of the table that comes from it ("" for all, or for what is no table)."""
    table, used = sources.table(), _used(config, doors, models)
    return [
        {
            "name": name,
            "door": door,
            "licence": table[name].licence,
            "citation": table[name].citation,
            "origin": table[name].doors[door].origin,
            "files": [[file.name, file.bytes] for file in table[name].doors[door].files],
            "used": used.get(name, []),
        }
        for name, door in doors.items()
    ]


def _used(config: dict, doors: dict[str, str], models: list[str]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}

    def add(name: str | None, what: str, part: str = "") -> None:
        if name in doors and (what, part) not in found.setdefault(name, []):
            found[name].append((what, part))

    for task in dict.fromkeys(cell.task for cell in by_key(config).values()):
        first, *others = lookups.task_sources(config, task)
        add(first, task, QUESTIONS if TASKS[task].answers else PAIRS if TASKS[task].given else PROMPTS)
        for name in others:
            add(name, task, TRAINING if name in TASKS[task].sources else "split")
    for task, line in ANALYSED.items():
        for corpus in config[line.section]["corpora"]:
            add(corpus, task)
    for cell in latentqa.controlled(config):
        for name in latentqa.control_sources(config, cell.method, cell.task):
            add(name, f"the control on {cell.task}")
    for task in config["glue"]["tasks"]:
        add(glue_data.source(task), f"GLUE's {task}")
    for name in lookups.CALIBRATED_ON:
        add(name, "the calibration of the scorers")
    for model in models:
        add(config["models"][model].get("source"), f"model {model}")
    for scorer in lookups.text_scorers(config):
        add(text_scorer(config, scorer).source, f"scorer {scorer}")
    for name in doors:  # what no table holds is used by the figure of its name
        if name not in found:
            add(name, f"figure {name.replace('_', ' ')}")
    return found


def models(config: dict, doors: dict[str, str], names: list[str]) -> list[Card]:
    """A card a model: name, what, licence, and the door of the source that these are told of."""
    definitions = {name: config["models"][name] for name in names}
    return [
        {"name": name, "door": doors.get(of.get("source", ""), ""), **_model(of)} for name, of in definitions.items()
    ]


def _model(definition: dict) -> Card:
    match definition["kind"]:
        case "gguf":
            source = sources.table()[definition["source"]]
            return {"what": source.citation, "licence": source.licence}
        case "hub":
            return {"what": f"{definition['repo']} at {definition['revision']}", "licence": HUB}
        case "folder":
            return {"what": f"the folder {definition['path']}", "licence": "as whoever made it says"}
        case "rotated":
            return {
                "what": f"{definition['of']} in rotated coordinates, the same function",
                "licence": "as that model's",
            }
    return {"what": f"random weights of the family {definition['family']}; no trained model", "licence": "none needed"}


def scorers(config: dict, doors: dict[str, str]) -> list[Card]:
    """A card a scorer of texts: name (as tables name it), what, licence, door as of models."""
    asked = dict.fromkeys([*config["scores"]["toxicity"], *config["scores"]["sentiment"]])
    told = {name: (lookups.scorer_label(config, name), text_scorer(config, name).source or "") for name in asked}
    return [
        {"name": label, "door": doors.get(source, ""), **_scorer(config, name)}
        for name, (label, source) in told.items()
    ]


def _scorer(config: dict, name: str) -> Card:
    line = text_scorer(config, name)
    if line.service:
        return {"what": f"{line.quantity}, by a service over the network", "licence": "the service's terms"}
    if line.package:
        return {"what": f"{line.quantity}, by the package {line.package}", "licence": package_licence(line.package)}
    if line.source:
        source = sources.table()[line.source]
        return {"what": f"{line.quantity}, by {source.citation}", "licence": source.licence}
    repo = (line.definition or {}).get("repo")
    return {
        "what": f"{line.quantity}, by the classifier {repo or (line.definition or {}).get('path')}",
        "licence": HUB if repo else "as whoever made it says",
    }


def package_licence(package: str) -> str:
    """What an installed package says of its licence."""
    about = metadata(package)
    told = [*(about.get_all("License-Expression") or []), *(about.get_all("License") or [])]
    classes = [line.split(" :: ") for line in about.get_all("Classifier") or []]
    return next(iter([*told, *(line[-1] for line in classes if line[0] == "License")]), "not stated")
