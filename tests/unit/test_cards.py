"""A model whose blocks lie on several devices: states pass accelerate's hooks, and every edit follows its states.

There are no cards here. What devices do is seen on fake tensors, which have a device and no data: torch refuses an
operation on two of them, as it would on two cards. What the numbers do is seen on weights that are offloaded.
"""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode

from steerlab import activations, generations, sites
from steerlab.models import ModelHandle
from steerlab.patching import patched
from steerlab.sites import Site
from steerlab.streams import Stream
from steerlab.tiny_models import byte_tokenizer
from tests.laws.subjects import STEERS, SUBJECTS, every_site, handle, tiny_model

FIRST, SECOND = torch.device("cpu"), torch.device("cpu:1")


@contextlib.contextmanager
def on_two_devices(model: Any) -> Iterator[Any]:
    """The model as fake tensors, the first block on one device and what follows on another, with accelerate's hooks."""
    copied = copy.deepcopy(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        parts = sites.family(copied)
        second = [sites.block(copied, layer) for layer in range(1, sites.number_of_layers(copied.config))]
        second += [copied.get_submodule(parts.final_norm), copied.lm_head]
        for module in copied.modules():
            device = SECOND if any(module is inner for each in second for inner in each.modules()) else FIRST
            for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                fake = mode.from_tensor(value.data).to(device)
                if isinstance(value, nn.Parameter):
                    setattr(module, name, nn.Parameter(fake, requires_grad=False))
                else:
                    module.register_buffer(name, fake)
        for module in second:
            add_hook_to_module(module, AlignDevicesHook(SECOND, skip_keys="past_key_values"))
        add_hook_to_module(copied, AlignDevicesHook(FIRST, io_same_device=True, skip_keys="past_key_values"))
        yield copied


def forward(model: Any, **more: Any) -> Any:
    ids = torch.zeros(2, 5, dtype=torch.int64)
    mask = torch.ones_like(ids)
    return model(input_ids=ids, attention_mask=mask, position_ids=mask.cumsum(1) - 1, use_cache=False, **more)


def test_a_tensor_left_on_the_first_device_is_found():
    shift = torch.zeros(tiny_model("llama").config.hidden_size)
    with on_two_devices(tiny_model("llama")) as model:
        there = shift.to(FIRST)
        with sites.edit(model, {Site("block_output", 0): lambda x, where: x + there}):
            assert forward(model).logits.device == FIRST
        later = sites.edit(model, {Site("block_output", 1): lambda x, where: x + there})
        with later, pytest.raises(FakeTensorDeviceMismatchError):
            forward(model)


# What lora and latentqa put around a module is made on its device; modules cannot be made of fake tensors.
EDITING = [name for name in STEERS if not name.endswith(("lora", "latentqa", "cogsteer", "composed"))]


@pytest.mark.parametrize("method", EDITING)
def test_a_steer_follows_the_states(method: str, monkeypatch: pytest.MonkeyPatch):
    subject = next(each for each in SUBJECTS if each.is_steer and (each.name, each.family) == (method, "llama"))
    base = subject.model
    subject.attached(base)  # fitted now, on tensors that have data
    with torch.no_grad(), on_two_devices(base) as model:
        monkeypatch.setattr(type(model), "device", torch.device("cuda"))  # on a CPU edits look at data, here is none
        with subject.attached(model):
            assert forward(model).logits.device == FIRST


@pytest.mark.parametrize("method", ["lm_steer", "hpr", "caa"])
def test_offloaded_blocks_give_the_logits_of_the_plain_model_steered_or_not(method: str, tmp_path: Path):
    """Their weights come from disk for as long as a block runs: before and after, they are on no device."""
    subject = next(each for each in SUBJECTS if each.is_steer and (each.name, each.family) == (method, "llama"))
    plain = subject.model
    subject.attached(plain)  # fitted now, with gradients
    where = dict.fromkeys(["model.embed_tokens", "model.layers.0", "model.rotary_emb", "model.norm", "lm_head"], "cpu")
    where |= dict.fromkeys(["model.layers.1", "model.layers.2"], "disk")
    spread = dispatch_model(copy.deepcopy(plain), where, main_device="cpu", offload_dir=str(tmp_path))
    assert next(sites.block(spread, 1).parameters()).device.type == "meta"
    drawn = {"tokenizer": byte_tokenizer(), "prompts": [("a", "one"), ("b", "and two")], "seed": 0}
    decoding = generations.Decoding(max_new_tokens=4)
    for attached in (contextlib.nullcontext, subject.attached):
        outputs = []
        for model in (plain, spread):
            with torch.no_grad(), attached(model) if attached is subject.attached else attached():
                texts = generations.generate(model, decoding=decoding, **drawn)
                outputs.append((forward(model).logits, list(texts.tokens)))
        assert outputs[0][0].equal(outputs[1][0]) and outputs[0][1] == outputs[1][1]


def test_states_of_every_block_are_captured_on_two_devices():
    base = handle("llama")
    rows = activations.select(base.info.tokenizer, ["one", "and two"], "all")
    wanted = [site for site in every_site() if site.name != "logits"]
    with on_two_devices(base.load()) as model:
        spread = ModelHandle(base.folder, cards=2)
        spread.__dict__["_model"] = model
        found = activations.states_of(spread, rows, wanted, batch_rows=2)
    assert [[each.shape[0] for each in of_row] for of_row in found] == [[len(row.ids)] * len(wanted) for row in rows]


def test_a_second_stream_is_refused():
    changed: dict[str, nn.Module] = {}
    with on_two_devices(tiny_model("llama")) as model, pytest.raises(sites.SiteError, match="lies on several"):
        Stream(model, 0, 1, changed)


def test_patched_states_go_to_the_device_of_their_block():
    model = tiny_model("llama")
    states = [torch.ones(2, model.config.hidden_size), torch.ones(1, model.config.hidden_size)]
    with torch.no_grad(), on_two_devices(model) as spread, patched(spread, 1, [0, 2], states):
        assert forward(spread).logits.device == FIRST
