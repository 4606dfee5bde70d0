"""How much each job of a plan has to do: tokens read, drawn and trained on, texts, starts. Nothing is run or opened.

All is counted from the configuration; how long texts are, and how large models, stands in rates.yaml. A job is its rule
and wildcards, which Snakemake tells of a plan and a sidecar of what has run.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import yaml

from steerlab import layer_choices
from steerlab.experiment import cells, comparison, glue, latentqa, lookups, names, plan
from steerlab.experiment.registry import METHODS, TASKS
from steerlab.experiment.scorers import text_scorer

if TYPE_CHECKING:
    from steerlab.experiment import Experiment

TABLE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("rates.yaml").read_text())
Units = dict[str, float]


@dataclass(frozen=True)
class Size:
    """How large a model is: parameters, hidden size, blocks and vocabulary."""

    parameters: float
    hidden: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class Job:
    """A job of a plan, or one that has run."""

    rule: str
    wildcards: Mapping[str, str]


@dataclass(frozen=True)
class Work:
    """What a job has to do: amounts by unit of rates.yaml, before they are scaled by the model that does it."""

    units: Units
    model: str | None = None

    @property
    def on_device(self) -> bool:
        """True for a job that asks for a card where the device is one."""
        return "start" in self.units

    @property
    def tokens(self) -> dict[str, float]:
        """Tokens by what is done with them: read, drawn, trained on."""
        return {kind: sum(self.units.get(unit, 0) for unit in units) for kind, units in TOKENS.items()}


TOKENS = {
    "read": ("read", "answers", "capture", "measure"),
    "new": ("decode",),
    "trained on": ("train", "head"),
}
BODY = ("load", "read", "answers", "capture", "measure", "decode", "train", "ask")  # grow with the parameters
HEAD = ("head", "interpret")  # with the output matrix
LOADED = {"start": 1.0, "load": 1.0}  # of a job that runs a model
STATES = ("fit_hpr", "fit_slim")  # with the square of the hidden size


# ---- jobs ----

# Every file of a job but its first, which stands for it.
_BESIDE = (
    names.COMPARED_PAIRS,
    names.CARD_PAGE,
    names.FIGURE_PDF,
    names.FIGURE_DATA,
    names.CAPTION,
    names.RELIABILITY,
    names.CALIBRATION_MAPS,
    names.AUDIT_KEY,
)


def jobs(summary: str) -> list[Job]:
    """The jobs of a plan, from what `snakemake --summary` prints: a line a file, its rule in the third column."""
    rows = [line.split("\t") for line in summary.splitlines() if line.count("\t") >= 3]
    made = [(row[2], row[0]) for row in rows if row[0] != "output_file"]
    return [Job(rule, _wildcards(rule, file)) for rule, file in made if not any(map(_matches(file), _BESIDE))]


def _wildcards(rule: str, file: str) -> Mapping[str, str]:
    found = _pattern(_OUTPUTS[rule]).fullmatch(file) if rule in _OUTPUTS else None
    return found.groupdict() if found else {}


def _matches(file: str) -> Callable[[str], bool]:
    return lambda pattern: _pattern(pattern).fullmatch(file) is not None


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    """A pattern of names.py as a regular expression."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(name)))


# ---- sizes ----


def size_of(config: dict, model: str) -> Size | None:
    """The size of a model of the configuration; None where nobody has told it."""
    definition = config["models"][model]
    match definition["kind"]:
        case "rotated":
            return size_of(config, definition["of"])
        case "random":
            return Size(2e4, 16, definition["layers"], 257)  # of steerlab/tiny_models.py
    known = TABLE["models"].get(definition.get("source") or definition.get("repo") or model)
    return Size(known[0] * 1e6, *known[1:]) if known else None


def reference() -> Size:
    """The model that the rates are told for."""
    millions, *shape = TABLE["models"][TABLE["reference"]]
    return Size(millions * 1e6, *shape)


