"""CAA, the mean difference: x -> x + s v, v = mean(wished) - mean(unwished), at the output of one block.

Source: Panickssery et al., "Steering Llama 2 via Contrastive Activation Addition", and its code, nrimsky/CAA.
As there, the vector is added to the end of the prompt and all that follows it: the code edits every position from the
last token of the instruction on, which is our scope "from_last_prompt_token".
Unlike there, the vector is not rescaled across behaviours, and the states are those of whole texts at their last token,
not of the answer letter of an A/B question; the two classes need no pairs (for pairs, the mean of the differences is
the difference of the means).
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import ClassVar, Self

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerlab import sites
from steerlab.data.splits import fitted_and_judging
from steerlab.data.tables import classes
from steerlab.methods import steer_files
from steerlab.methods.protocol import Activations, check_strength
from steerlab.models import ModelHandle, identity
from steerlab.sites import Site


@dataclass(frozen=True, eq=False)
class CAA:
    """vector: (hidden,) float32, v."""

    vector: Tensor
    record: steer_files.Record

    strengths: ClassVar[tuple[float, float]] = (-inf, inf)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The output of one block."""
        return self.record.sites

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations,
        *,
        seed: int,
        layer: float = 0.5,
        multiplier: float = 1.0,
        held_out: float = 0.2,
    ) -> Self:
        """See `Steer.fit`. data: `id`, `label`. layer: an index, or a share of the depth below 1.

        multiplier: scales v at strength 1. held_out: share of the rows left out, drawn by the seed (the fit itself has
        no chance in it). Raises ValueError for states that are not finite and for a class without rows.
        """
        site = Site("block_output", sites.layer_index(model.info.config, layer))
        fitted, _ = fitted_and_judging(data, seed, held_out)
        labels = torch.zeros(len(data))  # 0: of neither class
        labels[fitted] = torch.from_numpy(classes(data)).float()[fitted]
        sums, counts = {+1: torch.zeros(()), -1: torch.zeros(())}, {+1: 0, -1: 0}
        for rows, states in activations.shards(site):
            steer_files.check_finite(states, site, data["id"].iloc[rows].tolist())
            for sign in sums:
                chosen = states[labels[rows] == sign].double()
                sums[sign], counts[sign] = sums[sign] + chosen.sum(0), counts[sign] + len(chosen)
        if not all(counts.values()):
            raise ValueError(f"CAA needs texts of both classes, got {counts[1]} wished and {counts[-1]} unwished")
        vector = (sums[+1] / counts[+1] - sums[-1] / counts[-1]).float()
        record = steer_files.Record.of_fit(
            cls,
            model,
            data,
            seed=seed,
            config={"layer": layer, "multiplier": multiplier, "held_out": held_out},
            sites=(site,),
        )
        return cls(vector, record)

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`; v is added from the last prompt token on."""
        check_strength(strength, self.strengths)
        steer_files.check_model(self.record, identity(model))
        if strength == 0:
            return nullcontext()
        vector = strength * self.record.config["multiplier"] * self.vector
        vector = vector.to(sites.device_of(model, self.sites[0]), model.dtype)
        return sites.edit(model, {self.sites[0]: lambda x, where: x + vector}, scope="from_last_prompt_token")

    def save(self, folder: Path) -> None:
        """See `Steer.save`; the tensor is `vector`."""
        steer_files.save(folder, self.record, {"vector": self.vector})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, tensors = steer_files.read(folder)
        return cls(tensors["vector"], record)

    def with_random_directions(self, generator: torch.Generator) -> Self:
        """The control: a random vector of the learnt one's length."""
        drawn = torch.randn(self.vector.shape, generator=generator, dtype=torch.float64)
        vector = (drawn / drawn.norm() * self.vector.double().norm()).float()
        return dataclasses.replace(self, vector=vector, record=self.record.with_config(random=True))

    def scaled(self, factor: float) -> Self:
        """The steer whose edit is `factor` times this one's."""
        multiplier = self.record.config["multiplier"] * factor
        return dataclasses.replace(self, record=self.record.with_config(multiplier=multiplier))
