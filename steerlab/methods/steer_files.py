"""A steer on disk: what it learnt in steer.safetensors, for which model, on what and how in steer.json; no pickle."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle
from steerlab.sites import Site
from steerlab.store import digest, write_atomically, write_json

TENSORS, RECORD = "steer.safetensors", "steer.json"


class SteerMismatch(ValueError):
    """A steer was to be attached to another model than the one it was fitted for; the message names both."""


@dataclass(frozen=True)
class Record:
    """Where a steer comes from.

    steer: class path, `steerlab.methods.caa:CAA`. model, revision: of the model it was fitted for. data: digest of the
    training rows (`data_digest`). seed, config: all that `fit` was given besides. sites: what it edits. selection: for
    a method that chooses where to steer, {"by": the measure, on the rows that judge, "groups": their number,
    "candidates": [{"layer": ..., and "head" where there is one, "value": ...}, ...] best first, "pick": how many of the
    first are steered}.
    """

    steer: str
    model: str
    revision: str
    data: str
    seed: int
    config: dict[str, Any]
    sites: tuple[Site, ...]
    selection: dict[str, Any] | None = None

    @classmethod
    def of_fit(
        cls,
        steer: type,
        model: ModelHandle,
        data: pd.DataFrame,
        *,
        seed: int,
        config: dict[str, Any],
        sites: tuple[Site, ...],
        selection: dict[str, Any] | None = None,
    ) -> Self:
        """The record of a steer of this class that is fitted on these rows for this model."""
        about = (f"{steer.__module__}:{steer.__name__}", model.info.name, model.info.revision, data_digest(data))
        return cls(*about, seed, config, sites, selection)

    def with_config(self, **changes: Any) -> Self:
        """The same record with other values in its config."""
        return dataclasses.replace(self, config=self.config | changes)

    @property
    def method(self) -> str:
        """The method's name, which is its file's."""
        return self.steer.partition(":")[0].rpartition(".")[2]


def save(folder: Path, record: Record, tensors: dict[str, Tensor]) -> None:
    """Write a steer's two files; the same record and tensors give the same bytes."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    write_atomically(folder / TENSORS, lambda path: save_file(contiguous, path))
    write_json(folder / RECORD, dataclasses.asdict(record) | {"method": record.method})


def read(folder: Path) -> tuple[Record, dict[str, Tensor]]:
    """The record and the tensors (on the CPU) of a saved steer; raises ValueError for a folder that holds none."""
    if not (folder / RECORD).is_file():
        raise ValueError(f"{folder} holds no steer: it has no {RECORD}; train the steer first")
    about = json.loads((folder / RECORD).read_text())
    del about["method"]  # for readers; the class path says it
    about["sites"] = tuple(Site(**site) for site in about["sites"])
    # Copied, because a mapped file's tensors lie where the file has them, and unaligned ones change the last bits.
    return Record(**about), {name: tensor.clone() for name, tensor in load_file(folder / TENSORS).items()}


def check_model(record: Record, model: tuple[str, str]) -> None:
    """Raises SteerMismatch unless `model`, (name, revision), is the one that the steer was fitted for.

    The revision decides, the name does not: the same weights under another name are the same model.
    """
    name, revision = model
    if revision != record.revision:
        raise SteerMismatch(
            f"steer '{record.method}' (seed {record.seed}) was trained for model {record.model!r}, revision "
            f"{record.revision[:12]}, this is {name!r}, revision {revision[:12]}; retrain it or load that revision"
        )


def data_digest(data: pd.DataFrame) -> str:
    """SHA-256 (hex) of a table's columns and values in their order."""
    return digest(data.to_dict("list"))


def check_finite(states: Tensor, site: Site, ids: list[str]) -> None:
    """Raises ValueError for a state that is not finite, naming its layer and its example; states: (rows, ...)."""
    finite = torch.isfinite(states).flatten(1).all(1)
    if not finite.all():
        example = ids[int((~finite).int().argmax())]
        raise ValueError(
            f"the activations at {site.name}, layer {site.layer}, of example {example} are not finite; "
            "capture them anew, in float32 if they overflow"
        )


def states_by_row(activations: Activations, site: Site, data: pd.DataFrame) -> Tensor:
    """The states of one layer, (rows, ...) in the model's dtype and the data's order, of activations with one a row.

    Raises ValueError as `check_finite`.
    """
    parts = list(activations.shards(site))
    for rows, states in parts:
        check_finite(states, site, data["id"].iloc[rows].tolist())
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return torch.cat([states for _, states in parts])[order]