def scaled(config: dict, work: Work) -> Units:
    """The amounts as the reference model's; those of a model of unknown size are left out, but for its job's start."""
    size, usual = size_of(config, work.model) if work.model else reference(), reference()
    if size is None:
        return {unit: amount for unit, amount in work.units.items() if unit not in (*BODY, *HEAD, *STATES)}
    factors: dict[str, float] = dict.fromkeys(BODY, size.parameters / usual.parameters)
    factors |= dict.fromkeys(HEAD, size.hidden * size.vocabulary / usual.hidden / usual.vocabulary)
    factors |= dict.fromkeys(STATES, (size.hidden / usual.hidden) ** 2)
    return {unit: amount * factors.get(unit, 1) for unit, amount in work.units.items()}


# ---- lengths ----


def longer(config: dict, model: str) -> float:
    """How many tokens a model takes for one of the reference's: random models read bytes."""
    definition = config["models"][model]
    definition = config["models"][definition["of"]] if definition["kind"] == "rotated" else definition
    return TABLE["characters_a_token"] if definition["kind"] == "random" else 1.0


def texts_of(task: str) -> dict[str, float]:
    """Mean lengths and numbers of a task's texts, by rates.yaml."""
    return TABLE["texts"][TASKS[task].swapped or task]


def prompt_tokens(config: dict, task: str, rendering: str = "plain") -> float:
    """Mean tokens of a prompt, with whatever precedes it."""
    preamble = cells.settings_of(config, task).get("preamble") == "harness"
    return texts_of(task)[rendering] + TABLE["preamble"] * preamble


def labelled_texts(x: "Experiment", task: str, part: str = "fitted") -> float:
    """How many labelled texts a fit sees, or the test split has."""
    settings, config = cells.settings_of(x.config, task), x.config
    if TASKS[task].answers:
        asked = {split: plan.prompts(config, task, split) for split in cells.SPLITS}
        door = x.doors[lookups.task_sources(config, task)[0]]
        all_of_them = TABLE["questions"]["sample" if door == "sample" else "other"]
        shares = settings.get("shares", {"train": 0.5})
        trained = min(settings.get("questions") or 1e9, all_of_them * shares.get("train", 0.5))
        return texts_of(task)["a_question"] * (asked["test"] if part == "test" else trained + asked["dev"])
    both = 2 * settings["comments"] if settings.get("comments") else None
    return settings.get("texts") or both or texts_of(task)["texts"]


# ---- work, one function a rule ----


def of_job(x: "Experiment", job: Job) -> Work:
    """What a job of the experiment has to do; a rule without a function of its own is counted by its jobs."""
    counted = _WORK.get(job.rule)
    return counted(x, SimpleNamespace(**job.wildcards)) if counted else Work({job.rule: 1})


def _of_model(model: str, x: "Experiment", **units: float) -> Work:
    """A job that runs a model; tokens are told in the reference's."""
    times = longer(x.config, model)
    tokens = {unit for units in TOKENS.values() for unit in units} - {"decode"}
    return Work(LOADED | {unit: n * (times if unit in tokens else 1) for unit, n in units.items()}, model)


def _capture(x: "Experiment", w: SimpleNamespace) -> Work:
    first, *others = lookups.captured(x.config, w.model, w.task, w.part) or [None]
    if (w.site, w.positions) in others:  # whose shards are there
        return Work({"start": 1.0}, w.model)
    return _of_model(w.model, x, capture=labelled_texts(x, w.task, w.part) * texts_of(w.task)["text"])


def _drawn(x: "Experiment", w: SimpleNamespace) -> Work:
    cell, count = x.cell(w), plan.count(x.config, x.cell(w))
    each = prompt_tokens(x.config, cell.task, x.method(cell.method).rendering)
    read = count.continuations / max(cell.samples, 1) * each
    seeds = len(cell.seeds)
    return _of_model(w.model, x, read=read / seeds, decode=count.tokens / seeds)


def _answers(x: "Experiment", w: SimpleNamespace) -> Work:
    cell, texts = x.cell(w), texts_of(w.task)
    each = texts["plain"] + texts["a_question"] * texts["answer"]  # what precedes all questions is read once a batch
    return _of_model(w.model, x, answers=plan.count(x.config, cell).questions / len(cell.seeds) * each)


