"""Which figures a configuration has the cells for, what each is drawn from, and how its module is called.

`inputs` gives files by kind; steerlab/figures/inputs.py reads them and passes them on by name: `metrics`, `choices`,
`parameters` (of steers), `directions`, `spectrum`, `coordinates`, `evidence`, `guesses` (of an interpretation), `grid`,
`statistics` and `reliability` (of a calibration), `accuracies` (of probes), `coverage` (of maps), `norms`,
`texts` (ordinary ones under steers), `questions` (of reasoning, under steers), `curves` and `reading` (of eye
movements, and the choice that goes by them),
`compared` and `compared_pairs` (all methods on each task),
`comparisons` (of GLUE's classifiers), `costs` (of their training), `reads` (what readers say of states),
`training` (of readers), `pairs` (of sentences, and how likely each is), `tables` (behind other figures).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from steerlab.data import sources
from steerlab.experiment import comparison, glue, latentqa, lookups, names
from steerlab.experiment.cells import Cell, by_key, instance, is_chosen, seeds_of, swept_layers
from steerlab.experiment.registry import FIGURES, METHODS, TASKS

ROUNDING = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}  # mean deviations of a norm that say nothing
FEW_TEXTS = 30  # of LM-Steer's section on data efficiency
OF_ALL_METHODS = ("truthfulness", "folds", "nq_open", "trivia_qa")  # drawn also where the paper's own is not run
REPLICATIONS = {  # a figure: those whose tables have this run's numbers that are set beside the paper's
    "replication_hpr": ("truthfulness", "toxicity"),
    "replication_slim": ("truthfulness", "slim_layers", "slim_coverage", "slim_ablations"),
    "replication_cogsteer": ("cogsteer_variants", "glue"),
    "replication_latentqa": ("read_relations", "control_sentiment", "control_bias"),
}
ACROSS = "all"  # stands for the model in the names of figures of several models

Cells = Mapping[tuple[str, str, str, str], Cell]


def drawn(config: dict, cells: Cells) -> list[tuple[str, str]]:
    """(model, figure) of every figure that can be drawn, in the order of the registry."""
    found = []
    for figure, line in FIGURES.items():
        for model in [ACROSS] if line.across_models else config["run"]["models"]:
            if inputs(config, cells, model, figure):
                found.append((model, figure))
    return found


def inputs(config: dict, cells: Cells, model: str, figure: str) -> dict[str, list[str]]:
    """The files that a figure is drawn from, by kind; empty where the configuration lacks the cells for it."""
    return _INPUTS[figure](config, cells, model)


def arguments(config: dict, model: str, figure: str) -> dict[str, Any]:
    """The keyword arguments of the module's `table`, besides what is read from the inputs."""
    toxicity = lookups.scorer_label(config, config["scores"]["toxicity"][0])
    sentiment = lookups.scorer_label(config, config["scores"]["sentiment"][0])
    models = list(dict.fromkeys(cell.model for cell in by_key(config).values())) if model == ACROSS else [model]
    judge = [lookups.judge_label(config, one) for one in models]
    both = [toxicity, sentiment, *judge]
    match figure:
        case "comparison" | "equal_kl":
            return {"model": model}
        case "toxicity":
            return {"primary": toxicity, "judge": judge[0]}
        case "strength":
            dummies = _dummies(config)
            return {"method": "lm_steer", "scorers": both} | ({"dummy": dummies[0]} if dummies else {})
        case "sentiment":
            return {"method": "lm_steer", "scorers": both}
        case "composition":
            return {
                "weights": {name: config["variants"][name]["weights"] for name in _composed(config)},
                "scorers": both,
            }
        case "transfer":
            name = _transferred(config)[0]
            variant = config["variants"][name]
            source, target = variant["from"], variant["models"][0]
            judges = [lookups.judge_label(config, one) for one in (source, target)]
            return {
                "source": source, "target": target, "steer": _whole(config),
                "transferred": name, "scorers": [toxicity, sentiment, *judges],
            }  # fmt: skip
        case "data_efficiency":
            return {"texts": {name: config["variants"][name].get("texts") for name in _sizes(config)}, "scorers": both}
        case "adaptors":
            return {"of": "lm_steer", "labels": list(_adaptors(config).items()), "scorers": both}
        case "cogsteer_variants":
            return {
                "of": "cogsteer",
                "labels": list(ablated(config, "cogsteer", split="test").items()),
                "scorers": both,
            }
        case "cogsteer_layers":
            return {"layers": swept_layers(config, model, "cogsteer", "toxicity"), "scorers": both}
        case "size":
            return {"scorers": both}
        case "official_grid":  # no service is asked for these texts
            here = [lookups.local_scorers(config, quantity) for quantity in ("toxicity", "sentiment")]
            return {"scorers": [lookups.scorer_label(config, scorers[0]) for scorers in here if scorers]}
        case "truthfulness" | "folds":
            return {"scorers": [lookups.LIKELIHOOD]}
        case "nq_open" | "trivia_qa":
            return {"scorers": [lookups.LIKELIHOOD], "learnt_on": TASKS[figure].learnt_on}
        case "probe_accuracy":
            return {"model": model}
        case "norm_consistency":
            return {"model": model, "rounding": ROUNDING[config["dtype"]]}
        case "hpr_ablations" | "slim_ablations":
            of = FIGURES[figure].group
            return {"of": of, "labels": list(ablated(config, of).items()), "scorers": [lookups.LIKELIHOOD]}
        case "slim_coverage" | "eye_tracking":
            return {"model": model}
        case "reader_training":
            return {"model": model}
        case "control_sentiment":
            return {"scorers": both}
        case (
            "ordinary_text" | "reasoning" | "latent_reading" | "read_relations" | "read_system_prompts" | "control_bias"
        ):
            return {"model": model, **config["metrics"]}
        case "scale_decoder":
            return dict(config["metrics"])
        case "glue":
            return {"model": model, "rule": config["glue"]["layer_rule"]}
        case "calibration":
            return {"scorers": lookups.calibrated_scorers(config), "shipped": not lookups.calibrates(config)}
        case "replication":
            transferred = _transferred(config)
            targets = [target for name in transferred for target in config["variants"][name]["models"]]
            return {
                "model": model, "transferred": transferred, "few": _few(config),
                "scorers": [*both, *(lookups.judge_label(config, one) for one in targets)],
            }  # fmt: skip
        case _ if figure in REPLICATIONS:
            return {"paper": FIGURES[figure].group, "model": model}
    return {}


