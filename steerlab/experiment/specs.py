"""The spec of each stage: exactly the leaves that change its bytes, and what its script needs to know.

One function a rule, `(config, doors, **wildcards) -> dict`. The rules turn it into sorted JSON; a change in it, and in
nothing else of the configuration, reruns the rule.
"""

from steerlab.data import glue as glue_data
from steerlab.data import sources
from steerlab.experiment import audits, cards, cells, figures, names
from steerlab.experiment.codes import ROOT, code_digest, file_digest
from steerlab.experiment.lookups import (
    CALIBRATED_ON,
    all_models,
    calibrated_scorers,
    calibrates,
    compute,
    derivation,
    interpretation_scorer,
    is_classifier,
    judge_label,
    local_scorers,
    primary_label,
    runs_classifier,
    scorer_label,
    task_sources,
    text_scorers,
    training_source,
    versions_of,
)
from steerlab.experiment.registry import ANALYSED, FIGURES, METHODS, TASKS, TextScorer
from steerlab.experiment.scorers import text_scorer
from steerlab.metrics import calibrated


def fetch_source(config: dict, doors: dict, *, source: str, door: str) -> dict:
    """The hashes and formats of a source's files, for those of one door."""
    return {"source": source, "door": door, "pinned": sources.source_spec(source, door)}


def make_task_table(config: dict, doors: dict, *, task: str) -> dict:
    """The module that writes a task's table, its sources' doors and its settings, without what cells alone look at."""
    used = {name: doors[name] for name in task_sources(config, task)}
    if task in ANALYSED:
        section = config[ANALYSED[task].section]
        settings = {key: section[key] for key in ANALYSED[task].settings}
        return {"module": ANALYSED[task].module, "doors": used, "settings": settings}
    given = cells.settings_of(config, task)
    settings = {key: value for key, value in given.items() if key not in ("seeds", "methods", "beside", "source")}
    settings |= {"renderings": ["plain", "instructed"]}
    if TASKS[task].swapped:
        settings["swapped"] = True
    if TASKS[task].learnt_on:
        settings["split"] = "test_only"
    harness = {"versions": versions_of("lm_eval")} if settings.get("preamble") == "harness" else {}
    return {"module": TASKS[task].module, "doors": used, "settings": settings} | harness


def shuffle_labels(config: dict, doors: dict, *, task: str) -> dict:
    """How many labels there are to shuffle stands in the table; nothing else is asked."""
    return {"task": task}


def prepare_model(config: dict, doors: dict, *, model: str) -> dict:
    """A model's entry without `cards`, which changes no byte, and the versions that write it."""
    versions = versions_of("torch", "transformers")
    definition = {key: value for key, value in config["models"][model].items() if key != "cards"}
    return {"name": model, "definition": definition, "versions": versions}


def prepare_scorer(config: dict, doors: dict, *, scorer: str) -> dict:
    """The scorer, and the source or the definition that it is made of."""
    line = text_scorer(config, scorer)
    if line.definition is None:
        return {"scorer": line.scorer, "source": line.source}
    # The label tells a folder of other files at the same path, whatever their times are.
    return {"scorer": line.scorer, "definition": dict(line.definition), "label": scorer_label(config, scorer)}


def capture_activations(
    config: dict, doors: dict, *, model: str, task: str, part: str, site: str, positions: str
) -> dict:
    """Where and how the states of the labelled texts of a part are taken."""
    return _captured(config, site, positions, part)


