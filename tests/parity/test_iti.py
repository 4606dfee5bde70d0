"""ITI against likenneth/honest_llama: directions, spreads, probes, and the edit in decoding."""

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from steerlab.data.splits import fitted_and_judging
from steerlab.likelihood import log_likelihoods
from steerlab.methods import steer_files
from steerlab.methods.iti import ITI, fitted_probes
from steerlab.sites import Site
from tests.laws.subjects import LAYERS, capture, handle
from tests.parity.official import compare, definitions
from tests.parity.texts import decoded, in_front_of, rearrange, texts

HEADS = 4


def official(*names: str) -> Any:
    indexes = ("flattened_idx_to_layer_head", "layer_head_to_flattened_idx")
    return definitions(
        "honest_llama", "utils.py", *indexes, *names, np=np, tqdm=lambda rows, **settings: rows,
        accuracy_score=accuracy_score,
        LogisticRegression=functools.partial(LogisticRegression, tol=1e-10),  # by itself it stops 1e-3 off
    )  # fmt: skip


@pytest.fixture(scope="module")
def fit() -> tuple[ITI, np.ndarray, np.ndarray]:
    """A steer of all heads, and the states, (rows, layers, heads, head size), and labels, 1 or 0, it was fitted on."""
    data = texts()
    states = capture(handle("llama"), list(data.text), "attention_heads", "last")
    steer = ITI.fit(handle("llama"), data, states, seed=0, heads=LAYERS * HEADS)
    fitted, _ = fitted_and_judging(data, 0, steer.record.config["held_out"])
    layers = [steer_files.states_by_row(states, Site("attention_heads", layer), data) for layer in range(LAYERS)]
    table = torch.stack(layers, 1).double().numpy()
    return steer, table[fitted], (data.label.to_numpy() > 0).astype(int)[fitted]


def interventions(fit: tuple[ITI, np.ndarray, np.ndarray]) -> dict[str, list[tuple[int, np.ndarray, float]]]:
    """What the official code would add at each layer, of the heads that our steer picked."""
    steer, states, labels = fit
    found = official("get_com_directions", "get_interventions_dict")
    rows = np.arange(len(states))  # each a question of its own; none validates, as our directions are the fitted rows'
    com = found.get_com_directions(LAYERS, HEADS, rows, rows[:0], states[:, None], labels[:, None])
    return found.get_interventions_dict(steer.picked, None, states, HEADS, True, False, com)


def test_directions_and_spreads_of_all_heads(fit: tuple[ITI, np.ndarray, np.ndarray]) -> None:
    steer, _, _ = fit
    theirs = interventions(fit)
    found = {
        (layer, head): (direction, spread)
        for layer in range(LAYERS)
        for head, direction, spread in theirs[f"model.layers.{layer}.self_attn.head_out"]
    }
    assert len(steer.picked) == LAYERS * HEADS
    compare("ITI, theta", steer.theta, np.stack([found[place][0] for place in steer.picked]), 1e-6)
    compare("ITI, sigma", steer.sigma, [found[place][1] for place in steer.picked], 1e-6)


def test_the_probes_of_all_heads(fit: tuple[ITI, np.ndarray, np.ndarray]) -> None:
    _, states, labels = fit
    rows = np.arange(len(states))
    probes, _ = official("train_probes").train_probes(0, rows, rows, states[:, None], labels[:, None], LAYERS, HEADS)
    for layer in range(LAYERS):
        weights, biases = fitted_probes(torch.from_numpy(states[:, layer]), torch.from_numpy(2.0 * labels - 1))
        theirs = probes[layer * HEADS : (layer + 1) * HEADS]
        compare(f"ITI, weights of probes, layer {layer}", weights, np.concatenate([p.coef_ for p in theirs]), 1e-5)
        compare(f"ITI, biases of probes, layer {layer}", biases, np.concatenate([p.intercept_ for p in theirs]), 1e-5)


def test_the_edit_of_each_new_token(fit: tuple[ITI, np.ndarray, np.ndarray]) -> None:
    steer, loaded = fit[0], handle("llama").load()
    found = definitions(
        "honest_llama", "legacy/llama_validate_2fold.py", "lt_modulated_vector_add", torch=torch, rearrange=rearrange,
        interventions=interventions(fit), num_heads=HEADS, args=SimpleNamespace(alpha=2.0),
    )  # fmt: skip
    modules = {f"model.layers.{n}.self_attn.head_out": loaded.model.layers[n].self_attn.o_proj for n in range(LAYERS)}
    ids = torch.arange(3 * 10).view(3, 10)
    with in_front_of(modules, found.lt_modulated_vector_add):
        theirs = decoded(loaded, ids)
    with steer.attached(loaded, 2.0 / steer.record.config["alpha"]):
        ours = decoded(loaded, ids)
    assert not torch.allclose(ours, decoded(loaded, ids), atol=0.1)
    compare("ITI, logits of eight new tokens", ours, theirs, 1e-5)  # float32, through a cache
    pair = "thank you", " very much"
    with steer.attached(loaded, 2.0 / steer.record.config["alpha"]):
        ((scored, _),) = log_likelihoods(loaded, handle("llama").info.tokenizer, [pair], tokens_a_batch=64)
    ids = torch.tensor([handle("llama").info.tokenizer("".join(pair))["input_ids"]])
    of_pair = {}
    for start in ("lt", len(pair[0]) - 1):  # the later code's way, and the published one's: a token is a byte
        with in_front_of(modules, functools.partial(found.lt_modulated_vector_add, start_edit_location=start)):
            logits = loaded(ids).logits[0, len(pair[0]) - 1 : -1].log_softmax(-1)
        of_pair[start] = -float(logits.gather(1, ids[0, len(pair[0]) :, None]).sum())
    compare("ITI, likelihood of an answer", scored, of_pair[len(pair[0]) - 1], 1e-5)
    ((base, _),) = log_likelihoods(loaded, handle("llama").info.tokenizer, [pair], tokens_a_batch=64)
    compare("ITI, likelihood by an edit of the last token alone, against the base model's", base, of_pair["lt"], 1e-5)
