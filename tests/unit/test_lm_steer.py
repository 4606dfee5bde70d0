"""LM-Steer against its formulas, written out in numpy, and its training against transformers' loss and an optimiser."""

import copy
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import torch
from torch import Tensor

from steerlab.data.splits import by_seed
from steerlab.methods import lm_steer, steer_files
from steerlab.methods.lm_steer import LMSteer, steered_loss, steered_states, training_rows
from steerlab.models import ModelHandle, encode, pad
from steerlab.sites import Site
from tests.laws.subjects import METHOD_FAMILIES, capture, handle, training_texts

EPS = 2**-6  # exact in every float, large enough to be seen
HIDDEN, VOCABULARY, RANK, STEERS = 16, 257, 3, 2
IDS = torch.tensor([[72, 101, 108, 108, 111], [119, 111, 114, 108, 100]])
SHAPES = {
    "multiply": {"projector1": (HIDDEN, RANK), "projector2": (HIDDEN, RANK)},
    "full": {"matrix": (HIDDEN, HIDDEN)},
    "add": {"vector": (HIDDEN,)},
    "offset": {"offset": (VOCABULARY,)},
}

every_family = pytest.mark.parametrize("family", METHOD_FAMILIES)
every_adaptor = pytest.mark.parametrize("adaptor", SHAPES)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_tensors(adaptor: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    shapes = SHAPES[adaptor].items()
    return {name: normal(STEERS, *shape, seed=seed + i, dtype=dtype) for i, (name, shape) in enumerate(shapes)}


def steer_of(
    model: ModelHandle, tensors: Mapping[str, Tensor], *, eps: float = EPS, values: Sequence[float] = (5.0, 1.0)
) -> LMSteer:
    """A steer with these tensors, as if it had been trained for the model."""
    adaptor = {"vector": "add", "offset": "offset"}.get(next(iter(tensors)), "multiply")
    site = Site("logits" if adaptor == "offset" else "lm_head_input")
    config = {"adaptor": adaptor, "eps": eps, "values": list(values), "weights": [1.0]}
    record = steer_files.Record(
        steer="steerlab.methods.lm_steer:LMSteer", model=model.info.name, revision=model.info.revision,
        data="", seed=0, config=config, sites=(site,),
    )  # fmt: skip
    return LMSteer({1: dict(tensors)}, 1, record)


@functools.cache
def double(family: str) -> ModelHandle:
    """The tiny model in float64."""
    return ModelHandle(handle(family).folder, dtype="float64")


def logits_of(model: ModelHandle) -> Tensor:
    with torch.no_grad():
        return model.load()(IDS).logits


def steered_logits(steer: LMSteer, model: ModelHandle, values: Sequence[float]) -> Tensor:
    with steer.attached_values(model.load(), values):
        return logits_of(model)


# ---- the formulas, token by token and steer by steer, in numpy ----


def states_by_formula(
    states: np.ndarray, tensors: Mapping[str, np.ndarray], values: np.ndarray, eps: float
) -> np.ndarray:
    steered = states.copy()
    for token, c in enumerate(states):
        for steer, value in enumerate(values[token]):
            if "projector1" in tensors:
                change = (c @ tensors["projector1"][steer]) @ tensors["projector2"][steer].T
            elif "matrix" in tensors:
                change = c @ tensors["matrix"][steer]
            else:
                change = tensors["vector"][steer]
            steered[token] += eps * value * change
    return steered


def logits_by_formula(
    states: np.ndarray, embeddings: np.ndarray, tensors: Mapping[str, np.ndarray], values: np.ndarray, eps: float
) -> np.ndarray:
    if "offset" in tensors:
        offsets = [sum(eps * v * row for v, row in zip(of_token, tensors["offset"])) for of_token in values]
        return states @ embeddings.T + np.array(offsets)
    return states_by_formula(states, tensors, values, eps) @ embeddings.T


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-np.mean([np.log(shares[token, target]) for token, target in enumerate(targets)]))


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("adaptor", ["multiply", "full", "add"])
def test_steered_states_are_the_formulas_each_token_with_values_of_its_own(adaptor: str) -> None:
    states, values = normal(7, HIDDEN, seed=1), normal(7, STEERS, seed=2)
    tensors = random_tensors(adaptor, dtype=torch.float64)
    expected = states_by_formula(states.numpy(), arrays(tensors), values.numpy(), EPS)
    np.testing.assert_allclose(steered_states(states, tensors, values, EPS), expected, rtol=1e-12, atol=1e-12)
    in_batches = steered_states(states.view(1, 7, HIDDEN), tensors, values.view(1, 7, STEERS), EPS)
    np.testing.assert_allclose(in_batches[0], expected, rtol=1e-12, atol=1e-12)


