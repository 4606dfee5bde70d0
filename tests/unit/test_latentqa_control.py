"""LatentQA's control: what is learnt from which states, what is left alone, a step by hand; the laws are elsewhere."""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from steerlab import low_rank, sites
from steerlab.data.control_rows import crossed, crossed_per_layer, dialogs_to_learn
from steerlab.latent_reads import read
from steerlab.methods.latentqa import Decoder
from steerlab.methods.latentqa_control import LatentQAControl, _Learner, control, wished_losses
from steerlab.methods.latentqa_training import Steps, train
from steerlab.methods.protocol import Origin
from steerlab.methods.random_direction import randomised
from steerlab.methods.steer_files import SteerMismatch
from steerlab.models import in_chat
from steerlab.sites import Site
from tests.laws.subjects import handle
from tests.unit.latentqa_subjects import SETTINGS, dialog, reader_model, table

EVERY_FAMILY = pytest.mark.parametrize("family", ["gpt2", "llama"])
PER_LAYER = pytest.mark.parametrize("per_layer_loss", [False, True])
PAIRS = [("Hue?", "pink"), ("Sure?", "Yes, sure.")]
DIALOGS = [dialog("red", "Hm."), dialog("the blue sky"), dialog("no", "Oh yes."), dialog("green grass")]
QUICK = {"seed": 0, "updates": 3, "rank": 2, "alpha": 4.0, "learning_rate": 0.01, "batch_rows": 2}


@functools.cache
def decoder(family: str = "llama") -> Decoder:
    """A decoder that says something else than the model itself."""
    return Decoder.fit(reader_model(family), table(), None, **(SETTINGS | {"learning_rate": 0.05}))


def fit(family: str = "llama", data: pd.DataFrame | None = None, **more: Any) -> LatentQAControl:
    given = crossed(DIALOGS, PAIRS) if data is None else data
    settings = {"reader": decoder(family)} | QUICK | more
    return LatentQAControl.fit(reader_model(family), given, **settings)  # pyright: ignore


def learner(family: str = "llama", data: pd.DataFrame | None = None, **more: Any) -> _Learner:
    """A control before its first update."""
    given = crossed(DIALOGS, PAIRS) if data is None else data
    record = fit(family, given, updates=0, **more).record
    return _Learner(reader_model(family), decoder(family), given, record)


# ---- what is learnt ----


@EVERY_FAMILY
@PER_LAYER
def test_the_gradient_is_in_the_controls_factors_alone_and_nothing_else_changes(
    family: str, per_layer_loss: bool
) -> None:
    model: Any = reader_model(family).load()
    reader = decoder(family)
    with reader.attached(model):
        theirs = {name: (each, each.detach().clone()) for name, each in low_rank.named(reader._made[model]).items()}
    before = {name: each.clone() for name, each in model.named_parameters()}
    tensors = {name: each.clone() for name, each in reader.tensors.items()}
    tree, state = list(model.named_modules()), torch.random.get_rng_state()

    steer = fit(family, per_layer_loss=per_layer_loss, dropout=0.5)

    assert list(model.named_modules()) == tree
    assert all(torch.equal(each, before[name]) and each.grad is None for name, each in model.named_parameters())
    assert not any(each.requires_grad for each in model.parameters())
    assert all(torch.equal(each, tensors[name]) for name, each in reader.tensors.items())
    assert all(torch.equal(each, was) and each.grad is None for each, was in theirs.values())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {path.split(".")[2] for path in steer.paths} == {"0", "1"}  # block 1 is read
    assert all(steer.tensors[f"{path}.B"].abs().max() > 0 for path in steer.paths)
    assert all(each.dtype == torch.float32 for each in steer.tensors.values())


def test_no_block_after_the_one_that_is_read_is_run_for_the_target() -> None:
    one, ran = learner(), []
    model = one.model
    with sites.before_blocks(model, range(3), lambda layer, *_: ran.append(layer)):
        one._states(one.fitted[:2], training=True)
    assert ran == [0, 1]


@PER_LAYER
def test_the_states_are_those_of_the_changed_target_whatever_the_batch(per_layer_loss: bool) -> None:
    one = learner(per_layer_loss=per_layer_loss)
    for made in one.layers.values():
        torch.nn.init.normal_(low_rank.factors(made)[1], std=0.3)
    with torch.no_grad():
        together = one._states(one.fitted, training=False)
    assert len(together) == (2 if per_layer_loss else 1)
    for place, example in enumerate(one.fitted):
        with torch.no_grad(), sites.modules(one.model, one.layers), sites.capture(one.model, one.shown) as states:
            one.model(torch.tensor([example.row.ids]))
        for site, found in zip(one.shown, together, strict=True):
            alone = states[site][0, list(example.row.selected)]
            torch.testing.assert_close(found[place], alone, rtol=1e-4, atol=1e-4)


