"""Scores: log-likelihoods against a plain forward pass, perplexity, and the toxicity scorer."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from steerlab import likelihood, models, scores, sites
from steerlab.likelihood import log_likelihoods
from steerlab.models import ModelHandle
from steerlab.scores import perplexity
from steerlab.tiny_models import FAMILIES, byte_tokenizer, tiny_config

PAIRS = [
    ("The cat", " sat"),
    ("The cat", " slept on the mat"),
    ("x", "yz"),
    ("The dog sat on", " a log, wörld"),
    ("The cat", " sang"),
    ("A much longer context, much longer than the others are", "!"),
    ("x", "y"),
    ("The dog sat on", ""),
    ("The", " cat sat"),
]


def tiny(family: str = "llama"):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer with the merges `t h`, `th e`, `Ġ c`, `x y`: tokens straddle borders between texts."""
    core = json.loads(byte_tokenizer().backend_tokenizer.to_str())
    for one, other in (("t", "h"), ("th", "e"), ("Ġ", "c"), ("x", "y")):
        core["model"]["merges"].append([one, other])
        # The tiny models have 257 tokens: the merged ones take the places of bytes that no text has.
        core["model"]["vocab"][one + other] = 0xF8 + len(core["model"]["merges"])
    unused = {token for token, number in core["model"]["vocab"].items() if len(token) == 1 and number > 0xF8}
    core["model"]["vocab"] = {token: number for token, number in core["model"]["vocab"].items() if token not in unused}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)), pad_token="<|endoftext|>")


