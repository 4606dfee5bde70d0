"""HPR: what it costs in decoding, and what the edit without a matrix and the training of all layers at once save."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.decoding import REST, SUBJECTS, compared, edited
from benchmarks.memory import peak_mib
from benchmarks.pairs import Ratio, ratio_of, speed_ratio
from steerlab import activations, sites
from steerlab.methods import hpr_training
from steerlab.methods.hpr import HPR, pseudo_rotation
from steerlab.models import ModelHandle, may_wait
from steerlab.sites import Where

TEXTS = [f"{subject} {rest}" for subject in SUBJECTS for rest in REST]
WIDTH, TOKENS = 4096, 8  # of the edit: that of Llama-3-8B, and the official code's batch in decoding
STATES, STEPS, BATCH_PAIRS = 1000, 20, 16
SETTINGS = {"seed": 0, "angle_net_layers": 4, "epochs": 1, "learning_rate": 5e-4, "warmup": 0.05, "clip": 1.0}


def decoding_under_hpr(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding under an HPR of the default layers over plain decoding."""
    steer = fitted(handle)
    return edited("HPR, default layers / plain", 0.90, lambda: steer.attached(handle.load()), handle, pairs)


def decoding_by_matrices(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding under that HPR over the same blocks edited by way of a d x d Householder matrix, made at each call as in
    its code."""
    steer, model = fitted(handle), handle.load()
    w = torch.ones(model.config.hidden_size, dtype=torch.float32, device=model.device)

    def by_matrix(x: Tensor, where: Where) -> Tensor:
        states = x.flatten(0, -2).float()
        return turned_by_matrix(states, w, torch.full_like(states[:, 0], 0.5)).to(x.dtype).view_as(x)

    edits = dict.fromkeys(steer.sites, by_matrix)
    around = [lambda: steer.attached(model), lambda: sites.edit(model, edits)]
    return compared("HPR, default layers / d x d matrices", 1.0, around, handle, pairs)


def fitted(handle: ModelHandle) -> HPR:
    """An HPR of the default layers that has hardly learnt: how fast it is does not depend on its weights."""
    data = pd.DataFrame({"id": TEXTS, "text": TEXTS, "label": [1.0 if i % 2 else -1.0 for i in range(len(TEXTS))]})
    rows = activations.select(handle.info.tokenizer, TEXTS, "answer")
    with tempfile.TemporaryDirectory() as folder:
        where = {"folder": Path(folder), "batch_rows": len(TEXTS), "shard_rows": len(TEXTS)}
        captured = activations.capture(handle, rows, "block_output", **where)
        return HPR.fit(handle, data, captured, seed=0, epochs=1, held_out=0.0)


def edit_without_matrix(handle: ModelHandle, pairs: int) -> Ratio:
    """Turning states by given angles over HPR's two terms with the Householder matrix, made at each call as in its
    code, at the width of an 8B model."""
    generator = torch.Generator().manual_seed(0)
    a, w = torch.randn(TOKENS, WIDTH, generator=generator), torch.randn(WIDTH, generator=generator)
    a, w, angle = (each.to(handle.device) for each in (a, w, torch.full((TOKENS,), 0.5)))

    return speed_ratio(
        f"edit of {WIDTH} wide states / d x d matrix",
        50.0,
        lambda: _wait(pseudo_rotation(a, w, angle)),
        lambda: _wait(turned_by_matrix(a, w, angle)),
        pairs=pairs,
    )


def turned_by_matrix(a: Tensor, w: Tensor, angle: Tensor) -> Tensor:
    """States, (states, hidden), turned by their angles through the matrix of the reflection about w."""
    matrix = torch.eye(len(w), device=w.device) - 2 * torch.outer(w, w) / (w @ w)
    h = a @ matrix
    between = nn.functional.cosine_similarity(a, h, dim=-1).acos()
    return (angle.sin() / between.sin())[:, None] * h + ((between - angle).sin() / between.sin())[:, None] * a


def training_all_layers_at_once(handle: ModelHandle, pairs: int) -> Ratio:
    """Training the modules of all layers in one job over training them layer by layer with torch's own modules: 20
    steps of 16 pairs on random states of the model's width and number of layers. The job also judges the probes; it is
    the better the more threads there are, as one layer's products are too small to be shared among them."""
    at_once, layer_by_layer = _ways_to_train(handle)
    states = _steps(handle) * BATCH_PAIRS * 2 * handle.info.config.num_hidden_layers
    name = "training, all layers at once / one by one"
    return speed_ratio(name, 3.0, at_once, layer_by_layer, pairs=min(pairs, 3), tokens=states)


def _steps(handle: ModelHandle) -> int:
    """More on a card, where the first weights, which the CPU draws, would take longer than a few steps."""
    return STEPS if may_wait(handle.load()) else 15 * STEPS


def _ways_to_train(handle: ModelHandle) -> tuple[Callable[[], None], Callable[[], None]]:
    config, generator = handle.info.config, torch.Generator().manual_seed(0)
    layers = list(range(config.num_hidden_layers))
    states = torch.randn(len(layers), STATES, config.hidden_size, generator=generator).to(handle.device)
    samples = torch.randint(STATES, (_steps(handle) * BATCH_PAIRS, 2), generator=generator).numpy()
    judged = samples[:BATCH_PAIRS]

    def at_once() -> None:
        hpr_training.train(states, layers, samples, judged, batch_pairs=BATCH_PAIRS, official_code=False, **SETTINGS)

    def layer_by_layer() -> None:
        for layer in layers:
            _train_alone(states[layer], samples)

    return at_once, layer_by_layer


def memory_of_training(handle: ModelHandle, pairs: int) -> Ratio:
    """The peak of all layers at once, which is to be no more than as often that of one layer."""
    ways, layers = ("at once", "one by one"), handle.info.config.num_hidden_layers
    taken = np.array(
        [[peak_mib(train_modules, handle, way, without_model=True) for way in ways] for _ in range(min(pairs, 3))]
    )
    name = f"peak memory, {layers} x one layer / {layers} at once"
    return ratio_of(name, 1.0, layers * taken[:, 1] / taken[:, 0], taken, unit="MiB")


def train_modules(handle: ModelHandle, which: str) -> None:
    """20 steps of the modules of all layers, in the way of `which`."""
    at_once, layer_by_layer = _ways_to_train(handle)
    (at_once if which == "at once" else layer_by_layer)()


def _train_alone(states: Tensor, samples: np.ndarray) -> None:
    """One layer's modules, trained as torch's documentation trains a module."""
    hidden, device = states.shape[1], states.device
    widths = [hidden // 2**n for n in range(SETTINGS["angle_net_layers"])] + [1]
    linears = [nn.Linear(*shape) for shape in zip(widths, widths[1:])]
    net = nn.Sequential(*[part for linear in linears for part in (linear, nn.GELU())][:-1]).to(device)
    probe = nn.Linear(hidden, 1, bias=False).to(device)
    parameters = [*net.parameters(), *probe.parameters()]
    adam = torch.optim.AdamW(parameters, lr=SETTINGS["learning_rate"], weight_decay=0.0)
    for batch in torch.from_numpy(samples).split(BATCH_PAIRS):
        wished, unwished = (states[batch[:, column].to(device)] for column in (0, 1))
        zeros = torch.zeros(len(batch), device=device)
        x, labels = torch.cat([wished, unwished]), torch.cat([zeros + 1, zeros])
        angles = torch.cat([zeros, hpr_training.angle_between(unwished, wished)])
        loss = nn.functional.binary_cross_entropy_with_logits(probe(x)[:, 0], labels)
        loss = loss + nn.functional.mse_loss(torch.pi * net(x)[:, 0].sigmoid(), angles)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, SETTINGS["clip"])
        adam.step()


def _wait(made: Tensor) -> None:
    float(made[0, 0])  # waits for a card
