"""Steers made from LM-Steers: compositions, random controls, transfers; and the rotated models for transfers."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from steerlab import generations, models, sites
from steerlab.methods import lm_steer_transfer
from steerlab.methods.lm_steer import LMSteer, composed
from steerlab.methods.lm_steer_transfer import mapped, shared_embeddings, transferred
from steerlab.methods.protocol import Origin
from steerlab.methods.random_direction import mean_edit, randomised
from steerlab.models import ModelError, ModelHandle, encode
from steerlab.sites import Site
from steerlab.tiny_models import byte_tokenizer
from tests.laws.subjects import fitted, handle, tiny_model
from tests.unit.test_lm_steer import EPS, HIDDEN, every_family, logits_of, normal, random_tensors, steer_of

PROMPTS = ("You are", "I think that", "What a", "no", "The people in this town are")


def origin_of(*steers: LMSteer, model: ModelHandle, strength: float = 1.0, seed: int = 0) -> Origin:
    return Origin(dict(zip(("toxicity", "sentiment"), steers)), model, PROMPTS, strength, seed)


def effect(steer: LMSteer, model: ModelHandle, strength: float = 1.0) -> Tensor:
    """What the steer adds to the logits."""
    base = logits_of(model)
    with steer.attached(model.load(), strength):
        return logits_of(model) - base


def assert_same_effect(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert expected.abs().max() > 0.1  # it has one
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(1.0, expected.abs().max().item()))


# ---- composition ----


def two_steers(family: str = "llama", adaptor: str = "multiply", dtype: torch.dtype = torch.float64) -> list[LMSteer]:
    return [steer_of(handle(family), random_tensors(adaptor, seed, dtype)) for seed in (0, 10)]


def compose(steers: Sequence[LMSteer], weights: Mapping[str, float], **more: object) -> LMSteer:
    return composed(handle("llama"), origin_of(*steers, model=handle("llama")), weights=weights, **more)


@pytest.mark.parametrize("strength", [1.0, -1.0, 0.25, 2.0])
def test_a_composed_steers_change_is_the_sum_of_the_weighted_changes(strength: float) -> None:
    weights, steers = {"toxicity": 1.0, "sentiment": -0.5}, two_steers()
    both = compose(steers, weights)
    expected = sum(each.change(each.values_at(strength * weight)) for each, weight in zip(steers, weights.values()))
    torch.testing.assert_close(both.change(both.values_at(strength)), expected, rtol=1e-12, atol=1e-12)


def test_a_weight_finds_its_steer_by_the_task_and_not_by_the_place() -> None:
    steers, weights = two_steers(), {"sentiment": -0.5, "toxicity": 1.0}
    swapped, both = compose(steers, weights), compose(steers, dict(sorted(weights.items(), reverse=True)))
    expected = steers[0].change(steers[0].values_at(1.0)) + steers[1].change(steers[1].values_at(-0.5))
    for composition in (swapped, both):
        torch.testing.assert_close(composition.change(composition.values_at(1.0)), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(KeyError, match="honesty"):
        compose(steers, {"honesty": 1.0})


def test_a_derived_steer_is_generated_with_whatever_steps_its_row_is_labelled_by(tmp_path: Path) -> None:
    """Its one checkpoint is at the steps of the first steer that it is made of, which need not be those picked."""
    steers, model = two_steers(dtype=torch.float32), handle("llama")
    compose(steers, {"sentiment": 1.0, "toxicity": 1.0}).save(tmp_path / "steer")
    prompt = {"id": "p", "text": "You are", "label": np.nan, "role": "prompt", "split": "test", "rendering": "plain"}
    pd.DataFrame([prompt]).to_parquet(tmp_path / "table.parquet")
    spec = {
        "device": "cpu", "dtype": "float32", "attention": "sdpa", "split": "test", "rendering": "plain",
        "prompts": None, "seed": 0, "decoding": {"batch_rows": 4, "max_new_tokens": 3}, "has_checkpoints": False,
    }  # fmt: skip
    asked = (model.folder, tmp_path / "table.parquet", tmp_path / "steer", [(40, 1.0)])
    assert list(generations.of_cell(*asked, spec, tmp_path / "work").steps) == [40]
    with pytest.raises(ValueError, match="40 steps"):
        generations.of_cell(*asked, spec | {"has_checkpoints": True}, tmp_path / "other")


def test_a_composed_steers_change_is_the_product_of_the_concatenated_projectors() -> None:
    steers = two_steers()
    both = compose(steers, {"toxicity": 1.0, "sentiment": 2.0})
    # Values (5, 1) and, at twice the strength, (10, 1); each belongs to the columns of its steer.
    scales = [EPS * value for value in (5.0, 1.0, 10.0, 1.0)]
    left = torch.cat([each for steer in steers for each in steer.tensors["projector1"]], 1)
    right = [each for steer in steers for each in steer.tensors["projector2"]]
    right = torch.cat([scale * each for scale, each in zip(scales, right)], 1)
    torch.testing.assert_close(both.change(both.values_at(1.0)), left @ right.T, rtol=1e-12, atol=1e-12)


@every_family
@pytest.mark.parametrize("adaptor", ["multiply", "full", "add", "offset"])
def test_a_composed_steers_effect_is_the_sum_of_the_effects(adaptor: str, family: str) -> None:
    model, weights = handle(family), {"toxicity": 1.0, "sentiment": -0.5}
    steers = two_steers(family, adaptor, torch.float32)
    both = composed(model, origin_of(*steers, model=model), weights=weights)
    expected = sum(effect(steer, model, weight) for steer, weight in zip(steers, weights.values()))
    assert_same_effect(effect(both, model), expected)


def test_nested_steers_are_the_product_and_not_the_sum() -> None:
    model, steers = handle("llama"), two_steers(dtype=torch.float32)
    first, second = (torch.eye(HIDDEN) + steer.change(steer.values_at(1.0)) for steer in steers)
    with sites.capture(model.load(), [Site("lm_head_input")]) as before:
        logits_of(model)
    with ExitStack() as stack:
        for steer in steers:
            stack.enter_context(steer.attached(model.load()))
        after = stack.enter_context(sites.capture(model.load(), [Site("lm_head_input")]))
        logits_of(model)
    c, nested = before[Site("lm_head_input")], after[Site("lm_head_input")]
    torch.testing.assert_close(nested, c @ first @ second, rtol=1e-4, atol=1e-4)
    assert (nested - c @ (first + second - torch.eye(HIDDEN))).abs().max() > 0.01


def test_steers_of_different_ranks_are_composed() -> None:
    wide, narrow = two_steers()
    narrow = narrow.made_into({name: tensor[..., :1] for name, tensor in narrow.tensors.items()}, config={})
    both = compose([wide, narrow], {"toxicity": 1.0, "sentiment": 1.0})
    expected = wide.change([5.0, 1.0]) + narrow.change([5.0, 1.0])
    torch.testing.assert_close(both.change(both.values_at(1.0)), expected, rtol=1e-12, atol=1e-12)


def test_a_weight_of_zero_leaves_the_other_steer_alone() -> None:
    model, steers = handle("llama"), two_steers(dtype=torch.float32)
    alone = compose(steers, {"toxicity": 1.0, "sentiment": 0.0})
    assert_same_effect(effect(alone, model), effect(steers[0], model), 1e-5)


def test_a_composition_takes_other_values_such_as_the_dummy_alone() -> None:
    (steer, _) = two_steers()
    dummy = compose([steer], {"toxicity": 1.0}, values=[0.0, 1.0])
    assert dummy.values_at(1.0) == [0.0, 1.0]
    torch.testing.assert_close(dummy.change(dummy.values_at(1.0)), steer.change([0.0, 1.0]))


def test_a_composition_names_what_it_is_made_of_and_differs_from_its_parts() -> None:
    steers = two_steers()
    both = compose(steers, {"toxicity": 1.0, "sentiment": 0.5})
    assert both.record.config["of"] == ["toxicity", "sentiment"]
    assert both.record.config["weights"] == [1.0, 0.5]
    assert both.record.data not in [steer.record.data for steer in steers]


@pytest.mark.parametrize("config", [{"adaptor": "add"}, {"eps": 1e-3}, {"values": [3.0, 1.0]}])
def test_steers_that_are_not_alike_are_not_composed(config: dict) -> None:
    steer, other = two_steers()
    with pytest.raises(ValueError, match="differ in adaptor, eps, values"):
        compose([steer, other.made_into(other.tensors, config=config)], {"toxicity": 1.0, "sentiment": 1.0})


# ---- the random control ----


def singular_values(steer: LMSteer, k: int) -> Tensor:
    values = [0.0] * steer.number_of_steers
    values[k] = 1.0
    return torch.linalg.svdvals(steer.change(values).double())


def control_of(steer: LMSteer, model: ModelHandle, *, strength: float = 1.0, seed: int = 0) -> LMSteer:
    return randomised(model, origin_of(steer, model=model, strength=strength, seed=seed))


@pytest.mark.parametrize("adaptor", ["multiply", "full"])
def test_random_directions_keep_the_singular_values_of_every_steer(adaptor: str) -> None:
    steer = steer_of(handle("llama"), random_tensors(adaptor))
    control = steer.with_random_directions(torch.Generator().manual_seed(0))
    for k in range(steer.number_of_steers):
        torch.testing.assert_close(singular_values(control, k), singular_values(steer, k), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("adaptor", ["multiply", "full"])
def test_random_directions_share_no_side_with_the_learnt_ones(adaptor: str) -> None:
    steer = steer_of(handle("llama"), random_tensors(adaptor))
    control = steer.with_random_directions(torch.Generator().manual_seed(0))
    (U, _, Vh), (other_U, _, other_Vh) = (torch.linalg.svd(each.change([1.0, 0.0])) for each in (steer, control))
    for learnt, random in ((U[:, 0], other_U[:, 0]), (Vh[0], other_Vh[0])):
        assert abs(learnt @ random) < 0.9


def test_a_random_vector_has_the_learnt_ones_length_and_a_random_offset_its_entries() -> None:
    vector, offset = (steer_of(handle("llama"), random_tensors(adaptor)) for adaptor in ("add", "offset"))
    controls = [each.with_random_directions(torch.Generator().manual_seed(0)).tensors for each in (vector, offset)]
    torch.testing.assert_close(controls[0]["vector"].norm(dim=1), vector.tensors["vector"].norm(dim=1))
    assert torch.equal(controls[1]["offset"].sort(1).values, offset.tensors["offset"].sort(1).values)
    assert not torch.allclose(controls[0]["vector"], vector.tensors["vector"])
    assert not torch.equal(controls[1]["offset"], offset.tensors["offset"])


def edit_by_hand(model: ModelHandle, steer: LMSteer, strength: float) -> float:
    """Mean |c M| over the tokens of the prompts, one prompt at a time."""
    change, norms = steer.change(steer.values_at(strength)).numpy(), []
    for prompt in PROMPTS:
        ids = torch.tensor([encode(model.info.tokenizer, prompt)])
        with torch.no_grad():
            states = model.load().base_model(ids).last_hidden_state[0].numpy()
        norms += [np.linalg.norm(state @ change) for state in states]
    return float(np.mean(norms))


@every_family
@pytest.mark.parametrize("strength", [1.0, -0.5, 3.0])
def test_the_controls_mean_edit_is_the_learnt_one_within_a_percent(strength: float, family: str) -> None:
    model, steer = handle(family), fitted("lm_steer", family)
    control = control_of(steer, model, strength=strength)
    wanted = edit_by_hand(model, steer, strength)
    assert mean_edit(model, steer, strength, PROMPTS) == pytest.approx(wanted, rel=1e-3)
    assert edit_by_hand(model, control, strength) == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("adaptor", ["add", "offset"])
def test_the_control_of_every_adaptor_has_the_learnt_edits_size(adaptor: str) -> None:
    model, steer = handle("llama"), steer_of(handle("llama"), random_tensors(adaptor))
    control = control_of(steer, model)
    assert mean_edit(model, control, 1.0, PROMPTS) == pytest.approx(mean_edit(model, steer, 1.0, PROMPTS), rel=0.01)


def test_the_size_of_an_edit_does_not_depend_on_the_batch() -> None:
    model, steer = handle("gpt2"), fitted("lm_steer", "gpt2")
    alone, together = (mean_edit(model, steer, 1.0, PROMPTS, batch_texts=size) for size in (1, 16))
    assert alone == pytest.approx(together, rel=1e-4)


@pytest.mark.parametrize("changes", [{"prompts": ()}, {"strength": 0.0}])
def test_a_control_without_prompts_or_strength_is_refused_in_one_sentence(changes: dict) -> None:
    model = handle("llama")
    origin = dataclasses.replace(origin_of(fitted("lm_steer", "llama"), model=model), **changes)
    with pytest.raises(ValueError, match="dev prompts at strength .*; derive it") as error:
        randomised(model, origin)
    assert "\n" not in str(error.value)


def test_a_control_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    model, steer = handle("llama"), fitted("lm_steer", "llama")
    first, again, other = (control_of(steer, model, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert first.record == again.record
    assert not any(torch.allclose(first.tensors[name], other.tensors[name]) for name in first.tensors)


# ---- transfer ----


@every_family
@pytest.mark.parametrize("adaptor", ["multiply", "full"])
def test_a_transfer_to_the_same_model_is_the_identity(adaptor: str, family: str) -> None:
    model, steer = handle(family), steer_of(handle(family), random_tensors(adaptor))
    moved = transferred(model, origin_of(steer, model=model))
    change = steer.change([5.0, 1.0])
    torch.testing.assert_close(moved.change([5.0, 1.0]), change, rtol=0, atol=1e-4 * change.abs().max().item())
    assert_same_effect(effect(moved, model), effect(steer, model))


def rotated(of: Path, folder: Path, seed: int = 0) -> ModelHandle:
    models.prepare({"kind": "rotated", "of": "tiny", "seed": seed}, folder, name="rotated", source=of)
    return ModelHandle(folder)


@pytest.mark.parametrize("adaptor", ["multiply", "full"])
def test_a_transfer_to_a_rotated_model_recovers_the_steers_effect(adaptor: str, tmp_path: Path) -> None:
    source = handle("llama")
    target = rotated(source.folder, tmp_path / "rotated")
    steer = steer_of(source, random_tensors(adaptor))
    moved = transferred(target, origin_of(steer, model=source))
    for strength in (1.0, -1.0, 0.3):
        assert_same_effect(effect(moved, target, strength), effect(steer, source, strength))
    assert not torch.allclose(moved.change([5.0, 1.0]), steer.change([5.0, 1.0]), atol=0.1)


def test_a_transferred_steer_belongs_to_its_new_model(tmp_path: Path) -> None:
    source = handle("llama")
    target = rotated(source.folder, tmp_path / "rotated")
    moved = transferred(target, origin_of(fitted("lm_steer", "llama"), model=source))
    assert (moved.record.model, moved.record.revision) == ("rotated", target.info.revision)
    assert moved.record.config["transferred_from"] == source.info.name
    moved.attached(target.load())
    with pytest.raises(ValueError, match="was trained for model 'rotated'"):
        moved.attached(source.load())


def test_words_are_matched_by_their_names_whatever_their_ids(tmp_path: Path) -> None:
    source, order = handle("llama"), torch.randperm(256, generator=torch.Generator().manual_seed(0))
    model = type(tiny_model("llama"))(tiny_model("llama").config)
    model.load_state_dict(tiny_model("llama").state_dict())
    for table in (model.model.embed_tokens, model.lm_head):
        table.weight.data[:256] = table.weight.data[order]
    model.save_pretrained(tmp_path / "source")
    byte_tokenizer().save_pretrained(tmp_path / "source")
    file = tmp_path / "source" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    place = order.argsort().tolist()  # the new id of each old one
    tokenizer["model"]["vocab"] = {word: place[id] for word, id in tokenizer["model"]["vocab"].items()}
    file.write_text(json.dumps(tokenizer))
    models.prepare({"kind": "folder", "path": str(tmp_path / "source")}, tmp_path / "shuffled", name="shuffled")
    target = ModelHandle(tmp_path / "shuffled")
    assert encode(target.info.tokenizer, "Hi") != encode(source.info.tokenizer, "Hi")
    left, right = shared_embeddings(source, target)
    assert len(left) == 257
    assert torch.equal(left, right)


def test_least_squares_beats_every_perturbed_map() -> None:
    source, target = normal(60, 8, seed=0), normal(60, 10, seed=1)
    eyes = {"projector1": torch.eye(8)[None], "projector2": torch.eye(8)[None]}
    tensors = mapped(eyes, source, target, "least_squares")
    there, back = tensors["projector1"][0].double().T, tensors["projector2"][0].double()  # H (8, 10), G (10, 8)
    for found, ours, theirs in ((there, source, target), (back, target, source)):
        least = (ours @ found - theirs).norm()
        for seed in range(50):
            perturbed = found + 10 ** -(1 + seed % 3) * normal(*found.shape, seed=seed)
            assert (ours @ perturbed - theirs).norm() > least
        expected = np.linalg.pinv(ours.numpy()) @ theirs.numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_full_matrix_is_mapped_as_its_factors_are() -> None:
    source, target, tensors = normal(60, 8, seed=0), normal(60, 10, seed=1), {}
    tensors = {f"projector{i}": normal(2, 8, 3, seed=i) for i in (1, 2)}
    product = {"matrix": tensors["projector1"] @ tensors["projector2"].mT}
    factors = mapped(tensors, source, target, "least_squares")
    whole = mapped(product, source, target, "least_squares")["matrix"]
    torch.testing.assert_close(whole, factors["projector1"] @ factors["projector2"].mT, rtol=1e-4, atol=1e-4)


def test_the_official_solvers_map_has_rows_of_norm_one_and_is_used_on_both_sides() -> None:
    source, target = normal(60, 8, seed=0), normal(60, 10, seed=1)
    eyes = {"projector1": torch.eye(8)[None], "projector2": torch.eye(8)[None]}
    tensors = mapped(eyes, source, target, "official_code")
    assert torch.equal(tensors["projector1"], tensors["projector2"])
    torch.testing.assert_close(tensors["projector1"][0].norm(dim=1), torch.ones(10))
    # Adam comes to the least squares, whose rows are then normalised.
    back = torch.linalg.lstsq(target, source).solution.float()
    torch.testing.assert_close(tensors["projector1"][0], back / back.norm(dim=1, keepdim=True), rtol=0, atol=1e-2)


def test_the_official_solver_sees_only_the_first_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_steer_transfer, "OFFICIAL_WORDS", 40)
    monkeypatch.setattr(lm_steer_transfer, "OFFICIAL_STEPS", 20)
    source, target = normal(60, 8, seed=0), normal(60, 10, seed=1)
    eyes = {"projector1": torch.eye(8)[None], "projector2": torch.eye(8)[None]}
    whole = mapped(eyes, source, target, "official_code")
    first = mapped(eyes, source[:40], target[:40], "official_code")
    assert torch.equal(whole["projector1"], first["projector1"])


@pytest.mark.parametrize("adaptor", ["add", "offset"])
def test_only_multiply_is_transferred(adaptor: str) -> None:
    model = handle("llama")
    with pytest.raises(ValueError, match=f"only multiply can be transferred, this is {adaptor}"):
        transferred(model, origin_of(steer_of(model, random_tensors(adaptor)), model=model))


def test_models_that_share_too_few_words_are_refused() -> None:
    class Foreign(ModelHandle):
        @property
        def info(self):
            few = dict(list(byte_tokenizer().get_vocab().items())[:10])
            tokenizer = type("Tokenizer", (), {"get_vocab": lambda self: few})()
            return dataclasses.replace(handle("llama").info, name="foreign", tokenizer=tokenizer)

    with pytest.raises(ValueError, match="share 10 words, a map needs 16") as error:
        shared_embeddings(Foreign(handle("llama").folder), handle("llama"))
    assert "\n" not in str(error.value)


# ---- rotated models ----


@pytest.mark.parametrize("variant", ["untied", "tied", "with biases"])
def test_a_rotated_llama_has_the_originals_logits(variant: str, tmp_path: Path) -> None:
    config = type(tiny_model("llama").config).from_dict(
        tiny_model("llama").config.to_dict()
        | {"tie_word_embeddings": variant == "tied"}
        | dict.fromkeys(("attention_bias", "mlp_bias"), variant == "with biases")
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = type(tiny_model("llama"))(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "source")
    byte_tokenizer().save_pretrained(tmp_path / "source")
    models.prepare({"kind": "folder", "path": str(tmp_path / "source")}, tmp_path / "model", name="tiny")
    original, target = ModelHandle(tmp_path / "model"), rotated(tmp_path / "model", tmp_path / "rotated")
    torch.testing.assert_close(logits_of(target), logits_of(original), rtol=0, atol=1e-4)
    ours, theirs = original.output_embeddings(), target.output_embeddings()
    assert (ours - theirs).abs().max() > 0.1  # yet it is another model
    assert theirs.shape == ours.shape


def test_another_seed_is_another_rotation(tmp_path: Path) -> None:
    folder = handle("llama").folder
    first, again, other = (rotated(folder, tmp_path / str(i), seed).info.revision for i, seed in enumerate((0, 0, 1)))
    assert first == again != other


def test_a_gpt2_cannot_be_rotated(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="only Llama models can be rotated, .* is gpt2") as error:
        rotated(handle("gpt2").folder, tmp_path / "rotated")
    assert "\n" not in str(error.value)
