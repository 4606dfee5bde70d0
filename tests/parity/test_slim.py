"""SLIM against nguyenngocbaocmt02/OT-Intervention: the loss of its classifiers, the transport problem, the edit."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cvxpy
import numpy as np
import pytest
import torch
from scipy.linalg import inv, sqrtm
from sklearn.covariance import empirical_covariance
from torch import Tensor, nn

from steerlab.data.splits import fitted_and_judging
from steerlab.methods import slim_classifiers, slim_transport, steer_files
from steerlab.methods.slim import SLIM
from steerlab.sites import Site
from tests.laws.subjects import capture, handle
from tests.parity.official import compare, definitions
from tests.parity.texts import decoded, in_front_of, rearrange, texts

HEADS, KAPPA, BL = 4, 1.28, 2.5
EDIT = "validation/ot_edit_layer.py"


class _Problem(cvxpy.Problem):
    """Theirs is handed to MOSEK, which is paid for; Clarabel solves the same problem."""

    def solve(self, *, mosek_params: dict, **options: Any) -> Any:
        return super().solve(**options, tol_gap_abs=1e-10, tol_gap_rel=1e-10)


class _Solver:
    MOSEK, Problem = cvxpy.CLARABEL, _Problem

    def __getattr__(self, name: str) -> Any:
        return getattr(cvxpy, name)


def transport() -> Any:
    names = ("layer_head_to_flattened_idx", "is_pos_def", "solve", "compute_A_opt", "get_ot_interventions_dict")
    given = {"np": np, "torch": torch, "os": os, "csv": csv, "cp": _Solver(), "sqrtm": sqrtm, "inv": inv}
    return definitions("OT-Intervention", "utils.py", *names, **given, empirical_covariance=empirical_covariance)


def classifier(weight: Tensor, bias: Tensor) -> nn.Module:
    """The official classifier of one head."""
    made = definitions("OT-Intervention", EDIT, "LogisticRegression", nn=nn).LogisticRegression(len(weight))
    made.linear.weight.data, made.linear.bias.data = weight[None].clone(), bias[None].clone()
    return made


@pytest.fixture(scope="module")
def steer() -> SLIM:
    data = texts()
    states = capture(handle("llama"), list(data.text), "attention_heads", "last")
    how = {"kappa": [KAPPA], "bl": BL, "epochs": 300, "learning_rate": 0.02, "layer_sweep": 1}
    return SLIM.fit(handle("llama"), data, states, seed=0, **how)


def fitted_states(steer: SLIM) -> tuple[Tensor, Tensor]:
    """The states, (rows, heads, head size), and unwished labels that the steer's maps were made of."""
    data = texts()
    states = capture(handle("llama"), list(data.text), "attention_heads", "last")
    table = steer_files.states_by_row(states, Site("attention_heads", steer.sites[0].layer), data).float()
    fitted, _ = fitted_and_judging(data, 0, steer.record.config["held_out"])
    return table[fitted], torch.from_numpy((data.label.to_numpy() < 0)[fitted])


def interventions(steer: SLIM, folder: Path, heads: Sequence[int]) -> dict[str, list]:
    """The official maps of these heads of the steer's layer, for our classifiers."""
    states, unwished = fitted_states(steer)
    probes = [classifier(*each) for each in zip(steer.tensors["weight"][0], steer.tensors["bias"][0])]
    (tau,) = steer.record.config["thresholds"]
    return transport().get_ot_interventions_dict(
        [(0, head) for head in heads], probes, states[:, None], unwished.float(), tau, HEADS, str(folder), KAPPA,
        "layer {layer}",
    )  # fmt: skip


def test_the_training_of_a_classifier() -> None:
    found = definitions("OT-Intervention", EDIT, "smooth_fpr_fnr_loss", torch=torch).smooth_fpr_fnr_loss
    draw = torch.Generator().manual_seed(0)
    states, unwished = torch.randn(80, 1, 6, generator=draw), torch.arange(80) % 3 == 0
    how = {"loss": "fpr_fnr", "bl": BL, "learning_rate": 2e-3, "official_code": True}

    def ours(epochs: int) -> slim_classifiers.Classifiers:
        draw = torch.Generator().manual_seed(1)
        return slim_classifiers.train(states, unwished, states, unwished, epochs=epochs, generator=draw, **how)

    theirs = classifier(ours(0).weight[0], ours(0).bias[0])
    adam = torch.optim.Adam(theirs.parameters(), lr=2e-3)
    for _ in range(200):
        adam.zero_grad()
        found(theirs(states[:, 0]).squeeze(), unwished.float(), bl=BL).backward()
        adam.step()
    compare("SLIM, weights after 200 epochs", ours(200).weight[0], theirs.linear.weight[0], 1e-5)  # float32, by Adam
    compare("SLIM, bias after 200 epochs", ours(200).bias[0], theirs.linear.bias[0], 1e-5)