# ---- inputs, one function a figure ----


def _metrics(cells: Cells, **fixed: object) -> list[str]:
    """The metrics of the cells that have these values; a list admits several."""
    allowed = {key: value if isinstance(value, list) else [value] for key, value in fixed.items()}
    found = [cell for cell in cells.values() if all(getattr(cell, key) in value for key, value in allowed.items())]
    return [
        names.METRICS.format(model=cell.model, method=cell.method, task=cell.task, split=cell.split) for cell in found
    ]


def _headline(config: dict) -> list[str]:
    return ["base", *config["run"]["methods"]]


def _toxicity(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    metrics = _metrics(cells, model=model, task="toxicity", split="test", method=_headline(config), prompts=None)
    return {"metrics": metrics, "choices": _choices(config, cells, model)} if metrics else {}


def _strength(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    methods = ["base", "lm_steer", *_dummies(config)]
    metrics = _metrics(cells, model=model, task="toxicity", split="dev", method=methods)
    choices = _choices(config, cells, model, method="lm_steer")
    return {"metrics": metrics, "choices": choices} if choices else {}


def _sentiment(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    if (model, "lm_steer", "sentiment", "test") not in cells:
        return {}
    return {"metrics": _metrics(cells, model=model, task="sentiment", split="test", method=["base", "lm_steer"])}


def _composition(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    return _of_variants(cells, model, _composed(config))


def _transfer(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    transferred = _transferred(config)
    if not transferred or _whole(config) is None:
        return {}
    variant = config["variants"][transferred[0]]
    models = [variant["from"], variant["models"][0]]
    methods = ["base", _whole(config), transferred[0]]
    return {"metrics": _metrics(cells, model=models, task="toxicity", split="test", method=methods)}


def _data_efficiency(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    return _of_variants(cells, model, _sizes(config)) if _subsets(config) else {}


def _adaptor_cells(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    found = list(_adaptors(config))
    return _of_variants(cells, model, found) if len(found) > 1 else {}


def _placements(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    return _of_variants(cells, model, list(ablated(config, "cogsteer", split="test")))


def _layer_sweep(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    swept = list(swept_layers(config, model, "cogsteer", "toxicity"))
    metrics = _metrics(cells, model=model, task="toxicity", split="dev", method=["base", *swept])
    choice = names.SWEEP_CHOICE.format(model=model, method="cogsteer", task="toxicity")
    return {"metrics": metrics, "choices": [choice]} if len(swept) > 1 else {}


def _size(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    models = [model for model in config["run"]["models"] if (model, "lm_steer", "toxicity", "test") in cells]
    metrics = _metrics(cells, model=models, task="toxicity", split="test", method=["base", "lm_steer"])
    return {"metrics": metrics, "parameters": _parameters(config, models)} if models else {}


def _replication(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    if (model, "lm_steer", "toxicity", "test") not in cells:
        return {}
    methods = ["base", "lm_steer", *_few(config)]
    metrics = _metrics(cells, model=model, task=["toxicity", "sentiment"], split="test", method=methods)
    metrics += _metrics(cells, task="toxicity", split="test", method=_transferred(config))
    # The dev cells hold the other strengths of the paper's strength table.
    return {
        "metrics": metrics,
        "choices": _choices(config, cells, model, method="lm_steer"),
        "parameters": _parameters(config, [model]),
    }


def _beside(config: dict, cells: Cells, model: str, figure: str) -> dict[str, list[str]]:
    """The tables behind those of the figure's sources that can be drawn, perhaps none, where the paper's method is run
    or a figure of its own is drawn: then its numbers stand alone, as not run."""
    others = {*REPLICATIONS, *OF_ALL_METHODS}
    own = [name for name, line in FIGURES.items() if line.group == FIGURES[figure].group and not line.across_models]
    if not any(inputs(config, cells, model, name) for name in own if name not in others):
        return {}
    sources = [other for other in REPLICATIONS[figure] if inputs(config, cells, model, other)]
    return {"tables": [names.FIGURE_DATA.format(model=model, figure=source) for source in sources]}


def _interpretation(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    given = instance(config, "lm_steer", "toxicity").given
    if given["adaptor"] != "multiply" or not given["held_out"] or (model, "lm_steer", "toxicity", "test") not in cells:
        return {}
    seed = seeds_of(config, "toxicity")[0]
    at = {"model": model, "method": "lm_steer", "task": "toxicity", "seed": seed}
    return {"interpretation": [names.INTERPRETATION.format(**at)]}


def _official_grid(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    return {"grid": [names.OFFICIAL_GRID]} if sources.is_there(config["data"], "official_generations") else {}


def _calibration(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    """The files of the calibration; none where those that ship stand, and then no kind where they know no scorer."""
    if not lookups.calibrated_scorers(config):
        return {}
    return {"calibration": [names.CALIBRATION, names.RELIABILITY] if lookups.calibrates(config) else []}


def _truthfulness(
    config: dict, cells: Cells, model: str, tasks: Sequence[str] = ("truthfulness",)
) -> dict[str, list[str]]:
    """Of tasks that all have cells; the choices are those of what was learnt on."""
    if not all((model, "base", task, "test") in cells for task in tasks):
        return {}
    metrics = _metrics(cells, model=model, task=list(tasks), split="test", method=_headline(config), prompts=None)
    learnt_on = dict.fromkeys(TASKS[task].learnt_on or task for task in tasks)
    choices = [choice for task in learnt_on for choice in _choices(config, cells, model, task=task)]
    return {"metrics": metrics, "choices": choices}


def _of_seeds(config: dict, cells: Cells, model: str, *, method: str, kind: str, pattern: str) -> dict[str, list[str]]:
    """What an analysis made of a method on the questions, a file a seed."""
    cell = cells.get((model, method, "truthfulness", "test"))
    at = {"model": model, "method": method, "task": "truthfulness"}
    return {kind: [pattern.format(**at, seed=seed) for seed in cell.seeds]} if cell else {}


def _reasoning(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    cell = cells.get((model, "cogsteer", "toxicity", "test"))
    at = {"model": model, "task": "toxicity"}
    if cell is None or not cell.chosen_by:
        return {}
    seeds = cell.seeds[: config["analyses"]["reasoning"]["seeds"]]
    return {"questions": [names.REASONING.format(**at, seed=seed) for seed in seeds]}


def _norm_consistency(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    found = _of_seeds(config, cells, model, method="hpr", kind="norms", pattern=names.NORMS)
    return {kind: files[:1] for kind, files in found.items()}


def _slim_choice(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    choices = _choices(config, cells, model, method="slim", task="truthfulness")
    return {"choices": choices} if choices else {}


def _ablations(config: dict, cells: Cells, model: str, of: str) -> dict[str, list[str]]:
    found = [name for name in ablated(config, of) if (model, name, "truthfulness", "test") in cells]
    metrics = _metrics(cells, model=model, task="truthfulness", split="test", method=["base", *found])
    return {"metrics": metrics} if len(found) > 1 else {}


def _eye_tracking(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    if not config["eye_tracking"]["corpora"]:
        return {}
    patterns = {"curves": names.EYE_TRACKING, "reading": names.READING_CHOICE}
    return {kind: [pattern.format(model=model)] for kind, pattern in patterns.items()}


def _glue(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    of = glue.Glue(config, {})
    comparisons, costs = of.comparisons(model), of.costs(model)
    return ({"comparisons": comparisons} if comparisons else {}) | ({"costs": costs} if costs else {})


def _readers(config: dict, cells: Cells, model: str, kind: str, pattern: str) -> dict[str, list[str]]:
    found = latentqa.readers(config, model, pattern)
    return {kind: found} if found else {}


def _identified(config: dict, cells: Cells, model: str, table: str, pattern: str) -> dict[str, list[str]]:
    return _readers(config, cells, model, "reads", pattern) if lookups.task_sources(config, table) else {}


def _scaled(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    found = [
        file for one in config["run"]["models"] for file in latentqa.scaled_readers(config, one, names.LATENT_READING)
    ]
    return {"reads": found} if found else {}


def _control_of_sentiment(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    if (model, "latentqa", "sentiment", "test") not in cells:
        return {}
    others = [name for name, _ in _variants(config, "latentqa")]
    methods = ["base", "instructed", "latentqa", "random_latentqa", *others]
    return {"metrics": _metrics(cells, model=model, task="sentiment", split="test", method=methods)}


def _control_of_bias(config: dict, cells: Cells, model: str) -> dict[str, list[str]]:
    cell = cells.get((model, "latentqa", "bias", "test"))
    return {"pairs": [names.BIAS.format(model=model, seed=seed) for seed in cell.seeds]} if cell else {}


_INPUTS = {
    "comparison": partial(comparison.figure_inputs, compared=names.COMPARISON),
    "equal_kl": partial(comparison.figure_inputs, compared=names.COMPARISON, compared_pairs=names.COMPARED_PAIRS),
    "toxicity": _toxicity,
    "calibration": _calibration,
    "strength": _strength,
    "sentiment": _sentiment,
    "composition": _composition,
    "directions": _interpretation,
    "evidence": _interpretation,
    "spectrum": _interpretation,
    "transfer": _transfer,
    "data_efficiency": _data_efficiency,
    "adaptors": _adaptor_cells,
    "size": _size,
    "replication": _replication,
    "official_grid": _official_grid,
    "truthfulness": _truthfulness,
    "probe_accuracy": partial(_of_seeds, method="hpr", kind="accuracies", pattern=names.PROBES),
    "norm_consistency": _norm_consistency,
    "hpr_ablations": partial(_ablations, of="hpr"),
    "folds": partial(_truthfulness, tasks=("truthfulness", "truthfulness_swapped")),
    "nq_open": partial(_truthfulness, tasks=("nq_open",)),
    "trivia_qa": partial(_truthfulness, tasks=("trivia_qa",)),
    "slim_layers": _slim_choice,
    "slim_kappa": _slim_choice,
    "slim_coverage": partial(_of_seeds, method="slim", kind="coverage", pattern=names.COVERAGE),
    "ordinary_text": partial(_of_seeds, method="slim", kind="texts", pattern=names.ORDINARY_TEXT),
    "slim_ablations": partial(_ablations, of="slim"),
    "cogsteer_variants": _placements,
    "cogsteer_layers": _layer_sweep,
    "reasoning": _reasoning,
    "eye_tracking": _eye_tracking,
    "glue": _glue,
    "latent_reading": partial(_readers, kind="reads", pattern=names.LATENT_READING),
    "reader_training": partial(_readers, kind="training", pattern=names.READER),
    "read_relations": partial(_identified, table="relations", pattern=names.RELATIONS),
    "read_system_prompts": partial(_identified, table="system_prompts", pattern=names.SYSTEM_PROMPTS),
    "scale_decoder": _scaled,
    "control_sentiment": _control_of_sentiment,
    "control_bias": _control_of_bias,
    **{figure: partial(_beside, figure=figure) for figure in REPLICATIONS},
}


def _of_variants(cells: Cells, model: str, variants: list[str]) -> dict[str, list[str]]:
    found = _metrics(cells, model=model, task="toxicity", split="test", method=variants)
    if not found:
        return {}
    return {"metrics": _metrics(cells, model=model, task="toxicity", split="test", method="base") + found}


def _choices(config: dict, cells: Cells, model: str, method: str | None = None, task: str = "toxicity") -> list[str]:
    place = (model, task, "dev", None)  # not those that are asked for fewer prompts
    chosen = [cell for cell in cells.values() if (cell.model, cell.task, cell.split, cell.prompts) == place]
    return [
        names.CHOICE.format(model=model, method=cell.method, task=cell.task)
        for cell in chosen
        if cell.method in METHODS and method in (None, cell.method) and is_chosen(config, cell.method, cell.task)
    ]


def _parameters(config: dict, models: list[str]) -> list[str]:
    seed = seeds_of(config, "toxicity")[0]
    return [names.PARAMETERS.format(model=model, method="lm_steer", task="toxicity", seed=seed) for model in models]


# ---- variants by what they are for ----


def _variants(config: dict, of: str) -> Iterator[tuple[str, dict]]:
    named = ((name, config["variants"][name]) for name in config["run"]["variants"])
    return ((name, variant) for name, variant in named if variant["of"] == of)


def _dummies(config: dict) -> list[str]:
    """The variants that leave the dummy alone: raw values (0, 1)."""
    return [name for name, variant in _variants(config, "composed_lm_steer") if variant.get("values", [1])[0] == 0]


def _composed(config: dict) -> list[str]:
    return [name for name, variant in _variants(config, "composed_lm_steer") if len(variant.get("weights", {})) > 1]


def _transferred(config: dict) -> list[str]:
    return [name for name, _ in _variants(config, "transferred_lm_steer")]


def _subsets(config: dict) -> list[str]:
    """The variants that differ from LM-Steer in the number of training texts alone."""
    return [name for name, variant in _variants(config, "lm_steer") if set(variant) - {"tasks"} == {"of", "texts"}]


def _sizes(config: dict) -> list[str]:
    """The variants with some of the training texts, and the one with all."""
    return [*_subsets(config), *filter(None, [_whole(config)])]


def _few(config: dict) -> list[str]:
    """The variants with the paper's 30 training texts."""
    return [name for name in _subsets(config) if config["variants"][name]["texts"] == FEW_TEXTS]


def _whole(config: dict) -> str | None:
    """The variant that is LM-Steer as it is, at the size of the others."""
    return next((name for name, variant in _variants(config, "lm_steer") if set(variant) - {"tasks"} == {"of"}), None)


def ablated(config: dict, of: str, split: str | None = None) -> dict[str, str]:
    """Variants of a method, and the method as it is at their size, with names for readers; of a split, or of both."""
    found = {}
    for name, variant in _variants(config, of):
        if split not in (None, variant.get("split", "test")):
            continue
        own = {key: value for key, value in variant.items() if key not in ("of", "tasks", "strengths", "split")}
        found[name] = ABLATIONS[of].get(str(own), ", ".join(f"{key} {value}" for key, value in own.items()))
    return found


ABLATIONS = {
    "hpr": {
        "{}": "angle net",
        "{'angle': 'reflection'}": "reflection, no angle net",
        "{'angle_net_layers': 1}": "linear angle",
        "{'official_code': True}": "trained as the official code does",
    },
    "slim": {
        "{}": "risk-aware classifiers",
        "{'loss': 'l2'}": "squared error",
        "{'loss': 'cross_entropy'}": "cross-entropy",
        "{'layers': 3}": "three weighted layers",
        "{'official_code': True}": "threshold of fewest misses (0: always open)",
    },
    "cogsteer": {
        "{}": "the picked block",
        "{'adapter_layer': 'random'}": "a random block",
        "{'adapter_layer': 'all'}": "every block",
        "{'official_code': True}": "decoded as the official code does",
    },
}


def _adaptors(config: dict) -> dict[str, str]:
    """Variants that differ in adaptor or rank alone, and LM-Steer as it is, with names for readers."""
    found = {}
    for name, variant in _variants(config, "lm_steer"):
        if set(variant) - {"of", "tasks"} <= {"adaptor", "rank"}:
            here = instance(config, name, "toxicity").given
            rank = f", rank {here['rank']}" if here.get("rank") and here["adaptor"] == "multiply" else ""
            found[name] = here["adaptor"] + rank
    return found