@every_adaptor
def test_the_loss_is_the_cross_entropy_of_the_formulas_logits(adaptor: str) -> None:
    states, values, embeddings = normal(7, HIDDEN, seed=1), normal(7, STEERS, seed=2), normal(257, HIDDEN, seed=3)
    targets = torch.randint(257, (7,), generator=torch.Generator().manual_seed(4))
    tensors = random_tensors(adaptor, seed=5, dtype=torch.float64)
    logits = logits_by_formula(states.numpy(), embeddings.numpy(), arrays(tensors), values.numpy(), EPS)
    found = steered_loss(states, targets, embeddings, tensors, values, EPS)
    assert found.item() == pytest.approx(cross_entropy(logits, targets.numpy()), rel=1e-12)


@every_family
@every_adaptor
def test_an_attached_steer_gives_the_formulas_logits(adaptor: str, family: str) -> None:
    model, tensors, values = double(family), random_tensors(adaptor), np.array([2.5, -0.5])
    with torch.no_grad():
        states = model.load().base_model(IDS).last_hidden_state.flatten(0, 1)
    embeddings = model.load().get_output_embeddings().weight
    expected = logits_by_formula(
        states.numpy(), embeddings.numpy(), arrays(tensors), np.tile(values, (len(states), 1)), EPS
    )
    found = steered_logits(steer_of(model, tensors), model, values.tolist()).flatten(0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@every_family
def test_the_edit_is_a_linear_transformation_of_every_output_embedding(family: str) -> None:
    model, tensors, values = double(family), random_tensors("multiply"), [4.0, -1.0]  # exact times eps
    whole = sum(v * p1.double() @ p2.double().T for v, p1, p2 in zip(values, *tensors.values()))
    transformed = copy.deepcopy(model.load())
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False, dtype=torch.float64)
    # c (I + eps W) E^T = c E'^T with E' = E (I + eps W)^T
    head.weight.data = model.load().get_output_embeddings().weight @ (torch.eye(HIDDEN) + EPS * whole).T
    transformed.lm_head = head
    with torch.no_grad():
        expected = transformed(IDS).logits
    torch.testing.assert_close(steered_logits(steer_of(model, tensors), model, values), expected, rtol=1e-9, atol=1e-9)


@every_family
def test_the_product_at_decoding_is_the_low_rank_product(family: str) -> None:
    model, narrow = handle(family), random_tensors("multiply")
    wide = {name: torch.nn.functional.pad(tensor, (0, HIDDEN)) for name, tensor in narrow.items()}
    low_rank = steered_logits(steer_of(model, narrow), model, [5.0, 1.0])
    product = steered_logits(steer_of(model, wide), model, [5.0, 1.0])
    torch.testing.assert_close(product, low_rank, rtol=0, atol=1e-5 * low_rank.abs().max().item())
    assert (low_rank - logits_of(model)).abs().max() > 0.01 * low_rank.abs().max()


# ---- values and strengths ----


@every_family
@every_adaptor
def test_strength_zero_gives_the_base_bit_for_bit(adaptor: str, family: str) -> None:
    model = handle(family)
    base = logits_of(model)
    with steer_of(model, random_tensors(adaptor)).attached(model.load(), 0.0):
        assert torch.equal(logits_of(model), base)


@every_family
@every_adaptor
def test_tensors_of_zeros_give_the_base_to_rounding(adaptor: str, family: str) -> None:
    model = handle(family)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in random_tensors(adaptor).items()}
    base = logits_of(model)
    with steer_of(model, zeros).attached(model.load(), 1.0):
        torch.testing.assert_close(logits_of(model), base, rtol=1e-6, atol=1e-6)


