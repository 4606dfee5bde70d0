"""Steers of several methods at once, its parts: each is attached inside the one before it, at its own pick's strength.

Where parts edit one site, a later one gets what the earlier one leaves, so their order counts; on different sites, and
for changes of weights, it says which hooks stand outside. LM-Steers on several tasks are made into one by
`lm_steer.composed` instead, which adds their changes up.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import PreTrainedModel

from steerlab import methods
from steerlab.methods import steer_files
from steerlab.methods.protocol import Origin, Steer, check_strength
from steerlab.models import ModelHandle, identity
from steerlab.sites import Site
from steerlab.store import digest


@dataclass(frozen=True, eq=False)
class Composed:
    """A Steer but for its `fit`. parts: by method, the outermost first; the record's config has each one's steps and
    strength under `parts`."""

    parts: Mapping[str, Any]
    record: steer_files.Record

    strengths: ClassVar[tuple[float, float]] = (0.0, inf)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Those of the parts, each once; none of parts that change modules instead."""
        return self.record.sites

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`; each part stands at s times its own strength, and must accept that."""
        check_strength(strength, self.strengths)
        steer_files.check_model(self.record, identity(model))
        if not strength:
            return nullcontext()
        config = self.record.config["parts"]
        return _nested([part.attached(model, strength * config[name]["strength"]) for name, part in self.parts.items()])

    def save(self, folder: Path) -> None:
        """See `Steer.save`; each part lies in a folder of its name."""
        for name, part in self.parts.items():
            part.save(folder / name)
        steer_files.save(folder, self.record, {})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, _ = steer_files.read(folder)
        at = record.config["parts"]
        return cls({name: methods.load(folder / name, steps=at[name]["steps"] or None) for name in at}, record)


def composed(model: ModelHandle, origin: Origin, *, parts: Sequence[str]) -> Composed:
    """The steers of `origin`, which are by method, as one: in the order of `parts`, each at its pick, or at strength 1.

    Raises KeyError for a part without a steer.
    """
    steers: dict[str, Steer] = {name: origin.steers[name] for name in parts}
    picks = {name: origin.picks.get(name, {"steps": 0, "strength": 1.0}) for name in parts}
    record = steer_files.Record(
        steer=f"{Composed.__module__}:{Composed.__name__}",
        model=model.info.name,
        revision=model.info.revision,
        data=digest([origin.steers[name].record.data for name in parts]),
        seed=origin.seed,
        config={"parts": {name: {key: picks[name][key] for key in ("steps", "strength")} for name in parts}},
        sites=tuple(dict.fromkeys(site for steer in steers.values() for site in steer.sites)),
    )
    return Composed(steers, record)


@contextmanager
def _nested(attached: Sequence[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in attached:
            stack.enter_context(each)
        yield
