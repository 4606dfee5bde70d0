"""LoRA against peft's own model, its training and what it leaves alone; the laws are tested elsewhere."""

import copy
from pathlib import Path
from typing import Any

import pandas as pd
import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from steerlab.language_modelling import mean_loss
from steerlab.methods.lora import LoRA, _texts, adapted_paths
from steerlab.models import as_read, encode
from steerlab.tiny_models import FAMILIES, byte_tokenizer, tiny_config
from tests.laws.subjects import handle, tiny_model, training_texts

EVERY_FAMILY = pytest.mark.parametrize("family", ["gpt2", "llama"])
IDS = torch.tensor([[10, 20, 30, 40, 50], [60, 70, 80, 90, 100]])
DATA = training_texts()
WISHED = list(range(6))


def fit(family: str = "llama", **more: object) -> LoRA:
    settings = {"seed": 0, "updates": 20, "learning_rate": 1e-2, "rank": 3, "alpha": 6.0, "held_out": 0.0}
    return LoRA.fit(handle(family), DATA, **(settings | more))  # pyright: ignore


@torch.no_grad()
def logits_of(model: nn.Module) -> Tensor:
    return model(IDS).logits


def loss_of(family: str) -> float:
    """Mean loss of the wished texts, as the model is at present."""
    model: Any = handle(family).load()
    texts = _texts(handle(family).info.tokenizer, DATA, WISHED, 256)
    with torch.no_grad():
        return float(mean_loss(model, model.get_output_embeddings().weight, texts))


@EVERY_FAMILY
def test_training_lowers_the_loss_of_the_wished_texts(family: str) -> None:
    steer, base = fit(family), loss_of(family)
    with steer.attached(handle(family).load()):
        assert loss_of(family) < base - 0.3


@EVERY_FAMILY
def test_the_loss_is_the_mean_cross_entropy_of_the_tokens_asked_for(family: str) -> None:
    model: Any = handle(family).load()
    tokenizer = handle(family).info.tokenizer
    data = pd.DataFrame({"label": 1.0, "text": ["How are you? Fine.", "Yes"], "start": [12, 0], "end": [17, 3]})
    texts = _texts(tokenizer, data, [0, 1], 256)
    assert [tokenizer.decode([text.ids[place] for place in text.asked]) for text in texts] == [" Fine", "es"]
    nlls = []
    for text in texts:
        with torch.no_grad():
            lines = model(torch.tensor([text.ids])).logits[0].log_softmax(-1)
        nlls += [-lines[place - 1, text.ids[place]] for place in text.asked]
    found = mean_loss(model, model.get_output_embeddings().weight, texts)
    torch.testing.assert_close(found, torch.stack(nlls).mean(), rtol=1e-5, atol=1e-5)


def test_only_wished_texts_are_learnt_whole_where_no_part_is_named() -> None:
    texts = _texts(handle("llama").info.tokenizer, DATA, list(range(len(DATA))), 256)
    assert [bytes(text.ids).decode() for text in texts] == list(DATA.text[:6])
    assert all(text.asked == list(range(1, len(text.ids))) for text in texts)


def test_a_text_is_cut_and_dropped_where_nothing_asked_for_is_left() -> None:
    data = pd.DataFrame({"label": 1.0, "text": ["abcdef", "abcdef"], "start": [1, 4], "end": [6, 6]})
    (text,) = _texts(handle("llama").info.tokenizer, data, [0, 1], 3)
    assert (len(text.ids), text.asked) == (3, [1, 2])
    with pytest.raises(ValueError, match="no wished text"):
        _texts(handle("llama").info.tokenizer, data.assign(label=-1.0), [0, 1], 256)


def test_a_chat_is_learnt_as_the_model_reads_it() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}!"
    data = pd.DataFrame({"label": [1.0], "text": ["Why?No."], "start": [4], "end": [7], "rendering": ["chat"]})
    (text,) = _texts(tokenizer, as_read(tokenizer, data), [0], 256)
    assert text.ids == encode(tokenizer, "<Why?><No.")
    assert text.asked == [7, 8, 9]


@EVERY_FAMILY
def test_training_leaves_the_model_as_it_was_byte_for_byte(family: str) -> None:
    model = handle(family).load()
    tree, logits = list(model.named_modules()), logits_of(model)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    fit(family)
    assert list(model.named_modules()) == tree
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert torch.equal(logits_of(model), logits)


