"""What all steers share that add low-rank changes s (alpha / rank) B A to linear modules, whatever these learnt from.

The strength s scales the change, so that 0 is the base model; the base weights never change.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import ClassVar, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlab import low_rank, sites
from steerlab.low_rank import Layers
from steerlab.methods import steer_files
from steerlab.methods.protocol import check_strength
from steerlab.models import identity
from steerlab.sites import Site


@dataclass(frozen=True, eq=False)
class LowRankSteer:
    """A Steer but for its `fit`. tensors: float32, of each adapted module `<path>.A`, (rank, in), and `<path>.B`, (out,
    rank); rank and alpha are in the record's config."""

    tensors: Mapping[str, Tensor]
    record: steer_files.Record
    _made: WeakKeyDictionary[nn.Module, Layers] = field(default_factory=WeakKeyDictionary, init=False, repr=False)

    strengths: ClassVar[tuple[float, float]] = (0.0, inf)

    @property
    def sites(self) -> tuple[Site, ...]:
        """None: it changes modules and not states."""
        return ()

    @property
    def paths(self) -> list[str]:
        """The adapted modules."""
        return low_rank.paths_of(self.tensors)

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`; the changes are s (alpha / rank) B A, for all tokens."""
        check_strength(strength, self.strengths)
        steer_files.check_model(self.record, identity(model))
        return self._attached(model, strength) if strength else nullcontext()

    @contextmanager
    def _attached(self, model: PreTrainedModel, strength: float) -> Iterator[None]:
        layers = self._layers(model)
        for layer in layers.values():
            layer.scaling[low_rank.ADAPTER] = strength * self.record.config["alpha"] / self.record.config["rank"]
        with sites.modules(model, layers):
            yield

    def _layers(self, model: PreTrainedModel) -> Layers:
        """peft's layers around the model's own, made once as long as those stay where they are."""
        made = self._made.get(model, {})
        if not (made and low_rank.fit_in(made, model)):
            config = self.record.config
            made = self._made[model] = low_rank.filled(model, self.tensors, config["rank"], config["alpha"])
        return made

    def save(self, folder: Path) -> None:
        """See `Steer.save`; the base weights are not among the tensors."""
        steer_files.save(folder, self.record, dict(self.tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, tensors = steer_files.read(folder)
        return cls(tensors, record)

    def with_random_directions(self, generator: torch.Generator) -> Self:
        """The control: every change B A gets random directions on both sides and keeps its singular values."""
        return type(self)(low_rank.redirected(self.tensors, generator), self.record.with_config(random=True))

    def scaled(self, factor: float) -> Self:
        """The steer whose change of the weights is `factor` times this one's."""
        return type(self)(self.tensors, self.record.with_config(alpha=self.record.config["alpha"] * factor))
