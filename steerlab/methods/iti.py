"""ITI, Inference-Time Intervention: x -> x + s alpha sigma theta at a few attention heads that tell the classes apart.

A logistic probe a head is fitted on the texts' last tokens; the heads whose probes are right most often on the rows
that judge are chosen. theta (head size) is a head's unit direction from the unwished to the wished class, sigma the
standard deviation of its states along theta; x is the head's output before the attention's output projection.

Source: Li et al. 2023, "Inference-Time Intervention: Eliciting Truthful Answers from a Language Model", section 4, and
its code, likenneth/honest_llama. As there, alpha is 15 at 48 heads, and what follows the prompt is edited: our scope
"from_last_prompt_token", alike in decoding and in likelihood scoring. The code's later version (interveners.py) edits
only the last token of every forward; a scored continuation is then left as it was, as that token predicts nothing.
Unlike there, theta and sigma come from the fitted rows alone (the code: theta also from those that judge, sigma from
other texts), the accuracy is balanced, and the probes are solved to convergence, all heads of a layer at once.
"""

import dataclasses
import functools
import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from steerlab import sites
from steerlab.data.splits import fitted_and_judging, groups
from steerlab.data.tables import classes
from steerlab.methods import steer_files
from steerlab.methods.protocol import Activations, check_strength
from steerlab.models import ModelHandle, identity
from steerlab.progress import progress
from steerlab.sites import Site, Where

log = logging.getLogger(__name__)

Direction = Literal["mass_mean", "probe"]

CONSTANT = 1e-6  # a head's spread, as a share of its states' size, below which it says nothing


@dataclass(frozen=True, eq=False)
class ITI:
    """theta: (picked, head size) float32, unit rows; sigma: (picked,) float32; in the order of record.selection."""

    theta: Tensor
    sigma: Tensor
    record: steer_files.Record

    strengths: ClassVar[tuple[float, float]] = (-inf, inf)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The attention heads of every layer with a picked head."""
        return self.record.sites

    @property
    def picked(self) -> list[tuple[int, int]]:
        """(layer, head) of the heads that are steered, the best first."""
        return _best(self.record.selection or {})

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations,
        *,
        seed: int,
        heads: int = 48,
        alpha: float = 15.0,
        held_out: float = 0.2,
        direction: Direction = "mass_mean",
    ) -> Self:
        """See `Steer.fit`. data: `id`, `label`. activations: of `attention_heads` at the last token.

        heads: how many are steered, all where the model has fewer. alpha: standard deviations at strength 1. held_out:
        share of the rows left out, drawn by the seed (the fit itself has no chance in it). direction: theta is the mean
        of the wished less that of the unwished, or the probe's weight.
        Rows that judge but are all of one class cannot; the fitted ones then do, with a warning. A head of constant
        states is never chosen. Raises ValueError for states that are not finite and for a class without rows.
        """
        if heads < 1 or direction not in ("mass_mean", "probe"):
            raise ValueError(f"ITI got heads {heads}, direction {direction!r}; give a head or more, mass_mean or probe")
        fitted, judging = fitted_and_judging(data, seed, held_out)
        labels = classes(data)
        wished, unwished = (int((labels[fitted] == sign).sum()) for sign in (+1, -1))
        if not (wished and unwished):
            raise ValueError(f"ITI needs texts of both classes, got {wished} wished and {unwished} unwished")
        by = "balanced accuracy"
        if not {+1, -1} <= set(labels[judging]):
            log.warning("ITI: the %d rows that judge are not of both classes; the fitted rows judge", len(judging))
            judging, by = fitted, "balanced accuracy on the fitted rows"
        found: dict[tuple[int, int], tuple[float, Tensor, Tensor]] = {}
        layers = sites.layers_of(model.info.config, "attention_heads")
        for layer in progress(layers, total=len(layers), desc=f"ITI, seed {seed}", unit="layer"):
            site = Site("attention_heads", layer)
            states = steer_files.states_by_row(activations, site, data).double()
            parts = [[place for place in part if abs(labels[place]) == 1] for part in (fitted, judging)]
            one, other = ((states[part], torch.from_numpy(labels[part])) for part in parts)
            values, theta, sigma = _of_layer(*one, *other, direction)
            for head in range(len(values)):
                if sigma[head] > 0:
                    found[int(layer or 0), head] = float(values[head]), theta[head], sigma[head]
                else:
                    log.warning("ITI: layer %s, head %d is constant along its direction; left out", layer, head)
        if not found:
            raise ValueError("ITI: every head's states are constant; give other texts")
        selection = {
            "by": by,
            "groups": int(groups(data).iloc[judging].nunique()),
            "candidates": [
                {"layer": layer, "head": head, "value": found[layer, head][0]}
                for layer, head in sorted(found, key=lambda place: (-found[place][0], place))
            ],
            "pick": min(heads, len(found)),
        }
        picked = _best(selection)
        record = steer_files.Record.of_fit(
            cls,
            model,
            data,
            seed=seed,
            config={"heads": heads, "alpha": alpha, "held_out": held_out, "direction": direction},
            sites=tuple(Site("attention_heads", layer) for layer in sorted({layer for layer, _ in picked})),
            selection=selection,
        )
        theta, sigma = ([found[place][1] for place in picked], [found[place][2] for place in picked])
        return cls(torch.stack(theta).float(), torch.stack(sigma).float(), record)

    def offsets(self, heads: int) -> dict[Site, Tensor]:
        """What is added at each layer at strength 1, (heads, head size) float32: zero at heads that are not picked."""
        added = {site: torch.zeros(heads, self.theta.shape[1]) for site in self.sites}
        rows = self.record.config["alpha"] * self.sigma[:, None] * self.theta
        for (layer, head), row in zip(self.picked, rows, strict=True):
            added[Site("attention_heads", layer)][head] = row
        return added

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`; s alpha sigma theta is added to the picked heads from the last prompt token on."""
        check_strength(strength, self.strengths)
        steer_files.check_model(self.record, identity(model))
        if strength == 0:
            return nullcontext()
        edits = {
            site: functools.partial(_added, offset=(strength * offset).to(sites.device_of(model, site), model.dtype))
            for site, offset in self.offsets(model.config.num_attention_heads).items()
        }
        return sites.edit(model, edits, scope="from_last_prompt_token")

    def save(self, folder: Path) -> None:
        """See `Steer.save`; the tensors are `theta` and `sigma`, the heads are in the record."""
        steer_files.save(folder, self.record, {"theta": self.theta, "sigma": self.sigma})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, tensors = steer_files.read(folder)
        return cls(tensors["theta"], tensors["sigma"], record)

    def with_random_directions(self, generator: torch.Generator) -> Self:
        """The control: at the same heads, random directions with the learnt sigma."""
        drawn = torch.randn(self.theta.shape, generator=generator, dtype=torch.float64)
        theta = (drawn / drawn.norm(dim=1, keepdim=True)).float()
        return dataclasses.replace(self, theta=theta, record=self.record.with_config(random=True))

    def scaled(self, factor: float) -> Self:
        """The steer whose edit is `factor` times this one's."""
        return dataclasses.replace(self, record=self.record.with_config(alpha=self.record.config["alpha"] * factor))


