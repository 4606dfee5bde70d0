"""The experiment as data: what is run, what each file is called, what each job depends on. Pure and torch-free.

The rules see one object, `load(config)`; nothing here touches the network, a model or, but for the sidecar that says of
how many shards a file was made, a result.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from steerlab import layer_choices
from steerlab.data import glue as glue_data
from steerlab.data import sources
from steerlab.experiment import (
    audits,
    codes,
    comparison,
    figures,
    glue,
    latentqa,
    lookups,
    measured,
    names,
    plan,
    resources,
    shards,
    specs,
)
from steerlab.experiment.cells import Cell, Instance, by_key, instance, is_chosen, is_sized, swept_layers
from steerlab.experiment.config import ConfigError, check
from steerlab.experiment.registry import ANALYSED, FIGURES, METHODS, TASKS, Method
from steerlab.experiment.scorers import text_scorer
from steerlab.metrics.calibrated import SHIPPED

__all__ = ["METHODS", "TASKS", "ConfigError", "Experiment", "Method", "load", "load_or_exit", "names"]


def load(raw: dict) -> "Experiment":
    """Check a configuration and resolve device, dtype and doors; raises ConfigError with one line an error."""
    config = resources.resolve(check(raw))
    doors, errors = sources.choose_doors(config["data"], sorted(_needed_sources(config)))
    errors = errors or list(dict.fromkeys(latentqa.unknown_wishes(config, doors)))
    if errors:
        raise ConfigError("\n".join(f"config: {error}" for error in errors))
    return Experiment(config, doors)


def load_or_exit(raw: dict) -> "Experiment":
    """`load` for the command line and the Snakefile: errors are printed as they are, and nothing is planned."""
    try:
        return load(raw)
    except ConfigError as error:
        sys.exit(str(error))


def _needed_sources(config: dict) -> set[str]:
    needed = {name for cell in by_key(config).values() for name in lookups.task_sources(config, cell.task)}
    needed |= {config["models"][model].get("source") for model in lookups.all_models(config)}
    needed |= {text_scorer(config, scorer).source for scorer in lookups.text_scorers(config)}
    needed |= {"official_generations"} if lookups.has_official_generations(config) else set()
    needed |= set(lookups.CALIBRATED_ON) if lookups.calibrates(config) else set()
    drawn = {figure for _, figure in figures.drawn(config, by_key(config))}
    needed |= drawn & {"ordinary_text", "reasoning"}  # figures whose texts no task has, named as their source
    needed |= {"reasoning"} if "comparison" in drawn else set()
    needed |= {name for task in _analysed(config) for name in lookups.task_sources(config, task)}
    needed |= {glue_data.source(task) for task in config["glue"]["tasks"]}
    for cell in latentqa.controlled(config):
        needed |= set(latentqa.control_sources(config, cell.method, cell.task))
    return {name for name in needed if name}


def _analysed(config: dict) -> list[str]:
    """The tables of texts that are read and not asked about, of those that the configuration has the sources of."""
    return [task for task in ANALYSED if lookups.task_sources(config, task)]


@dataclass(frozen=True)
class Experiment:
    """A checked configuration with the questions that the rules ask of it.

    config: all defaults filled, device and dtype resolved; doors: the door of each needed source.
    """

    config: dict
    doors: dict[str, str]

    @cached_property
    def cells(self) -> dict[tuple[str, str, str, str], Cell]:
        """Every cell by (model, method, task, split)."""
        return by_key(self.config)

    @property
    def models(self) -> list[str]:
        """The models of all cells and judges, and those that they are made from."""
        return lookups.all_models(self.config)

    @property
    def tasks(self) -> list[str]:
        """The tasks that have cells, then the tables of texts that are read and not asked about."""
        return [*dict.fromkeys(cell.task for cell in self.cells.values()), *_analysed(self.config)]

    @property
    def summary(self) -> str:
        """What is printed before a run: where models run, and how much is asked of them."""
        where = ", ".join(f"{key}: {self.config[key]}" for key in ("device", "dtype", "store"))
        asked = plan.summary(plan.counted(self.config)) + self.glue.summary + latentqa.summary(self.config)
        return f"{where}\nplan: {asked}"

    @property
    def glue(self) -> glue.Glue:
        """What concerns GLUE."""
        return glue.Glue(self.config, self.doors)

    @property
    def gpu(self) -> int:
        """GPUs that a model job asks for, of a model that fits on one."""
        return int(self.config["device"] == "cuda")

    def gpu_of(self, rule: str, wildcards: Iterable[tuple[str, str]]) -> int:
        """GPUs that a job of a rule asks for: as many as the largest of the models that it runs lies on."""
        return self.gpu * lookups.cards(self.config, rule, dict(wildcards))

    def gpus(self, rule: str) -> int | Callable[[SimpleNamespace], int]:
        """`gpu_of` for a rule; the number itself where it is one for all jobs, as asking thousands takes seconds."""
        alike = not self.gpu or all(model["cards"] == 1 for model in self.config["models"].values())
        return self.gpu if alike else lambda w: self.gpu_of(rule, w.items())

    def scoring(self, rule: str) -> dict[str, int]:
        """What a job of a rule that scores texts asks for: as a model job where it runs a model, else nothing."""
        asked = {"gpu": self.gpu, "mem_mb": self.config["mem_mb"], "runtime": self.config["runtime"]}
        return asked if lookups.runs_classifier(self.config, lookups.scorers_of(self.config, rule)) else {}

    def scoring_threads(self, rule: str) -> int:
        """Cores of a job of a rule that scores texts."""
        runs_model = lookups.runs_classifier(self.config, lookups.scorers_of(self.config, rule))
        return self.config["threads"] if runs_model else 1

    @property
    def derived(self) -> str:
        """A regular expression of the names of methods and variants whose steers are derived from another's."""
        known = [*METHODS, *self.config["variants"]]
        return "|".join(name for name in known if self.instance(name).method.is_derived)

    def instance(self, name: str, task: str = "toxicity") -> Instance:
        """The method or variant of a name, with the hyperparameters that hold for a task."""
        return instance(self.config, name, task)

    def method(self, name: str) -> Method:
        """The line in METHODS of a method, or of what a variant is a variant of."""
        return self.instance(name).method

    def _attached(self, name: str) -> list[Method]:
        """The line of a method or variant, with those of its parts, whose modules are loaded with it."""
        parts = self.config["variants"].get(name, {}).get("parts", [])
        return [self.method(name), *(METHODS[part] for part in parts)]

    def cell(self, w: SimpleNamespace) -> Cell:
        """The cell of a job, by its wildcards model, method, task and split; raises KeyError for one not asked for."""
        return self.cells[w.model, w.method, w.task, w.split]

    def spec(self, rule: str, wildcards: Iterable[tuple[str, str]] = ()) -> str:
        """Sorted JSON of exactly the leaves that change the bytes of the rule's output."""
        room = next(room for room in (audits, glue, latentqa, measured, specs) if hasattr(room, rule))
        w = {name: value for name, value in wildcards if name not in ("shard", "shards")}
        leaves = getattr(room, rule)(self.config, self.doors, **w)
        # The same kernels run whatever card a block lies on, but cards differ: the number is a leaf, as the device is.
        return json.dumps(lookups.with_cards(leaves, lookups.cards(self.config, rule, w)), sort_keys=True)

    def code(self, rule: str, methods: Sequence[str] = (), **named: str) -> str:
        """Digest of the rule's script with the package modules it imports, and those it loads by name, which it names.

        named: method, task, figure or scorer whose module it loads; methods: several.
        """
        method, task, figure, scorer = (named.get(key) for key in ("method", "task", "figure", "scorer"))
        loaded = [self.method(method).derive] if method else []
        loaded += [line.steer for name in (*methods, *filter(None, [method])) for line in self._attached(name)]
        loaded += [(ANALYSED if task in ANALYSED else TASKS)[task].module] if task else []
        loaded += [FIGURES[figure].module] if figure else []
        loaded += [text_scorer(self.config, scorer).scorer] if scorer else []
        loaded += [text_scorer(self.config, name).scorer for name in lookups.scorers_of(self.config, rule)]
        modules = tuple(path.partition(":")[0] for path in loaded if path)
        return codes.code(rule, modules, FILES.get(figure or rule, ()))

    # ---- inputs ----

    def shards(self, rule: str, pattern: str) -> list[str] | Callable[[SimpleNamespace], list[str]]:
        """What the job that makes `pattern` gathers, by its wildcards; empty for one that is a shard itself."""
        number = shards.asked(self.config, rule)
        if number == 1 and not shards.LEFT.is_dir():
            return []

        def gathered(w: SimpleNamespace) -> list[str]:
            if hasattr(w, "shard"):
                return []
            about = dict(w.items())
            return shards.of_file(pattern.format(**about), number, lambda: self.spec(rule, about.items()))

        return gathered

    def raw(self, name: str) -> str:
        """Folder of a source's raw files."""
        return names.RAW.format(source=name, door=self.doors[name])

    def model_source(self, model: str) -> list[str]:
        """What a model is made from: a raw folder, another model, the files of the user's own, or nothing here."""
        definition = self.config["models"][model]
        match definition["kind"]:
            case "folder":
                return _files(definition["path"])
            case "gguf":
                return [self.raw(definition["source"])]
            case "rotated":
                return [names.MODEL.format(model=definition["of"])]
        return []

    def scorer_source(self, scorer: str) -> list[str]:
        """What a scorer's files are prepared from: a raw folder, the files of the user's own, or nothing here."""
        line = text_scorer(self.config, scorer)
        if line.definition is not None:
            return _files(line.definition["path"]) if "path" in line.definition else []
        return [self.raw(line.source)] if line.source else []

    def prepared_scorers(self, rule: str) -> list[str]:
        """The folders of those scorers of a rule that need one."""
        chosen = lookups.scorers_of(self.config, rule)
        return [names.SCORER.format(scorer=name) for name in chosen if text_scorer(self.config, name).prepared]

    def calibration_sources(self) -> dict[str, str]:
        """Raw folder of each source that scorers are calibrated on."""
        return {name: self.raw(name) for name in lookups.CALIBRATED_ON}

    def calibration_maps(self, w: SimpleNamespace) -> list[str]:
        """The computed maps for a test cell; empty where those that ship stand, and for dev cells, which have none."""
        calibrated = specs.is_calibrated(w.task, w.split) and lookups.calibrates(self.config)
        return [names.CALIBRATION_MAPS] if calibrated else []

    def task_sources(self, task: str) -> dict[str, str]:
        """Raw folder of each source of a task."""
        return {name: self.raw(name) for name in lookups.task_sources(self.config, task)}

    @property
    def together(self) -> dict[str, list[list[str]]]:
        """What is captured in the same forward passes, by model and task; the first site's job does it."""
        return lookups.together(self.config)

    def first_captured(self, w: SimpleNamespace) -> list[str]:
        """The manifest of the site that is captured together with this one; empty for that site itself."""
        first, *others = lookups.captured(self.config, w.model, w.task, w.part) or [None]
        site = {"part": w.part, **dict(zip(("site", "positions"), first or ()))}
        is_other = (w.site, w.positions) in others
        return [names.ACTIVATIONS.format(model=w.model, task=w.task, **site)] if is_other else []

    def training_input(self, w: SimpleNamespace) -> list[str]:
        """The activations that a method is trained on; empty where it needs none."""
        method = self.method(w.method)
        if not method.captures:
            return []
        site = {"part": "fitted", "site": method.captures, "positions": method.positions}
        return [names.ACTIVATIONS.format(model=w.model, task=w.task, **site)]

    def training_table(self, w: SimpleNamespace) -> str:
        """The table that a fit sees: of its task, or of dialogs with what a reader is wished to answer."""
        here = self.instance(w.method, w.task)
        if here.method.asks_reader:
            return names.CONTROL_TABLE.format(method=w.method, task=w.task)
        return (names.SHUFFLED_TABLE if here.shuffled else names.TABLE).format(task=w.task)

    def control_input(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """What a control's table is made from: raw folders by source, and the user's own files of wishes."""
        raw = {name: [self.raw(name)] for name in latentqa.control_sources(self.config, w.method, w.task)}
        own = [wish for wish in latentqa.wishes(self.config, w.method, w.task) if latentqa.is_path(wish)]
        return raw | {"own": own}

    def reader_input(self, w: SimpleNamespace) -> list[str]:
        """The reader that a steer is trained through; empty for one that asks none."""
        if not self.method(w.method).asks_reader:
            return []
        return [latentqa.reader(self.config, w.model, w.method, w.task, int(w.seed))]

    def sizing_table(self, w: SimpleNamespace) -> str:
        """The table with what a derived steer is made on: of its task, or that which its method was trained on."""
        sized = w.method in METHODS and is_sized(w.method, w.task)
        of = SimpleNamespace(method=self.method(w.method).derived_from, task=w.task)
        return self.training_table(of) if sized else names.TABLE.format(task=w.task)

    def test_activations(self, w: SimpleNamespace) -> str:
        """The activations of the test split's labelled texts at the site that a method is trained on."""
        method = self.method(w.method)
        site = {"part": "test", "site": method.captures, "positions": method.positions}
        return names.ACTIVATIONS.format(model=w.model, task=w.task, **site)

    def subjects(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """What a derived steer is made from: steers, the choices of their settings, and the model of both."""
        source, taken = lookups.derivation(self.config, w.model, w.method, w.task)
        at = [{"model": source, "method": of, "task": task} for of, task in taken]
        chosen = [each for each in at if is_chosen(self.config, each["method"], each["task"])]
        return {
            "steers": [names.STEER.format(**each, seed=w.seed) for each in at],
            "choices": [names.CHOICE.format(**each) for each in chosen],
            "source": [names.MODEL.format(model=source)],
        }

    def steer_input(self, w: SimpleNamespace) -> list[str]:
        """The steer that a cell is generated with; empty for the model as it is."""
        if not self.method(w.method).steer:
            return []
        trained, task = self.instance(w.method, w.task).trained_as, TASKS[w.task].learnt_on or w.task
        return [names.STEER.format(model=w.model, method=trained, task=task, seed=w.seed)]

    def choice_input(self, w: SimpleNamespace) -> list[str]:
        """The choice that a cell's settings come from; empty where they stand in the configuration."""
        chosen_by = self.cell(w).chosen_by
        return [names.CHOICE.format(**dict(zip(("model", "method", "task"), chosen_by)))] if chosen_by else []

    def layer_choice(self, w: SimpleNamespace) -> list[str]:
        """The choice that says which block a fit adapts; empty for a method that picks none, or is told which."""
        here = self.instance(w.method, w.task)
        if here.layer_rule is None:
            return []
        by_reading = here.layer_rule in layer_choices.BY_READING
        pattern = names.READING_CHOICE if by_reading else names.SWEEP_CHOICE
        return [pattern.format(model=w.model, method=here.of, task=w.task)]

    def swept_metrics(self, w: SimpleNamespace) -> list[str]:
        """The dev metrics of the variants that adapt one block each."""
        swept = swept_layers(self.config, w.model, w.method, w.task)
        at = {"model": w.model, "task": w.task, "split": "dev"}
        return [names.METRICS.format(**at, method=name) for name in swept]

    def selecting_steers(self, w: SimpleNamespace) -> list[str]:
        """The steers of all seeds whose picked layers or heads a choice shows; empty for a method that picks none."""
        if not self.method(w.method).selects:
            return []
        seeds = self.cells[w.model, w.method, w.task, "dev"].seeds
        return [names.STEER.format(model=w.model, method=w.method, task=w.task, seed=seed) for seed in seeds]

    def measured(self, w: SimpleNamespace) -> list[str]:
        """The methods whose steers' effect on the model itself is measured."""
        return [cell.method for cell in comparison.measured(self.config, w.model, w.task, self._seed(w))]

    def _seed(self, w: SimpleNamespace) -> int:
        """The seed of an analysis; of one that has none in its name, the comparison's."""
        return int(w.seed) if hasattr(w, "seed") else comparison.first_seed(self.config, w.task)

    def measured_steers(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """The steers whose effect on the model itself is measured, and the choices of their strengths, by method."""
        steers, choices = [], []
        for method in self.measured(w):
            here = SimpleNamespace(model=w.model, method=method, task=w.task, split="test", seed=self._seed(w))
            steers += self.steer_input(here)
            choices += self.choice_input(here)
        return {"steers": steers, "choices": choices}

    def compared(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """What the comparison of all methods on a task is made from, by kind and method, and its analyses."""
        files = comparison.analyses(self.config, w.model, w.task)
        for cell in [self.cells[w.model, "base", w.task, "test"], *comparison.compared(self.config, w.model, w.task)]:
            of = SimpleNamespace(**vars(cell))
            kinds = {"continuations": self.generations, "scores": self.text_scores, "perplexity": self.judged}
            kinds |= {"answers": self.answers, "choice": self.choice_input}
            files |= {f"{kind}_of_{cell.method}": asked(of) for kind, asked in kinds.items()}
        return files

    def card_input(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """What the card of a method's steers on a task is written from, by kind; "base_" is of the unsteered model."""
        own, base = self.cells[w.model, w.method, w.task, "test"], self.cells[w.model, "base", w.task, "test"]
        first = comparison.first_seed(self.config, w.task)
        seeds = [SimpleNamespace(**vars(own), seed=seed) for seed in own.seeds]
        tasks = comparison.tasks(self.config, w.model)
        files = {
            "steers": [steer for each in seeds for steer in self.steer_input(each)],
            "choice": self.choice_input(SimpleNamespace(**vars(own))),
            "trained_on": [self.training_table(w)],
            "comparisons": [names.COMPARISON.format(model=w.model, task=task) for task in tasks],
            "norms": [names.NORMS.format(model=w.model, task=w.task, seed=first)] if TASKS[w.task].objective else [],
        }
        for prefix, cell in (("", own), ("base_", base)):
            of = SimpleNamespace(**vars(cell))
            files[f"{prefix}continuations"] = self.generations(of)
            files |= {f"{prefix}scores": self.text_scores(of), f"{prefix}answers": self.answers(of)}
        return files

    def biased_methods(self, w: SimpleNamespace) -> list[str]:
        """The methods whose likelihoods of given sentences are measured."""
        return [cell.method for cell, _ in latentqa.biased(self.config, w.model, int(w.seed))]

    def biased_steers(self, w: SimpleNamespace) -> list[str]:
        """The steers under which given sentences are read, in the order of the spec."""
        asked = latentqa.biased(self.config, w.model, int(w.seed))
        return [steer for cell, _ in asked for steer in self.steer_input(SimpleNamespace(**vars(cell), seed=w.seed))]

    def generations(self, w: SimpleNamespace) -> list[str]:
        """The continuations of a cell, a file a seed; empty where none are drawn."""
        cell = self.cell(w)
        return [_of_cell(names.GENERATIONS, cell, seed=seed) for seed in cell.seeds] if cell.samples else []

    def answers(self, w: SimpleNamespace) -> list[str]:
        """The likelihoods of given answers in a cell, a file a seed; empty for a task without.

        Nothing is drawn, so without a steer the first seed's are those of all.
        """
        cell = self.cell(w)
        seeds = cell.seeds if self.method(w.method).steer else cell.seeds[:1]
        return [_of_cell(names.ANSWER_SCORES, cell, seed=seed) for seed in seeds] if TASKS[w.task].answers else []

    def text_scores(self, w: SimpleNamespace) -> list[str]:
        """The scores of a cell's texts: by whatever runs here, and a file a service or judge."""
        cell = self.cell(w)
        if not cell.samples:
            return []
        if TASKS[w.task].answers:
            by_judge = [_of_cell(names.JUDGEMENTS, cell, measure=each) for each in lookups.answer_judges(self.config)]
            return [_of_cell(names.REFERENCE_SCORES, cell), *by_judge]
        asked = lookups.services(self.config, w.task)
        by_service = [_of_cell(names.SERVICE_SCORES, cell, service=name) for name in asked]
        return [_of_cell(names.TEXT_SCORES, cell), *by_service]

    def judged(self, w: SimpleNamespace) -> list[str]:
        """The perplexities of a cell, a file a judge; empty where it has no texts."""
        cell, judges = self.cell(w), lookups.judges(self.config)
        return [_of_cell(names.PERPLEXITY_SCORES, cell, judge=judge) for judge in judges] if cell.samples else []

    def answer_judge(self, w: SimpleNamespace) -> str:
        """The folder of the model that judges generated answers by a measure."""
        return names.MODEL.format(model=lookups.answer_judges(self.config)[w.measure])

    def judge_model(self, w: SimpleNamespace) -> str:
        """The folder of the model whose perplexity is taken."""
        return names.MODEL.format(model=w.model if w.judge == "base" else w.judge)

    def of_base(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """The unsteered model's texts that a cell stands beside; empty lists for the unsteered model itself."""
        if w.method == "base":
            return {"base_continuations": [], "base_scores": [], "base_perplexity": [], "base_answers": []}
        base = SimpleNamespace(model=w.model, method="base", task=w.task, split=w.split)
        drawn = self.cell(w).samples  # without texts of its own a cell is compared in its answers alone
        return {
            "base_continuations": self.generations(base) if drawn else [],
            "base_scores": self.text_scores(base) if drawn else [],
            "base_perplexity": self.judged(base) if drawn else [],
            "base_answers": self.answers(base),
        }

    def figure_input(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """The files that a figure is drawn from, by the name under which its module takes them."""
        return figures.inputs(self.config, self.cells, w.model, w.figure)

    def sampled(self, w: SimpleNamespace) -> dict[str, list[str] | str]:
        """The continuations of which people are shown pairs, and the choice of the steer's strength."""
        steered, other = self._sides(w)
        of = {"steered": self.generations(steered), "other": self.generations(other)}
        return of | {"choice": self.choice_input(steered)[0]}

    def audited(self, w: SimpleNamespace) -> dict[str, list[str]]:
        """The scores of the continuations of which people were shown pairs."""
        steered, other = self._sides(w)
        return {"scores": self.text_scores(steered), "base_scores": self.text_scores(other)}

    def _sides(self, w: SimpleNamespace) -> tuple[SimpleNamespace, SimpleNamespace]:
        at = {"model": w.model, "task": w.task, "split": "test"}
        return SimpleNamespace(**at, method=w.method), SimpleNamespace(**at, method="base")

    # ---- targets ----

    @property
    def steers(self) -> list[str]:
        """The steers of all cells and their seeds."""
        asked = [SimpleNamespace(**vars(cell), seed=seed) for cell in self.cells.values() for seed in cell.seeds]
        return list(dict.fromkeys(steer for w in asked for steer in self.steer_input(w)))

    @property
    def readers(self) -> list[str]:
        """LatentQA's decoders of all models."""
        return [reader for model in self.config["run"]["models"] for reader in latentqa.readers(self.config, model)]

    @property
    def metrics(self) -> list[str]:
        """The metrics of all cells, and GLUE's."""
        asked = [cell for cell in self.cells.values() if not TASKS[cell.task].given]
        return [_of_cell(names.METRICS, cell) for cell in asked] + self.glue.metrics

    def audit(self, pattern: str) -> list[str]:
        """A file of the audit by people, by its pattern; none where the run has none."""
        return audits.file(self.config, pattern)

    @cached_property
    def drawn(self) -> list[tuple[str, str]]:
        """(model, figure) of every figure that the configuration has the cells for."""
        return figures.drawn(self.config, self.cells)

    def cards(self, pattern: str) -> list[str]:
        """The cards of all steers that are compared."""
        found = [cell for model in self.config["run"]["models"] for cell in comparison.carded(self.config, model)]
        return [pattern.format(model=cell.model, method=cell.method, task=cell.task) for cell in found]

    def figures(self, group: str | None = None, pattern: str = names.FIGURE, named: str | None = None) -> list[str]:
        """The files of all figures that can be drawn, or of those of a group or of a name."""
        return [
            pattern.format(model=model, figure=figure)
            for model, figure in self.drawn
            if group in (None, FIGURES[figure].group) and named in (None, figure)
        ]


def _files(folder: str) -> list[str]:
    return sorted(str(file) for file in Path(folder).glob("*") if file.is_file())


def _of_cell(pattern: str, cell: Cell, **more: object) -> str:
    return pattern.format(model=cell.model, method=cell.method, task=cell.task, split=cell.split, **more)


FILES = {
    "calibration": tuple(
        str((SHIPPED / file).relative_to(codes.ROOT)) for file in ("calibration.csv", "reliability.csv")
    ),
    "build_report": ("steerlab/report/page.html.j2", "steerlab/reference/papers.yaml"),
    "write_card": ("steerlab/report/card.md.j2", "steerlab/report/card.html.j2"),
    "replication": ("steerlab/reference/lm_steer.yaml",),
    **{figure: (f"steerlab/reference/{FIGURES[figure].group}.yaml",) for figure in figures.REPLICATIONS},
}