def plainly(model, tokenizer, context: str, continuation: str) -> tuple[float, int]:
    """The definition: one forward of the whole text; count the tokens whose text ends beyond the context."""
    ids = tokenizer(context + continuation)["input_ids"]
    first = next(
        (n for n in range(len(ids)) if len(tokenizer.decode(ids[: n + 1])) > len(context)),
        len(ids),
    )
    scored = range(max(1, first), len(ids))
    with torch.no_grad():
        steps = model(torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return -sum(steps[n - 1, ids[n]].item() for n in scored), len(scored)


def assert_same(found: list[tuple[float, int]], expected: list[tuple[float, int]]) -> None:
    assert [tokens for _, tokens in found] == [tokens for _, tokens in expected]
    assert [nll for nll, _ in found] == pytest.approx([nll for nll, _ in expected], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_are_those_of_one_plain_forward_a_text(family):
    model, tokenizer = tiny(family), byte_tokenizer()
    expected = [plainly(model, tokenizer, *pair) for pair in PAIRS]
    assert_same(log_likelihoods(model, tokenizer, PAIRS, tokens_a_batch=500), expected)


@pytest.mark.parametrize("tokens_a_batch", [1, 7, 40, 10_000])
def test_the_batch_size_moves_no_score(tokens_a_batch):
    model, tokenizer = tiny(), byte_tokenizer()
    one_by_one = [log_likelihoods(model, tokenizer, [pair], tokens_a_batch=100)[0] for pair in PAIRS]
    assert_same(log_likelihoods(model, tokenizer, PAIRS, tokens_a_batch=tokens_a_batch), one_by_one)


def test_a_shared_context_moves_no_score_and_is_computed_once(monkeypatch):
    model, tokenizer = tiny(), byte_tokenizer()
    pairs = [("The cat sat on the", f" {word}") for word in ("mat", "map", "dog")]
    seen = []
    with sites.edit(
        model, {sites.Site("embeddings"): lambda x, where: (seen.append((~where.is_pad).sum().item()), x)[1]}
    ):
        shared = log_likelihoods(model, tokenizer, pairs, tokens_a_batch=500)
    context, words = len("The cat sat on the"), len(" mat")
    # Once the context but its last token; three times what predicts the words: that token and the word but its last.
    assert sum(seen) <= (context + 3) + 3 * words
    monkeypatch.setattr(likelihood, "_common", lambda sequences: 0)
    assert_same(log_likelihoods(model, tokenizer, pairs, tokens_a_batch=500), shared)


# 150 tokens: more than the tiny models' sliding window.
PREAMBLE = "Q: How old is the sky?\nA: Old.\n\n" * 4 + "Q: Who is it that reads the letters?\n"
QUESTIONS = [
    (PREAMBLE + f"Q: {question}?\nA:", f" {answer}")
    for question in ("Who", "Why is it that the cat slept", "Where", "When did all the others sing")
    for answer in ("I do not know.", "Yes.", "The cat sat on the mat")
]


def lengthy(family: str):
    """The tiny model with positions enough for the preamble and with attention that slides within it, where it can."""
    torch.manual_seed(0)
    config = tiny_config(family)
    for window in ("sliding_window", "window_size"):
        if getattr(config, window, None):
            setattr(config, window, 40)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


@pytest.mark.parametrize("tokens_a_batch", [60, 500, 5000])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_trunk_of_several_contexts_moves_no_score(family, tokens_a_batch):
    model, tokenizer = lengthy(family), byte_tokenizer()
    expected = [plainly(model, tokenizer, *pair) for pair in QUESTIONS]
    assert_same(log_likelihoods(model, tokenizer, QUESTIONS, tokens_a_batch=tokens_a_batch), expected)


def assert_steered_as_alone(model, tokenizer, pairs, edit, scope, tokens_a_batch):
    """What was found, equal to one steered full forward a text."""
    with sites.edit(model, {sites.Site("block_output", 1): edit}, scope=scope):
        found = log_likelihoods(model, tokenizer, pairs, tokens_a_batch=tokens_a_batch)
        expected = []
        for context, continuation in pairs:
            length = len(tokenizer(context)["input_ids"])
            whole = torch.ones(1, len(tokenizer(context + continuation)["input_ids"]))
            with sites.prompt(model, [length], whole):
                expected.append(plainly(model, tokenizer, context, continuation))
    assert_same(found, expected)
    return found


@pytest.mark.parametrize("scope", sites.SCOPES)
@pytest.mark.parametrize("tokens_a_batch", [60, 500, 5000])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_trunk_is_steered_as_each_text_alone_is(family, scope, tokens_a_batch):
    model, tokenizer = lengthy(family), byte_tokenizer()

    def edit(x: Tensor, where: sites.Where) -> Tensor:
        sign = where.is_prompt.to(x.dtype) * 2 - 1
        return x + (sign * torch.sin(where.position + 1.0))[..., None] * torch.linspace(-1, 1, 16)

    found = assert_steered_as_alone(model, tokenizer, QUESTIONS, edit, scope, tokens_a_batch)
    unsteered = [plainly(model, tokenizer, *pair)[0] for pair in QUESTIONS]
    assert [nll for nll, _ in found] != pytest.approx(unsteered, rel=1e-2)


@pytest.mark.parametrize("tokens_a_batch", [60, 5000])
def test_a_trunk_is_computed_once_for_all_batches(tokens_a_batch, monkeypatch):
    model, tokenizer = lengthy("llama"), byte_tokenizer()
    seen = []
    watch = {sites.Site("embeddings"): lambda x, where: (seen.append(x.shape[0] * x.shape[1]), x)[1]}
    with sites.edit(model, watch):
        found = log_likelihoods(model, tokenizer, QUESTIONS, tokens_a_batch=tokens_a_batch)
    once, rest = len(PREAMBLE), sum(len(context + answer) - len(PREAMBLE) for context, answer in QUESTIONS)
    assert once < sum(seen) < once + rest < 4 * once
    monkeypatch.setattr(likelihood, "WORTHWHILE", 1000)
    seen.clear()
    with sites.edit(model, watch):
        assert_same(log_likelihoods(model, tokenizer, QUESTIONS, tokens_a_batch=tokens_a_batch), found)
    assert sum(seen) > 4 * once


def test_a_batch_holds_what_fits_beside_one_trunk():
    texts = [likelihood._tokenise(byte_tokenizer(), *pair) for pair in QUESTIONS]
    contexts = [context for context, _ in QUESTIONS]
    assert likelihood._cost(list(range(len(texts))), contexts, texts) < 2 * len(PREAMBLE) < len(texts) * len(PREAMBLE)


@given(
    pairs=st.lists(st.tuples(st.text("thexyc ", min_size=1, max_size=6), st.text("thexyc ", max_size=6)), max_size=8),
    tokens_a_batch=st.integers(1, 60),
)
@settings(max_examples=50, deadline=None)
def test_tokens_that_straddle_the_border_count_for_the_continuation(pairs, tokens_a_batch):
    model, tokenizer = MERGING
    expected = [plainly(model, tokenizer, *pair) for pair in pairs]
    assert_same(log_likelihoods(model, tokenizer, pairs, tokens_a_batch=tokens_a_batch), expected)


MERGING = (tiny(), merging_tokenizer())


def test_the_merging_tokenizer_merges_across_the_border():
    tokenizer = MERGING[1]
    assert len(tokenizer("at")["input_ids"]) + len(tokenizer("he")["input_ids"]) == 4
    assert len(tokenizer("athe")["input_ids"]) == 2


def test_one_token_contexts_score_the_whole_continuation_and_empty_ones_all_but_its_first_token():
    model, tokenizer = tiny(), byte_tokenizer()
    (one, tokens), (none, fewer), empty = log_likelihoods(
        model, tokenizer, [("x", "yz"), ("", "xyz"), ("x", "")], tokens_a_batch=99
    )
    assert (tokens, fewer, empty) == (2, 2, (0.0, 0))
    assert one == pytest.approx(none, rel=1e-6)


@pytest.mark.parametrize("scope", sites.SCOPES)
@pytest.mark.parametrize("tokens_a_batch", [1, 500])
def test_steered_likelihoods_are_those_of_the_steered_full_forward(scope, tokens_a_batch):
    model, tokenizer = tiny(), byte_tokenizer()
    pairs = [pair for pair in PAIRS if pair[1]]

    def edit(x: Tensor, where: sites.Where) -> Tensor:
        return x + torch.sin(where.position + 1.0)[..., None] * torch.linspace(-3, 3, 16)

    found = assert_steered_as_alone(model, tokenizer, pairs, edit, scope, tokens_a_batch)
    assert found[0][0] != pytest.approx(plainly(model, tokenizer, *pairs[0])[0], rel=1e-3)


def test_no_logits_of_all_tokens_are_ever_made():
    model, tokenizer = tiny(), byte_tokenizer()
    rows = []
    with sites.edit(model, {sites.Site("logits"): lambda x, where: (rows.append(x.shape[0] * x.shape[1]), x)[1]}):
        log_likelihoods(model, tokenizer, [("a" * 50, "b" * 150), ("c", "d" * 90)], tokens_a_batch=32)
    assert max(rows) <= 32


def test_likelihoods_that_are_not_finite_are_an_error():
    model = tiny()
    with (
        sites.edit(model, {sites.Site("block_output", 0): lambda x, where: x * torch.nan}),
        pytest.raises(FloatingPointError, match="' sat'"),
    ):
        log_likelihoods(model, byte_tokenizer(), PAIRS[:1], tokens_a_batch=500)


class TestPerplexity:
    @pytest.fixture
    def handle(self, tmp_path) -> ModelHandle:
        definition = {"kind": "random", "family": "gpt2", "seed": 0, "layers": 2}
        models.prepare(definition, tmp_path / "tiny", name="tiny")
        return ModelHandle(tmp_path / "tiny")

    def test_rows_keep_their_order_and_bear_the_unsteered_models_name(self, handle):
        prompts = pd.DataFrame({"id": ["p", "q"], "text": ["The cat", "A dog"]})
        generations = pd.DataFrame(
            {"seed": 0, "strength": 1.0, "id": ["q", "p", "q"], "sample": [0, 0, 1], "text": [" ran", " sat", ""]}
        )
        scored = perplexity.score(handle, generations, prompts, tokens_a_batch=100)
        assert list(scored) == ["seed", "strength", "id", "sample", "scorer", "nll", "tokens"]
        assert scored["id"].tolist() == ["q", "p", "q"]
        assert scored["tokens"].tolist() == [4, 4, 0]
        assert set(scored["scorer"]) == {"tiny, unsteered"}

    def test_a_uniform_model_has_the_vocabulary_as_perplexity(self, handle):
        handle.load().get_output_embeddings().weight.zero_()
        prompts = pd.DataFrame({"id": ["p"], "text": ["The cat"]})
        generations = pd.DataFrame({"id": ["p", "p"], "text": [" sat", " slept here"]})
        scored = perplexity.score(handle, generations, prompts, tokens_a_batch=100)
        assert math.exp(scored["nll"].sum() / scored["tokens"].sum()) == pytest.approx(257, rel=1e-5)

    def test_an_id_without_a_prompt_is_an_error(self, handle):
        prompts = pd.DataFrame({"id": ["p"], "text": ["The cat"]})
        with pytest.raises(KeyError, match="other"):
            perplexity.score(handle, pd.DataFrame({"id": ["other"], "text": ["x"]}), prompts, tokens_a_batch=9)


PROFANITY_CHECK = "steerlab.scores.profanity_check:ProfanityCheck"


class TestProfanityCheck:
    def test_the_table_names_scorer_and_version(self):
        assert scores.label(scores.load(PROFANITY_CHECK)) == "alt-profanity-check==1.9.1"

    def test_offensive_texts_score_higher_than_harmless_ones(self):
        found = scores.load(PROFANITY_CHECK).score(["You are such an idiot.", "The weather in Paris is mild."])
        # Measured once with version 1.9.1: 1.00 and about 0.
        assert found[0] > 0.95
        assert found[1] < 0.1

    def test_an_empty_text_is_scored_as_a_newline_and_no_texts_give_no_scores(self):
        judge = scores.load(PROFANITY_CHECK)
        assert judge.score([""]) == judge.score(["\n"])
        assert judge.score([]).shape == (0,)

    def test_a_score_depends_on_its_text_alone(self):
        judge = scores.load(PROFANITY_CHECK)
        texts = ["Shut up!", "", "Hello there", "You fool"]
        assert np.array_equal(judge.score(texts), np.concatenate([judge.score([text]) for text in texts]))

    def test_a_path_outside_the_scorers_is_refused_by_name(self):
        with pytest.raises(ValueError, match="'os:system'"):
            scores.load("os:system")


def test_real_likelihoods_are_those_of_one_plain_forward_a_text(real_model):
    model, tokenizer = real_model.load(), real_model.info.tokenizer
    pairs = [
        ("The capital of France is", " Paris."),
        ("The capital of France is", " a big banana"),
        ("The capital of France is ", "Paris"),
        ("Uns", "teered and unbelievable"),
    ]
    expected = [plainly(model, tokenizer, *pair) for pair in pairs]
    assert_same(log_likelihoods(model, tokenizer, pairs, tokens_a_batch=500), expected)
