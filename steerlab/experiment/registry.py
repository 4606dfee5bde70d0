"""What can be run: methods, tasks and scorers by name, with the facts that the rules need before any torch is imported.

A new method is one line in METHODS, one file in steerlab/methods/ and one entry under `steers` in schemas/config.yaml.
Scripts never import this table, so a new line reruns nothing that is there.
"""

from dataclasses import dataclass
from typing import Literal

Signal = Literal["labelled_texts", "pairs", "qa_pairs"]


@dataclass(frozen=True)
class Method:
    """One way of making a model behave.

    steer: `module:Class` of the steer, None for the model as it is.
    needs: the training signal, which the task must offer; None for a method that learns nothing.
    captures: the site (all layers) whose activations it is trained on, at `positions`; None for none.
    trains_through_model: False if the fit needs no forward pass of its own.
    rendering: how the prompts are rendered.
    """

    steer: str | None
    needs: Signal | None = None
    captures: str | None = None
    positions: Literal["last", "all"] = "last"
    trains_through_model: bool = False
    rendering: Literal["plain", "instructed"] = "plain"

    @property
    def may_run_model(self) -> bool:
        """True if its fit may run the model: a damaged shard of activations is captured again by whoever opens it."""
        return self.trains_through_model or self.captures is not None


@dataclass(frozen=True)
class Task:
    """One thing that models are asked to do, and the training signals and sources that it comes with."""

    module: str
    offers: tuple[Signal, ...]
    sources: tuple[str, ...]


METHODS = {
    "base": Method(None),
    "instructed": Method(None, rendering="instructed"),
    "lm_steer": Method(
        "steerlab.methods.lm_steer:LMSteer", needs="labelled_texts", captures="lm_head_input", positions="all"
    ),
    "caa": Method("steerlab.methods.caa:CAA", needs="labelled_texts", captures="block_output"),
}

TASKS = {
    "toxicity": Task("steerlab.tasks.toxicity", offers=("labelled_texts",), sources=("rtp_prompts", "comments")),
}

TOXICITY_SCORERS = {"profanity_check": "steerlab.scores.profanity_check:ProfanityCheck"}
