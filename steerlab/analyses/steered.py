"""Steers at the strengths that were picked for them: what is compared where several methods are measured at once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab import methods
from steerlab.models import ModelHandle


@dataclass(frozen=True)
class Steered:
    """A steer under its method's name (a random control has one of its own), at the strength that was picked."""

    method: str
    steer: Any
    strength: float


def at_picks(
    model: ModelHandle, names: Sequence[str], steers: Sequence[Path], choices: Sequence[Path]
) -> list[Steered]:
    """The steers of these folders, method by method, after the steps and at the strengths that their choices pick.

    Raises SteerMismatch for a steer of another model.
    """
    found = []
    for name, folder, choice in zip(names, steers, choices, strict=True):
        pick = json.loads(choice.read_text())["pick"]
        found.append(Steered(name, methods.load(folder, model, steps=pick["steps"] or None), pick["strength"]))
    return found
