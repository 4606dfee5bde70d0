"""Classifiers on a frozen model: what is learnt and what is not; interventions beside their definition or peft."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from steerlab import classifiers, sites
from steerlab.classifiers import Classifier, Recipe, Training
from steerlab.methods import adaption_prompt, attention_prefix
from steerlab.tiny_models import tiny_config
from tests.laws.subjects import LAYERS, handle, tiny_model

FAMILY = pytest.mark.parametrize("family", ["gpt2", "llama"])
PREFIXED = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gpt2", "opt"]
SETTINGS: dict[str, dict[str, Any]] = {
    "head": {},
    "bottleneck": {"reduction": 4},
    "prefix": {"length": 3},
    "adaption_prompt": {"length": 5},
}
QUICK = Training(learning_rate=1e-2, batch_rows=4, epochs=2)
IDS = torch.tensor([[10, 20, 30, 40, 50], [60, 70, 80, 90, 100]])


def recipe(intervention: str, classes: int = 2, training: Training = QUICK, **more: Any) -> Recipe:
    return Recipe(intervention, classes, SETTINGS[intervention] | more, training)


def plain(family: str) -> Any:
    """A tiny model whose heads fill its hidden states, which peft's adaption prompts need."""
    config = tiny_config(family, layers=LAYERS)
    if family != "gpt2":
        config.head_dim = 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def made(model: Any, intervention: str, layers: Sequence[int], seed: int = 0, **more: Any) -> Classifier:
    return classifiers.make(model, recipe(intervention, **more), layers, torch.Generator().manual_seed(seed))


def toy(rows: int = 24) -> pd.DataFrame:
    """Texts whose last letter tells the class."""
    texts = [f"{'no' * (n % 5)} {n} {'z' if n % 2 else 'A'}" for n in range(rows)]
    labels = [float(n % 2) for n in range(rows)]
    return pd.DataFrame({"id": [str(n) for n in range(rows)], "text": texts, "second": None, "label": labels})


def logits(model: Any, replacements: dict | None = None, **inputs: Any) -> torch.Tensor:
    with torch.no_grad(), sites.modules(model, replacements or {}):
        return model(input_ids=IDS, use_cache=False, **inputs).logits


def trained(family: str, intervention: str, layers: Sequence[int], rows: pd.DataFrame | None = None, **more: Any):
    classifier = made(plain(family), intervention, layers, **more)
    with_rows = toy() if rows is None else rows
    tokenizer, draws = handle(family).info.tokenizer, torch.Generator().manual_seed(1)
    classifiers.train(classifier, tokenizer, with_rows, more.get("training", QUICK), generator=draws, desc="toy")
    return classifier


@FAMILY
@pytest.mark.parametrize("intervention", ["bottleneck", "prefix", "adaption_prompt"])
@pytest.mark.parametrize("layers", [[1], range(LAYERS)])
def test_only_the_chosen_layers_intervention_and_the_head_learn(family: str, intervention: str, layers: Sequence[int]):
    model = plain(family)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    classifier = made(model, intervention, layers)
    fresh = [parameter.detach().clone() for parameter in classifier.parameters]
    tokenizer, draws = handle(family).info.tokenizer, torch.Generator().manual_seed(1)
    classifiers.train(classifier, tokenizer, toy(), QUICK, generator=draws, desc="toy")
    assert all(f".{layer}." in f"{path}." for layer, path in zip(layers, classifier.replacements)) or len(layers) > 1
    assert {int(path.split(".")[2]) for path in classifier.replacements} == set(layers)
    assert all(weights.grad is None for weights in model.parameters())
    assert all(torch.equal(weights, before[name]) for name, weights in model.state_dict().items())
    assert all(parameter.grad is not None for parameter in classifier.parameters)
    assert all(not torch.equal(*pair) for pair in zip(fresh, classifier.parameters))


@FAMILY
@pytest.mark.parametrize("blocks", [1, LAYERS])
def test_the_parameters_are_counted_in_closed_form(family: str, blocks: int):
    model, layers = plain(family), list(range(blocks))
    hidden, heads, size = 16, 4 if family == "gpt2" else 2, 4
    assert made(model, "head", []).count == 0
    assert made(model, "bottleneck", layers).count == blocks * 2 * (2 * hidden * 4 + 4 + hidden)
    assert made(model, "prefix", layers).count == blocks * 2 * 3 * heads * size
    assert made(model, "adaption_prompt", layers).count == blocks * (5 * hidden + 1)
    reparametrised = 3 * hidden + (hidden * 7 + 7) + (7 * 2 * heads * size + 2 * heads * size)
    assert made(model, "prefix", layers, hidden=7).count == blocks * reparametrised


