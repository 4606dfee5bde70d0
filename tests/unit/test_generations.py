"""Generations: the draws, the nucleus, and decoding against transformers' own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from transformers import AutoModelForCausalLM, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from steerlab import generations, sites
from steerlab.generations import Decoding, batches, generate, sample_tokens, uniforms
from steerlab.models import encode, pad
from steerlab.tiny_models import EOS_ID, FAMILIES, byte_tokenizer, tiny_config

PROMPTS = [
    ("a", "The cat"),
    ("b", "Once upon a time there was"),
    ("c", "x"),
    ("d", "Grüße, wörld"),
    ("e", "The dog sat"),
]


def tiny(family: str = "llama", *, scale: float = 8.0) -> tuple:
    """A tiny model whose logits are spread by `scale`, so that greedy texts vary, and the byte tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return model, byte_tokenizer()


class TestUniforms:
    def test_a_number_depends_neither_on_batch_mates_nor_on_how_many_are_asked_for(self):
        whole = uniforms(7, ["a", "b", "c"], samples=4, steps=20).reshape(3, 4, 20)
        part = uniforms(7, ["c", "a"], samples=2, steps=5).reshape(2, 2, 5)
        assert np.array_equal(part, whole[[2, 0], :2, :5])

    def test_seed_prompt_and_sample_each_give_other_numbers(self):
        numbers = np.concatenate([uniforms(seed, ["a", "1"], 2, 1) for seed in (0, 1, 11)])
        assert len(np.unique(numbers)) == numbers.size

    def test_the_numbers_are_uniform(self):
        numbers = uniforms(0, [str(i) for i in range(500)], 4, 5)
        assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.1

    def test_the_first_numbers_of_a_key_stay_what_they_are(self):
        # Computed once by this function; a change would silently change every text that was ever generated.
        assert uniforms(0, ["prompt"], 1, 2)[0] == pytest.approx(FIRST, abs=1e-15)


FIRST = [0.6611390051592231, 0.21210229444580386]