@every_family
def test_raw_values_of_zero_and_one_are_not_the_base_and_zeros_alone_are(family: str) -> None:
    model, steer = handle(family), steer_of(handle(family), random_tensors("multiply"))
    base = logits_of(model)
    assert (steered_logits(steer, model, [0.0, 1.0]) - base).abs().max() > 1e-3
    assert torch.equal(steered_logits(steer, model, [0.0, 0.0]), base)


@pytest.mark.parametrize(
    "strength, values",
    [(0.0, [0, 0]), (0.4, [2, 0.4]), (1.0, [5, 1]), (-1.0, [-5, 1]), (-0.4, [-2, 0.4]), (3.0, [15, 1])],
)
def test_a_strength_s_means_the_values_5s_and_min_of_1_and_the_size_of_s(strength: float, values: list[float]) -> None:
    assert steer_of(handle("llama"), random_tensors("multiply")).values_at(strength) == values


def test_a_steer_without_dummy_has_one_value() -> None:
    tensors = {name: tensor[:1] for name, tensor in random_tensors("multiply").items()}
    steer = steer_of(handle("llama"), tensors, values=(3.0,))
    assert steer.number_of_steers == 1
    assert steer.values_at(-2.0) == [-6.0]


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0, 1.0], []])
def test_a_wrong_number_of_values_is_refused(values: list[float]) -> None:
    steer = steer_of(handle("llama"), random_tensors("multiply"))
    with pytest.raises(ValueError, match=f"has 2 steers, got {len(values)} values"):
        steer.attached_values(handle("llama").load(), values)


# ---- training: what is trained, on what loss ----

LABELS = [1.0, -1.0, 0.5, 0.0]
TEXTS = ["thank you, how kind", "go away", "well", "I hate this weather so much"]
DATA = pd.DataFrame({"id": ["a", "b", "c", "d"], "label": LABELS, "text": TEXTS})


@functools.cache
def states_of(family: str, batch_rows: int = 4, dtype: str = "float32"):
    return capture(ModelHandle(handle(family).folder, dtype=dtype), TEXTS, "lm_head_input", batch_rows=batch_rows)


def fit(family: str, data: pd.DataFrame = DATA, activations: object = None, **hyperparameters: object) -> LMSteer:
    settings = {"seed": 0, "held_out": 0.0, "steps": (1,)} | hyperparameters
    return LMSteer.fit(handle(family), data, activations or states_of(family), **settings)


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, dict[str, Tensor], Tensor, Tensor]]:
    """Of each step of a fit: the loss, the tensors it was taken at, the targets and the values of their tokens."""
    seen = []

    def spied(states, targets, embeddings, tensors, values, eps):
        loss = steered_loss(states, targets, embeddings, tensors, values, eps)
        copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        seen.append((loss.item(), copies, targets, values))
        return loss

    monkeypatch.setattr(lm_steer, "steered_loss", spied)
    return seen


def token_loss(
    model: ModelHandle,
    steer: LMSteer,
    ids: Tensor,
    mask: Tensor,
    labels: Tensor,
    label: float,
    own_positions: bool = True,
) -> float:
    """Sum over the tokens that count of transformers' own loss, one row, with the steer at (label, 1).

    own_positions: pads have the position of the last token; else transformers', which go on.
    """
    positions = (mask.cumsum(1) - 1).clamp(min=0) if own_positions else None
    with steer.attached_values(model.load(), [label, 1.0]), torch.no_grad():
        # Its loss function on its logits: an edit of the logits comes too late for the loss of the forward itself.
        logits = model.load()(ids, attention_mask=mask, position_ids=positions).logits
        loss = model.load().loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
    return loss.item() * int((labels[:, 1:] != -100).sum())