def test_the_loss_goes_back_through_the_patched_states() -> None:
    """Against differences of the loss along a factor's gradient."""
    one = learner(dropout=0.0)
    for made in one.layers.values():
        torch.nn.init.normal_(low_rank.factors(made)[1], std=0.1)
    parameters = low_rank.named(one.layers)
    one.differentiate([0, 1, 2], 1.0)

    @torch.no_grad()
    def loss() -> float:
        examples = one.fitted[:3]
        (states,) = one._states(examples, training=False)
        return float(one.decoder.loss(one.model, [each.prompts[0] for each in examples], states))

    for name in (one_of(parameters, "layers.0.self_attn.k_proj.B"), one_of(parameters, "layers.1.mlp.down_proj.A")):
        factor, gradient = parameters[name], parameters[name].grad
        assert gradient is not None
        direction, step, found = gradient / gradient.norm(), 1e-2, []
        for sign in (1, -1):
            factor.data += sign * step * direction
            found.append(loss())
            factor.data -= sign * step * direction
        slope = (found[0] - found[1]) / (2 * step)
        assert slope == pytest.approx(float(gradient.norm()), rel=0.02)


def one_of(names: Any, end: str) -> str:
    (found,) = [name for name in names if name.endswith(end)]
    return found


def test_a_step_of_the_loss_per_layer_is_the_one_by_hand() -> None:
    """Block by block, each with an optimiser of its own that is stepped before the next block is run."""
    one = learner(per_layer_loss=True, dropout=0.0)
    for made in one.layers.values():
        torch.nn.init.normal_(low_rank.factors(made)[1], std=0.1)
    hand = {name: each.detach().clone() for name, each in low_rank.named(one.layers).items()}
    (example,) = one.fitted[:1]
    model: Any = copy.deepcopy(one.model)  # its products are W x + (alpha / rank) B A x, written out below
    adams = {
        layer: torch.optim.Adam(
            [each.requires_grad_() for name, each in hand.items() if f"layers.{layer}." in name], 0.01
        )
        for layer in (0, 1)
    }
    x = model.model.embed_tokens(torch.tensor([example.row.ids]))
    positions = torch.arange(x.shape[1])[None]
    rotary = model.model.rotary_emb(x, positions)
    hidden = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)[None, None]
    losses = []
    for layer, adam in adams.items():
        block = model.model.layers[layer]
        weights = {
            f"{name}.weight": each.weight
            + 2 * hand[f"model.layers.{layer}.{name}.B"] @ hand[f"model.layers.{layer}.{name}.A"]
            for name, each in block.named_modules()
            if isinstance(each, torch.nn.Linear)
        }
        kwargs = {"attention_mask": hidden, "position_embeddings": rotary, "position_ids": positions}
        out = torch.func.functional_call(block, weights, (x.detach(),), kwargs)
        out = out if isinstance(out, Tensor) else out[0]
        loss = one.decoder.loss(one.model, [example.prompts[0]], [out[0, list(example.row.selected)]])
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
        x = out.detach()

    one.batches = [[[0]]]
    steps = {"learning_rate": 0.01, "weight_decay": 0.0, "seed": 0, "every": 9, "checkpoint_every": 9, "cosine": False}
    rows, found = train(
        low_rank.named(one.layers), Steps(one.batches, **steps), one.differentiate, None, checkpoints=None
    )
    assert rows[0]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)
    for name, each in hand.items():
        torch.testing.assert_close(found[name], each.detach(), rtol=1e-4, atol=2e-5)


def test_each_layer_can_have_pairs_of_its_own() -> None:
    pairs = [[("Hue?", "pink"), ("Who?", "I")], [("Sure?", "No.")]]
    data = crossed_per_layer(DIALOGS[1:2], pairs)
    assert data.layer.tolist() == [0, 0, 1] and data.id.is_unique
    one = learner(data=data, per_layer_loss=True)
    tokenizer = reader_model("llama").info.tokenizer
    asked = [[tokenizer.decode([each.ids[i] for i in each.asked[:-1]]) for each in ex.prompts] for ex in one.fitted]
    assert asked == [["pink", "No."], ["I", "No."]]
    with pytest.raises(ValueError, match="set per_layer_loss"):
        learner(data=data)
    with pytest.raises(ValueError, match="layer 1 has no question"):
        learner(data=data[data.layer == 0], per_layer_loss=True)


