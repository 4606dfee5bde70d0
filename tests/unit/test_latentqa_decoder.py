"""LatentQA's decoder: what it is trained on, what it leaves alone, how it reads and what it says of given answers."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from steerlab import sites
from steerlab.activations import states_of
from steerlab.decoder_prompts import Template
from steerlab.latent_reads import read
from steerlab.methods.latentqa import Decoder, captured
from steerlab.methods.steer_files import SteerMismatch
from steerlab.models import ModelHandle
from steerlab.sites import Site
from tests.laws.subjects import handle
from tests.unit.latentqa_subjects import SETTINGS, dialog, reader_model, reads_of, table

EVERY_FAMILY = pytest.mark.parametrize("family", ["gpt2", "llama"])


def fit(family: str = "llama", data: pd.DataFrame | None = None, activations: Any = None, **more: Any) -> Decoder:
    given = table() if data is None else data
    return Decoder.fit(reader_model(family), given, activations, **(SETTINGS | more))


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def strong(request: pytest.FixtureRequest) -> tuple[ModelHandle, Decoder]:
    """A decoder that says something else than the model itself."""
    return reader_model(request.param), fit(request.param, learning_rate=0.05, updates=6)


QUESTIONS = [["Hue?", "Sure?"], ["Hue?"], ["And?", "Why?", "Who?"], ["Hue?"], ["Hue?", "No?"]]


def test_a_read_with_a_cache_is_one_patched_at_every_step(strong: tuple[ModelHandle, Decoder]) -> None:
    model, decoder = strong
    reads = reads_of(model)
    answers = decoder.read(model, reads, QUESTIONS, max_new_tokens=8, batch_rows=3)
    assert [len(each) for each in answers] == [len(each) for each in QUESTIONS]
    assert answers == decoder.read(model, reads, QUESTIONS, max_new_tokens=8, batch_rows=3, use_cache=False)
    assert len({each[0] for each in answers}) > 1  # or the comparison says nothing


def test_states_at_hand_are_read_and_not_computed_again(
    strong: tuple[ModelHandle, Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, decoder = strong
    reads = reads_of(model)
    states = [each for (each,) in states_of(model, reads, [decoder.site], 8)]
    answers, length = decoder.read(model, reads, QUESTIONS, max_new_tokens=6), {"max_new_tokens": 6}

    def computed(*_: Any) -> None:
        raise AssertionError("the target is run again")

    monkeypatch.setattr("steerlab.activations.states_of", computed)
    assert decoder.read(model, reads, QUESTIONS, states=states, **length) == answers
    swapped = decoder.read(model, reads, QUESTIONS, states=[torch.zeros_like(each) for each in states], **length)
    assert swapped != answers


def test_each_dialog_is_answered_as_if_alone(strong: tuple[ModelHandle, Decoder]) -> None:
    model, decoder = strong
    reads = reads_of(model)
    together = decoder.read(model, reads, QUESTIONS, max_new_tokens=6, batch_rows=5)
    alone = [decoder.read(model, [row], [dialog], max_new_tokens=6)[0] for row, dialog in zip(reads, QUESTIONS)]
    assert together == alone


def test_the_next_question_follows_the_decoders_own_answer(strong: tuple[ModelHandle, Decoder]) -> None:
    model, decoder = strong
    (row, *_), template = reads_of(model), decoder.template(model.info.tokenizer)
    ((first, second),) = decoder.read(model, [row], [["Hue?", "Sure?"]], max_new_tokens=6)
    prompt, loaded = template.prompt(len(row.selected), ["Hue?", "Sure?"], [first]), model.load()
    states = target_states(model, row.ids)[list(row.selected)]
    ids = list(prompt.ids)
    with torch.no_grad(), decoder.attached(loaded), decoder.shown(loaded, [prompt], [states]):
        for _ in range(6):
            ids.append(int(loaded(torch.tensor([ids])).logits[0, -1].argmax()))
    new = ids[len(prompt.ids) :]
    new = new[: new.index(template.closing[-1])] if template.closing[-1] in new else new
    assert model.info.tokenizer.decode(new) == second


def target_states(model: ModelHandle, ids: Any, layer: int = 1) -> Tensor:
    loaded = model.load()
    with torch.no_grad(), sites.capture(loaded, [Site("block_output", layer)]) as found:
        loaded(torch.tensor([list(ids)]))
    return found[Site("block_output", layer)][0]


def test_masked_tokens_matter_through_later_states_alone(strong: tuple[ModelHandle, Decoder]) -> None:
    model, decoder = strong
    row = read(model.info.tokenizer, dialog("secret", "Hm."), 1)
    prompt = decoder.template(model.info.tokenizer).prompt(len(row.selected), ["Hue?"], ["red"])
    masked, loaded = [place for place in range(len(row.ids)) if place not in row.selected], model.load()

    def loss(changed: int | None = None) -> float:
        """With other states of the masked tokens after one block of the target; 1 is the block that is read."""
        edits = {} if changed is None else {Site("block_output", changed): move}
        with sites.edit(loaded, edits):
            ((states,),) = states_of(model, [row], [decoder.site], 1)
        with torch.no_grad():
            return float(decoder.loss(loaded, [prompt], [states]))

    def move(x: Tensor, where: sites.Where) -> Tensor:
        inside = torch.isin(where.position, torch.tensor(masked))[..., None]
        return torch.where(inside, x.roll(1, dims=-1) + 3, x)

    assert len(masked) > len("secret")
    assert loss(changed=1) == loss() != pytest.approx(loss(changed=0), rel=1e-4)


@EVERY_FAMILY
def test_training_moves_the_layers_alone_and_leaves_the_model_as_it_was(family: str) -> None:
    model: Any = reader_model(family).load()
    before = {name: each.clone() for name, each in model.named_parameters()}
    tree, state = list(model.named_modules()), torch.random.get_rng_state()
    ids = torch.tensor([list(b"how are you")])
    with torch.no_grad():
        logits = model(ids).logits
    decoder = fit(family, dropout=0.5, learning_rate=0.05)
    assert list(model.named_modules()) == tree
    assert all(torch.equal(each, before[name]) and each.grad is None for name, each in model.named_parameters())
    assert not any(each.requires_grad for each in model.parameters())
    assert not any(each.training for each in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)
    with decoder.attached(model), torch.no_grad():
        assert not torch.equal(model(ids).logits, logits)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, logits)
    paths = {name.rpartition(".")[0] for name in decoder.tensors}
    of_block = {"gpt2": 4, "llama": 7}[family]
    assert len(paths) == 3 * of_block and all(".0." in path or ".1." in path or ".2." in path for path in paths)
    # Blocks after the first see the states; in block 0 the layers act on the tokens around them.
    assert all(decoder.tensors[f"{path}.B"].abs().max() > 0 for path in paths)


def test_the_loss_is_that_of_the_answers_tokens(strong: tuple[ModelHandle, Decoder]) -> None:
    model, decoder = strong
    data, tokenizer, loaded = table(), model.info.tokenizer, model.load()
    found = decoder.losses(model, data, batch_rows=4)
    assert list(found.columns) == ["id", "loss", "tokens"] and list(found.id) == list(data.id)
    for row in (0, 3):
        words = read(tokenizer, json.loads(data.turns[row]), 0)
        prompt = decoder.template(tokenizer).prompt(len(words.selected), ["Hue?"], [data.answer[row]])
        states = target_states(model, words.ids)[list(words.selected)]
        with torch.no_grad(), decoder.attached(loaded), decoder.shown(loaded, [prompt], [states]):
            lines = loaded(torch.tensor([prompt.ids])).logits[0].log_softmax(-1)
        said = [*data.answer[row].encode(), tokenizer.eos_token_id]
        nlls = [-lines[place - 1, token] for place, token in zip(range(len(prompt.ids) - len(said), 999), said)]
        assert found.tokens[row] == len(said)
        assert found.loss[row] == pytest.approx(float(torch.stack(nlls).mean()), rel=1e-4)


def test_another_rows_read_can_be_shown_or_none(strong: tuple[ModelHandle, Decoder]) -> None:
    model, decoder = strong
    data = table()
    own, swapped, none = (
        decoder.losses(model, data, **more).loss.tolist()  # pyright: ignore
        for more in ({}, {"shown": [1, 0, 2, 3, 4, 5]}, {"patch": False})
    )
    assert swapped[2:] == pytest.approx(own[2:], rel=1e-4) and swapped[:2] != pytest.approx(own[:2], rel=1e-3)
    assert none != pytest.approx(own, rel=1e-3)
    expected = decoder.losses(model, data.assign(turns=[data.turns[1], data.turns[0], *data.turns[2:]])).loss
    assert swapped == pytest.approx(expected.tolist(), rel=1e-4)


@EVERY_FAMILY
def test_states_from_disk_train_the_decoder_that_states_made_anew_do(family: str, tmp_path: Path) -> None:
    model, data = reader_model(family), table(hidden=1)
    on_disk = captured(model, data, folder=tmp_path, batch_rows=1, shard_rows=2, read_layer=1)
    assert len(on_disk.files) == 3 and on_disk.layers("block_output") == [1]
    rows = reads_of(model, hidden=1)
    for row, states in zip(rows, on_disk.of_rows(Site("block_output", 1), range(5))):
        torch.testing.assert_close(states, target_states(model, row.ids)[list(row.selected)], rtol=1e-4, atol=1e-5)
    more = {"data": data, "batch_rows": 1, "updates": 3, "normalise": "zscore"}
    one, other = fit(family, activations=on_disk, **more), fit(family, **more)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, other.tensors[name], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="not those of the table's reads"):
        fit(family, activations=on_disk, **(more | {"data": table()}))


def test_states_are_normalised_over_the_fitted_reads() -> None:
    model, decoder = reader_model("llama"), fit(normalise="zscore", updates=1)
    states = torch.cat([target_states(model, row.ids)[list(row.selected)] for row in reads_of(model)])
    torch.testing.assert_close(decoder.tensors["mean"], states.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoder.tensors["spread"], states.std(0, correction=0), rtol=1e-4, atol=1e-5)
    learnt = fit(normalise="learnt", updates=5, learning_rate=0.05).tensors["scale"]
    assert (learnt - 1).abs().median() > 0.01


def test_a_saved_decoder_is_loaded_whole_and_refuses_another_model(tmp_path: Path) -> None:
    decoder = fit(normalise="zscore", answer_role="reflect", held_out=0.5, held_out_every=2)
    decoder.save(tmp_path)
    loaded, model = Decoder.load(tmp_path), reader_model("llama")
    assert loaded.record == decoder.record and loaded.training == decoder.training
    assert loaded.read(model, reads_of(model), QUESTIONS) == decoder.read(model, reads_of(model), QUESTIONS)
    assert loaded.losses(model, table()).equals(decoder.losses(model, table()))
    with pytest.raises(SteerMismatch, match="was trained for model 'tiny-llama-7'"):
        decoder.attached(handle("llama").load())


def test_settings_that_do_not_serve_are_refused() -> None:
    for more, message in (
        ({"normalise": "whiten"}, "normalise 'whiten'"),
        ({"max_tokens": 5}, "no example to train on"),
        ({"tracker": "no_such_tracker"}, "'no_such_tracker' is not installed"),
        ({"targets": ["lm_head"]}, "LoRA's targets"),
        ({"changed_blocks": "some"}, "changed_blocks 'some'"),
        ({"write_layer": 2}, "write_layer 2 is the last block"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(**more)
    with pytest.raises(FloatingPointError, match="lower the learning_rate"):
        fit(learning_rate=float("inf"))


@EVERY_FAMILY
def test_blocks_up_to_the_one_where_states_are_put_can_be_left_as_they_are(family: str) -> None:
    after = fit(family, write_layer=1, changed_blocks="after_write_layer", learning_rate=0.05, updates=6)
    assert set(after.tensors) == {name for name in fit(family).tensors if ".2." in name}  # of blocks 0 to 2
    losses = [row["loss"] for row in after.training]
    assert losses[-1] < losses[0]
    model = reader_model(family)
    reads = reads_of(model)
    how = {"max_new_tokens": 6, "batch_rows": 3}
    assert after.read(model, reads, QUESTIONS, **how) == after.read(model, reads, QUESTIONS, **how, use_cache=False)


@EVERY_FAMILY
def test_activation_checkpointing_and_autocast_change_no_more_than_rounding(family: str) -> None:
    more = {"dropout": 0.3, "updates": 3, "learning_rate": 1e-3, "accumulation": 2}
    plain = fit(family, **more)
    spared = fit(family, checkpointed_activations=True, **more)
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(spared.tensors[name], tensor, rtol=1e-4, atol=1e-6)
    half = fit(family, autocast=True, **more)
    losses = [[row["loss"] for row in decoder.training] for decoder in (plain, half)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


@contextmanager
def told(model: ModelHandle) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Tokens and positions of every forward, rows one below the other."""
    found: list[tuple[Tensor, Tensor]] = []

    def forward(original: Any, *args: Any, **kwargs: Any) -> Any:
        found.append((kwargs["input_ids"], kwargs["position_ids"]))
        return original(*args, **kwargs)

    with sites.forwards(model.load(), forward):
        yield found


