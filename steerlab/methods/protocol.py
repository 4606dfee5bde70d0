"""What a method is: a class that fits a steer, attaches it to a model for the length of a `with`, saves and loads it.

What the rules must know before any torch is imported stands in the method's line in steerlab/experiment/registry.py:
its training signal, the site whose activations it is fitted on, and whether it trains through the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from steerlab.models import ModelHandle
from steerlab.sites import Site


class Steer(Protocol):
    """A fitted way of steering one model.

    strengths: the range it accepts, ends included. 0 attaches nothing, so the model is the base model bit for bit; 1 is
    the method's published default; s scales its effect.
    """

    strengths: ClassVar[tuple[float, float]]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that it edits; empty if it changes modules instead."""
        ...

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: "Activations | None",
        *,
        seed: int,
        **hyperparameters: Any,
    ) -> Self:
        """Learn a steer for this model.

        model: its body is loaded only by a method that trains through it. data: the training rows of a task, with `id`
        and what the method's training signal has (labelled_texts: `label` above 0 wished, below 0 unwished, `text`).
        activations: states of these rows, None for a method that captures none. seed: the only source of randomness;
        the same seed gives the same bytes on one machine. hyperparameters: the method's entry under `steers` in the
        config.
        """
        ...

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """Inside the returned context `model` is steered, afterwards it is as before, also after an exception.

        Raises SteerMismatch for another model than the one it was fitted for, ValueError for a strength out of range.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the files that `steer_files.save` writes; `folder` is made if needed."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The steer that `save` wrote; it gives the same outputs. A method that is trained in steps and keeps several
        checkpoints takes `steps` as well."""
        ...


class Reader(Protocol):
    """A fitted way of reading one model's hidden states: it answers questions about them in words."""

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: "Activations | None",
        *,
        seed: int,
        **hyperparameters: Any,
    ) -> Self:
        """Learn to read. data: `id`, `turns`, `hidden`, `question`, `answer`; activations: of its different reads, None
        to compute them anew for every batch. The rest is as in `Steer.fit`."""
        ...

    def read(self, model: ModelHandle, reads: Sequence[Any], questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """The answers to each read's questions, which are asked one after the other in one dialog.

        reads: tokens and the places that are shown, `activations.Row`.
        """
        ...

    def losses(self, model: ModelHandle, data: pd.DataFrame, activations: "Activations | None" = None) -> pd.DataFrame:
        """A row a row of the data: id, loss (nats a token of the given answer), tokens."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` needs into `folder`, which is made if needed."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The reader that `save` wrote; it gives the same answers."""
        ...


@dataclass(frozen=True)
class Origin:
    """What a steer is derived from: steers of one model and seed, and the setting at which they are used.

    steers: by the task that each was trained for, or by method where they are of several; model: that which they steer;
    prompts: the task's dev prompts, or where nothing is picked there some of what was learnt from; strength: what was
    picked for the first, else 1; picks: {"steps", "strength"} of those that have one, under the same names.
    """

    steers: Mapping[str, Any]
    model: ModelHandle
    prompts: tuple[str, ...]
    strength: float
    seed: int
    picks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Activations(Protocol):
    """Hidden states of the training rows, read shard by shard."""

    def layers(self, site: str) -> list[int | None]:
        """The layers captured at a site, by the site's name."""
        ...

    def shards(self, site: Site) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Shard by shard: the index of each state's row in the data, (states,) int64; the states, (states, hidden)."""
        ...

    def of_rows(self, site: Site, rows: Sequence[int]) -> list[Tensor]:
        """The states of single rows, one (states of the row, hidden) each."""
        ...


def check_strength(strength: float, strengths: tuple[float, float]) -> None:
    """Raises ValueError for a strength outside the range (ends included), or one that is not a number."""
    low, high = strengths
    if not low <= strength <= high:
        raise ValueError(f"strength {strength} is outside {low} to {high}; choose one within")