def _perplexity(x: "Experiment", w: SimpleNamespace) -> Work:
    return _judged(x, w, w.model if w.judge == "base" else w.judge)


def _judgements(x: "Experiment", w: SimpleNamespace) -> Work:
    return _judged(x, w, lookups.answer_judges(x.config)[w.measure])


def _judged(x: "Experiment", w: SimpleNamespace, judge: str) -> Work:
    """A text is read after its plain prompt; what precedes all questions is read once a batch."""
    count = plan.count(x.config, x.cell(w))
    prompt = count.continuations * texts_of(w.task)["plain"]
    return _of_model(judge, x, read=prompt + count.tokens / longer(x.config, w.model))


def _texts_scored(x: "Experiment", w: SimpleNamespace) -> Work:
    return Work({"score_texts": 1} | _classified(x, "score_texts", plan.count(x.config, x.cell(w)).continuations))


def _classified(x: "Experiment", rule: str, texts: float) -> Units:
    """The starts and tokens of the classifiers among a rule's scorers, which are about as large as the reference."""
    run = [name for name in lookups.scorers_of(x.config, rule) if lookups.is_classifier(text_scorer(x.config, name))]
    return {"start": 1.0, "load": float(len(run)), "read": len(run) * texts * 20} if run else {}


def _steer(x: "Experiment", w: SimpleNamespace) -> Work:
    here = x.instance(w.method, w.task)
    given = here.given
    match here.of:
        case "lm_steer":
            seen = max(given["steps"]) * given["batch_texts"] * min(texts_of(w.task)["text"], given["max_tokens"])
            body: Units = LOADED | {"read": seen} if given["official_code"] else {"start": 1.0}
            return Work(body | {"head": seen * longer(x.config, w.model)}, w.model)
        case "cogsteer":
            seen = given["updates"] * given["batch_blocks"] + given["evaluations"] * given["judging_blocks"] / 3
            share = 1.0 if given["adapter_layer"] == "all" else 0.7  # no gradient goes below the block
            return Work(LOADED | {"train": share * seen * given["block_tokens"]}, w.model)
        case "lora":
            seen = given["updates"] * given["batch_texts"]
            return _of_model(w.model, x, train=seen * min(texts_of(w.task)["text"], given["max_tokens"]))
        case "latentqa":
            asked = given["updates"] * given["batch_rows"] * (READ["dialog"] + READ["asked"])
            return _of_model(w.model, x, train=asked, decode=given["samples"] * 20 * given["with_replies"])
        case "hpr":
            depth = given["angle_net_layers"] if given["angle"] == "net" else 1
            times = given["epochs"] * given["layers"] * depth
            return Work({"start": 1, "fit_hpr": labelled_texts(x, w.task) * times}, w.model)
        case "slim":
            size = size_of(x.config, w.model) or reference()
            return Work({"start": 1, "fit_slim": labelled_texts(x, w.task) * given["epochs"] * size.layers}, w.model)
    return Work({"start": 1}, w.model)


# Passes over the dev prompts, or the dialogs it learnt from, until a random control has the size that is wanted.
_SIZINGS = {"lora": 17, "latentqa": 17}


def _derived(x: "Experiment", w: SimpleNamespace) -> Work:
    here = x.instance(w.method, w.task)
    if not here.method.is_control:
        return Work({"start": 1}, w.model)
    of = here.method.derived_from or ""
    if w.method in METHODS and cells.is_sized(w.method, w.task):
        sized_on = cells.SIZED_ON * (READ["dialog"] if METHODS[of].asks_reader else texts_of(w.task)["text"])
    else:
        sized_on = plan.prompts(x.config, w.task, "dev") * prompt_tokens(x.config, w.task)
    return _of_model(w.model, x, read=_SIZINGS.get(of, 3) * sized_on)


READ = TABLE["latent_reading"]


def rows_read(config: dict, *splits: str) -> float:
    """Rows of the table of latent reading."""
    asked = config["latent_reading"]["rows"]
    return sum(READ[split] if asked[split] is None else asked[split] for split in splits)


