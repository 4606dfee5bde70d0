"""HPR, the Householder pseudo-rotation: states that a probe calls unwished are turned, at the length that they have.

At the output a of a block, with a probe w (the hyperplane w a = 0 through the origin) and an angle net g,

    h = a - 2 (w a) / (w w) w               the reflection of a, on the wished side
    gamma1 = alpha pi sigmoid(g(a))         the angle to turn by; gamma2: the angle between a and h
    a' = sin(gamma1) / sin(gamma2) h + sin(gamma2 - gamma1) / sin(gamma2) a

turns a by gamma1 in the plane of a and w, towards h; |a'| = |a|. Where w a > 0 the state stays as it is. The layers are
those whose probes judge best on rows that they were not trained on.

Source: Pham and Nguyen, "Householder Pseudo-Rotation: A Novel Approach to Activation Editing in LLMs with
Direction-Magnitude Perspective" (EMNLP 2024), section 3, and its code. Unlike the code: an edit takes O(hidden) a token
and no (hidden, hidden) matrix is made; sines and cosines come from inner products, as acos loses the length in float32;
the angle is never above pi; each answer's states are kept once and paired by index. See hpr_training for the training.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf, pi
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerlab import sites
from steerlab.activations import Row, select
from steerlab.data.pairs import paired, samples
from steerlab.data.splits import fitted_and_judging, groups
from steerlab.methods import hpr_training, steer_files
from steerlab.methods.protocol import Activations, check_strength
from steerlab.models import ModelHandle, identity, may_wait
from steerlab.sites import Edit, Site, Where

log = logging.getLogger(__name__)

Angle = Literal["net", "reflection"]


def householder_reflect(x: Tensor, normal: Tensor) -> Tensor:
    """Reflect activations about the hyperplane through the origin with the given normal.

    x: (..., hidden), any float dtype; normal: (hidden,), need not be unit length, must not be zero.
    Returns a tensor like x with the same norm along the last axis. Source: HPR, section 3.
    """
    return x - (2 / (normal @ normal) * (x @ normal))[..., None] * normal


def pseudo_rotation(x: Tensor, normal: Tensor, angle: Tensor) -> Tensor:
    """Turn activations by an angle towards their reflection about the hyperplane with the given normal.

    x: (..., hidden), float32 or float64; normal: (hidden,), as for `householder_reflect`; angle: (...,), radians, 0 to
    pi. Returns a tensor like x with the same norm along the last axis. What has no such plane stays as it is: an x on
    the hyperplane, one parallel to the normal, and zero.

    With u = x / |x|, s = normal u / |normal| and c = sqrt(1 - s^2), the reflection of u is u - 2 s normal / |normal|,
    and its part across u has the direction v = -sign(s) (normal / |normal| - s u) / c. So HPR's two terms are
    cos(angle) x + sin(angle) |x| v, where no angle between x and its reflection is needed.
    """
    length = torch.linalg.vector_norm(x, dim=-1)
    size = torch.linalg.vector_norm(normal)
    s = (x @ normal) / (length * size)
    c = (1 - s * s).clamp(min=0).sqrt()
    sine = angle.sin()
    along = angle.cos() + s.abs() * sine / c
    across = -s.sign() * sine * length / (c * size)
    turned = along[..., None] * x + across[..., None] * normal
    # c is a small difference where x is almost parallel to the normal: what is lost in it is given back here.
    turned = turned * (length / torch.linalg.vector_norm(turned, dim=-1))[..., None]
    rounding = 4 * torch.finfo(x.dtype).eps
    has_plane = (s.abs() > rounding) & (c * c > rounding)  # False where s is not a number
    return torch.where(has_plane[..., None], turned, x)


@dataclass(frozen=True, eq=False)
class HPR:
    """The modules of every layer, and in the record's sites the layers that are steered.

    tensors: float32, see `hpr_training.initial`; normal, (layers, hidden), in a random control alone. Their first axis
    goes along the record's config["trained"], the layers' numbers.
    """

    tensors: Mapping[str, Tensor]
    record: steer_files.Record

    strengths: ClassVar[tuple[float, float]] = (0.0, inf)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The outputs of the blocks that are steered, the best judged ones."""
        return self.record.sites

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations,
        *,
        seed: int,
        layers: int = 5,
        angle_net_layers: int = 4,
        angle: Angle = "net",
        epochs: int = 5,
        learning_rate: float = 5e-4,
        batch_pairs: int = 16,
        warmup: float = 0.05,
        clip: float = 1.0,
        held_out: float = 0.1,
        alpha: float = 1.0,
        official_code: bool = False,
    ) -> Self:
        """See `Steer.fit`. data: `id`, `label`, `text`; `group`, `start` and so on as a task's table has them, see
        `data.pairs` for who is paired. activations: of `block_output` at the positions "answer".

        layers: how many are steered, those with the best probes. angle_net_layers: 1 is a linear net. angle:
        "reflection" has no angle net, gamma1 is gamma2. alpha: scales gamma1. held_out: share of the groups left out,
        drawn by the seed; they judge the probes where the table has no dev rows; where the rows that judge make no
        pair, the fitted ones judge. For the others see `hpr_training.train`.
        Raises ValueError for states that are not finite, or not the answers', and where no pair is left to train on.
        """
        if angle not in ("net", "reflection") or layers < 1 or angle_net_layers < 1:
            raise ValueError(
                f"HPR got angle {angle!r}, {layers} layers and {angle_net_layers} of the angle net; "
                "give 'net' or 'reflection' and numbers from 1"
            )
        rows = _tokens(model, data)
        fitted, judging = fitted_and_judging(data, seed, held_out)
        trained_on, judged_on = _samples(data, fitted, rows), _samples(data, judging, rows)
        if not len(trained_on):
            raise ValueError(
                f"HPR found no pair of a wished and an unwished text that differ among {len(fitted)} fitted rows; "
                "add texts of both classes, in groups that have both, or hold fewer of them out"
            )
        by = "balanced accuracy"
        if not len(judged_on):
            log.warning("HPR: the %d rows that judge make no pair; the fitted rows judge the probes", len(judging))
            judging, judged_on, by = fitted, trained_on, f"{by} on the fitted rows"
        names = [layer for layer in activations.layers("block_output") if layer is not None]
        net_layers = angle_net_layers if angle == "net" else 0
        tensors, accuracy = hpr_training.train_layers(
            activations, names, trained_on, judged_on, [len(row.selected) for row in rows], list(data["id"]),
            seed=seed, angle_net_layers=net_layers, epochs=epochs, learning_rate=learning_rate, batch_pairs=batch_pairs,
            warmup=warmup, clip=clip, official_code=official_code, device=model.device,
        )  # fmt: skip
        if layers > len(names):
            log.warning("HPR: %d layers are asked for, the model has %d; all are steered", layers, len(names))
        pick = min(layers, len(names))
        best_first = sorted(zip(names, accuracy), key=lambda each: (-each[1], each[0]))
        record = steer_files.Record.of_fit(
            cls, model, data,
            seed=seed,
            config={
                "layers": layers, "angle_net_layers": angle_net_layers, "angle": angle, "epochs": epochs,
                "learning_rate": learning_rate, "batch_pairs": batch_pairs, "warmup": warmup, "clip": clip,
                "held_out": held_out, "alpha": alpha, "official_code": official_code, "trained": names,
            },
            sites=tuple(Site("block_output", layer) for layer in sorted(layer for layer, _ in best_first[:pick])),
            selection={
                "by": by,
                "groups": int(groups(data).iloc[judging].nunique()),
                "candidates": [{"layer": layer, "value": value} for layer, value in best_first],
                "pick": pick,
            },
        )  # fmt: skip
        return cls(tensors, record)

    def with_layers(self, layers: Sequence[int] | Literal["all", "none"]) -> Self:
        """The same steer at other layers; its record's selection stays what the fit found.

        Raises ValueError for a layer that it has no modules for.
        """
        known = self.record.config["trained"]
        chosen = known if layers == "all" else [] if layers == "none" else sorted(set(layers))
        unknown = [layer for layer in chosen if layer not in known]
        if unknown:
            raise ValueError(f"this HPR has no layer {unknown[0]}, only {known[0]} to {known[-1]}; choose among them")
        picked = tuple(Site("block_output", layer) for layer in chosen)
        return type(self)(self.tensors, dataclasses.replace(self.record, sites=picked))

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`: gamma1 is clipped to pi after it was scaled by the strength."""
        check_strength(strength, self.strengths)
        steer_files.check_model(self.record, identity(model))
        if strength == 0 or not self.sites:
            return nullcontext()
        return sites.edit(model, {site: self._edit(site, strength, model) for site in self.sites})

    def _edit(self, site: Site, strength: float, model: PreTrainedModel) -> Edit:
        scale = strength * self.record.config["alpha"]
        place = self.record.config["trained"].index(site.layer)
        dtype = torch.promote_types(model.dtype, torch.float32)
        device = sites.device_of(model, site)
        tensors = {name: tensor[place : place + 1].to(device, dtype) for name, tensor in self.tensors.items()}
        probe, normal = tensors["probe"][0], tensors.get("normal", tensors["probe"])[0]

        def turned(a: Tensor) -> Tensor:
            """States, (states, hidden), turned by their angles."""
            if "weight_0" in tensors:
                angle = pi * hpr_training.angle_logits(a[None], tensors)[0].sigmoid()
            elif scale == 1 and "normal" not in tensors:
                return householder_reflect(a, probe)
            else:
                angle = angle_to_reflection(a, probe)
            return pseudo_rotation(a, normal, (scale * angle).clamp(max=pi))

        def edit(x: Tensor, where: Where) -> Tensor:
            return turn_where(x.to(dtype) @ probe <= 0, x, turned, dtype, wait=may_wait(model))

        return edit

    def save(self, folder: Path) -> None:
        """See `Steer.save`; the modules of every trained layer are kept, so that others can be chosen later."""
        steer_files.save(folder, self.record, dict(self.tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, tensors = steer_files.read(folder)
        return cls(tensors, record)

    def with_random_directions(self, generator: torch.Generator) -> Self:
        """The control: probe and angle net decide as before which states are turned and how far, but the plane that
        they are turned in is that of the state and a random direction, in the probe's place."""
        normal = torch.randn(self.tensors["probe"].shape, generator=generator)
        return type(self)({**self.tensors, "normal": normal}, self.record.with_config(random=True))

    def scaled(self, factor: float) -> Self:
        """The steer that turns by `factor` times the angle, up to pi."""
        return type(self)(self.tensors, self.record.with_config(alpha=self.record.config["alpha"] * factor))


def turn_where(
    chosen: Tensor, x: Tensor, turned: Callable[[Tensor], Tensor], dtype: torch.dtype, *, wait: bool
) -> Tensor:
    """x, (..., hidden), with turned(states), (states, hidden) in `dtype`, where chosen, (...,) bool; the others keep
    their bits, and x itself is returned where there are only such.

    wait: only the chosen states are turned, whose number a card would have to be waited for; else all, and those kept.
    """
    states = x.flatten(0, -2)
    if not wait:
        return torch.where(chosen[..., None], turned(states.to(dtype)).to(x.dtype).view_as(x), x)
    places = chosen.flatten().nonzero()[:, 0]
    if not len(places):
        return x
    return states.index_copy(0, places, turned(states[places].to(dtype)).to(x.dtype)).view_as(x)


def angle_to_reflection(x: Tensor, normal: Tensor) -> Tensor:
    """gamma2, (...,), radians: the angle of x, (..., hidden), and its reflection about the hyperplane of the normal."""
    length = torch.linalg.vector_norm(x, dim=-1).clamp(min=torch.finfo(x.dtype).tiny)
    s = (x @ normal) / (length * torch.linalg.vector_norm(normal))
    return 2 * s.abs().clamp(max=1).asin()  # cos(gamma2) = 1 - 2 s^2


def _tokens(model: ModelHandle, data: pd.DataFrame) -> list[Row]:
    """The tokens of every row, selected as its activations are."""
    starts = list(data["start"]) if "start" in data else None
    return select(model.info.tokenizer, list(data["text"]), "answer", starts)


def _samples(data: pd.DataFrame, places: Sequence[int], rows: Sequence[Row]) -> np.ndarray:
    """See `data.pairs.samples`: of all pairs among the rows at these places."""
    pairs = paired(data, places, [len(row.selected) for row in rows])
    return samples(pairs, [row.ids for row in rows], [row.selected for row in rows])