def reference(logits: Tensor, u: Tensor, temperature: float, top_p: float) -> Tensor:
    """The definition: transformers' warpers choose the nucleus; its cumulative sum, likeliest first, is inverted."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    probabilities = warpers(None, logits.double()).softmax(-1)
    order = (
        logits.double().sort(dim=-1, descending=True, stable=True).indices
        if top_p < 1
        else torch.arange(logits.shape[-1]).expand_as(logits)
    )
    cumulative = probabilities.gather(-1, order).cumsum(-1)
    place = (cumulative <= (u * cumulative[:, -1:].T[0])[:, None]).sum(-1, keepdim=True)
    return order.gather(-1, place)[:, 0]


def random_logits(rows: int, vocab: int, kind: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab, generator=generator, dtype=torch.float64)
    return {
        "flat": logits * 0.1,
        "usual": logits * 3,
        "peaked": logits * 30,
        # Every value many times over, so that the edge of the nucleus and of the candidates falls between equals.
        "tied": (logits * 2).round(),
    }[kind]


class TestSampleTokens:
    @pytest.mark.parametrize("vocab", [50, 257, 3000])
    @pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    @pytest.mark.parametrize("kind", ["flat", "usual", "peaked"])
    def test_draws_are_those_of_the_definition(self, kind, temperature, top_p, vocab):
        logits = random_logits(200, vocab, kind)
        u = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        drawn = sample_tokens(logits, u, temperature=temperature, top_p=top_p)
        assert torch.equal(drawn, reference(logits, u, temperature, top_p))

    @given(
        seed=st.integers(0, 10**6),
        vocab=st.integers(2, 40),
        candidates=st.integers(1, 40),
        top_p=st.floats(0.05, 0.999),
        kind=st.sampled_from(["flat", "usual", "peaked", "tied"]),
    )
    @settings(max_examples=200, deadline=None)
    def test_however_many_candidates_are_sorted_the_tokens_are_those_of_the_full_sort(
        self, seed, vocab, candidates, top_p, kind
    ):
        logits = random_logits(16, vocab, kind, seed).float()
        u = torch.rand(16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generations, "CANDIDATES", vocab)
            full = sample_tokens(logits, u, temperature=1.0, top_p=top_p)
            patch.setattr(generations, "CANDIDATES", candidates)
            assert torch.equal(sample_tokens(logits, u, temperature=1.0, top_p=top_p), full)

    def test_only_rows_with_a_wide_nucleus_are_sorted_whole(self, monkeypatch):
        logits = torch.cat([random_logits(3, 2000, "flat"), random_logits(5, 2000, "peaked")])
        sizes, sort = [], Tensor.sort
        monkeypatch.setattr(Tensor, "sort", lambda x, *a, **k: (sizes.append(tuple(x.shape)), sort(x, *a, **k))[1])
        sample_tokens(logits, torch.rand(8, dtype=torch.float64), temperature=1.0, top_p=0.9)
        assert [shape for shape in sizes if shape[1] == 2000] == [(3, 2000)]

    def test_of_equally_likely_tokens_the_lowest_ids_are_in_the_nucleus(self):
        u = torch.linspace(0, 0.999, 100, dtype=torch.float64)
        drawn = sample_tokens(torch.zeros(100, 1000), u, temperature=1.0, top_p=0.05)
        assert sorted(set(drawn.tolist())) == list(range(50))

    @pytest.mark.parametrize("top_p", [1.0, 0.7])
    def test_frequencies_are_the_probabilities(self, top_p):
        logits = 5 * random_logits(1, 12, "flat")
        u = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        drawn = sample_tokens(logits.expand(20_000, -1), u, temperature=1.0, top_p=top_p)
        warped = TopPLogitsWarper(top_p)(None, logits) if top_p < 1 else logits
        expected = warped.softmax(-1)[0] * len(u)
        counts = drawn.bincount(minlength=12)
        assert not counts[expected == 0].any()
        kept = expected > 0
        assert stats.chisquare(counts[kept], expected[kept]).pvalue > 1e-3

    @pytest.mark.parametrize("top_p", [1.0, 0.9])
    @pytest.mark.parametrize("u", [0.0, np.nextafter(1.0, 0.0)])
    def test_no_token_of_probability_zero_is_drawn_at_the_ends(self, u, top_p):
        logits = torch.full((1, 600), -torch.inf)
        logits[0, [1, 300, 597]] = torch.tensor([0.0, -1.0, -2.0])
        drawn = sample_tokens(logits, torch.tensor([u], dtype=torch.float64), temperature=1.0, top_p=top_p)
        assert drawn.item() in (1, 300, 597)

    def test_temperature_zero_takes_the_likeliest(self):
        logits = random_logits(20, 300, "usual")
        drawn = sample_tokens(logits, torch.zeros(20, dtype=torch.float64), temperature=0.0, top_p=0.9)
        assert torch.equal(drawn, logits.argmax(-1))

    @pytest.mark.parametrize("top_p", [1.0, 0.9])
    def test_half_precision_is_lifted_before_it_is_summed(self, top_p):
        logits = random_logits(50, 3000, "usual").bfloat16()
        u = torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        drawn = sample_tokens(logits, u, temperature=1.0, top_p=top_p)
        assert torch.equal(drawn, sample_tokens(logits.float(), u, temperature=1.0, top_p=top_p))


class TestBatches:
    @given(lengths=st.lists(st.integers(1, 9), max_size=30), rows=st.integers(1, 20), samples=st.integers(1, 5))
    def test_every_prompt_is_in_one_batch_whatever_order_they_come_in(self, lengths, rows, samples):
        ids = [f"p{index:02d}" for index in range(len(lengths))]
        cut = [[ids[index] for index in batch] for batch in batches(lengths, ids, rows, samples)]
        turned = batches(lengths[::-1], ids[::-1], rows, samples)
        assert cut == [[ids[::-1][index] for index in batch] for batch in turned]
        assert sorted(sum(cut, [])) == ids
        assert all(len(batch) * samples <= max(rows, samples) for batch in cut)

    def test_prompts_of_like_length_are_neighbours(self):
        assert batches([3, 1, 3, 2], ["b", "z", "a", "c"], rows_a_batch=4, samples=2) == [[1, 3], [2, 0]]


class TestGenerate:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_greedy_continuations_are_those_of_transformers(self, family):
        model, tokenizer = tiny(family)
        ours = generate(model, tokenizer, PROMPTS, Decoding(max_new_tokens=12, temperature=0.0), seed=0)
        ids, mask = pad([encode(tokenizer, text) for _, text in PROMPTS], side="left", pad_id=EOS_ID)
        theirs = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=12)[:, ids.shape[1] :]
        expected = [[token for token in row if token != EOS_ID] for row in theirs.tolist()]
        assert ours["tokens"].tolist() == expected

    @pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
    @pytest.mark.parametrize("top_p", [1.0, 0.8])
    def test_a_text_is_the_same_alone_and_among_others(self, family, top_p):
        model, tokenizer = tiny(family)
        decoding = Decoding(samples=3, max_new_tokens=10, top_p=top_p)
        together = generate(model, tokenizer, PROMPTS, decoding, seed=3)
        alone = [generate(model, tokenizer, [prompt], decoding, seed=3) for prompt in PROMPTS]
        assert together["tokens"].tolist() == [tokens for frame in alone for tokens in frame["tokens"]]

    def test_a_prompt_computed_once_gives_the_texts_of_one_computed_for_each_sample(self):
        model, tokenizer = tiny()
        shared = generate(model, tokenizer, PROMPTS, Decoding(samples=2, max_new_tokens=8), seed=1)
        decoding = Decoding(max_new_tokens=8)
        for name, text in PROMPTS:
            ids = torch.tensor([encode(tokenizer, text)])
            for sample in range(2):
                row = ids
                for u in torch.from_numpy(uniforms(1, [name], 2, 8)[sample]):
                    with torch.no_grad():
                        logits = model(row, use_cache=False).logits[:, -1]
                    token = sample_tokens(logits, u[None], temperature=1.0, top_p=decoding.top_p)
                    if token.item() == EOS_ID:
                        break
                    row = torch.cat([row, token[None]], dim=1)
                ours = shared[(shared["id"] == name) & (shared["sample"] == sample)]["tokens"].item()
                assert ours == row[0, ids.shape[1] :].tolist()

    def test_samples_differ_and_a_smaller_number_of_them_gives_the_first(self):
        model, tokenizer = tiny(scale=1.0)
        many = generate(model, tokenizer, PROMPTS, Decoding(samples=4, max_new_tokens=8), seed=0)
        few = generate(model, tokenizer, PROMPTS, Decoding(samples=2, max_new_tokens=8), seed=0)
        assert many["text"].nunique() == len(many)
        assert few.to_dict("records") == many[many["sample"] < 2].to_dict("records")

    def test_an_ended_text_stops_before_its_end_token_and_no_sooner_than_asked(self):
        model, tokenizer = tiny(scale=1.0)

        def favour_the_end(x: Tensor, where: sites.Where) -> Tensor:
            return x.index_add(-1, torch.tensor([EOS_ID]), torch.full((*x.shape[:-1], 1), 4.0))

        with sites.edit(model, {sites.Site("logits"): favour_the_end}):
            frame = generate(model, tokenizer, PROMPTS, Decoding(8, 30, 2), seed=0)
        lengths = frame["tokens"].map(len)
        assert lengths.min() == 2
        assert lengths.nunique() > 5
        assert not any(EOS_ID in tokens for tokens in frame["tokens"])

    def test_every_end_token_of_the_generation_config_ends_a_text(self):
        model, tokenizer = tiny()
        greedy = Decoding(max_new_tokens=6, temperature=0.0)
        first = generate(model, tokenizer, [PROMPTS[0]], greedy, seed=0)["tokens"][0]
        model.generation_config.eos_token_id = [EOS_ID, first[3]]
        assert generate(model, tokenizer, [PROMPTS[0]], greedy, seed=0)["tokens"][0] == first[: first.index(first[3])]

    @pytest.mark.parametrize("scope", sites.SCOPES)
    def test_steered_texts_are_those_of_transformers_steered_alike(self, scope):
        model, tokenizer = tiny()
        vector = torch.linspace(-9, 9, 16)
        edits = {sites.Site("block_output", 1): lambda x, where: x + vector}
        ids, mask = pad([encode(tokenizer, text) for _, text in PROMPTS], side="left", pad_id=EOS_ID)
        greedy = Decoding(max_new_tokens=8, min_new_tokens=8, temperature=0.0)
        base = generate(model, tokenizer, PROMPTS, greedy, seed=0)
        with sites.edit(model, edits, scope=scope):
            ours = generate(model, tokenizer, PROMPTS, greedy, seed=0)
            theirs = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=8, min_new_tokens=8)
        assert ours["tokens"].tolist() == theirs[:, ids.shape[1] :].tolist()
        assert ours["tokens"].tolist() != base["tokens"].tolist()

    def test_the_text_is_what_the_tokens_add_to_the_prompt(self):
        model, tokenizer = tiny()
        frame = generate(model, tokenizer, PROMPTS, Decoding(samples=2, max_new_tokens=9), seed=5)
        for row in frame.itertuples():
            prompt = dict(PROMPTS)[row.id]
            assert tokenizer.decode(encode(tokenizer, prompt) + row.tokens) == prompt + row.text

    def test_logits_that_are_not_finite_are_an_error(self):
        model, tokenizer = tiny()
        with (
            sites.edit(model, {sites.Site("block_output", 2): lambda x, where: x * torch.nan}),
            pytest.raises(FloatingPointError, match="5 of 5 rows"),
        ):
            generate(model, tokenizer, PROMPTS, Decoding(max_new_tokens=2), seed=0)

    def test_a_prompt_without_tokens_is_refused_by_name(self):
        model, tokenizer = tiny()
        with pytest.raises(ValueError, match="'nothing' has no tokens"):
            generate(model, tokenizer, [("nothing", "")], Decoding(), seed=0)


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"top_p": 0.0}, {"temperature": -1.0}, {"min_new_tokens": 21}, {"max_new_tokens": 0}]
)
def test_impossible_decoding_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Decoding(**wrong)


class TestRealWeights:
    @pytest.fixture
    def prompts(self) -> list[tuple[str, str]]:
        openings = ("The man at the counter", "I think that people who", "My neighbour said he", "Why would a woman")
        endings = ("was", "never", "wanted to tell you that", "is so")
        return [(f"{i}{j}", f"{one} {two}") for i, one in enumerate(openings) for j, two in enumerate(endings)]

    def test_nearly_all_texts_are_the_same_in_batches_of_64_and_4(self, real_model, prompts):
        model, tokenizer, decoding = real_model.load(), real_model.info.tokenizer, Decoding(4, 20, 20, 1.0, 0.9)
        large = generate(model, tokenizer, prompts, decoding, seed=0)
        small = [text for prompt in prompts for text in generate(model, tokenizer, [prompt], decoding, seed=0)["text"]]
        assert (large["text"] == small).mean() >= 0.95

    def test_a_word_keeps_the_space_in_front_of_it(self, real_model):
        frame = generate(
            real_model.load(),
            real_model.info.tokenizer,
            [("a", "The capital of France is")],
            Decoding(max_new_tokens=2, temperature=0.0),
            seed=0,
        )
        assert frame["text"][0].startswith(" Paris")