def _reader(x: "Experiment", w: SimpleNamespace) -> Work:
    given = latentqa.hyperparameters(x.config, w.setting)
    seen = given["updates"] * given["batch_rows"] * given["accumulation"]
    captured = rows_read(x.config, "train", "dev") * READ["dialog"]
    return _of_model(w.model, x, train=seen * READ["asked"], capture=captured)


def _attributes(x: "Experiment", w: SimpleNamespace) -> Work:
    return _of_model(w.model, x, ask=rows_read(x.config, "dev", "test"))


def _relations(x: "Experiment", w: SimpleNamespace) -> Work:
    return _of_model(w.model, x, ask=x.config["relations"]["facts"] or TABLE["asked"])


def _system_prompts(x: "Experiment", w: SimpleNamespace) -> Work:
    return _of_model(w.model, x, ask=x.config["system_prompts"]["items"] or TABLE["asked"])


def _bias(x: "Experiment", w: SimpleNamespace) -> Work:
    asked = latentqa.biased(x.config, w.model, int(w.seed))
    passes = sum(len(cell.strengths) * plan.prompts(x.config, "bias", "test") for cell, _ in asked)
    return _of_model(w.model, x, answers=passes * 2 * texts_of("bias")["plain"])


def _under_steers(x: "Experiment", w: SimpleNamespace, tokens: float) -> Work:
    return _of_model(w.model, x, measure=(1 + len(x.measured(w))) * tokens)


def _norms(x: "Experiment", w: SimpleNamespace) -> Work:
    from steerlab.experiment.measured import NORM_PROMPTS

    prompts = min(NORM_PROMPTS, plan.prompts(x.config, w.task, "dev") or NORM_PROMPTS)
    return _under_steers(x, w, prompts * prompt_tokens(x.config, w.task))


def _ordinary(x: "Experiment", w: SimpleNamespace) -> Work:
    asked = x.config["analyses"]["ordinary_text"]
    return _under_steers(x, w, (asked["texts"] or TABLE["ordinary_text"]) * asked["tokens"] / longer(x.config, w.model))


def _reasoning(x: "Experiment", w: SimpleNamespace) -> Work:
    asked = x.config["analyses"]["reasoning"]["questions"] or TABLE["reasoning"]["questions"]
    return _under_steers(x, w, asked * TABLE["reasoning"]["tokens"])


def _divergence(x: "Experiment", w: SimpleNamespace) -> Work:
    asked, drawn = x.config["analyses"]["divergence"], cells.drawn_of(x.config, w.task)
    prompts = plan.prompts(x.config, w.task, "test", min(filter(None, asked.values()), default=None))
    prompts = min(prompts, drawn.get("questions") or prompts)
    each = prompt_tokens(x.config, w.task) + drawn["max_new_tokens"] / longer(x.config, w.model)
    settings = sum(len(cell.strengths) for cell in comparison.measured(x.config, w.model, w.task, int(w.seed)))
    return _of_model(w.model, x, measure=(1 + settings) * prompts * each)


def _speed(x: "Experiment", w: SimpleNamespace) -> Work:
    asked = x.config["analyses"]["speed"]
    return _of_model(w.model, x, decode=2 * len(x.measured(w)) * asked["turns"] * asked["rows"] * asked["tokens"])


def _interpreted(x: "Experiment", w: SimpleNamespace) -> Work:
    return _of_model(w.model, x, interpret=x.config["analyses"]["interpretation"]["texts"])


def _eye_tracking(x: "Experiment", w: SimpleNamespace) -> Work:
    read = _of_model(w.model, x, read=TABLE["eye_tracking"] * len(x.config["eye_tracking"]["corpora"]))
    return Work(read.units | {"correlate_eye_tracking": 1}, w.model)


# ---- GLUE ----


def _glue_rows(x: "Experiment", task: str) -> tuple[float, float, float, float]:
    """Rows to train, to choose and to test on, and the tokens of each."""
    asked, (there, test, tokens) = x.config["glue"], TABLE["glue"][task]
    train = min(asked["train_rows"] or 1e9, there * 0.85)
    dev = min(asked["dev_rows"] or 1e9, there * 0.15)
    return train, dev, min(asked["test_rows"] or 1e9, test), min(tokens, asked["max_tokens"])