@every_family
@pytest.mark.parametrize("padded", [False, True], ids=["one by one", "in one padded batch"])
@pytest.mark.parametrize("adaptor, rank", [("multiply", None), ("multiply", "full"), ("add", None), ("offset", None)])
def test_the_loss_from_cached_states_is_that_of_transformers_on_whole_forwards(
    losses: list, adaptor: str, rank: object, padded: bool, family: str
) -> None:
    fit(family, adaptor=adaptor, rank=rank, eps=EPS, init=0.3)
    loss, tensors, _, _ = losses[0]
    model, total = handle(family), 0.0
    steer = steer_of(model, tensors)
    sequences = [encode(model.info.tokenizer, text) for text in TEXTS]
    batch = pad(sequences, side="right", pad_id=256)
    for row, (ids, label) in enumerate(zip(sequences, LABELS)):
        row_ids, mask = (each[row : row + 1] for each in batch) if padded else pad([ids], side="right", pad_id=256)
        total += token_loss(model, steer, row_ids, mask, row_ids.masked_fill(mask == 0, -100), label)
    assert loss == pytest.approx(total / sum(len(ids) - 1 for ids in sequences), abs=1e-5)


@every_family
def test_padding_while_the_states_are_captured_does_not_change_the_loss(losses: list, family: str) -> None:
    fit(family, activations=states_of(family, batch_rows=1))
    fit(family, activations=states_of(family, batch_rows=4))
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-5)


@every_family
def test_the_official_codes_loss_counts_the_pads(losses: list, family: str) -> None:
    fit(family, official_code=True, eps=EPS, init=0.3)
    fit(family, eps=EPS, init=0.3)
    (loss, tensors, _, _), (masked, _, _, _) = losses
    model = handle(family)
    steer = steer_of(model, tensors)
    ids, mask = pad([encode(model.info.tokenizer, text) for text in TEXTS], side="right", pad_id=256)
    rows = [slice(row, row + 1) for row in range(len(TEXTS))]
    total = sum(
        token_loss(model, steer, ids[row], mask[row], ids[row], label, own_positions=False)
        for row, label in zip(rows, LABELS)
    )
    assert loss == pytest.approx(total / (len(TEXTS) * (ids.shape[1] - 1)), abs=1e-5)
    assert abs(loss - masked) > 1e-3


def test_only_the_first_tokens_of_a_text_count_up_to_the_limit(losses: list) -> None:
    fit("llama", max_tokens=5)
    short = DATA.assign(text=DATA["text"].str[:5])
    fit("llama", short, capture(handle("llama"), list(short["text"]), "lm_head_input"))
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-6)
    assert len(losses[0][2]) == sum(min(5, len(text)) - 1 for text in TEXTS)


@pytest.mark.parametrize("official_code", [False, True], ids=["cached", "official code"])
def test_only_the_steers_tensors_get_gradients(official_code: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    optimised, adam = [], torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda tensors, lr: adam(optimised.extend(tensors) or optimised, lr=lr))
    model = ModelHandle(handle("gpt2").folder)
    model.load().requires_grad_(True)  # not even then
    before = {name: parameter.detach().clone() for name, parameter in model.load().named_parameters()}
    steer = LMSteer.fit(model, DATA, states_of("gpt2"), seed=0, held_out=0.0, steps=(2,), official_code=official_code)
    assert [tuple(tensor.shape) for tensor in optimised] == [tuple(each.shape) for each in steer.tensors.values()]
    assert all(tensor.grad.abs().max() > 0 for tensor in optimised)
    assert all(parameter.grad is None for parameter in model.load().parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.load().named_parameters())
    assert not any(tensor.requires_grad for tensor in steer.tensors.values())


def test_regularization_adds_the_sum_of_the_projectors_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = {}
    for regularization in (0.0, 0.25):
        adam = torch.optim.Adam

        class Spied(adam):
            def step(self, *args, regularization=regularization, **kwargs):
                tensors = self.param_groups[0]["params"]
                gradients[regularization] = [(each.detach().clone(), each.grad.clone()) for each in tensors]
                return super().step(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim, "Adam", Spied)
            fit("llama", regularization=regularization)
    for (_, plain), (tensor, regularized) in zip(gradients[0.0], gradients[0.25]):
        torch.testing.assert_close(regularized - plain, 0.25 * 2 * tensor)


