"""Model folders: what `prepare` writes, and what a handle reads of it and when."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from steerlab import models
from steerlab.models import ModelError, ModelHandle
from steerlab.store import file_digest
from steerlab.tiny_models import FAMILIES

RANDOM = {"kind": "random", "family": "llama", "seed": 0, "layers": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.prepare(RANDOM, tmp_path / "tiny", name="tiny")
    return tmp_path / "tiny"


def test_the_revision_is_the_hash_of_the_weights_and_travels_with_the_loaded_model(folder):
    revision = file_digest(folder / "model.safetensors")
    assert json.loads((folder / "model.json").read_text())["revision"] == revision
    assert models.identity(ModelHandle(folder).load()) == ("tiny", revision)


def test_a_model_that_was_not_prepared_has_the_identity_the_hub_gave_it(folder):
    model = ModelHandle(folder).load()
    del model.config.steerlab
    model.config._name_or_path, model.config._commit_hash = "someone/model", "abc"
    assert models.identity(model) == ("someone/model", "abc")


def test_the_description_is_read_without_the_weights(folder):
    (folder / "model.safetensors").unlink()
    info = ModelHandle(folder).info
    assert (info.name, info.config.num_hidden_layers, info.tokenizer.decode([104, 105])) == ("tiny", 2, "hi")


def test_the_same_seed_prepares_the_same_bytes_and_another_seed_others(tmp_path):
    prepared = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        models.prepare(RANDOM | {"seed": seed}, tmp_path / name, name=name)
        prepared[name] = ModelHandle(tmp_path / name).info.revision
    assert prepared["one"] == prepared["again"] != prepared["other"]


def test_preparing_a_random_model_leaves_the_global_generator_as_it_was(tmp_path):
    before = torch.get_rng_state()
    models.prepare(RANDOM, tmp_path / "tiny", name="tiny")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_output_embeddings_read_from_the_file_are_the_loaded_models(tmp_path, family):
    models.prepare(RANDOM | {"family": family}, tmp_path / "tiny", name="tiny")
    handle = ModelHandle(tmp_path / "tiny", attention="eager")
    assert torch.equal(handle.output_embeddings(), handle.load().get_output_embeddings().weight)


def test_a_loaded_model_is_frozen_in_eval_mode_and_loaded_once(folder):
    handle = ModelHandle(folder)
    model = handle.load()
    assert model is handle.load()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_folder_is_copied_with_the_same_weights_and_a_name_of_its_own(folder, tmp_path):
    models.prepare({"kind": "folder", "path": str(folder)}, tmp_path / "copy", name="copy")
    original, copy = ModelHandle(folder), ModelHandle(tmp_path / "copy")
    assert (copy.info.name, copy.info.revision) == ("copy", original.info.revision)
    assert models.identity(copy.load())[0] == "copy"


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ({"kind": "pickle"}, "kind 'pickle'"),
        ({"kind": "gguf", "expect": {}}, "GGUF"),
        ({"kind": "hub", "repo": "a/b", "revision": "main"}, "40 hex digits"),
        (RANDOM | {"expect": {"bos": 1}}, "bos is 256, expected 1"),
        (RANDOM | {"expect": {"encode": {"hi": [1, 2]}}}, r"\[104, 105\]"),
        (RANDOM | {"expect": {"bso": 1}}, "bso"),
    ],
)
def test_what_cannot_be_prepared_is_refused_with_the_reason(tmp_path, definition, reason):
    with pytest.raises(ModelError, match=reason):
        models.prepare(definition, tmp_path / "model", name="model")


def test_a_hub_that_refuses_is_one_line_with_what_to_do(web, tmp_path):
    definition = {"kind": "hub", "repo": "someone/some_model", "revision": "0" * 40, "endpoint": web.address}
    with pytest.raises(ModelError, match="the hub refuses someone/some_model .* set HF_TOKEN") as error:
        models.prepare(definition, tmp_path / "model", name="model")
    assert "\n" not in str(error.value)


def test_a_path_to_no_folder_is_refused_as_such(tmp_path):
    with pytest.raises(ModelError, match="nowhere is no folder; correct its path"):
        models.prepare({"kind": "folder", "path": str(tmp_path / "nowhere")}, tmp_path / "model", name="model")


def test_a_folder_of_pickles_is_refused(tmp_path):
    (tmp_path / "pickled").mkdir()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no \\*.safetensors"):
        models.prepare({"kind": "folder", "path": str(tmp_path / "pickled")}, tmp_path / "model", name="model")


def test_weights_that_are_not_finite_are_refused(folder, tmp_path):
    model = ModelHandle(folder).load()
    model.get_input_embeddings().weight[0, 0] = torch.nan
    model.get_output_embeddings().weight[0, 0] = torch.nan
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="not finite"):
        models.prepare({"kind": "folder", "path": str(folder)}, tmp_path / "model", name="model")


def test_an_unprepared_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="prepare it first"):
        _ = ModelHandle(tmp_path).info


@pytest.mark.parametrize(("side", "first"), [("left", [7, 7, 1]), ("right", [1, 7, 7])])
def test_padding_goes_to_the_asked_side_and_the_mask_marks_real_tokens_even_if_one_is_the_pad(side, first):
    ids, mask = models.pad([[1], [2, 7, 4]], side=side, pad_id=7)
    assert ids.tolist() == [first, [2, 7, 4]]
    assert mask.tolist() == [[int(token == 1) for token in first], [1, 1, 1]]


class TestRealWeights:
    def test_output_embeddings_are_the_tied_input_embeddings(self, real_model):
        with safe_open(real_model.folder / "model.safetensors", framework="pt") as file:
            assert torch.equal(real_model.output_embeddings(), file.get_tensor("model.embed_tokens.weight"))

    def test_greedy_text_is_sane(self, real_model):
        tokenizer, model = real_model.info.tokenizer, real_model.load()
        ids = torch.tensor([models.encode(tokenizer, "The capital of France is")])
        new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=3)
        assert "Paris" in tokenizer.decode(new[0, ids.shape[1] :])
