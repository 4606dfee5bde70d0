"""What can be run: methods, tasks, scorers and figures by name, with the facts that the rules need at once.

A new method is one line in METHODS, one file in steerlab/methods/ and one entry under `steers` in schemas/config.yaml.
A new figure is one line in FIGURES and one file in steerlab/figures/. Scripts never import these tables, so a new line
reruns nothing that is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Signal = Literal["labelled_texts", "pairs", "qa_pairs"]
RANDOMISED = "steerlab.methods.random_direction:randomised"
Quantity = Literal["toxicity", "sentiment", "truthfulness", "bias"]


@dataclass(frozen=True)
class Method:
    """One way of making a model behave.

    steer: `module:Class` of the steer, None for the model as it is.
    needs: the training signal, which the task must offer; None for a method that learns nothing.
    captures: the site (all layers) whose activations it is trained on, at `positions`; None for none.
    selects: True if a fit picks the layers or heads that are steered; the choice shows what it picked from.
    picks_block: True if a fit may be told which block to adapt, by a layer choice.
    trains_through_model: False if the fit needs no forward pass of its own.
    rendering: how the prompts are rendered.
    published_on: the tasks that its paper has; on others what it learns from is this project's choice.
    derive: of a method whose steers are made from others, the function `module:function` that makes them; derived_from:
    the method of those; None where a variant names several as its `parts`.
    """

    steer: str | None
    needs: Signal | None = None
    captures: str | None = None
    positions: Literal["last", "all", "answer"] = "last"
    selects: bool = False
    picks_block: bool = False
    trains_through_model: bool = False
    rendering: Literal["plain", "instructed"] = "plain"
    published_on: tuple[str, ...] = ()
    derived_from: str | None = None
    derive: str | None = None

    @property
    def is_derived(self) -> bool:
        """True if its steers are made from others."""
        return self.derive is not None

    @property
    def has_parts(self) -> bool:
        """True if its steers are made from those of several methods."""
        return self.is_derived and self.derived_from is None

    @property
    def is_control(self) -> bool:
        """True for the random control of another method."""
        return self.derive == RANDOMISED

    @property
    def asks_reader(self) -> bool:
        """True if it learns through a reader of states what the model would say of itself."""
        return self.needs == "qa_pairs"

    @property
    def may_run_model(self) -> bool:
        """True if its fit may run the model: a damaged shard of activations is captured again by whoever opens it."""
        return self.trains_through_model or self.captures is not None


@dataclass(frozen=True)
class Objective:
    """The metric that a choice moves on dev prompts. fluent: only as far as the perplexity stays within its limit."""

    metric: str
    goal: Literal["lower", "raise"]
    fluent: bool


@dataclass(frozen=True)
class Task:
    """One thing that models are asked to do.

    quantity: what its texts are judged by; a service that scores something else is not asked about them. offers: its
    training signals. sources: of its prompts, unless the configuration names another, and of its training texts; one
    alone where both come from it. objective: the metric that a choice moves on dev prompts; None where nothing is
    chosen and every strength is shown. answers: its questions have answers to choose from, whose likelihood is scored
    on both splits; what the model itself answers is generated on the test split alone.
    swapped: the task with whose settings it tests on the half that the other one trains on, and the other way round.
    effect: what a steer's effect is where nothing is chosen; see `compared`.
    learnt_on: the task whose steers and choices it takes, having test questions alone.
    wish: the control whose questions with answers describe the wished behaviour, by its name in latentqa_controls.
    given: its texts are given, and nothing is asked: an analysis of its own measures its cells, which have no metrics.
    """

    module: str
    quantity: Quantity
    offers: tuple[Signal, ...]
    sources: tuple[str, ...]
    objective: Objective | None = None
    effect: Objective | None = None
    answers: bool = False
    swapped: str | None = None
    learnt_on: str | None = None
    wish: str | None = None
    given: bool = False

    @property
    def compared(self) -> Objective | None:
        """What the comparison of all methods takes as effect; None for a task that it leaves out."""
        return None if self.swapped or self.learnt_on else self.objective or self.effect


@dataclass(frozen=True)
class Analysed:
    """One table of texts that models read and are not asked about: what is measured on them is their states.

    section: of the configuration; its key `corpora` names the sources. settings: its keys that the table depends on.
    formats: a source is such a corpus if all of its files are of these.
    """

    module: str
    section: str
    settings: tuple[str, ...]
    formats: frozenset[str]


@dataclass(frozen=True)
class TextScorer:
    """Someone who scores texts alone.

    scorer: `module:Class`; package: whose version names the scores; or source: of the files that a rule prepares, whose
    first door names them; or definition: of a classifier, as the configuration has it. service: it is asked over the
    network, one text a request, and its answers are kept in the score cache.
    """

    scorer: str
    quantity: Literal["toxicity", "sentiment"]
    package: str | None = None
    source: str | None = None
    definition: Mapping[str, Any] | None = None
    service: bool = False

    @property
    def prepared(self) -> bool:
        """True if a rule prepares a folder that it is loaded from."""
        return bool(self.source or self.definition)


@dataclass(frozen=True)
class Figure:
    """One figure: its module in steerlab/figures/ and the heading under which the report shows it.

    across_models: one for all models of the run, else one a model.
    """

    module: str
    group: Literal["comparison", "lm_steer", "hpr", "slim", "cogsteer", "latentqa"]
    across_models: bool = False


def _random(steer: str, of: str) -> Method:
    """The random control of a method."""
    return Method(steer, derived_from=of, derive=RANDOMISED)


METHODS = {
    "base": Method(None),
    "instructed": Method(None, rendering="instructed"),
    "lm_steer": Method(
        "steerlab.methods.lm_steer:LMSteer",
        needs="labelled_texts",
        captures="lm_head_input",
        positions="all",
        published_on=("toxicity", "sentiment"),
    ),
    "random_lm_steer": _random("steerlab.methods.lm_steer:LMSteer", "lm_steer"),
    "composed_lm_steer": Method(
        "steerlab.methods.lm_steer:LMSteer", derived_from="lm_steer", derive="steerlab.methods.lm_steer:composed"
    ),
    "transferred_lm_steer": Method(
        "steerlab.methods.lm_steer:LMSteer",
        derived_from="lm_steer",
        derive="steerlab.methods.lm_steer_transfer:transferred",
    ),
    "hpr": Method(
        "steerlab.methods.hpr:HPR",
        needs="pairs",
        captures="block_output",
        positions="answer",
        selects=True,
        published_on=("truthfulness",),
    ),
    "random_hpr": _random("steerlab.methods.hpr:HPR", "hpr"),
    "iti": Method(
        "steerlab.methods.iti:ITI",
        needs="labelled_texts",
        captures="attention_heads",
        selects=True,
        published_on=("truthfulness",),
    ),
    "random_iti": _random("steerlab.methods.iti:ITI", "iti"),
    "slim": Method(
        "steerlab.methods.slim:SLIM",
        needs="labelled_texts",
        captures="attention_heads",
        selects=True,
        trains_through_model=True,
        published_on=("toxicity", "truthfulness"),
    ),
    "random_slim": _random("steerlab.methods.slim:SLIM", "slim"),
    "caa": Method(
        "steerlab.methods.caa:CAA", needs="labelled_texts", captures="block_output", published_on=("truthfulness",)
    ),
    "random_caa": _random("steerlab.methods.caa:CAA", "caa"),
    "lora": Method("steerlab.methods.lora:LoRA", needs="labelled_texts", trains_through_model=True),
    "random_lora": _random("steerlab.methods.lora:LoRA", "lora"),
    "cogsteer": Method(
        "steerlab.methods.cogsteer:CogSteer",
        needs="labelled_texts",
        picks_block=True,
        trains_through_model=True,
        published_on=("toxicity",),
    ),
    "random_cogsteer": _random("steerlab.methods.cogsteer:CogSteer", "cogsteer"),
    "latentqa": Method(
        "steerlab.methods.latentqa_control:LatentQAControl",
        needs="qa_pairs",
        trains_through_model=True,
        published_on=("sentiment",),
    ),
    "random_latentqa": _random("steerlab.methods.latentqa_control:LatentQAControl", "latentqa"),
    "composed": Method("steerlab.methods.composed:Composed", derive="steerlab.methods.composed:composed"),
}

_TRUTHFULNESS = Task(
    "steerlab.tasks.truthfulness",
    "truthfulness",
    ("labelled_texts", "pairs", "qa_pairs"),
    ("truthfulqa",),
    objective=Objective("mc2", "raise", fluent=False),
    answers=True,
    wish="be_truthful",
)


def _asked_alone(source: str) -> Task:
    """Questions of a source, asked under what was learnt on those of TruthfulQA."""
    return replace(_TRUTHFULNESS, sources=(source,), objective=None, learnt_on="truthfulness")


TASKS = {
    "toxicity": Task(
        "steerlab.tasks.toxicity",
        "toxicity",
        ("labelled_texts", "pairs", "qa_pairs"),
        ("rtp_prompts", "comments"),
        objective=Objective("mean_toxicity", "lower", fluent=True),
        wish="be_civil",
    ),
    "sentiment": Task(
        "steerlab.tasks.sentiment",
        "sentiment",
        ("labelled_texts", "pairs", "qa_pairs"),
        ("sentiment_prompts", "sentiment_texts"),
        effect=Objective("mean_sentiment", "raise", fluent=True),
        wish="be_cheerful",
    ),
    "truthfulness": _TRUTHFULNESS,
    "truthfulness_swapped": replace(_TRUTHFULNESS, swapped="truthfulness"),
    "nq_open": _asked_alone("nq_open"),
    "trivia_qa": _asked_alone("trivia_qa"),
    "bias": Task("steerlab.tasks.bias", "bias", ("qa_pairs",), ("crows_pairs",), wish="be_fair", given=True),
}

ANALYSED = {
    "eye_tracking": Analysed(
        "steerlab.tasks.eye_tracking", "eye_tracking", ("corpora", "sentences"), frozenset({"reading_json"})
    ),
    "latent_reading": Analysed(
        "steerlab.tasks.latent_reading",
        "latent_reading",
        ("corpora", "kinds", "questions", "crossed", "shares", "rows"),
        frozenset(f"latentqa_{part}" for part in ("control", "stimulus", "stimulus_completion", "system", "qa")),
    ),
    "relations": Analysed(
        "steerlab.tasks.relations",
        "relations",
        ("corpora", "facts", "mentions", "candidates"),
        frozenset({"relations_jsonl"}),
    ),
    "system_prompts": Analysed(
        "steerlab.tasks.system_prompts",
        "system_prompts",
        ("corpora", "items", "candidates"),
        frozenset({"system_prompts_jsonl"}),
    ),
}

TEXT_SCORERS = {
    "profanity_check": TextScorer("steerlab.scores.profanity_check:ProfanityCheck", "toxicity", "alt-profanity-check"),
    "toxic_comment_classifier": TextScorer(
        "steerlab.scores.toxic_comment_classifier:ToxicCommentClassifier",
        "toxicity",
        source="toxic_comment_classifier",
    ),
    "vader": TextScorer("steerlab.scores.vader:Vader", "sentiment", "vaderSentiment"),
    "perspective": TextScorer("steerlab.scores.perspective:Perspective", "toxicity", service=True),
    "moderation": TextScorer("steerlab.scores.moderation:Moderation", "toxicity", service=True),
}

FIGURES = {
    "comparison": Figure("steerlab.figures.comparison", "comparison"),
    "equal_kl": Figure("steerlab.figures.equal_kl", "comparison"),
    "toxicity": Figure("steerlab.figures.toxicity", "comparison"),
    "calibration": Figure("steerlab.figures.calibration", "comparison", across_models=True),
    "strength": Figure("steerlab.figures.strength", "lm_steer"),
    "sentiment": Figure("steerlab.figures.sentiment", "lm_steer"),
    "composition": Figure("steerlab.figures.composition", "lm_steer"),
    "directions": Figure("steerlab.figures.directions", "lm_steer"),
    "evidence": Figure("steerlab.figures.evidence", "lm_steer"),
    "spectrum": Figure("steerlab.figures.spectrum", "lm_steer"),
    "transfer": Figure("steerlab.figures.transfer", "lm_steer", across_models=True),
    "data_efficiency": Figure("steerlab.figures.data_efficiency", "lm_steer"),
    "adaptors": Figure("steerlab.figures.variants", "lm_steer"),
    "size": Figure("steerlab.figures.size", "lm_steer", across_models=True),
    "replication": Figure("steerlab.figures.replication", "lm_steer"),
    "official_grid": Figure("steerlab.figures.official_grid", "lm_steer", across_models=True),
    "truthfulness": Figure("steerlab.figures.truthfulness", "hpr"),
    "probe_accuracy": Figure("steerlab.figures.probe_accuracy", "hpr"),
    "norm_consistency": Figure("steerlab.figures.norm_consistency", "hpr"),
    "hpr_ablations": Figure("steerlab.figures.ablations", "hpr"),
    "replication_hpr": Figure("steerlab.figures.replications", "hpr"),
    "folds": Figure("steerlab.figures.folds", "slim"),
    "nq_open": Figure("steerlab.figures.truthfulness", "slim"),
    "trivia_qa": Figure("steerlab.figures.truthfulness", "slim"),
    "slim_layers": Figure("steerlab.figures.slim_layers", "slim"),
    "slim_kappa": Figure("steerlab.figures.slim_kappa", "slim"),
    "slim_coverage": Figure("steerlab.figures.slim_coverage", "slim"),
    "ordinary_text": Figure("steerlab.figures.ordinary_text", "slim"),
    "slim_ablations": Figure("steerlab.figures.ablations", "slim"),
    "replication_slim": Figure("steerlab.figures.replications", "slim"),
    "cogsteer_variants": Figure("steerlab.figures.variants", "cogsteer"),
    "cogsteer_layers": Figure("steerlab.figures.layer_sweep", "cogsteer"),
    "reasoning": Figure("steerlab.figures.reasoning", "cogsteer"),
    "eye_tracking": Figure("steerlab.figures.eye_tracking", "cogsteer"),
    "glue": Figure("steerlab.figures.glue", "cogsteer"),
    "replication_cogsteer": Figure("steerlab.figures.replications", "cogsteer"),
    "latent_reading": Figure("steerlab.figures.latent_reading", "latentqa"),
    "reader_training": Figure("steerlab.figures.reader_training", "latentqa"),
    "read_relations": Figure("steerlab.figures.relations", "latentqa"),
    "read_system_prompts": Figure("steerlab.figures.system_prompts", "latentqa"),
    "scale_decoder": Figure("steerlab.figures.scale_decoder", "latentqa", across_models=True),
    "control_sentiment": Figure("steerlab.figures.control_sentiment", "latentqa"),
    "control_bias": Figure("steerlab.figures.control_bias", "latentqa"),
    "replication_latentqa": Figure("steerlab.figures.replications", "latentqa"),
}