@pytest.mark.parametrize(
    "family, modules, names",
    [
        ("llama", "attn", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("llama", "mlp", {"gate_proj", "up_proj", "down_proj"}),
        ("llama", "qv", {"q_proj", "v_proj"}),
        ("gpt2", "qv", {"c_attn"}),
    ],
)
def test_the_modules_that_are_changed_can_be_chosen(family: str, modules: str, names: set[str]) -> None:
    steer = fit(family, lora_modules=modules, updates=1)
    assert {path.rpartition(".")[2] for path in steer.paths} == names
    assert len(steer.paths) == 2 * len(names)


def test_the_blocks_that_are_changed_can_be_chosen_up_to_the_one_that_is_read() -> None:
    steer = fit(layers=[1], updates=1)
    assert {path.split(".")[2] for path in steer.paths} == {"1"}
    for wrong in ([2], [0, 2], [-1], []):
        with pytest.raises(ValueError, match="give some of 0 to 1"):
            fit(layers=wrong)


# ---- training ----


@PER_LAYER
def test_one_seed_gives_the_same_control_and_another_seed_another(per_layer_loss: bool) -> None:
    first, again, other = (fit(seed=seed, per_layer_loss=per_layer_loss) for seed in (0, 0, 1))
    assert first.training == again.training != other.training
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert not any(torch.equal(first.tensors[name], other.tensors[name]) for name in first.tensors)


@pytest.mark.parametrize("updates", [1, 3])
def test_training_that_diverges_is_refused_in_one_line(updates: int) -> None:
    with pytest.raises(FloatingPointError, match="lower") as error:
        fit(learning_rate=float("inf"), updates=updates)
    assert "\n" not in str(error.value)


def test_losses_are_noted_and_saved_with_the_steer(tmp_path: Path) -> None:
    steer = fit(updates=3, train_percent=50, held_out_every=2)
    assert [row["step"] for row in steer.training] == [1, 2, 3]
    assert [row["held_out_loss"] is not None for row in steer.training] == [False, True, True]
    assert {row["learning_rate"] for row in steer.training} == {0.01}
    steer.save(tmp_path)
    loaded = LatentQAControl.load(tmp_path)
    assert loaded.training == steer.training and loaded.record == steer.record
    assert all(torch.equal(each, steer.tensors[name]) for name, each in loaded.tensors.items())


def test_a_training_that_was_stopped_goes_on_to_the_same_control(tmp_path: Path, monkeypatch: Any) -> None:
    whole, calls = fit(updates=5), []
    original = _Learner.differentiate

    def stopped(self: _Learner, batch: Any, factor: float) -> Tensor:
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, batch, factor)

    kept = {"updates": 5, "checkpoints": tmp_path, "checkpoint_every": 2}
    monkeypatch.setattr(_Learner, "differentiate", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(**kept)
    again = fit(**kept)
    assert len(calls) == 4 + 3  # from the second update on
    assert again.training == whole.training
    assert all(torch.equal(each, whole.tensors[name]) for name, each in again.tensors.items())


def test_the_reader_is_a_decoder_of_this_model_or_its_folder(tmp_path: Path) -> None:
    decoder().save(tmp_path)
    one, same = fit(), fit(reader=tmp_path)
    assert one.record == same.record
    assert all(torch.equal(one.tensors[name], same.tensors[name]) for name in one.tensors)
    with pytest.raises(SteerMismatch, match="steer 'latentqa'"):
        LatentQAControl.fit(handle("gpt2"), crossed(DIALOGS, PAIRS), reader=decoder(), seed=0)


# ---- data ----


def test_every_dialog_is_crossed_with_every_pair() -> None:
    data = crossed(DIALOGS, PAIRS, nudge="Mind this.")
    assert list(data.columns) == ["id", "turns", "hidden", "question", "answer"] and data.id.is_unique
    assert list(zip(data.question, data.answer)) == PAIRS * 4
    assert [json.loads(turns)[0]["content"] for turns in data.turns[::2]] == [
        "Mind this. red", "Mind this. the blue sky", "Mind this. no", "Mind this. green grass",
    ]  # fmt: skip
    assert DIALOGS[0][0]["content"] == "red"


def test_a_dialog_is_read_with_and_without_its_reply() -> None:
    data = crossed(DIALOGS[:2], PAIRS)
    settings = {"seed": 0, "samples": None, "train_percent": 100}
    both, _ = dialogs_to_learn(data, with_replies=True, **settings)
    turns = [len(json.loads(each)) for each in both.turns]
    assert sorted(turns) == [1] * 4 + [2] * 2
    without, _ = dialogs_to_learn(data, with_replies=False, **settings)
    assert [len(json.loads(each)) for each in without.turns] == [1] * 4
    assert list(zip(without.question, without.answer)) == PAIRS * 2


def test_samples_are_dialogs_and_a_larger_number_keeps_those_of_a_smaller() -> None:
    data = crossed([dialog(f"words {i}", "Hm.") for i in range(40)], PAIRS)

    def dialogs(part: pd.DataFrame) -> set[str]:
        return {json.loads(turns)[0]["content"] for turns in part.turns}

    def drawn(**more: Any) -> tuple[set[str], set[str]]:
        given = {"seed": 0, "samples": 20, "with_replies": True, "train_percent": 100} | more
        learnt, judging = map(dialogs, dialogs_to_learn(data, **given))
        return learnt, judging

    twenty, nothing = drawn()
    assert len(twenty) == 20 and not nothing
    assert drawn(samples=7)[0] < twenty and drawn(seed=1)[0] != twenty
    learnt, judging = drawn(train_percent=60)
    assert learnt | judging == twenty and not learnt & judging and learnt and judging
    with pytest.raises(ValueError, match="at most 100"):
        drawn(train_percent=0)
    with pytest.raises(ValueError, match="give more samples"):
        drawn(samples=0)


def test_a_read_can_be_cut() -> None:
    data = crossed(DIALOGS[1:2], PAIRS)
    whole, cut = (learner(data=data, truncate=tokens).fitted[0].row for tokens in (None, 10))
    assert cut.ids == whole.ids[:10] and cut.selected == tuple(place for place in whole.selected if place < 10)
    assert whole == read(reader_model("llama").info.tokenizer, DIALOGS[1])
    with pytest.raises(ValueError, match="raise truncate"):
        learner(data=data, truncate=3)


# ---- what it does ----


def test_the_decoder_that_judges_is_not_steered_itself() -> None:
    """The loss under a steer is that of the plain decoder on the steered target's states."""
    model, data = reader_model("llama"), crossed(DIALOGS[1:3], PAIRS)
    steer, loaded = fit(learning_rate=0.1, updates=3), model.load()
    site = Site("block_output", 1)
    found = wished_losses(decoder(), model, data, steer)
    tokenizer = model.info.tokenizer
    for row in range(len(data)):
        words = read(tokenizer, json.loads(data.turns[row]))
        with torch.no_grad(), steer.attached(loaded), sites.capture(loaded, [site]) as states:
            loaded(torch.tensor([words.ids]))
        prompt = decoder().template(tokenizer).prompt(len(words.selected), [data.question[row]], [data.answer[row]])
        with torch.no_grad():
            by_hand = decoder().loss(loaded, [prompt], [states[site][0, list(words.selected)]])
        assert found.loss[row] == pytest.approx(float(by_hand), rel=1e-4)
    assert wished_losses(decoder(), model, data).loss.tolist() != pytest.approx(found.loss.tolist(), rel=1e-3)


def test_control_by_hand_lowers_the_loss_of_the_wished_answer_and_random_ones_of_its_size_do_not() -> None:
    """On dialogs that were not learnt from, with a decoder that tells which of two letters was said."""
    model, ends = reader_model("llama"), [f"{letter}{digit}" for letter in "stuvwx" for digit in "123456"]
    said = {letter: [dialog(letter * 6 + end) for end in ends] for letter in "ab"}
    tables = [crossed(said[letter][:12], [("?", letter)]) for letter in "ab"]
    settings = SETTINGS | {"updates": 60, "learning_rate": 0.02, "rank": 8, "alpha": 16.0, "batch_rows": 12}
    reader = Decoder.fit(model, pd.concat(tables, ignore_index=True), **settings)  # pyright: ignore
    unseen = crossed(said["a"][24:], [("?", "b")])

    def loss(steer: LatentQAControl | None = None, data: pd.DataFrame = unseen) -> float:
        return float(wished_losses(reader, model, data, steer).loss.mean())

    assert loss(data=unseen.assign(answer="a")) < loss() - 1  # it reads

    how = {"updates": 20, "learning_rate": 0.003, "batch_rows": 4, "rank": 4, "alpha": 8.0}
    steer = control(model, reader, [("?", "b")], said["a"][12:24], **how)
    gain = loss() - loss(steer)
    assert gain > 0.8
    prompts = tuple(in_chat(model.info.tokenizer, turns) for turns in said["a"][12:16])
    like, moved = [], []  # random changes with its singular values, and those that move the last states as far
    for seed in range(4):
        like.append(loss() - loss(steer.with_random_directions(torch.Generator().manual_seed(seed))))
        moved.append(loss() - loss(randomised(model, Origin({"": steer}, model, prompts, strength=1.0, seed=seed))))
    assert max(like) < 0.25 * gain
    assert sum(moved) / len(moved) < 0.5 * gain