def test_the_transport_problem() -> None:
    """The same solution as a conic solver's of the official statement, with and without the wished covariance."""
    solve, draw = transport().solve, np.random.default_rng(0)
    for size in (4, 8, 16):
        roots = [draw.normal(size=(size, size)) for _ in range(2)]
        covariance, wished = (root @ root.T / size + 0.1 * np.eye(size) for root in roots)
        mean, theta, theta0 = draw.normal(size=size), draw.normal(size=size), 1.0
        for floor in (wished, None):
            mu, root = solve(mean, covariance, theta[:, None], theta0, ref_cov=floor, alpha=KAPPA)
            tensors = [torch.from_numpy(each)[None] for each in (mean, np.real(sqrtm(covariance)), theta)]
            low = None if floor is None else slim_transport.psd_root(torch.from_numpy(floor)[None])
            found = slim_transport.nearest_wished(*tensors, torch.tensor([theta0]), KAPPA, low)
            about = f"size {size}, {'with' if floor is not None else 'without'} the wished covariance"
            worth = np.sum((mu[:, 0] - mean) ** 2) + np.sum((root - np.real(sqrtm(covariance))) ** 2)
            compare(f"SLIM, objective, {about}", found.objective[0], worth, 1e-7)
            # Points are known to the root of the solver's gap.
            compare(f"SLIM, mean, {about}", found.mean[0], mu[:, 0], 1e-4)
            compare(f"SLIM, root of the covariance, {about}", found.root[0], root, 1e-4)
            target = slim_transport.Target(torch.from_numpy(mu.T), torch.from_numpy(root)[None], *[torch.zeros(1)] * 2)
            ours, _ = slim_transport.gaussian_map(tensors[0], torch.from_numpy(covariance)[None], target)
            compare(f"SLIM, map, {about}", ours[0], np.real(transport().compute_A_opt(covariance, root @ root)), 1e-6)


def test_the_maps_of_a_fitted_steer(steer: SLIM, tmp_path: Path) -> None:
    states, _ = fitted_states(steer)
    flagged = (
        slim_classifiers.Classifiers(steer.tensors["weight"][0], steer.tensors["bias"][0]).logits(states) > 0
    ).sum(0)
    heads = [head for head in range(HEADS) if flagged[head] > states.shape[-1]]  # fewer have a singular covariance
    assert heads and int(flagged.max()) < len(states)
    ((_, theirs),) = interventions(steer, tmp_path, heads).items()
    for head, matrix, offset, _, _ in theirs:
        about = f"head {head}, {int(flagged[head])} flagged states"
        compare(f"SLIM, A, {about}", steer.tensors["matrix"][0, head], matrix, 1e-4)
        compare(f"SLIM, b, {about}", steer.tensors["offset"][0, head], offset[:, 0], 1e-4)


def test_the_edit_of_each_new_token(steer: SLIM) -> None:
    loaded, layer = handle("llama").load(), steer.sites[0].layer
    one = {name: tensor[0] for name, tensor in steer.tensors.items()}
    (tau,) = steer.record.config["thresholds"]
    assert 1 <= tau < HEADS  # so that the vote opens and closes
    maps = [
        (head, one["matrix"][head].numpy(), one["offset"][head, :, None].numpy(),
         classifier(one["weight"][head], one["bias"][head]), tau)
        for head in range(HEADS)
    ]  # fmt: skip
    found = definitions(
        "OT-Intervention", EDIT, "lt_modulated_vector_add", torch=torch, rearrange=rearrange, num_heads=HEADS,
        interventions={"heads": maps},
    )  # fmt: skip
    modules = {"heads": loaded.model.layers[layer].self_attn.o_proj}
    ids = torch.arange(6 * 10).view(6, 10)
    rows = []
    for row in ids.split(1):
        with torch.no_grad(), in_front_of(modules, found.lt_modulated_vector_add):
            rows.append(decoded(loaded, row))
    with steer.attached(loaded):
        ours = decoded(loaded, ids)
    theirs = torch.cat(rows, 1)
    assert not torch.allclose(ours, decoded(loaded, ids), atol=1e-3)
    compare("SLIM, logits of eight new tokens, a row at a time", ours, theirs, 1e-5)  # float32, through a cache
    with torch.no_grad(), in_front_of(modules, found.lt_modulated_vector_add):
        together = loaded(ids).logits[:, -1]
    off = float((together - theirs[0]).abs().max() / theirs[0].abs().max())
    print(f"SLIM, the official code on {len(ids)} rows at once, against itself a row at a time: {off:.1e}")
    assert off > 1e-2  # several flagged rows are mixed up by a reshape