def test_an_epoch_has_every_text_once_in_an_order_that_changes(losses: list) -> None:
    fit("llama", batch_texts=1, steps=(12,))
    lengths = {len(text) - 1: text for text in TEXTS}
    order = [lengths[len(targets)] for _, _, targets, _ in losses]
    epochs = [order[start : start + 4] for start in (0, 4, 8)]
    assert all(sorted(epoch) == sorted(TEXTS) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_every_token_has_its_texts_label_and_a_dummy_of_one(losses: list) -> None:
    fit("llama", batch_texts=4)
    _, _, targets, values = losses[0]
    found, start = {}, 0
    text_of = {bytes(text[1:], "utf8"): text for text in TEXTS}
    while start < len(targets):
        end = next(end for end in range(start + 1, len(targets) + 1) if bytes(targets[start:end].tolist()) in text_of)
        found[text_of[bytes(targets[start:end].tolist())]] = set(values[start:end, 0].tolist())
        start = end
    assert found == {text: {label} for text, label in zip(TEXTS, LABELS)}
    assert set(values[:, 1].tolist()) == {1.0}


def test_a_text_of_one_token_trains_nothing_and_stops_nothing(losses: list) -> None:
    data = DATA.assign(text=["a", *TEXTS[1:]])
    steer = fit("llama", data, capture(handle("llama"), list(data["text"]), "lm_head_input"), batch_texts=1, steps=(6,))
    assert len(losses) == 6
    assert steer.steps == 6


def test_states_that_are_not_finite_are_refused_naming_the_text() -> None:
    class Broken:
        def shards(self, site):
            for rows, states in states_of("llama").shards(site):
                states = states.clone()
                states[torch.from_numpy(rows == 2)] = torch.inf
                yield rows, states

    with pytest.raises(ValueError, match="of example c are not finite"):
        fit("llama", activations=Broken())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_on_a_model_in_half_precision_the_steer_is_trained_in_float32(dtype: str) -> None:
    model = ModelHandle(handle("llama").folder, dtype=dtype)
    steer = LMSteer.fit(model, DATA, states_of("llama", dtype=dtype), seed=0, held_out=0.0, steps=(3,))
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in steer.tensors.values())
    assert steered_logits(steer, model, [5.0, 1.0]).isfinite().all()


# ---- training: where it starts and where it ends ----


@pytest.mark.parametrize(
    "hyperparameters, shape, deviation",
    [
        ({}, (2, 16, 4), 1e-2),
        ({"rank": 12, "init": 0.5}, (2, 16, 12), 0.5),
        ({"rank": "full"}, (2, 16, 16), math.sqrt(1e-3)),
        ({"adaptor": "add", "values": [1.0] * 20}, (20, 16), 1.0),
        ({"adaptor": "offset"}, (2, 257), 1.0),
    ],
)
def test_training_starts_from_normal_numbers_of_the_stated_size(
    losses: list, hyperparameters: dict, shape: tuple[int, ...], deviation: float
) -> None:
    fit("llama", **hyperparameters)
    for tensor in losses[0][1].values():
        assert tuple(tensor.shape) == shape
        assert tensor.std().item() == pytest.approx(deviation, rel=0.2)


@every_family
def test_adam_approaches_the_minimum_that_another_optimiser_finds(family: str) -> None:
    """The adaptor `add` has a convex loss: L-BFGS on the formula in float64 finds its minimum."""
    eps, model = 0.5, handle(family)
    steer = fit(family, adaptor="add", eps=eps, steps=(20, 200, 1500), learning_rate=0.05)
    sequences = [encode(model.info.tokenizer, text) for text in TEXTS]
    with torch.no_grad():
        states = torch.cat(
            [model.load().base_model(torch.tensor([ids])).last_hidden_state[0, :-1] for ids in sequences]
        )
    targets = np.array([token for ids in sequences for token in ids[1:]])
    values = np.array([[label, 1.0] for ids, label in zip(sequences, LABELS) for _ in ids[1:]])
    states, embeddings = states.double().numpy(), model.output_embeddings().double().numpy()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        logits = (states + eps * values @ flat.reshape(2, HIDDEN)) @ embeddings.T
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        of_logits = (shares - np.eye(VOCABULARY)[targets]) / len(targets)
        value = -np.log(shares[range(len(targets)), targets]).mean()
        return value, (eps * values.T @ of_logits @ embeddings).ravel()

    least = scipy.optimize.minimize(
        loss, np.zeros(2 * HIDDEN), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}
    )
    reached = [loss(steer.checkpoints[steps]["vector"].double().numpy().ravel())[0] for steps in (20, 200, 1500)]
    assert reached[0] > reached[1] > reached[2] > least.fun - 1e-9
    assert reached[2] == pytest.approx(least.fun, abs=1e-4)