def test_fitting_and_attaching_draw_nothing_from_the_global_generator() -> None:
    state = torch.random.get_rng_state()
    steer = fit()
    with steer.attached(handle("llama").load()):
        pass
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_seed_gives_the_same_adapters_and_another_seed_others() -> None:
    first, again, other = (fit(seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert not any(torch.equal(first.tensors[name], other.tensors[name]) for name in first.tensors)


@EVERY_FAMILY
def test_strength_scales_the_change_of_one_projection(family: str) -> None:
    model, steer = handle(family).load(), fit(family)
    path = steer.paths[-1]
    base = model.get_submodule(path)
    x = torch.randn(2, 5, steer.tensors[f"{path}.A"].shape[1], generator=torch.Generator().manual_seed(0))
    change = x @ steer.tensors[f"{path}.A"].T @ steer.tensors[f"{path}.B"].T
    assert change.abs().max() > 0.01
    for strength in (0.5, 1.0, 3.0):
        with steer.attached(model, strength), torch.no_grad():
            found = model.get_submodule(path)(x) - base(x)
        torch.testing.assert_close(found, strength * 6.0 / 3 * change, rtol=1e-3, atol=1e-5)


@EVERY_FAMILY
def test_pefts_own_merged_model_gives_the_same_logits(family: str) -> None:
    model, steer = handle(family).load(), fit(family)
    with steer.attached(model):
        ours = logits_of(model)
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=steer.paths, fan_in_fan_out=family == "gpt2")  # pyright: ignore
    theirs = peft.get_peft_model(copy.deepcopy(model), config)
    weights = {f"base_model.model.{name[:-2]}.lora_{name[-1]}.weight": tensor for name, tensor in steer.tensors.items()}
    assert not peft.set_peft_model_state_dict(theirs, weights).unexpected_keys
    torch.testing.assert_close(logits_of(theirs), ours, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits_of(theirs.merge_and_unload()), ours, rtol=1e-4, atol=1e-4)  # pyright: ignore
    assert (ours - logits_of(model)).abs().max() > 0.1


def test_a_saved_steer_is_loaded_whole(tmp_path: Path) -> None:
    steer = fit()
    steer.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"steer.safetensors", "steer.json"}
    loaded = LoRA.load(tmp_path)
    assert loaded.record == steer.record and loaded.sites == ()
    assert loaded.paths == sorted(steer.paths)
    assert all(torch.equal(loaded.tensors[name], steer.tensors[name]) for name in steer.tensors)


def test_layers_are_made_once_and_anew_where_others_are_in_their_place() -> None:
    model, first, second = handle("llama").load(), fit(), fit(seed=1)
    path = first.paths[0]

    def made(steer: LoRA) -> nn.Module:
        with steer.attached(model):
            return model.get_submodule(path)

    def product(steer: LoRA) -> Tensor:
        return 2 * steer.tensors[f"{path}.B"] @ steer.tensors[f"{path}.A"]

    alone = made(first)
    assert made(first) is alone
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    with second.attached(model), first.attached(model, 0.5), torch.no_grad():
        both = model.get_submodule(path)(x)
    with torch.no_grad():
        expected = model.get_submodule(path)(x) + x @ (product(second) + 0.5 * product(first)).T
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(made(first)(x), expected - x @ (product(second) - 0.5 * product(first)).T)


@EVERY_FAMILY
def test_adapters_are_float32_and_follow_the_dtype_of_the_model(family: str) -> None:
    steer = fit(family)
    model: Any = copy.deepcopy(handle(family).load())
    model = model.to(torch.bfloat16)
    base = logits_of(model)
    with steer.attached(model):
        steered = logits_of(model)
    assert {tensor.dtype for tensor in steer.tensors.values()} == {torch.float32}
    assert steered.dtype == torch.bfloat16 and not torch.equal(steered, base)


def test_a_model_in_half_precision_is_trained_in_float32() -> None:
    from steerlab.models import ModelHandle

    half = ModelHandle(handle("llama").folder, dtype="bfloat16")
    steer = LoRA.fit(half, DATA, seed=0, updates=2)
    assert {tensor.dtype for tensor in steer.tensors.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in steer.tensors.values())
    assert {parameter.dtype for parameter in half.load().parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_projections_of_the_attention_are_found_in_every_family(family: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(family, layers=2))
    names = {path.rpartition(".")[2] for path in adapted_paths(model)}
    fused = {"gpt2": {"c_attn", "c_proj"}, "gpt_neox": {"query_key_value", "dense"}}
    out = {"gpt_neo": "out_proj", "gptj": "out_proj", "opt": "out_proj"}.get(family, "o_proj")
    assert names == fused.get(family, {"q_proj", "k_proj", "v_proj", out})
    assert len(adapted_paths(model)) == 2 * len(names)


def test_targets_are_named_by_the_last_part_of_their_paths() -> None:
    model = tiny_model("llama")
    assert adapted_paths(model, ["q_proj"]) == [f"model.layers.{i}.self_attn.q_proj" for i in range(3)]
    assert len(fit(targets=["up_proj", "v_proj"], updates=1).paths) == 6
    for wrong in (["c_attn"], ["q_proj", "lm_head"]):
        with pytest.raises(ValueError, match="choose of down_proj, gate_proj, k_proj"):
            adapted_paths(model, wrong)


def test_training_that_diverges_is_refused() -> None:
    with pytest.raises(ValueError, match="lower its learning_rate"):
        fit(learning_rate=float("inf"))


def test_random_directions_keep_the_singular_values_of_every_change() -> None:
    steer = fit()
    control = steer.with_random_directions(torch.Generator().manual_seed(0))
    for path in steer.paths:
        learnt, random = (
            each.tensors[f"{path}.B"].double() @ each.tensors[f"{path}.A"].double() for each in (steer, control)
        )
        torch.testing.assert_close(torch.linalg.svdvals(random), torch.linalg.svdvals(learnt), rtol=1e-4, atol=1e-6)
        assert (random * learnt).sum().abs() < 0.9 * learnt.norm() ** 2