def _sweep(x: "Experiment", w: SimpleNamespace) -> Work:
    asked, (train, dev, _, tokens) = x.config["glue"], _glue_rows(x, w.task)
    size = size_of(x.config, w.model) or reference()
    times = len(layer_choices.swept(asked["sweep_layers"], size.layers)) * len(asked["sweep_seeds"])
    train = min(train, asked["sweep_rows"] or 1e9) * asked["epochs"]
    return _of_model(w.model, x, train=times * train * tokens, read=times * dev * tokens)


def _classifier(x: "Experiment", w: SimpleNamespace) -> Work:
    train, _, test, tokens = _glue_rows(x, w.task)
    share = 1 / 3 if w.intervention == glue.HEAD else 1  # nothing of the body is trained
    return _of_model(w.model, x, train=share * train * x.config["glue"]["epochs"] * tokens, read=test * tokens)


def _training_cost(x: "Experiment", w: SimpleNamespace) -> Work:
    asked, (*_, tokens) = x.config["glue"], _glue_rows(x, w.task)
    steps = asked["measured_steps"] * (1 + 2 * len(asked["interventions"]))
    return _of_model(w.model, x, train=steps * asked["batch_rows"] * tokens)


_WORK: dict[str, Callable[["Experiment", SimpleNamespace], Work]] = {
    "capture_activations": _capture,
    "generate_continuations": _drawn,
    "score_answers": _answers,
    "score_perplexity": _perplexity,
    "judge_answers": _judgements,
    "score_texts": _texts_scored,
    "train_steer": _steer,
    "derive_steer": _derived,
    "train_reader": _reader,
    "read_attributes": _attributes,
    "answer_relations": _relations,
    "identify_system_prompts": _system_prompts,
    "measure_bias": _bias,
    "measure_norms": _norms,
    "measure_ordinary_text": _ordinary,
    "measure_reasoning": _reasoning,
    "measure_divergence": _divergence,
    "measure_speed": _speed,
    "interpret_steer": _interpreted,
    "correlate_eye_tracking": _eye_tracking,
    "evaluate_probes": lambda x, w: Work({"start": 1}, w.model),
    "measure_coverage": lambda x, w: Work({"start": 1}, w.model),
    "sweep_layers": _sweep,
    "train_classifier": _classifier,
    "measure_training": _training_cost,
}

_OUTPUTS = {
    "capture_activations": names.ACTIVATIONS,
    "generate_continuations": names.GENERATIONS,
    "score_answers": names.ANSWER_SCORES,
    "score_texts_by_service": names.SERVICE_SCORES,
    "score_references": names.REFERENCE_SCORES,
    "score_perplexity": names.PERPLEXITY_SCORES,
    "judge_answers": names.JUDGEMENTS,
    "score_texts": names.TEXT_SCORES,
    "train_steer": names.STEER,
    "derive_steer": names.STEER,
    "train_reader": names.READER,
    "read_attributes": names.LATENT_READING,
    "answer_relations": names.RELATIONS,
    "identify_system_prompts": names.SYSTEM_PROMPTS,
    "measure_bias": names.BIAS,
    "measure_norms": names.NORMS,
    "measure_ordinary_text": names.ORDINARY_TEXT,
    "measure_reasoning": names.REASONING,
    "measure_divergence": names.DIVERGENCE,
    "measure_speed": names.SPEED,
    "compare_methods": names.COMPARISON,
    "write_card": names.CARD,
    "interpret_steer": names.INTERPRETATION,
    "correlate_eye_tracking": names.EYE_TRACKING,
    "evaluate_probes": names.PROBES,
    "measure_coverage": names.COVERAGE,
    "prepare_model": names.MODEL,
    "fetch_source": names.RAW,
    "sweep_layers": names.LAYER_SWEEP,
    "train_classifier": names.CLASSIFIER,
    "measure_training": names.TRAINING_COST,
}