@FAMILY
@pytest.mark.parametrize("intervention", ["bottleneck", "adaption_prompt"])
def test_an_untrained_intervention_changes_nothing(family: str, intervention: str):
    model = plain(family)
    with_it = logits(model, made(model, intervention, range(LAYERS)).replacements)
    assert torch.equal(with_it, logits(model))


@FAMILY
def test_prefixes_of_all_layers_are_peft_s_prefix_tuning(family: str):
    model = tiny_model(family)
    ours = attention_prefix.make(model, range(LAYERS), length=4, generator=torch.Generator().manual_seed(0))
    states = [each for module in ours.values() for each in module.states.detach()]  # pyright: ignore
    # peft counts positions from behind its prefix.
    found = logits(model, ours, position_ids=4 + torch.arange(IDS.shape[1]).expand_as(IDS))
    theirs = peft.get_peft_model(
        AutoModelForCausalLM.from_config(model.config),
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    ).eval()
    theirs.get_base_model().load_state_dict(model.state_dict())
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(torch.stack(states, 1).flatten(1))
        wanted = theirs(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    assert (found - logits(model)).abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("family", PREFIXED)
def test_a_prefix_of_one_layer_is_the_same_padded_or_not_and_with_a_cache(family: str, kernel: str):
    if (family, kernel) == ("gemma2", "sdpa"):
        pytest.skip("transformers has no such kernel")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = tiny_config(family, layers=LAYERS)
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=kernel).eval().requires_grad_(False)
    prefix = attention_prefix.make(model, [1], length=4, generator=torch.Generator().manual_seed(0))
    whole = logits(model, prefix)
    with torch.no_grad(), sites.modules(model, prefix):
        padded = torch.nn.functional.pad(IDS, (0, 3))
        mask = torch.nn.functional.pad(torch.ones_like(IDS), (0, 3))
        beside = model(input_ids=padded, attention_mask=mask, use_cache=False).logits[:, : IDS.shape[1]]
        first = model(input_ids=IDS[:, :2], use_cache=True)
        then = model(input_ids=IDS[:, 2:3], past_key_values=first.past_key_values, use_cache=True)
        last = model(input_ids=IDS[:, 3:], past_key_values=then.past_key_values, use_cache=True)
    torch.testing.assert_close(beside, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([first.logits, then.logits, last.logits], 1), whole, rtol=1e-4, atol=1e-5)


def test_a_prefix_counts_in_the_softmax_beside_the_tokens_own_keys():
    model = plain("gpt2")
    prefix = attention_prefix.make(model, [0], length=3, generator=torch.Generator().manual_seed(0))
    (path, module), site = next(iter(prefix.items())), sites.Site("attention_heads", 0)
    module.states.data.mul_(30)  # pyright: ignore
    attention: Any = model.get_submodule(path)
    with torch.no_grad(), sites.capture(model, [site]) as states, sites.modules(model, prefix):
        model(input_ids=IDS, use_cache=False)
    with torch.no_grad():
        normed = model.transformer.h[0].ln_1(model.transformer.wte(IDS) + model.transformer.wpe.weight[: IDS.shape[1]])
        q, k, v = (part.unflatten(-1, (4, 4)) for part in attention.c_attn(normed).split(16, dim=-1))
        keys, values = module.states.detach()  # pyright: ignore
        k = torch.cat([keys.expand(2, -1, -1, -1), k], 1)
        v = torch.cat([values.expand(2, -1, -1, -1), v], 1)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2
        hidden = torch.ones(5, 8, dtype=torch.bool).tril(3).logical_not()
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        wanted = torch.einsum("bhqk,bkhd->bqhd", weights, v)
    torch.testing.assert_close(states[site], wanted, rtol=1e-5, atol=1e-6)


