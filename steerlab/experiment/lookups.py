"""What several parts of the experiment ask of a checked configuration: sources, scorers, judges, labels, the machine.

Below it stand the specs of the stages, the figures and GLUE; it knows none of them.
"""

import functools
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from steerlab.data import sources
from steerlab.experiment import cells
from steerlab.experiment.registry import ANALYSED, METHODS, TASKS, TextScorer
from steerlab.experiment.scorers import text_scorer
from steerlab.metrics import calibrated


def task_sources(config: dict, task: str) -> list[str]:
    """The sources of a task: of its prompts (or another that is named), of its training texts, of its split."""
    if task in ANALYSED:
        return config[ANALYSED[task].section]["corpora"]
    prompts, *texts = TASKS[task].sources
    settings = cells.settings_of(config, task)
    return [settings.get("source") or prompts, *texts, *(["hpr_split"] if settings.get("split") == "published" else [])]


def training_source(config: dict, task: str) -> str:
    """The source of a task's training texts, or of its questions, which are learnt from as well."""
    return task_sources(config, task)[1 if len(TASKS[task].sources) > 1 else 0]


def services(config: dict, task: str) -> list[str]:
    """The scorers of a task's texts that are asked over the network."""
    return [name for name in config["scores"].get(TASKS[task].quantity, []) if text_scorer(config, name).service]


def primary_label(config: dict, task: str) -> str:
    """How tables name the scorer that a task's choices go by."""
    return LIKELIHOOD if TASKS[task].answers else scorer_label(config, config["scores"]["toxicity"][0])


def effect_label(config: dict, task: str) -> str:
    """How tables name the scorer of a task's effect."""
    if TASKS[task].quantity == "sentiment":
        return scorer_label(config, config["scores"]["sentiment"][0])
    return primary_label(config, task)


LIKELIHOOD = "log-likelihood"  # of given answers, by the model itself


def captured(config: dict, model: str, task: str, part: str) -> list[tuple[str, str]]:
    """(site, positions) of all that methods are trained on of a task's texts, which one job captures; the first leads.

    They stand in the order of METHODS, so that a new line behind those of the run changes no leader. Listed once a
    configuration, as cells are. What analyses read of test texts is captured site by site.
    """
    global _captured
    if config is not _captured[0]:
        _captured = config, _all_captured(config)
    return _captured[1].get((model, task), []) if part == "fitted" else []


_captured: tuple[dict, dict[tuple[str, str], list[tuple[str, str]]]] = ({}, {})


def together(config: dict) -> dict[str, list[list[str]]]:
    """`captured` of all by "<model>/<task>", for the jobs; it changes no bytes, and so is no spec's."""
    if not config["run"]["tasks"]:
        return {}
    captured(config, "", "", "fitted")
    return {"/".join(key): [list(site) for site in sites] for key, sites in _captured[1].items()}


def _all_captured(config: dict) -> dict[tuple[str, str], list[tuple[str, str]]]:
    found: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
    places = {name: place for place, name in enumerate(METHODS)}
    for cell in cells.by_key(config).values():
        source, taken = derivation(config, cell.model, cell.method, cell.task)
        for of, task in taken:
            line, place = METHODS[of], places[of]
            if line.captures:
                sites = found.setdefault((source, TASKS[task].learnt_on or task), {})
                site = line.captures, line.positions
                sites[site] = min(place, sites.get(site, place))
    return {key: sorted(sites, key=lambda site: (sites[site], site)) for key, sites in found.items()}


def local_scorers(config: dict, quantity: str) -> list[str]:
    """The scorers of a quantity that run here."""
    return [name for name in config["scores"][quantity] if not text_scorer(config, name).service]


def text_scorers(config: dict) -> list[str]:
    """The scorers of texts, those of toxicity first."""
    return [*local_scorers(config, "toxicity"), *local_scorers(config, "sentiment")]


def interpretation_scorer(config: dict) -> str:
    """The scorer that judges the words of an interpretation."""
    return next(iter(local_scorers(config, "toxicity")), "profanity_check")


def judges(config: dict) -> list[str]:
    """The models whose perplexity is taken; "base" is the unsteered model of the cell."""
    return config["scores"]["perplexity"]["judges"]


def all_models(config: dict) -> list[str]:
    """The models of all cells and judges, and those that they are made from."""
    asked = [cell.model for cell in cells.by_key(config).values()] + [
        judge for judge in judges(config) if judge != "base"
    ]
    asked += answer_judges(config).values()
    asked += config["run"]["models"] if config["glue"]["tasks"] or config["latent_reading"]["corpora"] else []
    made_from = [config["models"][model]["of"] for model in asked if config["models"][model]["kind"] == "rotated"]
    return list(dict.fromkeys(asked + made_from))


