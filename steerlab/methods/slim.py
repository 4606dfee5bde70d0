"""SLIM: where the heads of a layer vote that a state is unwished, those that did are moved to where they would not.

Three stages: risk-aware classifiers and their vote (slim_classifiers); for every head of a layer the nearest Gaussian
on the wished side of its classifier and the map x -> A x + b to it (slim_transport); weights w of the layers, where
several are steered. With votes from tau on, each head that voted becomes

    x' = x + s w (A x + b - x)                                                                   (s: the strength)

and what follows the prompt is edited, from its last token on. Layer and kappa are those under which the model likes the
right answers of the judging rows best.

Source: arXiv 2501.15758 ("Risk-Aware Distributional Intervention Policies", in Findings of EMNLP 2025 "Distributional
Surgery for Language Model Activations") and its code, nguyenngocbaocmt02/OT-Intervention. Unlike there, the edited
states are not mixed up where several rows are flagged at once, a head's flagged rows are those that its classifier
flags (there, with a classifier of scikit-learn, the rows 0 and 1), the threshold minds false alarms too (see
`slim_classifiers.threshold`), and layer and kappa are chosen by MC2 on rows that nothing was fitted on; there the layer
is, by judges of the answers to validation questions, and kappa is a constant. The third stage is in the README's title
alone: see slim_weights.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from steerlab import sites
from steerlab.data.splits import fitted_and_judging, groups
from steerlab.data.tables import classes
from steerlab.likelihood import log_likelihoods
from steerlab.methods import slim_classifiers, slim_transport, slim_weights, steer_files
from steerlab.methods.protocol import Activations, check_strength
from steerlab.methods.slim_classifiers import Classifiers, Loss
from steerlab.models import ModelHandle, identity, may_wait
from steerlab.progress import progress
from steerlab.sites import Edit, Site, Where
from steerlab.store import digest

log = logging.getLogger(__name__)

RISK = 0.1  # alpha where neither it nor kappa is given
TOKENS_A_BATCH = 2048
STRETCHED = 10.0  # from here on a map is one of too few rows, and carries other states far away
CONSTANT = 1e-6  # a head's spread, as a share of its states' size, below which it says nothing


@dataclass(frozen=True, eq=False)
class SLIM:
    """tensors, float32, the first axis along the record's sites: weight, (layers, heads, size), and bias, (layers,
    heads), of the classifiers; matrix, A, (layers, heads, size, size); offset, b, (layers, heads, size); blend, w,
    (layers,); in a random control direction, (layers, heads, size), unit rows. The record's config["thresholds"] holds
    each site's tau."""

    tensors: Mapping[str, Tensor]
    record: steer_files.Record

    strengths: ClassVar[tuple[float, float]] = (0.0, inf)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The attention heads of the steered layers."""
        return self.record.sites

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations,
        *,
        seed: int,
        kappa: Sequence[float] | None = None,
        alpha: Sequence[float] | None = None,
        bl: float = 1.0,
        loss: Loss = "fpr_fnr",
        epochs: int = 1000,
        learning_rate: float = 2e-3,
        layer_sweep: int = 3,
        layers: int = 1,
        held_out: float = 0.2,
        official_code: bool = False,
    ) -> Self:
        """See `Steer.fit`. data: `id`, `label`, and for questions `text`, `start`, `group`. activations: of
        `attention_heads` at the last token.

        kappa: multipliers of the constraint's spread, to choose from; or alpha: levels of risk instead, kappa being
        Phi^-1(1 - alpha); RISK where neither is given. layer_sweep: how many of the layers with the least risk are
        tried. layers: how many are steered, those with the least risk; from 2 on with fitted weights. held_out: share
        of the groups left out, drawn by the seed; they judge where the table has no dev rows.
        Raises ValueError for kappa and alpha both, for a class without rows, for states that are not finite, and for
        several kappas where no judging row has answers to choose from.
        """
        rows = _Rows.of(activations, data, seed, held_out)
        settings = {"loss": loss, "bl": bl, "epochs": epochs, "learning_rate": learning_rate}
        kappas = _kappas(kappa, alpha)
        numbers = [layer for layer in activations.layers("attention_heads") if layer is not None]
        heads: dict[int, Classifiers] = {}
        classified: dict[int, dict[str, Any]] = {}
        for layer in progress(numbers, total=len(numbers), desc=f"SLIM, seed {seed}", unit="layer"):
            generator = torch.Generator().manual_seed(int(digest(["slim", seed, layer])[:15], 16))
            heads[layer], classified[layer] = _classified(
                rows, layer, **settings, generator=generator, official_code=official_code, device=model.device
            )
        by_risk = sorted(numbers, key=lambda layer: (classified[layer]["risk"], layer))
        compared = layer_sweep if rows.questions() else 1
        tried = [by_risk[:layers]] if layers > 1 else [[layer] for layer in by_risk[:compared]]
        maps = {layer: _maps(rows, layer, heads[layer], kappas) for layer in sorted(set(sum(tried, [])))}

        def steer(layers: Sequence[int], kappa: float) -> Self:
            layers = sorted(layers)
            tensors = {
                "weight": [heads[layer].weight for layer in layers],
                "bias": [heads[layer].bias for layer in layers],
                "matrix": [maps[layer][kappa][0] for layer in layers],
                "offset": [maps[layer][kappa][1] for layer in layers],
                "blend": [torch.ones(()) for _ in layers],
            }
            thresholds = [classified[layer]["threshold"] for layer in layers]
            record = steer_files.Record.of_fit(
                cls, model, data,
                seed=seed,
                config=settings | {
                    "kappa": kappa, "layer_sweep": layer_sweep, "layers": len(layers), "held_out": held_out,
                    "official_code": official_code, "thresholds": thresholds,
                },
                sites=tuple(Site("attention_heads", layer) for layer in layers),
            )  # fmt: skip
            return cls({name: torch.stack(each).float().cpu() for name, each in tensors.items()}, record)

        candidates = [steer(of_layers, each) for of_layers in tried for each in kappas]
        chosen, selection = _chosen(candidates, model, rows, [classified[layer] for layer in numbers])
        if layers > 1:
            flagged = _wrongly_flagged(chosen, rows)
            editing = functools.partial(chosen._editing, model.load(), 1.0)
            weights = slim_weights.fitted_weights(model, flagged, len(chosen.sites), editing)
            chosen = dataclasses.replace(chosen, tensors={**chosen.tensors, "blend": weights})
        return dataclasses.replace(chosen, record=dataclasses.replace(chosen.record, selection=selection))

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`; from the last prompt token on, heads that voted are mapped where a layer is flagged."""
        check_strength(strength, self.strengths)
        steer_files.check_model(self.record, identity(model))
        if strength == 0:
            return nullcontext()
        return self._editing(model, strength, self.tensors["blend"])

    def _editing(self, model: PreTrainedModel, strength: float, blend: Tensor) -> AbstractContextManager[None]:
        edits = {
            site: self._edit(place, strength * blend[place], model) for place, site in enumerate(self.record.sites)
        }
        return sites.edit(model, edits, scope="from_last_prompt_token")

    def _edit(self, place: int, weight: Tensor, model: PreTrainedModel) -> Edit:
        dtype = torch.promote_types(model.dtype, torch.float32)
        device = sites.device_of(model, self.record.sites[place])
        own = {name: tensor[place].to(device, dtype) for name, tensor in self.tensors.items() if name != "blend"}
        classifiers, tau = Classifiers(own["weight"], own["bias"]), self.record.config["thresholds"][place]
        weight = weight.to(device, dtype) * self.record.config.get("factor", 1.0)

        def edit(x: Tensor, where: Where) -> Tensor:
            states = x.to(dtype)
            says = classifiers.logits(states) > 0
            chosen = says & (says.sum(-1, keepdim=True) >= tau)
            if may_wait(model) and not chosen.any():  # a card would have to be waited for
                return x
            change = torch.einsum("hij,bshj->bshi", own["matrix"], states) + own["offset"] - states
            if "direction" in own:
                change = change.norm(dim=-1, keepdim=True) * own["direction"]
            return torch.where(chosen[..., None], (states + weight * change).to(x.dtype), x)

        return edit

    def save(self, folder: Path) -> None:
        """See `Steer.save`; classifiers, maps and blends are the tensors, thresholds are in the record."""
        steer_files.save(folder, self.record, dict(self.tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Steer.load`."""
        record, tensors = steer_files.read(folder)
        return cls(tensors, record)

    def with_random_directions(self, generator: torch.Generator) -> Self:
        """The control: the same heads are moved, as far as the map would, each in a random direction of its own."""
        drawn = torch.randn(self.tensors["offset"].shape, generator=generator, dtype=torch.float64)
        direction = functional.normalize(drawn, dim=-1).float()
        return type(self)({**self.tensors, "direction": direction}, self.record.with_config(random=True))

    def scaled(self, factor: float) -> Self:
        """The steer that moves by `factor` times as much."""
        return type(self)(self.tensors, self.record.with_config(factor=self.record.config.get("factor", 1.0) * factor))


S = TypeVar("S", bound=SLIM)
Labelled = tuple[Tensor, Tensor]  # states, (rows, heads, size), and whether they are unwished, (rows,) bool


@dataclass(frozen=True)
class _Rows:
    """The labelled rows of a fit: places of those that are fitted on and of those that judge.

    judged: False where the fitted rows judge.
    """

    activations: Activations
    data: pd.DataFrame
    fitted: np.ndarray
    judging: np.ndarray
    judged: bool

    @classmethod
    def of(cls, activations: Activations, data: pd.DataFrame, seed: int, held_out: float) -> Self:
        labels = classes(data)
        fitted, judging = (
            [place for place in places if abs(labels[place]) == 1]
            for places in fitted_and_judging(data, seed, held_out)
        )
        wished, unwished = (int((labels[fitted] == sign).sum()) for sign in (+1, -1))
        if not (wished and unwished):
            raise ValueError(f"SLIM needs texts of both classes, got {wished} wished and {unwished} unwished")
        judged = {+1, -1} <= set(labels[judging])
        if not judged:
            log.warning("SLIM: the %d rows that judge are not of both classes; the fitted rows judge", len(judging))
            judging = fitted
        return cls(activations, data, np.array(fitted), np.array(judging), judged)

    def states(self, layer: int) -> tuple[Labelled, Labelled]:
        """Of one layer, the rows that are fitted on and those that judge, float32, each in the order of its places."""
        table = steer_files.states_by_row(self.activations, Site("attention_heads", layer), self.data).float()
        unwished = torch.from_numpy(self.labels < 0)
        one, other = ((table[places], unwished[places]) for places in (self.fitted, self.judging))
        return one, other

    @property
    def labels(self) -> np.ndarray:
        """+1.0 wished, -1.0 unwished, 0.0 neither, (rows,)."""
        return classes(self.data)

    def questions(self) -> list[pd.DataFrame]:
        """The judging rows, question by question, of those that have a right and a wrong answer to choose from."""
        if "start" not in self.data:
            return []
        of_groups = self.data.iloc[self.judging].groupby(groups(self.data).iloc[self.judging], sort=False)
        return [rows for _, rows in of_groups if {+1, -1} <= set(rows["label"]) and (rows["start"] > 0).all()]


def _kappas(kappa: Sequence[float] | None, alpha: Sequence[float] | None) -> list[float]:
    if kappa and alpha:
        raise ValueError(f"SLIM got kappa {kappa} and alpha {alpha}; give one of the two")
    if not all(each > 0 for each in kappa or ()) or not all(0 < each < 0.5 for each in alpha or ()):
        raise ValueError(f"SLIM got kappa {kappa}, alpha {alpha}; give kappas above 0 or alphas between 0 and 0.5")
    return list(kappa) if kappa else [NormalDist().inv_cdf(1 - risk) for risk in alpha or [RISK]]


def _classified(
    rows: _Rows, layer: int, *, loss: Loss, bl: float, epochs: int, learning_rate: float,
    generator: torch.Generator, official_code: bool, device: str,
) -> tuple[Classifiers, dict[str, Any]]:  # fmt: skip
    """A layer's classifiers, on the CPU, and on the rows that judge: layer, risk, threshold, fpr and fnr of the vote.

    device: where they are trained.
    """
    (states, unwished), (judging, judging_unwished) = rows.states(layer)
    classifiers = slim_classifiers.train(
        states.to(device), unwished, judging.to(device), judging_unwished,
        loss=loss, bl=bl, epochs=epochs, learning_rate=learning_rate, generator=generator, official_code=official_code,
    )  # fmt: skip
    classifiers = Classifiers(classifiers.weight.cpu(), classifiers.bias.cpu())
    classifiers = _without_constant_heads(classifiers, states, layer)
    votes = classifiers.votes(judging)
    tau = slim_classifiers.threshold(votes, judging_unwished, states.shape[1], bl, official_code=official_code)
    fpr, fnr = slim_classifiers.rates(votes >= tau, judging_unwished)
    risk = slim_classifiers.risk(classifiers, judging, judging_unwished, bl)
    return classifiers, {"layer": layer, "risk": risk, "threshold": tau, "fpr": float(fpr), "fnr": float(fnr)}


def _without_constant_heads(classifiers: Classifiers, states: Tensor, layer: int) -> Classifiers:
    """A head whose states are all alike never votes."""
    constant = states.std(0, correction=0).amax(-1) <= CONSTANT * states.square().mean((0, 2)).sqrt()
    for head in constant.nonzero()[:, 0].tolist():
        log.warning("SLIM: layer %d, head %d is constant; it never votes", layer, head)
    weight = torch.where(constant[:, None], 0.0, classifiers.weight)
    return Classifiers(weight, torch.where(constant, -1.0, classifiers.bias))


def _maps(
    rows: _Rows, layer: int, classifiers: Classifiers, kappas: Sequence[float]
) -> dict[float, tuple[Tensor, Tensor]]:
    """A and b of a layer's heads, (heads, size, size) and (heads, size) float64, by kappa.

    m and S: of the fitted rows that a head's classifier flags; C: of the wished ones. A head that flags fewer than two
    rows stays as it is.
    """
    (states, unwished), _ = rows.states(layer)
    flagged = classifiers.logits(states) > 0
    mean, covariance = _moments(states, flagged)
    _, wished = _moments(states, (~unwished)[:, None].expand_as(flagged))
    covariance, ridged = slim_transport.positive_definite(covariance)
    moved = flagged.sum(0) >= 2
    for head in torch.nonzero(ridged & moved)[:, 0].tolist():
        log.warning(
            "SLIM: layer %d, head %d flags %d rows, whose covariance is singular; %g is added to its diagonal",
            layer, head, int(flagged[:, head].sum()), slim_transport.RIDGE,
        )  # fmt: skip
    size = states.shape[-1]
    found = {}
    for kappa in kappas:
        matrix = torch.eye(size, dtype=torch.float64).repeat(len(moved), 1, 1)
        offset = torch.zeros(len(moved), size, dtype=torch.float64)
        if moved.any():
            target = slim_transport.nearest_wished(
                mean[moved], slim_transport.psd_root(covariance[moved]), classifiers.weight[moved].double(),
                classifiers.bias[moved].double(), kappa, slim_transport.psd_root(wished[moved]),
            )  # fmt: skip
            matrix[moved], offset[moved] = slim_transport.gaussian_map(mean[moved], covariance[moved], target)
        stretched = torch.linalg.eigvalsh(matrix)[:, -1]
        for head in torch.nonzero(stretched > STRETCHED)[:, 0].tolist():
            log.warning(
                "SLIM: layer %d, head %d, kappa %g: the map of %d rows of size %d stretches states up to %.3g times; "
                "fit it on more texts",
                layer, head, kappa, int(flagged[:, head].sum()), size, stretched[head],
            )  # fmt: skip
        found[kappa] = matrix, offset
    return found


def _moments(states: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Means, (heads, size), and covariances over n, (heads, size, size), float64, of the chosen rows of each head.

    states: (rows, heads, size); chosen: (rows, heads) bool; a head without rows has zeros.
    """
    x, of = states.double(), chosen.double()
    counts = of.sum(0).clamp(min=1)
    mean = torch.einsum("rhd,rh->hd", x, of) / counts[:, None]
    centred = (x - mean) * of[..., None]
    return mean, torch.einsum("rhd,rhe->hde", centred, centred) / counts[:, None, None]


def _chosen(
    candidates: Sequence[S], model: ModelHandle, rows: _Rows, classified: list[dict[str, Any]]
) -> tuple[S, dict[str, Any]]:
    """The best candidate and the record's selection; where no judging row has answers, the one of least risk.

    Raises FloatingPointError where no candidate leaves the model's numbers finite.
    """
    questions = rows.questions()
    if len({one.record.config["kappa"] for one in candidates}) > 1 and not questions:
        raise ValueError(
            "SLIM has several kappas to choose from and no judging row with answers to choose by; give one"
        )
    risks = {each["layer"]: each["risk"] for each in classified}
    found = []
    for one in progress(candidates, total=len(candidates), desc="SLIM's choice", unit="candidate"):
        layer = min((site.layer or 0 for site in one.sites), key=lambda layer: risks[layer])
        try:
            value = _mc2(one, model, questions) if questions else -risks[layer]
        except FloatingPointError as error:
            log.warning("SLIM: layer %d with kappa %g is out: %s", layer, one.record.config["kappa"], error)
            continue
        about = {"layer": layer, "layers": [site.layer for site in one.sites], "kappa": one.record.config["kappa"]}
        found.append((one, about | {"value": value}))
    if not found:
        raise FloatingPointError(
            "SLIM: no candidate leaves the model's numbers finite; give smaller kappas or more texts"
        )
    found.sort(key=lambda each: (-each[1]["value"], each[1]["kappa"], each[1]["layer"]))
    selection = {
        "by": f"MC2 of the {'judging' if rows.judged else 'fitted'} rows" if questions else "least risk",
        "groups": len(questions) if questions else int(groups(rows.data).iloc[rows.judging].nunique()),
        "candidates": [about for _, about in found],
        "pick": 1,
        "unsteered": _mc2(None, model, questions) if questions else None,
        "classifiers": classified,
    }
    return found[0][0], selection


def _mc2(steer: SLIM | None, model: ModelHandle, questions: Sequence[pd.DataFrame]) -> float:
    """The mean over questions of the right answers' share in the probability of all their answers."""
    rows = pd.concat(questions)
    pairs = [(text[:start], text[start:]) for text, start in zip(rows["text"], rows["start"])]
    with steer.attached(model.load()) if steer else nullcontext():
        scored = log_likelihoods(model.load(), model.info.tokenizer, pairs, tokens_a_batch=TOKENS_A_BATCH)
    likelihoods = torch.tensor([-nll for nll, _ in scored], dtype=torch.float64).split(
        [len(each) for each in questions]
    )
    right = [torch.from_numpy(each["label"].to_numpy() > 0) for each in questions]
    return sum(float(each.softmax(0)[mask].sum()) for each, mask in zip(likelihoods, right)) / len(questions)


def _wrongly_flagged(steer: SLIM, rows: _Rows) -> list[tuple[str, int]]:
    """The wished fitted texts that the vote of one of the steer's layers flags, with where their answers begin."""
    flagged = torch.zeros(len(rows.fitted), dtype=torch.bool)
    for place, site in enumerate(steer.sites):
        (states, unwished), _ = rows.states(site.layer or 0)
        classifiers = Classifiers(steer.tensors["weight"][place], steer.tensors["bias"][place])
        flagged |= ~unwished & (classifiers.votes(states) >= steer.record.config["thresholds"][place])
    data = rows.data.iloc[rows.fitted[flagged.numpy()]]
    return list(zip(data["text"], data.get("start", [0] * len(data))))