def test_adaption_prompts_add_their_gated_attention_before_the_output_projection():
    model = plain("llama")
    prompts = adaption_prompt.make(model, [0], length=5, generator=torch.Generator().manual_seed(0))
    (path, module), block = next(iter(prompts.items())), model.model.layers[0]
    module.adaption_gate.data.fill_(0.7)  # pyright: ignore
    own = model.get_submodule(path)
    with torch.no_grad():
        x = block.input_layernorm(model.model.embed_tokens(IDS))
        positions = model.model.rotary_emb(x, torch.arange(5)[None].expand(2, -1))
        plainly = own(hidden_states=x, position_embeddings=positions, attention_mask=None)[0]
        adapted = module(hidden_states=x, position_embeddings=positions, attention_mask=None)[0]
        half = positions[0].shape[-1] // 2
        q = own.q_proj(x).unflatten(-1, (4, 4)).transpose(1, 2)
        turned = torch.cat([-q[..., half:], q[..., :half]], -1)
        q = q * positions[0][:, None] + turned * positions[1][:, None]
        k, v = (
            linear(module.adaption_prompt).unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(2, 1)  # pyright: ignore
            for linear in (own.k_proj, own.v_proj)
        )
        gated = 0.7 * (q @ k.mT / 2).softmax(-1) @ v
        wanted = own.o_proj(gated.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(adapted - plainly, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("intervention", ["head", "bottleneck", "prefix", "adaption_prompt"])
def test_training_tells_a_separable_toy_apart(intervention: str):
    training = Training(learning_rate=2e-2, batch_rows=8, epochs=20)
    classifier = trained("llama", intervention, [] if intervention == "head" else [1], toy(48), training=training)
    tokenizer, unseen = handle("llama").info.tokenizer, toy(120).iloc[60:]
    found = classifiers.predict(classifier, tokenizer, unseen, batch_rows=7, max_tokens=64)
    assert (found.prediction == found.label).mean() > 0.9
    assert list(found.id) == list(unseen.id)


def test_a_score_is_learnt_as_one():
    rows = toy(48).assign(label=lambda frame: frame.label * 3 + 1)
    training = Training(learning_rate=2e-2, batch_rows=8, epochs=25)
    classifier = trained("llama", "bottleneck", [1], rows, training=training, classes=0)
    found = classifiers.predict(classifier, handle("llama").info.tokenizer, rows, batch_rows=16, max_tokens=64)
    assert found.prediction.corr(found.label) > 0.9 and found.prediction.nunique() > 2


def test_predictions_do_not_depend_on_the_batch():
    classifier = trained("gpt2", "prefix", [1])
    tokenizer = handle("gpt2").info.tokenizer
    one, many = (classifiers.predict(classifier, tokenizer, toy(), batch_rows=n, max_tokens=64) for n in (1, 24))
    pd.testing.assert_frame_equal(one, many)


def test_a_seed_gives_the_same_predictions_and_another_one_another_order():
    fitted, asked = toy(), toy(40).iloc[24:]
    settings = {"layers": [1], "recipe": recipe("bottleneck", classes=0)}
    first, again, other = (
        classifiers.fit_and_predict(handle("llama"), fitted, asked, **settings, seed=n) for n in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.prediction.equals(other.prediction) and set(first.parameters) == {1 * 2 * (2 * 16 * 4 + 4 + 16)}


def test_a_pair_that_is_too_long_loses_the_end_of_its_longer_text():
    tokenizer = handle("gpt2").info.tokenizer
    rows = pd.DataFrame({"text": ["abcdefgh", "ab"], "second": ["xy", None], "label": [0.0, 1.0]})
    encoded = classifiers._encoded(tokenizer, rows, 7)
    assert [tokenizer.decode(ids) for ids in encoded] == ["abcd\nxy", "ab"]


def test_an_epoch_has_every_row_once_and_rows_of_like_length_together():
    training = Training(learning_rate=1.0, batch_rows=4, epochs=2)
    lengths = [n % 16 for n in range(64)]
    batches = list(classifiers._batches(lengths, training, torch.Generator().manual_seed(0)))
    for epoch in (batches[:16], batches[16:]):
        assert sorted(place for batch in epoch for place in batch) == list(range(64))
    assert max(max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches) < 8
    assert len(list(classifiers._batches(lengths, Training(1.0, 4, 2, updates=5), torch.Generator()))) == 5


def test_blocks_below_the_intervention_keep_nothing_for_the_gradient():
    model = plain("llama")
    kept: dict[int, bool] = {}
    classifier = made(model, "bottleneck", [1])
    probes = [sites.Site("block_output", layer) for layer in range(LAYERS)]
    with sites.modules(model, classifier.replacements), sites.capture(model, probes) as states:
        model(input_ids=IDS, use_cache=False)
    kept = {site.layer: state.requires_grad for site, state in states.items()}  # pyright: ignore
    assert kept == {0: False, 1: True, 2: True}


def test_what_cannot_be_made_is_told_with_its_remedy():
    with pytest.raises(ValueError, match="no intervention 'prefx'; choose one of head, bottleneck"):
        classifiers.make(plain("llama"), Recipe("prefx", 2, {}, QUICK), [1], torch.Generator())
    generator = torch.Generator()
    with pytest.raises(sites.SiteError, match="need heads that fill the hidden states, these are 4 of 6 in 16"):
        adaption_prompt.make(tiny_model("llama"), [1], generator=generator)
    with pytest.raises(sites.SiteError, match="no adaption prompts for 'qwen2'"):
        adaption_prompt.make(tiny_model("qwen2"), [1], generator=generator)
    with pytest.raises(sites.SiteError, match="GPTNeoXAttention cannot be given a prefix"):
        attention_prefix.make(tiny_model("gpt_neox"), [1], generator=generator)
    with pytest.raises(ValueError, match="the loss is nan; lower the learning rate"):
        trained("llama", "bottleneck", [1], toy().assign(label=float("nan")), classes=0)
