"""SLIM: the transport problems of a layer's heads beside an open conic solver, and what a steer costs in decoding."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cvxpy as cp
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.decoding import PROMPTS, edited
from benchmarks.pairs import Ratio, ratio_of, timed
from steerlab import activations
from steerlab.activations import Activations
from steerlab.methods.slim import SLIM
from steerlab.methods.slim_transport import nearest_wished, positive_definite, psd_root
from steerlab.models import ModelHandle
from steerlab.sites import Site

KAPPA, ALLOWED_SECONDS, TIMES = 1.28, 0.5, 5
ANSWERS, ALLOWED_FIT_SECONDS = 2960, 120.0
TEXTS = [text for _, text in PROMPTS]

Problems = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # m, R, theta, theta0 and K of a layer's heads


def transport_of_a_layer(handle: ModelHandle, pairs: int) -> Ratio:
    """The certified solutions of all heads of the middle layer; the ratio is to the allowed half second."""
    mean, root, weight, bias, floor = _problems(handle)
    seconds = np.array([timed(lambda: nearest_wished(mean, root, weight, bias, KAPPA, floor)) for _ in range(TIMES)])
    taken = np.stack([seconds, np.full(TIMES, ALLOWED_SECONDS)], axis=1)
    return ratio_of("transport of a layer's heads / 0.5 s", 1.0, ALLOWED_SECONDS / seconds, taken)


def transport_by_conic_solver(handle: ModelHandle, pairs: int) -> Ratio:
    """The same over Clarabel head by head, of which one head is solved and counted as often as there are heads."""
    mean, root, weight, bias, floor = _problems(handle)
    ours = timed(lambda: nearest_wished(mean, root, weight, bias, KAPPA, floor))
    one_head = timed(lambda: _by_conic_solver(*(each[0].numpy() for each in (mean, root, weight, bias, floor))))
    taken = np.array([[ours, len(mean) * one_head]])
    return ratio_of("transport of a layer's heads / Clarabel", 200.0, taken[:, 1] / taken[:, 0], taken)


def fitting_every_layer(handle: ModelHandle, pairs: int) -> Ratio:
    """Classifiers of every layer and the maps of one, from states that are there; the ratio is to the allowed 120 s.

    The states are noise about two means, as many as the answers of one of TruthfulQA's halves.
    """
    config = handle.info.config
    shape = (config.num_hidden_layers, ANSWERS, config.num_attention_heads, config.head_dim)
    labels = torch.arange(ANSWERS) % 2 * 2.0 - 1
    states = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.1 * labels[:, None, None]
    names = [f"answer {i}" for i in range(ANSWERS)]
    data = pd.DataFrame({"id": names, "text": names, "label": labels.numpy()})
    seconds = timed(lambda: SLIM.fit(handle, data, _Cached(states), seed=0))
    taken = np.array([[seconds, ALLOWED_FIT_SECONDS]])
    return ratio_of("SLIM, every layer fitted / 120 s", 1.0, taken[:, 1] / taken[:, 0], taken)


@dataclass(frozen=True)
class _Cached:
    """Activations in memory, (layers, rows, heads, size)."""

    states: Tensor

    def layers(self, site: str) -> list[int | None]:
        return list(range(len(self.states)))

    def shards(self, site: Site) -> Iterator[tuple[np.ndarray, Tensor]]:
        yield np.arange(self.states.shape[1]), self.states[site.layer or 0]


def decoding_under_slim(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding under a SLIM of one layer whose vote is always open, the most that it can cost, over plain decoding."""
    data = pd.DataFrame({"id": TEXTS, "text": TEXTS, "label": [1.0 if i % 2 else -1.0 for i in range(len(TEXTS))]})
    with tempfile.TemporaryDirectory() as folder:
        steer = SLIM.fit(handle, data, _captured(handle, "last", folder), seed=0, epochs=100, held_out=0.0)
    steer = SLIM(steer.tensors, steer.record.with_config(thresholds=[0]))
    return edited("SLIM, one layer / plain", 0.90, lambda: steer.attached(handle.load()), handle, pairs)


def _captured(handle: ModelHandle, positions: activations.Positions, folder: str) -> Activations:
    rows = activations.select(handle.info.tokenizer, TEXTS, positions)
    where = {"folder": Path(folder), "batch_rows": len(TEXTS), "shard_rows": len(TEXTS)}
    return activations.capture(handle, rows, "attention_heads", **where)


def _problems(handle: ModelHandle) -> Problems:
    """Of the middle layer, on the states of all tokens: halves of them are the classes, theta a step between them."""
    site = Site("attention_heads", handle.info.config.num_hidden_layers // 2)
    with tempfile.TemporaryDirectory() as folder:
        captured = _captured(handle, "all", folder)
        states = torch.cat([states.double() for _, states in captured.shards(site)])
    unwished, wished = states[0::2].transpose(0, 1), states[1::2].transpose(0, 1)  # (heads, states, size)
    mean, covariance = unwished.mean(1), _covariance(unwished)
    weight = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = 1.0 - (weight * mean).sum(-1)  # the mean is on the unwished side
    return mean, psd_root(positive_definite(covariance)[0]), weight, bias, psd_root(_covariance(wished))


def _covariance(states: Tensor) -> Tensor:
    centred = states - states.mean(1, keepdim=True)
    return centred.mT @ centred / states.shape[1]


def _by_conic_solver(mean: np.ndarray, root: np.ndarray, weight: np.ndarray, bias: np.ndarray, floor: np.ndarray):
    mu, t = cp.Variable(len(mean)), cp.Variable(root.shape, PSD=True)
    side = weight @ mu + float(bias) + KAPPA * cp.norm(t @ weight)
    aim = cp.sum_squares(mu - mean) + cp.sum_squares(t - root)
    cp.Problem(cp.Minimize(aim), [side <= 0, t - floor >> 0]).solve(solver=cp.CLARABEL)
