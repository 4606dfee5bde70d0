"""Steers at their settings: what is compared where several methods are measured at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab import methods
from steerlab.methods.settings import settings
from steerlab.models import ModelHandle


@dataclass(frozen=True)
class Steered:
    """A steer under its method's name (a random control has one of its own), at a strength.

    steps: the training steps of its checkpoint, 0 where it has none.
    """

    method: str
    steer: Any
    strength: float
    steps: int = 0


def opened(
    model: ModelHandle, asked: Sequence[Mapping[str, Any]], steers: Sequence[Path], choices: Sequence[Path]
) -> list[Steered]:
    """The steers of these folders at the settings that are asked for, method by method.

    asked: one a steer: method; steps, strengths, of which "pick" stands for what its choice picks; chosen: whether it
    has one; has_checkpoints: False for a derived steer, which is at the steps of what it is made from. choices: of
    those that have one, in order. Raises SteerMismatch for a steer of another model.
    """
    found, picks = [], iter(choices)
    for one, folder in zip(asked, steers, strict=True):
        pick = json.loads(next(picks).read_text())["pick"] if one["chosen"] else None
        loaded: dict[int, Any] = {}
        for steps, strength in settings(one["steps"], one["strengths"], pick):
            if steps not in loaded:
                checkpoint = steps if steps and one["has_checkpoints"] else None
                loaded[steps] = methods.load(folder, model, steps=checkpoint)
            found.append(Steered(one["method"], loaded[steps], strength, steps))
    return found