def test_without_states_the_offset_learns_the_words_frequencies_of_either_label() -> None:
    """The least cross-entropy of a conditional distribution is its conditional entropy, in closed form."""
    generator = torch.Generator().manual_seed(0)
    words, labels = torch.arange(7).repeat(12), torch.tensor([1.0, -1.0]).repeat(42)
    words = torch.cat([words, torch.randint(7, (60,), generator=generator)])
    labels = torch.cat([labels, torch.randint(2, (60,), generator=generator) * 2.0 - 1])
    counts = np.array([[((words == word) & (labels == label)).sum() for word in range(7)] for label in (1, -1)])
    entropy = -sum(n * math.log(n / row.sum()) for row in counts for n in row) / counts.sum()
    offset = torch.zeros(2, 7, dtype=torch.float64, requires_grad=True)
    values = torch.stack([labels, torch.ones_like(labels)], 1).double()
    adam = torch.optim.Adam([offset], lr=0.05)
    for _ in range(600):
        zeros = torch.zeros(len(words), 3, dtype=torch.float64), torch.ones(7, 3, dtype=torch.float64)
        loss = steered_loss(zeros[0], words, zeros[1], {"offset": offset}, values, 1.0)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() == pytest.approx(entropy, abs=1e-6)
    learnt = torch.stack([offset[0] + offset[1], offset[1] - offset[0]]).softmax(1).detach()
    np.testing.assert_allclose(learnt, counts / counts.sum(1, keepdims=True), atol=1e-3)


@every_family
@pytest.mark.parametrize("adaptor, rank", [("multiply", None), ("multiply", "full"), ("add", None), ("offset", None)])
def test_opposite_values_move_the_log_odds_of_words_in_opposite_directions(
    adaptor: str, rank: object, family: str
) -> None:
    generator = np.random.default_rng(0)
    wished, unwished = "abcde", "vwxyz"

    def text(letters: str) -> str:
        return "".join(generator.choice(list(letters), 12))

    texts = [text(wished) for _ in range(20)] + [text(unwished) for _ in range(20)]
    data = pd.DataFrame({"id": [str(i) for i in range(40)], "label": [1.0] * 20 + [-1.0] * 20, "text": texts})
    prompts = torch.tensor([list(text(wished + unwished).encode()) for _ in range(10)])
    model = handle(family)
    steer = fit(
        family, data, capture(model, texts, "lm_head_input"), adaptor=adaptor, rank=rank, steps=(200,), eps=0.01
    )

    def log_odds(values: Sequence[float]) -> float:
        with steer.attached_values(model.load(), values), torch.no_grad():
            shares = model.load()(prompts).logits.softmax(-1)
        share = shares[..., [ord(letter) for letter in unwished]].sum(-1)
        return (share.log() - (1 - share).log()).mean().item()

    assert log_odds([5.0, 1.0]) < log_odds([0.0, 1.0]) - 0.01
    assert log_odds([-5.0, 1.0]) > log_odds([0.0, 1.0]) + 0.01
    assert log_odds([5.0, 0.0]) < log_odds([0.0, 0.0]) < log_odds([-5.0, 0.0])


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    written = []
    for run, seed in enumerate((0, 0, 1)):
        fit("llama", seed=seed, batch_texts=2, steps=(1, 5)).save(tmp_path / str(run))
        written.append({path.name: path.read_bytes() for path in sorted((tmp_path / str(run)).iterdir())})
    assert written[0] == written[1]
    assert written[0]["steer.safetensors"] != written[2]["steer.safetensors"]