def fitted_probes(states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic probes of all heads: weights w, (heads, head size), and biases b, (heads,), float64.

    states: x, (rows, heads, head size) float64; labels: y, (rows,) +-1, of both kinds. Each head's
    |w|^2 / 2 + sum log(1 + exp(-y (w.x + b))) is minimised by Newton steps, halved where they would lead up: the
    problem of scikit-learn's LogisticRegression as it comes, which the official code uses.
    """
    centre = states.mean(0)  # w does not depend on it, as b is free, and the steps are better conditioned
    x = functional.pad((states - centre).transpose(0, 1), (0, 1), value=1.0)  # (heads, rows, head size + 1)
    penalty = functional.pad(torch.ones(x.shape[2] - 1, dtype=x.dtype), (0, 1))
    w = x.new_zeros(x.shape[0], x.shape[2])

    def margins(w: Tensor) -> Tensor:
        return labels * (x @ w[..., None])[..., 0]

    def loss(w: Tensor) -> Tensor:
        return (penalty * w.square()).sum(1) / 2 + functional.softplus(-margins(w)).sum(1)

    for _ in range(100):
        pull = torch.sigmoid(-margins(w))
        gradient = penalty * w - ((labels * pull)[:, None] @ x)[:, 0]
        curvature = (x * (pull * (1 - pull))[..., None]).transpose(1, 2) @ x
        step = torch.linalg.solve(curvature + torch.diag(penalty + 1e-10), gradient)
        gain = (gradient * step).sum(1)
        before, size = loss(w), torch.ones_like(gain)
        for _ in range(40):
            leads_up = loss(w - size[:, None] * step) > before * (1 + 1e-12) - 1e-4 * size * gain
            if not leads_up.any():
                break
            size = torch.where(leads_up, size / 2, size)
        w = w - size[:, None] * step
        if gain.max() < 1e-9:  # what is left after this step is of the order of its square
            break
    return w[:, :-1], w[:, -1] - (w[:, :-1] * centre).sum(1)


def _of_layer(
    states: Tensor, labels: Tensor, judging_states: Tensor, judging_labels: Tensor, direction: Direction
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each head: balanced accuracy of its probe, (heads,); theta, (heads, head size); sigma, (heads,), 0 for a head
    of constant states. states: (rows, heads, head size), labels: (rows,) +-1, of both kinds; float64."""
    weights, biases = fitted_probes(states, labels)
    says = (judging_states * weights).sum(2) + biases > 0
    right = [(says[judging_labels == sign] == (sign > 0)).double().mean(0) for sign in (+1, -1)]
    towards = states[labels > 0].mean(0) - states[labels < 0].mean(0) if direction == "mass_mean" else weights
    theta = towards / towards.norm(dim=1, keepdim=True).clamp(min=torch.finfo(towards.dtype).tiny)
    sigma = (states * theta).sum(2).std(0, correction=0)
    size = states.square().mean((0, 2)).sqrt()
    return (right[0] + right[1]) / 2, theta, torch.where(sigma > CONSTANT * size, sigma, 0.0)


def _best(selection: dict[str, Any]) -> list[tuple[int, int]]:
    return [(each["layer"], each["head"]) for each in selection["candidates"][: selection["pick"]]]


def _added(x: Tensor, where: Where, offset: Tensor) -> Tensor:
    return x + offset
