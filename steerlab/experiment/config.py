"""The configuration, checked at the door: every error at once, one line each, before any job is planned.

`check` fills the defaults of schemas/config.yaml, refuses what the schema does not know, and then looks for what a
schema cannot see: names that nothing defines and cells that cannot be run.
"""

import copy
import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from steerlab.data import sources
from steerlab.experiment import audits, latentqa
from steerlab.experiment.cells import beside, by_key, instance, is_chosen, methods_of, settings_of, swept_layers
from steerlab.experiment.lookups import scorer_label
from steerlab.experiment.registry import ANALYSED, METHODS, TASKS, TEXT_SCORERS
from steerlab.experiment.scorers import known, text_scorer
from steerlab.layer_choices import BY_READING

SCHEMA = Path(__file__).parents[2] / "schemas" / "config.yaml"


class ConfigError(ValueError):
    """All that is wrong with a configuration, one line an error."""


def check(raw: dict) -> dict:
    """Return the configuration with all defaults filled; raises ConfigError with every error found."""
    errors = [_sentence(error) for error in jsonschema.Draft202012Validator(schema()).iter_errors(raw)]
    if errors:
        raise ConfigError("\n".join(sorted(errors)))
    config = _filled(copy.deepcopy(raw), schema())
    errors = list(_unknown_names(config)) + list(_impossible_cells(config)) + list(_unknown_hyperparameters(config))
    errors += (
        list(_unknown_corpora(config))
        + list(_nobody_to_ask(config))
        + list(_nothing_to_train_on(config))
        + list(_impossible_readers(config))
        + list(_impossible_classifiers_of_glue(config))
    )
    errors += (
        list(_impossible_classifiers(config)) + list(_unknown_scorers(config)) + list(_impossible_questions(config))
    )
    errors = errors or list(_impossible_variants(config))
    errors = errors or list(
        dict.fromkeys(
            [
                *_impossible_risks(config),
                *_impossible_layers(config),
                *latentqa.impossible(config),
                *audits.impossible(config),
                *_larger_than_their_base(config),
            ]
        )
    )
    if errors:
        raise ConfigError("\n".join(f"config: {error}" for error in errors))
    return config


def defaults() -> dict:
    """The configuration that the schema gives where nothing is said; not checked, as no model is in it."""
    return _filled({}, schema())


@functools.cache
def schema() -> dict:
    """The JSON schema of the configuration."""
    return yaml.load(SCHEMA.read_text(), yaml.CSafeLoader)  # as safe_load, in a tenth of the time