def test_a_checkpoint_is_where_a_shorter_training_ends() -> None:
    longer, shorter = (fit("llama", batch_texts=2, steps=steps) for steps in ((3, 7), (3,)))
    assert list(longer.checkpoints) == [3, 7]
    assert longer.steps == 7
    for name, tensor in shorter.tensors.items():
        assert torch.equal(longer.checkpoints[3][name], tensor)
        assert not torch.equal(longer.tensors[name], tensor)


# ---- which texts are trained on ----


def many_texts(count: int = 60) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"id{i}" for i in range(count)], "label": [1.0, -1.0, -1.0] * (count // 3)})


def test_held_out_texts_are_never_trained_on(losses: list) -> None:
    data = training_texts()
    held = set(by_seed(list(data["id"]), 3, 0.4)[1])
    assert 0 < len(held) < len(data)
    assert {data["id"][row] for row in training_rows(data, 3, 0.4)} == set(data["id"]) - held
    activations = capture(handle("llama"), list(data["text"]), "lm_head_input")
    fit("llama", data, activations, seed=3, held_out=0.4, batch_texts=1, steps=(20,))
    seen = {bytes(targets.tolist()).decode() for _, _, targets, _ in losses}
    assert seen == {text[1:] for name, text in zip(data["id"], data["text"]) if name not in held}


@pytest.mark.parametrize("texts", [1, 2, 7, 12, 30])
def test_a_number_of_texts_is_drawn_as_many_of_either_label(texts: int) -> None:
    data = many_texts()
    labels = data["label"].iloc[training_rows(data, 0, 0.1, texts)]
    assert (labels == 1).sum() == (labels == -1).sum() == texts // 2


def test_a_larger_number_of_texts_keeps_those_of_a_smaller_one() -> None:
    data = many_texts()
    drawn = [set(training_rows(data, 0, 0.1, texts)) for texts in (2, 6, 20, 30)]
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]
    assert drawn[1] != set(training_rows(data, 1, 0.1, 6))


def test_texts_that_come_or_go_leave_the_others_in_their_places() -> None:
    data = many_texts()
    fewer = data.drop(index=range(0, 60, 5)).reset_index(drop=True)
    of_all, of_fewer = (set(each["id"].iloc[training_rows(each, 0, 0.1)]) for each in (data, fewer))
    assert of_fewer == of_all & set(fewer["id"])


def test_no_text_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="no text to train on; raise the number of texts"):
        fit("llama", texts=1)
    with pytest.raises(ValueError, match="no text to train on"):
        fit("llama", held_out=1.0)


# ---- on disk ----


@every_adaptor
def test_every_checkpoint_is_saved_and_loaded_without_pickle(
    adaptor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pickle")

    for module in (torch, __import__("pickle"), __import__("numpy")):
        for name in {"load", "loads", "save", "dump", "dumps", "Unpickler"} & set(dir(module)):
            monkeypatch.setattr(module, name, forbidden)
    kind = {"rank": "full"} if adaptor == "full" else {"adaptor": adaptor}
    steer = fit("llama", steps=(1, 3), **kind)
    steer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steer.json", "steer.safetensors"]
    for steps in (1, 3):
        loaded = LMSteer.load(tmp_path, steps)
        assert loaded.record == steer.record
        assert loaded.steps == steps
        assert loaded.tensors.keys() == steer.checkpoints[steps].keys()
        assert all(torch.equal(loaded.tensors[name], each) for name, each in steer.checkpoints[steps].items())
    assert LMSteer.load(tmp_path).steps == 3


def test_a_missing_checkpoint_is_refused_in_one_sentence(tmp_path: Path) -> None:
    fit("llama", steps=(1, 3)).save(tmp_path)
    with pytest.raises(ValueError, match=r"no checkpoint at 2 steps, only at \[1, 3\]; add it to steps") as error:
        LMSteer.load(tmp_path, 2)
    assert "\n" not in str(error.value)


def test_a_steer_made_into_another_keeps_its_own_record() -> None:
    steer = steer_of(handle("llama"), random_tensors("multiply"))
    before = dataclasses.asdict(steer.record)
    scaled = steer.scaled(3.0)
    torch.testing.assert_close(scaled.change([5.0, 1.0]), 3 * steer.change([5.0, 1.0]))
    assert dataclasses.asdict(steer.record) == before
