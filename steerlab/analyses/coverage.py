"""What SLIM's maps do to the states that they were made for: how many are on the wished side afterwards.

A head's map is made so that a Gaussian with the moments of the flagged states is on the wished side of the head's own
classifier with probability Phi(kappa) or more. The states themselves are no Gaussian: the classifier that flags them
cuts them off, and those of new questions were never seen. So what is reached is counted, on the fitted rows and on
held-out ones, without a threshold to pass. Intervals draw questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from steerlab.data import splits
from steerlab.methods import steer_files
from steerlab.methods.protocol import Activations
from steerlab.methods.slim_classifiers import Classifiers
from steerlab.metrics import bootstrap

COLUMNS = ["seed", "layer", "head", "part", "wished", "low", "high", "aimed", "states", "questions"]


@dataclass(frozen=True)
class Part:
    """Labelled rows and their attention heads' states at the last token; places: of the rows that count."""

    data: pd.DataFrame
    activations: Activations
    places: Sequence[int]


def coverage(
    steer,
    parts: Mapping[str, Part],
    *,
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a layer, head and part, and with head "all" one over a layer's heads, with COLUMNS.

    steer: SLIM's. wished: the share of the states flagged by a head's classifier that are on its wished side once they
    are mapped at strength 1, NaN where none is flagged; aimed: Phi(kappa). states, questions: how many are flagged.
    Raises ValueError for a steer without such maps.
    """
    if "matrix" not in getattr(steer, "tensors", {}):
        raise ValueError(f"coverage: a steer of {steer.record.method} has no maps of states; give SLIM's")
    how = {"resamples": resamples, "confidence": confidence, "seed": seed}
    aimed, table = NormalDist().cdf(steer.record.config["kappa"]), []
    for place, site in enumerate(steer.record.sites):
        own = {name: tensor[place].double() for name, tensor in steer.tensors.items() if name != "blend"}
        for name, part in parts.items():
            states = steer_files.states_by_row(part.activations, site, part.data)[list(part.places)]
            flagged, wished = _counted(own, states.double())
            questions = pd.factorize(splits.groups(part.data).iloc[list(part.places)])[0]
            columns = {str(head): (wished[:, head], flagged[:, head]) for head in range(flagged.shape[1])}
            columns["all"] = wished.sum(1), flagged.sum(1)
            for head, (right, of) in columns.items():
                sums = [np.bincount(questions, weights=each, minlength=questions.max() + 1) for each in (right, of)]
                counted = sums[1] > 0
                found = bootstrap.ratio(sums[0][counted], sums[1][counted], **how)
                about = (found.value, found.low, found.high, aimed, int(of.sum()), found.n)
                table.append((steer.record.seed, site.layer, head, name, *about))
    return pd.DataFrame(table, columns=COLUMNS)


def _counted(own: Mapping[str, Tensor], states: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Flagged, and of those on the wished side after the map, 1.0 or 0.0, (rows, heads) each."""
    mapped = torch.einsum("hij,rhj->rhi", own["matrix"], states) + own["offset"]
    classifiers = Classifiers(own["weight"], own["bias"])
    flagged = classifiers.logits(states) > 0
    return flagged.double().numpy(), (flagged & (classifiers.logits(mapped) <= 0)).double().numpy()