def train_steer(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    """The steer's class, its hyperparameters and seed, and the states that it is fitted on."""
    instance = cells.instance(config, method, task)
    line = instance.method
    where = _captured(config, line.captures, line.positions) if line.captures else compute(config) | {"site": None}
    rule = {"layer_rule": instance.layer_rule} if instance.layer_rule else {}
    return where | rule | {"steer": line.steer, "hyperparameters": instance.hyperparameters, "seed": int(seed)}


def derive_steer(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    """The function that derives a steer, from steers of which tasks or methods, and which of them have a choice."""
    instance = cells.instance(config, method, task)
    _, taken = derivation(config, model, method, task)
    return compute(config) | {
        "derive": instance.method.derive,
        "hyperparameters": instance.hyperparameters,
        "of": [of if instance.method.has_parts else learnt_on for of, learnt_on in taken],
        "chosen": [cells.is_chosen(config, *each) for each in taken],
        "texts": cells.SIZED_ON,
        "seed": int(seed),
    }


def generate_continuations(
    config: dict, doors: dict, *, model: str, method: str, task: str, split: str, seed: str
) -> dict:
    """Steps and strengths to generate at, how tokens are drawn, how many prompts, and the seed."""
    cell, line = _cell(config, model, method, task, split), cells.instance(config, method, task).method
    drawn = dict(cells.drawn_of(config, task))
    del drawn["samples"]
    asked = drawn.pop("questions", None)
    return compute(config) | {
        "steer": line.steer,
        "has_checkpoints": not line.is_derived,
        "rendering": line.rendering,
        "steps": list(cell.steps),
        "strengths": list(cell.strengths),
        "decoding": drawn | {"samples": cell.samples},
        "prompts": min(filter(None, (asked, cell.prompts)), default=None),
        "split": split,
        "seed": int(seed),
    }


def score_answers(config: dict, doors: dict, *, model: str, method: str, task: str, split: str, seed: str) -> dict:
    """Steps and strengths under which given answers are scored, how many questions, and tokens at a time."""
    cell, line = _cell(config, model, method, task, split), cells.instance(config, method, task).method
    return compute(config) | {
        "steer": line.steer,
        "has_checkpoints": not line.is_derived,
        "rendering": line.rendering,
        "steps": list(cell.steps),
        "strengths": list(cell.strengths),
        "tokens_a_batch": config["scores"]["answers"]["tokens_a_batch"],
        "prompts": cell.prompts,
        "split": split,
        "seed": int(seed),
    }


def score_texts(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    """The scorers with their versions, and the seeds whose continuations they judge."""
    seeds = list(_cell(config, model, method, task, split).seeds)
    return _scoring(config, text_scorers(config)) | {"seeds": seeds, "split": split}


def score_texts_by_service(
    config: dict, doors: dict, *, model: str, method: str, task: str, split: str, service: str
) -> dict:
    """Whom a service's answers are kept under and what is asked of a text, without quota and address."""
    from steerlab.scores import services

    settings = config["scores"][service]
    return {
        "scorer": text_scorer(config, service).scorer,
        "version": services.version(service, settings),
        "asked": {key: value for key, value in settings.items() if key in ASKED},
        "seeds": list(_cell(config, model, method, task, split).seeds),
        "split": split,
    }


ASKED = ("attributes", "languages", "model", "categories")  # what a service is asked; the quota changes no score


def score_references(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    """The seeds, and the versions of the packages of BLEU and ROUGE."""
    seeds = list(_cell(config, model, method, task, split).seeds)
    return {"seeds": seeds, "split": split, "versions": versions_of("sacrebleu", "rouge-score")}


def judge_answers(config: dict, doors: dict, *, model: str, method: str, task: str, split: str, measure: str) -> dict:
    """What a judge is asked about the answers, and tokens at a time."""
    seeds = list(_cell(config, model, method, task, split).seeds)
    settings = config["scores"]["answers"]
    how = {"measure": measure, "tokens_a_batch": settings["tokens_a_batch"]}
    return compute(config) | how | {"seeds": seeds, "split": split}


def score_perplexity(config: dict, doors: dict, *, model: str, method: str, task: str, split: str, judge: str) -> dict:
    """The judge (the unsteered model, or another one), and tokens at a time."""
    seeds = list(_cell(config, model, method, task, split).seeds)
    settings = {"tokens_a_batch": config["scores"]["perplexity"]["tokens_a_batch"]}
    return compute(config) | settings | {"seeds": seeds, "split": split, "unsteered": judge in ("base", model)}


def compute_metrics(config: dict, doors: dict, *, model: str, method: str, task: str, split: str) -> dict:
    """`shipped_maps`: digest of the maps that ship, for a test cell that has its scores calibrated by them."""
    base = _cell(config, model, "base", task, split)
    by_shipped = is_calibrated(task, split) and not calibrates(config) and calibrated_scorers(config)
    maps = {"shipped_maps": file_digest(calibrated.SHIPPED_MAPS)} if by_shipped else {}
    return {
        **config["metrics"],
        **maps,
        "model": model,
        "method": method,
        "task": task,
        "split": split,
        "seeds": list(_cell(config, model, method, task, split).seeds),
        "base_seeds": list(base.seeds),
        "data": "sample" if rests_on_sample(config, doors, method, task) else "real",
    }


def is_calibrated(task: str, split: str) -> bool:
    """Choices go by raw scores, so on dev prompts a map would only make reruns; a task of answers has no toxicity."""
    return split == "test" and not TASKS[task].answers


def choose_settings(config: dict, doors: dict, *, model: str, method: str, task: str) -> dict:
    """The metric that a choice moves, by which scorer, and how far the perplexity may rise (a ratio)."""
    objective = TASKS[task].objective
    assert objective, f"nothing is chosen on {task}"
    limit = config["choices"]["perplexity_limit"] if objective.fluent else None
    return {
        "objective": objective.metric,
        "goal": objective.goal,
        "scorer": primary_label(config, task),
        "judge": judge_label(config, model) if objective.fluent else None,
        "perplexity_limit": limit,
    }


def choose_layer_by_sweep(config: dict, doors: dict, *, model: str, method: str, task: str) -> dict:
    """The metric that picks a block, and the variants that adapt one block each."""
    objective = TASKS[task].objective
    assert objective, f"nothing is chosen on {task}"
    return {
        "objective": objective.metric,
        "goal": objective.goal,
        "scorer": primary_label(config, task),
        "layers": cells.swept_layers(config, model, method, task),
    }


def correlate_eye_tracking(config: dict, doors: dict, *, model: str) -> dict:
    """Sentences at a time, permutations and resamples, and the versions that compute."""
    settings = {key: config["eye_tracking"][key] for key in ("batch_sentences", "permutations")}
    versions = {"versions": versions_of("torch", "transformers", "scikit-learn", "scipy")}
    return compute(config) | versions | settings | config["metrics"]


def choose_layer_by_reading(config: dict, doors: dict, *, model: str) -> dict:
    """The model alone: all else is in the correlations that the choice reads."""
    return {"model": model}


def evaluate_probes(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    """The test states that probes are judged on, and how intervals are drawn."""
    line = METHODS[method]
    return _captured(config, line.captures, line.positions, "test") | config["metrics"] | {"seed": int(seed)}


def measure_coverage(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    """The fitted and the test states that maps are judged on, and the share that a fit held out."""
    line = METHODS[method]
    held_out = cells.instance(config, method, task).given["held_out"]
    parts = {part: _captured(config, line.captures, line.positions, part) for part in ("fitted", "test")}
    return parts | config["metrics"] | {"seed": int(seed), "held_out": held_out}


def interpret_steer(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    """How many directions, words and texts are shown, and the scorer that tells which side is toxic."""
    settings = cells.instance(config, method, task)
    return (
        _captured(config, METHODS[method].captures, METHODS[method].positions)
        | _scorers(config, [interpretation_scorer(config)])
        | config["analyses"]["interpretation"]
        | {"seed": int(seed), "held_out": settings.given["held_out"]}
    )


def count_parameters(config: dict, doors: dict, *, model: str, method: str, task: str, seed: str) -> dict:
    """Whose parameters are counted; their number stands in the files."""
    return {"model": model, "method": method}


def score_official_generations(config: dict, doors: dict) -> dict:
    """The scorers, and how intervals are drawn."""
    return _scoring(config, text_scorers(config)) | config["metrics"]


def calibrate_scorers(config: dict, doors: dict) -> dict:
    """The scorers of toxicity, the doors of the texts with Perspective's scores, and how intervals are drawn."""
    used = {name: doors[name] for name in CALIBRATED_ON}
    return _scoring(config, local_scorers(config, "toxicity")) | config["metrics"] | {"doors": used}


def plot_figure(config: dict, doors: dict, *, model: str, figure: str) -> dict:
    """The figure's module, arguments and caption, and what of its numbers rests on sample data."""
    caption = ROOT / "captions" / f"{FIGURES[figure].module.rpartition('.')[2]}.rst"
    return {
        "figure": figure,
        "module": FIGURES[figure].module,
        "caption": caption.read_text() if caption.is_file() else "",
        "arguments": figures.arguments(config, model, figure),
        "intervals": {} if figure in WITHOUT_INTERVALS else {"confidence": config["metrics"]["confidence"]},
        "sample_data": _sample_data(config, doors, figure),
    }


def _sample_data(config: dict, doors: dict, figure: str) -> str:
    """What a caption says of sample data: nothing, that all is, or which part is."""
    if tables := READ_BY_READERS.get(figure):
        made_up = [
            what for what, table in tables.items() if "sample" in {doors[one] for one in task_sources(config, table)}
        ]
        return f"sample data ({' and '.join(made_up)})" if made_up else ""
    if table := READ_TABLES.get(figure):
        corpora = task_sources(config, table)
        made_up = [corpus for corpus in corpora if doors[corpus] == "sample"]
        which = "" if made_up == corpora else f" in place of {' and '.join(made_up)}"
        return f"a synthetic sample{which}" if made_up else ""
    if figure in figures.REPLICATIONS:
        made_up = [other for other in figures.REPLICATIONS[figure] if _sample_data(config, doors, other)]
        return f"sample data (where the figures {', '.join(made_up)} do)" if made_up else ""
    if figure == "glue":
        rests_on = {f"the rows of {task}": glue_data.source(task) for task in config["glue"]["tasks"]}
    else:
        rests_on = _rests_on(config, figure)
    sample = [what for what, source in rests_on.items() if doors.get(source) == "sample"]
    return "sample data" + ("" if len(sample) == len(rests_on) else f" ({sample[0]})") if sample else ""


# Figures of texts that are read and not asked about, and their tables.
READ_TABLES = {
    "eye_tracking": "eye_tracking",
    "latent_reading": "latent_reading",
    "reader_training": "latent_reading",
    "scale_decoder": "latent_reading",
}

# Figures of texts that readers were not trained on, and the tables of these and of what they were trained on.
_TRAINED_ON = {"what the readers were trained on": "latent_reading"}
READ_BY_READERS = {
    "read_relations": {"the facts": "relations"} | _TRAINED_ON,
    "read_system_prompts": {"the system prompts": "system_prompts"} | _TRAINED_ON,
}


def _rests_on(config: dict, figure: str) -> dict[str, str]:
    if figure in CONTROLLED:
        learnt = {"what the reader learnt from": config["latent_reading"]["corpora"][0]}
        return CONTROLLED[figure] | learnt | {"what the control was learnt on": "instructions"}
    rests_on = {"what the steers learnt from": training_source(config, figure_task(figure))}
    asked = {"ordinary_text": {"the texts": "ordinary_text"}, "reasoning": {"the questions": "reasoning"}}
    return rests_on | asked.get(figure, {})


# Figures of a control, with what it was asked about.
CONTROLLED = {"control_sentiment": {"the prompts": "sentiment_prompts"}, "control_bias": {"the pairs": "crows_pairs"}}


def figure_task(figure: str) -> str:
    """The task that a figure is about; of those of several tasks, the one whose training texts its caption tells of."""
    return "truthfulness" if FIGURES[figure].group in ("hpr", "slim") else "toxicity"


# Figures without intervals, or whose intervals have a confidence of their own.
WITHOUT_INTERVALS = ("calibration", "directions", "evidence", "spectrum", "slim_layers", "slim_kappa")
WITHOUT_INTERVALS += ("reader_training",)


GROUPS = {
    "comparison": "Methods side by side",
    "lm_steer": "LM-Steer",
    "hpr": "HPR and truthfulness",
    "slim": "SLIM",
    "cogsteer": "CogSteer",
    "latentqa": "LatentQA",
}


def build_report(config: dict, doors: dict) -> dict:
    """The whole configuration, which the report prints, with sources, groups of figures and what was not run."""
    return {
        "config": config,
        "groups": {name: GROUPS[figure.group] for name, figure in FIGURES.items()},
        "data": cards.data(config, doors, all_models(config)),
        "models": cards.models(config, doors, all_models(config)),
        "scorers": cards.scorers(config, doors),
        "pairs": audits.file(config, names.AUDIT_PAIRS),
        "not_run": [
            f"{method}: not among run.methods of this configuration"
            for method in sorted(set(METHODS) - {"base"} - {cell.method for cell in cells.by_key(config).values()})
            if not any(config["variants"][name]["of"] == method for name in config["run"]["variants"])
        ],
    }


def _cell(config: dict, model: str, method: str, task: str, split: str) -> cells.Cell:
    return cells.by_key(config)[model, method, task, split]


PARTS = {"fitted": ["train", "dev"], "test": ["test"]}  # splits of the labelled texts


def _captured(config: dict, site: str | None, positions: str, part: str = "fitted") -> dict:
    """What activations are captured with; whoever opens them needs the same, and finds the same shards."""
    code = code_digest("scripts/capture_activations.py")
    return compute(config) | {
        "site": site,
        "positions": positions,
        "splits": PARTS[part],
        "activations": config["activations"],
        "capture_code": code,
    }


def _scoring(config: dict, names: list[str]) -> dict:
    """The scorers, and where they compute; a classifier always computes in float32, with its own attention."""
    where = {key: config[key] for key in ("device", "threads")} if runs_classifier(config, names) else {}
    return where | _scorers(config, names)


def _scorers(config: dict, names: list[str]) -> dict:
    """The scorers of texts in their order, with whatever decides their scores; `prepared`: whether one has a folder."""
    lines = {name: text_scorer(config, name) for name in names}
    packages = [line.package for line in lines.values() if line.package]
    packages += ["torch", "transformers"] if any(map(is_classifier, lines.values())) else []
    return {
        "scorers": [_scorer(config, name, line) for name, line in lines.items()],
        "versions": versions_of(*packages, "scikit-learn"),
    }


def _scorer(config: dict, name: str, line: TextScorer) -> dict:
    """One scorer for `scores.chosen`; the label says which classifier."""
    plain = {"scorer": line.scorer, "prepared": line.prepared}
    own = {"label": scorer_label(config, name), "settings": {"device": config["device"]}}
    return plain | (own if is_classifier(line) else {})


def rests_on_sample(config: dict, doors: dict, method: str, task: str) -> bool:
    """True if anything that the cell was trained or prompted with is sample data."""
    return any(doors[source] == "sample" for source in used_sources(config, method, task))


def used_sources(config: dict, method: str, task: str) -> set[str]:
    """The sources that a cell was trained and prompted with."""
    used = {task_sources(config, task)[0]}
    for of, learnt_on in derivation(config, "", method, TASKS[task].learnt_on or task)[1]:
        if METHODS[of].asks_reader:  # what it is wished to say is a setting, not data
            used |= {"instructions", *config["latent_reading"]["corpora"]}
        elif METHODS[of].needs:
            used |= {training_source(config, learnt_on)}
    return used