def answer_judges(config: dict) -> dict[str, str]:
    """The models that judge generated answers, by measure; none where no task asks for answers."""
    named = {measure: model for measure, model in config["scores"]["answers"]["judges"].items() if model}
    return named if any(TASKS[task].answers for task in config["run"]["tasks"]) else {}


def scorers_of(config: dict, rule: str) -> list[str]:
    """The scorers of texts that a rule runs here, in their order; empty for a rule that runs none."""
    match rule:
        case "score_texts" | "score_official_generations":
            return text_scorers(config)
        case "calibrate_scorers":
            return local_scorers(config, "toxicity")
        case "interpret_steer":
            return [interpretation_scorer(config)]
    return []


def runs_classifier(config: dict, names: list[str]) -> bool:
    """True if one of these scorers of texts is a model that runs on the device."""
    return any(is_classifier(text_scorer(config, name)) for name in names)


def scorer_label(config: dict, name: str) -> str:
    """How tables name a scorer of texts."""
    line = text_scorer(config, name)
    if line.service:
        from steerlab.scores import services

        return f"{name}=={services.version(name, config['scores'][name])}"
    if line.definition is not None:
        from steerlab.scores.classifier_files import name_and_version  # reads a folder's files; no torch

        return "==".join(name_and_version(line.definition))
    if line.package:
        return f"{line.package}=={versions_of(line.package)[line.package]}"
    door = next(iter(sources.table()[line.source or ""].doors.values()))
    file, version = re.split("==|@", door.origin.rpartition("/")[2])
    return f"{file}=={version[:12]}"


def judge_label(config: dict, model: str) -> str:
    """How tables name the first judge of a model's perplexity."""
    first = judges(config)[0]
    return f"{model}, unsteered" if first in ("base", model) else first


def derivation(config: dict, model: str, method: str, task: str) -> tuple[str, list[tuple[str, str]]]:
    """What a steer is made from: the model, and the method and task of each steer that is taken; of one that is not
    derived itself."""
    variant, here = config["variants"].get(method, {}), cells.instance(config, method, task)
    if here.method.has_parts:
        return model, [(part, task) for part in variant["parts"]]
    of = here.method.derived_from or here.of
    return variant.get("from", model), [(of, learnt_on) for learnt_on in variant.get("weights", {task: 1.0})]


CALIBRATED_ON = ("scored_continuations", "scored_comments")


def has_official_generations(config: dict) -> bool:
    """True if a mirror holds the official code's continuations; nothing else does."""
    return sources.is_there(config["data"], "official_generations")


def calibrates(config: dict) -> bool:
    """True if the sources are there that the local scorers are calibrated on; else the files that ship stand."""
    return bool(local_scorers(config, "toxicity")) and all(
        sources.is_there(config["data"], name) for name in CALIBRATED_ON
    )


def calibrated_scorers(config: dict) -> list[str]:
    """The labels of the local toxicity scorers that have a map: all, or those that the files that ship know."""
    labels = [scorer_label(config, name) for name in local_scorers(config, "toxicity")]
    if calibrates(config):
        return labels
    shipped = calibrated.read_maps()
    return [label for label in labels if label in shipped]


def is_classifier(line: TextScorer) -> bool:
    """Whether a scorer is a text-classification model that the configuration defines."""
    return line.definition is not None


def compute(config: dict) -> dict:
    """Where models run, and what they run on."""
    where = {key: config[key] for key in ("device", "dtype", "attention", "threads")}
    return where | {"versions": versions_of("torch", "transformers")}


def models_run(config: dict, rule: str, w: Mapping[str, str]) -> list[str]:
    """The models whose blocks a job of a rule runs; w: its wildcards."""
    match rule:
        case "score_perplexity" if w["judge"] != "base":
            return [w["judge"]]
        case "judge_answers":
            return [answer_judges(config)[w["measure"]]]
        case "derive_steer":
            return [w["model"], derivation(config, w["model"], w["method"], w["task"])[0]]
        case "score_texts":
            return []  # its classifiers have a card of their own
    return [w["model"]] if w.get("model") in config["models"] else []  # some figures are of "all"


def cards(config: dict, rule: str, w: Mapping[str, str]) -> int:
    """On how many cards the models of a job lie; 1 where processes share them, as each takes its part of the model."""
    shared = rule == "train_reader" and config["latentqa"]["processes"] > 1
    asked = [config["models"][model]["cards"] for model in models_run(config, rule, w)]
    return 1 if shared or config["device"] != "cuda" else max(asked, default=1)


def with_cards(spec: dict, count: int) -> dict:
    """The spec with the number of cards wherever it says where a model runs; of one card nothing is said."""
    if count == 1:
        return spec
    below = {key: with_cards(value, count) if isinstance(value, dict) else value for key, value in spec.items()}
    return below | ({"cards": count} if "device" in spec else {})


def versions_of(*packages: str) -> dict[str, str | None]:
    """Installed versions of the packages that compute; None where one is not installed here."""
    return {package: _version(package) for package in packages}


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