def leaves(node: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """Every leaf of a schema with its path of keys."""
    if "properties" not in node:
        yield path, node
    for key, child in node.get("properties", {}).items():
        yield from leaves(child, (*path, key))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a close known name, else the list of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _sentence(error: Any) -> str:
    """One jsonschema error as one line, or one line a key."""
    path = ".".join(str(part) for part in error.absolute_path)
    where = f"config: {path}: " if path else "config: "
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = [key for key in error.instance if key not in known]
        return "\n".join(f"{where}unknown key {key!r}{nearest(str(key), known)}" for key in unknown)
    if error.validator == "enum":
        allowed = map(str, error.validator_value)
        return f"{where}{error.instance!r} is not one of them{nearest(str(error.instance), allowed)}"
    hint = ""
    if error.validator == "type" and isinstance(error.instance, str):
        hint = " (nested --config values arrive as strings: write them to a file and pass it with --configfile)"
    return f"{where}{error.message}{hint}"


def _filled(value: Any, node: dict) -> Any:
    """The value with the defaults of its part of the schema, level by level."""
    if isinstance(value, dict):
        for key, child in node.get("properties", {}).items():
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
        for key in value:
            child = node.get("properties", {}).get(key, node.get("additionalProperties"))
            if isinstance(child, dict):
                value[key] = _filled(value[key], child)
    return value


REQUIRED = {
    "gguf": ("source",),
    "hub": ("repo", "revision"),
    "folder": ("path",),
    "random": ("family", "layers", "seed"),
    "rotated": ("of", "seed"),
}


def _unknown_names(config: dict) -> Iterator[str]:
    for model in config["run"]["models"]:
        if model not in config["models"]:
            yield f"run.models: unknown model {model!r}{nearest(model, config['models'])}"
    for method in config["run"]["methods"]:
        if method not in METHODS:
            yield f"run.methods: unknown method {method!r}{nearest(method, METHODS)}"
    for variant in config["run"]["variants"]:
        if variant not in config["variants"]:
            yield f"run.variants: unknown variant {variant!r}{nearest(variant, config['variants'])}"
    for task in config["run"]["tasks"]:
        if task not in TASKS:
            yield f"run.tasks: unknown task {task!r}{nearest(task, TASKS)}"
    for task, settings in config["tasks"].items():
        for key, named in (("methods", settings["methods"] or ()), ("beside", settings.get("beside", ()))):
            for method in named:
                if method not in METHODS:
                    yield f"tasks.{task}.{key}: unknown method {method!r}{nearest(method, METHODS)}"
    for judge in config["scores"]["perplexity"]["judges"]:
        if judge != "base" and judge not in config["models"]:
            yield f"scores.perplexity.judges: unknown model {judge!r}{nearest(judge, ['base', *config['models']])}"
    for measure, judge in config["scores"]["answers"]["judges"].items():
        if judge and judge not in config["models"]:
            yield f"scores.answers.judges.{measure}: unknown model {judge!r}{nearest(judge, config['models'])}"
    judges = config["scores"]["perplexity"]["judges"]
    for model in config["run"]["models"] if "base" in judges else ():
        if model in judges:
            yield f"scores.perplexity.judges: base is {model} itself for its own texts; leave {model} out"
    for name, definition in config["models"].items():
        if definition["kind"] == "rotated" and (of := definition.get("of", "")) not in config["models"]:
            yield f"models.{name}.of: unknown model {of!r}{nearest(of, config['models'])}"
        needed = REQUIRED[definition["kind"]]
        for key in needed:
            if key not in definition:
                yield f"models.{name}: a model of kind {definition['kind']} needs the key {key!r}"
        for key in sorted(set(definition) - {"kind", "cards", "expect", "chat_template", *needed}):
            yield f"models.{name}: a model of kind {definition['kind']} does not take the key {key!r}"
        if definition["kind"] == "gguf" and (source := definition.get("source", "")) not in sources.table():
            yield f"models.{name}.source: unknown source {source!r}{nearest(source, sources.table())}"


def _unknown_corpora(config: dict) -> Iterator[str]:
    """A corpus is a source all of whose files have the formats of its task."""
    table = sources.table()
    for task, line in ANALYSED.items():
        corpora = [name for name, of in table.items() if _formats(of) <= line.formats]
        for corpus in config[line.section]["corpora"]:
            if corpus not in corpora:
                yield f"{line.section}.corpora: no corpus of {task} {corpus!r}{nearest(corpus, corpora)}"


def _nothing_to_train_on(config: dict) -> Iterator[str]:
    """Held-out labels or texts of latent_reading that are all there are."""
    shares = config["latent_reading"]["shares"]
    for what in ("labels", "texts"):
        if shares[f"dev_{what}"] + shares[f"test_{what}"] >= 1:
            keys = f"dev_{what} and test_{what}"
            yield f"latent_reading.shares: {keys} leave nothing to train on; lower them below 1 together"


def _impossible_readers(config: dict) -> Iterator[str]:
    """Hyperparameters for a setting are held to the readers' own schema; processes share an update's batches alike."""
    settings, known = config["latentqa"], schema()["properties"]["latentqa"]["properties"]["reader"]["properties"]
    keys = {key: value for key, value in known.items() if key != "by_setting"}
    for setting, others in settings["reader"]["by_setting"].items():
        yield from _misfits_of(keys, others, f"latentqa.reader.by_setting.{setting}")
    processes = settings["processes"]
    if processes == 1 and settings["sharding"] != "ddp":
        yield f"latentqa.sharding: {settings['sharding']} needs several processes; raise latentqa.processes"
    for setting in settings["settings"]:
        batches = latentqa.hyperparameters(config, setting)["accumulation"]
        if isinstance(batches, int) and batches % processes:
            yield (
                f"latentqa.processes: {processes} cannot share {batches} batches of an update alike; set "
                f"latentqa.reader.accumulation to a multiple of {processes}"
            )


def _nobody_to_ask(config: dict) -> Iterator[str]:
    """What is asked of readers where none is trained."""
    asked = {f"{name}.corpora": config[name]["corpora"] for name in ("relations", "system_prompts")}
    asked["latentqa.scaling"] = config["latentqa"]["scaling"]
    for key, given in asked.items():
        if given and not config["latent_reading"]["corpora"]:
            remedy = "name latent_reading.corpora, or set it to []"
            yield f"{key}: it is asked of LatentQA's readers, and none is trained; {remedy}"


def _formats(source: sources.Source) -> set[str]:
    return {file.format for door in source.doors.values() for file in door.files}


def _impossible_classifiers(config: dict) -> Iterator[str]:
    for name, definition in config["scores"]["classifiers"].items():
        where = f"scores.classifiers.{name}"
        if name in TEXT_SCORERS or not re.fullmatch(r"\w+", name):
            yield f"scores.classifiers: {name!r} names files beside other scorers; use other letters, digits and '_'"
        repo, revision, path = (definition.get(key) for key in ("repo", "revision", "path"))
        if not repo and not path:
            yield f"{where}: it comes from nowhere; give repo and revision, or path"
        if path and (repo or revision):
            yield f"{where}: path stands beside {'repo' if repo else 'revision'}, which is of the hub; keep one of them"
        if repo and not path and not revision:
            yield f"{where}: {repo} needs the key 'revision', its full commit"
        label, against = definition["label"], definition.get("against")
        if definition["quantity"] == "toxicity" and against is not None:
            yield f"{where}: toxicity is the probability of {label!r} alone; leave against {against!r} out"
        if definition["quantity"] == "sentiment" and against is None:
            yield f"{where}: sentiment needs the key 'against', the label opposite to {label!r}"
        if against is not None and against.lower() == label.lower():
            yield f"{where}: against is {label!r} itself, and every score would be 0; name the opposite label"


def _unknown_scorers(config: dict) -> Iterator[str]:
    taken: dict[str, str] = {}
    for quantity in ("toxicity", "sentiment"):
        for name in config["scores"][quantity]:
            where = f"scores.{quantity}"
            if name not in known(config):
                yield f"{where}: unknown scorer {name!r}{nearest(name, known(config))}"
                continue
            line = text_scorer(config, name)
            if line.quantity != quantity:
                yield f"{where}: {name} scores {line.quantity}; name it under scores.{line.quantity}"
            definition = line.definition or {}
            if "path" in definition and not Path(definition["path"]).is_dir():
                path = definition["path"]
                yield f"{where}: {path} of {name} is no folder; correct its path, as seen from where the run starts"
            elif definition:
                label = scorer_label(config, name)
                if taken.setdefault(label, name) != name:
                    yield f"{where}: tables cannot tell {name} from {taken[label]}, both are {label}; keep one"


def _impossible_cells(config: dict) -> Iterator[str]:
    for task, drawn in config["generations"].items():
        if drawn["min_new_tokens"] > drawn["max_new_tokens"]:
            least, most = drawn["min_new_tokens"], drawn["max_new_tokens"]
            yield f"generations.{task}: min_new_tokens {least} is more than max_new_tokens {most}; lower it"
    for task, settings in config["tasks"].items():
        if not settings["wording"].endswith("{text}"):
            yield f"tasks.{task}.wording: it must end with {{text}}, which the model continues"
    for name in config["models"]:
        if not re.fullmatch(r"[\w.-]+", name):
            yield f"models: {name!r} names files; use letters, digits, '.', '_' and '-'"
    for task in filter(TASKS.get, config["run"]["tasks"]):
        for method in filter(METHODS.get, [*methods_of(config, task), *beside(config, task)]):
            needs = METHODS[method].needs
            if needs and needs not in TASKS[task].offers:
                offers = ", ".join(TASKS[task].offers)
                yield f"run: {method} on {task} cannot be run: it learns from {needs}, the task offers {offers}"
    for method in filter(METHODS.get, config["run"]["methods"]):
        for key in NEEDED_BY_VARIANT.get(method, {}):
            yield f"run.methods: {method} needs {key}; give it in an entry of variants, which run.variants names"
        parent = METHODS[method].derived_from
        if parent and parent not in config["run"]["methods"]:
            yield f"run.methods: {method} is made from {parent}, which is not there; add it"
        for task in filter(TASKS.get, config["run"]["tasks"] if parent else ()):
            own = settings_of(config, task)["methods"]
            asked = own and [*own, *beside(config, task)]
            if asked and method in asked and parent not in asked:
                key = "methods" if method in own else "beside"
                yield f"tasks.{task}.{key}: {method} is made from {parent}, which is not there; add it"


def _impossible_questions(config: dict) -> Iterator[str]:
    """What can be known of the tasks that ask questions before those are read."""
    settings = config["tasks"]["truthfulness"]
    for task in filter(TASKS.get, config["run"]["tasks"]):
        learnt_on, swapped = TASKS[task].learnt_on, TASKS[task].swapped
        if swapped and swapped not in config["run"]["tasks"]:
            yield f"run.tasks: {task} is the other half of {swapped}, which is not there; add it"
        elif swapped and settings["split"] != "halves":
            yield f"run.tasks: {task} needs two halves; set tasks.{swapped}.split to halves, or take it out"
        if not learnt_on:
            continue
        if learnt_on not in config["run"]["tasks"]:
            yield f"run.tasks: {task} takes what was learnt on {learnt_on}, which is not there; add it"
            continue
        for method in sorted(set(methods_of(config, task)) - set(methods_of(config, learnt_on))):
            yield f"tasks.{task}.methods: {method} is not among those of {learnt_on}; add it there or take it out"
    if "truthfulness" not in config["run"]["tasks"]:
        return
    train, dev = settings["shares"]["train"], settings["shares"]["dev"]
    if settings["split"] == "seeded" and train + dev >= 1:
        yield f"tasks.truthfulness.shares: train {train} and dev {dev} leave nothing to test on; lower them"
    source = settings["source"] or "truthfulqa"
    by_mirror = config["data"]["door"] == "mirror"
    door = None if by_mirror else (config["data"]["sources"] or {}).get(source)
    if settings["split"] == "published" and (source != "truthfulqa" or door in ("sample", "url")):
        from_where = source if source != "truthfulqa" else f"its door {door}"
        yield (
            f"tasks.truthfulness.split: the published split counts the hub's copy of TruthfulQA, not {from_where}; "
            "set data.sources.truthfulqa to hub or mirror, or split to seeded"
        )
    if not config["generations"]["truthfulness"]["samples"]["test"]:
        for measure, judge in config["scores"]["answers"]["judges"].items():
            if judge:
                key = "generations.truthfulness.samples.test"
                yield f"scores.answers.judges.{measure}: no answers are generated; raise {key}"


def _unknown_hyperparameters(config: dict) -> Iterator[str]:
    """Other values of hyperparameters, for a task or in a variant, are held to the method's own schema."""
    for method, given in config["steers"].items():
        for task, others in given.get("by_task", {}).items():
            if task not in TASKS:
                yield f"steers.{method}.by_task: unknown task {task!r}{nearest(task, TASKS)}"
            yield from _misfits(method, others, f"steers.{method}.by_task.{task}")
    for name, variant in config["variants"].items():
        of = variant["of"]
        if of not in METHODS or not METHODS[of].steer:
            steered = [method for method, line in METHODS.items() if line.steer]
            yield f"variants.{name}.of: no method with a steer {of!r}{nearest(of, steered)}"
        elif name in METHODS or not re.fullmatch(r"\w+", name):
            yield f"variants: {name!r} names files beside the methods; use other letters, digits and '_'"
        else:
            own = set(schema()["properties"]["steers"]["properties"].get(of, {}).get("properties", {}))
            known = {*OF_EVERY_VARIANT, *_own_keys(of)} - ({"strengths"} & own)
            others = {key: value for key, value in variant.items() if key not in known}
            yield from _misfits(of, others, f"variants.{name}", without=NOT_IN_A_VARIANT)


def _impossible_risks(config: dict) -> Iterator[str]:
    """SLIM's kappa and alpha say one thing, so one of them is null; several are chosen from by a task's answers."""
    for cell in by_key(config).values():
        here = instance(config, cell.method, cell.task)
        if here.of != "slim":
            continue
        kappa, alpha = here.given["kappa"], here.given["alpha"]
        if kappa and alpha:
            yield f"{cell.method} on {cell.task}: kappa {kappa} and alpha {alpha} say one thing twice; set one to null"
        if len(kappa or alpha or ()) > 1 and not TASKS[cell.task].answers:
            yield (
                f"{cell.method} on {cell.task}: there are no answers to choose among {kappa or alpha} by; give one in "
                "steers.slim.by_task"
            )


def _impossible_layers(config: dict) -> Iterator[str]:
    """A block is picked by eye movements, which must be there, or by a sweep over some of the middle third's."""
    for cell in by_key(config).values():
        here = instance(config, cell.method, cell.task)
        where = f"{here.name} on {cell.task}"
        if here.of == "cogsteer" and here.given["official_code"] and TASKS[cell.task].answers:
            yield f"{where}: official_code decodes and does nothing else, and answers are scored; leave it out there"
        rule = here.layer_rule
        if rule in BY_READING and not config["eye_tracking"]["corpora"]:
            yield f"{where}: layer_rule {rule} goes by eye movements; name eye_tracking.corpora, or set adapter_layer"
        if rule and rule not in BY_READING and not swept_layers(config, cell.model, here.of, cell.task):
            yield (
                f"{where}: layer_rule {rule} compares variants that adapt one block each; add some such as "
                "{of: cogsteer, split: dev, adapter_layer: 10} to run.variants"
            )


OF_EVERY_VARIANT = ("shuffled_labels", "of", "models", "tasks", "split", "strengths")
# A variant is run at the steps and with the settings of its own task.
NOT_IN_A_VARIANT = ("steps", "by_task")
NEEDED_BY_VARIANT = {
    "composed": {"parts": "[hpr, lm_steer]"},
    "composed_lm_steer": {"weights": "{toxicity: 1, sentiment: 1}"},
    "transferred_lm_steer": {"from": "the model that the steer was trained on", "models": "[the model that gets it]"},
}
TAKEN_BY_VARIANT = {"composed_lm_steer": ("values",), "transferred_lm_steer": ("solver",)}


def _own_keys(method: str) -> tuple[str, ...]:
    """The keys that the variants of one derived method have beside those of all."""
    return (*NEEDED_BY_VARIANT.get(method, ()), *TAKEN_BY_VARIANT.get(method, ()))


def _misfits(method: str, given: dict, where: str, without: tuple[str, ...] = ()) -> Iterator[str]:
    own = schema()["properties"]["steers"]["properties"].get(method, {"properties": {}})["properties"]
    yield from _misfits_of({key: value for key, value in own.items() if key not in without}, given, where)


def _misfits_of(properties: dict, given: dict, where: str) -> Iterator[str]:
    """What a dictionary of the configuration has that these properties of the schema do not allow."""
    allowed = {"type": "object", "additionalProperties": False, "properties": properties}
    for error in jsonschema.Draft202012Validator(allowed).iter_errors(given):
        yield _sentence(error).removeprefix("config: ").join([f"{where}: ", ""])


def _impossible_classifiers_of_glue(config: dict) -> Iterator[str]:
    settings = config["glue"]
    rule, layers = settings["layer_rule"], settings["sweep_layers"]
    if settings["tasks"] and rule in BY_READING and not config["eye_tracking"]["corpora"]:
        yield f"glue.layer_rule: {rule} goes by eye movements; name eye_tracking.corpora, or pick by validation_middle"
    if rule == "validation" and layers == "middle" and settings["tasks"]:
        yield "glue.layer_rule: validation picks from all layers; set glue.sweep_layers to all or a list"


def _impossible_variants(config: dict) -> Iterator[str]:
    of = {name: config["variants"][name]["of"] for name in config["run"]["variants"]}
    parents = {name: _parents(config["variants"][name]) for name in of}
    for missing in sorted({parent for few in parents.values() for parent in few} - set(config["run"]["methods"])):
        stand = ", ".join(name for name, few in parents.items() if missing in few)
        yield f"run.variants: {stand} stand beside {missing}, which is not in run.methods; add it, or take them out"
    for name, few in parents.items():
        variant, line = config["variants"][name], METHODS[of[name]]
        learnt = [method for method, line in METHODS.items() if line.steer and not line.is_derived]
        for part in set(few) - set(learnt) if line.has_parts else ():
            yield f"variants.{name}.parts: {part!r} is no method that learns{nearest(part, learnt)}"
        for model in variant.get("models", []):
            if model not in config["models"]:
                yield f"variants.{name}.models: unknown model {model!r}{nearest(model, config['models'])}"
        for model in [variant["from"]] if "from" in variant else variant.get("models", []):
            if model not in config["run"]["models"]:
                yield (
                    f"variants.{name}: {' and '.join(few)} is not trained on {model!r}, which is not in run.models; "
                    f"add it, name another, or take {name} out of run.variants"
                )
        for task in dict.fromkeys([*variant.get("tasks", []), *variant.get("weights", {})]):
            if task not in config["run"]["tasks"]:
                yield f"variants.{name}: task {task!r} is not in run.tasks; add it, or take {name} out of run.variants"
        for task in [task for task in config["run"]["tasks"] if task in variant.get("tasks", config["run"]["tasks"])]:
            if variant.get("split") == "dev" and TASKS[task].objective is None:
                yield f"variants.{name}: {task} has no dev prompts; leave split or the task out"
            if line.derived_from and TASKS[task].objective is None:
                if METHODS[of[name]].is_control:  # whose size is the pick's
                    yield f"variants.{name}: nothing is picked on {task}; name tasks without it"
                elif "strengths" not in variant:
                    yield f"variants.{name}: nothing is picked on {task}; give strengths, or name tasks without it"
            for used in variant.get("weights", [task]):
                own = settings_of(config, used)["methods"] if used in TASKS else None
                asked = few if own is None else [*own, *beside(config, used)]
                for parent in few:
                    if parent not in asked and (line.has_parts or is_chosen(config, parent, used)):
                        where = f"tasks.{used}.methods"
                        yield f"variants.{name}: it stands beside {parent}, which is not in {where}; add it"
        if line.is_derived and variant.get("shuffled_labels"):
            yield f"variants.{name}: {of[name]} learns from no labels; leave shuffled_labels out"
        for key, example in NEEDED_BY_VARIANT.get(of[name], {}).items():
            if key not in variant:
                yield f"variants.{name}: {of[name]} needs {key}, such as {example}"
        steer = config["steers"].get("lm_steer", {})
        if of[name] == "transferred_lm_steer" and steer["adaptor"] != "multiply":
            yield f"variants.{name}: only multiply can be transferred, steers.lm_steer.adaptor is {steer['adaptor']}"
        if of[name] == "composed_lm_steer" and len(variant.get("values", steer["values"])) != len(steer["values"]):
            yield f"variants.{name}.values: one value a steer is needed, as in steers.lm_steer.values"


def _parents(variant: dict) -> list[str]:
    """The methods that a variant stands beside: that which it is one of, or whose steers it is made from."""
    line = METHODS[variant["of"]]
    return variant.get("parts", []) if line.has_parts else [line.derived_from or variant["of"]]


def _larger_than_their_base(config: dict) -> Iterator[str]:
    """A variant is compared with the unsteered model on the same prompts, seeds and samples, so those must be there."""
    found = by_key(config)
    for cell in found.values():
        base = found[cell.model, "base", cell.task, cell.split]
        for seed in sorted(set(cell.seeds) - set(base.seeds)):
            yield f"run.sweep.seeds: {seed} is no seed of {cell.task}, which has {list(base.seeds)}; name some of those"
        if cell.samples > base.samples:
            has = f"generations.{cell.task}.samples.{cell.split} is {base.samples}"
            yield f"run.sweep.samples: {cell.samples} is too many, {has}; lower it"