def at_placeholders(model: ModelHandle, forwards: list[tuple[Tensor, Tensor]]) -> set[tuple[int, ...]]:
    """The positions of each prompt's placeholders, where a forward has any; a question ends with such a token, too."""
    mark = Template(model.info.tokenizer).placeholder
    rows = [row for ids, positions in forwards for row in zip(ids, positions)]
    runs = [tuple(positions[ids == mark][:-1].tolist()) for ids, positions in rows if (ids == mark).sum() > 1]
    return {run for run in runs if len(run) > 1}


@EVERY_FAMILY
def test_the_model_is_told_shifted_positions_in_training_scoring_and_reading(family: str) -> None:
    model, data = reader_model(family), table(hidden=1)
    rows = reads_of(model, hidden=1)
    with told(model) as trained:
        decoder = fit(family, data, shift_position_ids=True, updates=8)
    with told(model) as scored:
        decoder.losses(model, data)
    expected = {row.selected for row in rows}
    assert at_placeholders(model, scored) == expected and at_placeholders(model, trained) == expected
    for use_cache in (True, False):
        with told(model) as forwards:
            decoder.read(model, rows, [["Hue?"]] * len(rows), max_new_tokens=3, use_cache=use_cache)
        assert at_placeholders(model, forwards) == expected
        last = [positions[:, -1] for _, positions in forwards[-2:]]
        assert torch.equal(last[1], last[0] + 1)


def test_shifted_positions_say_nothing_new_to_a_model_that_counts_distances_alone() -> None:
    """What a read leaves out between its tokens would; of one turn that is hidden, it shows one run of tokens."""
    data = table(hidden=1)
    data["turns"] = [json.dumps(json.loads(turns)[:1]) for turns in data.turns]
    for family, is_relative in (("llama", True), ("gpt2", False)):
        plain, shifted = (fit(family, data, updates=1, shift_position_ids=shift) for shift in (False, True))
        assert (shifted.training[0]["loss"] == pytest.approx(plain.training[0]["loss"], rel=1e-5)) == is_relative
