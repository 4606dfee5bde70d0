"""The laws that hold for everything that can be attached to a model, on every family: see `subjects`."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from steerlab import models, sites
from tests.laws.subjects import CHANGING, SUBJECTS, UNCHANGING, Subject

PROMPTS = [[10, 20, 30, 40, 50, 60, 70], [80, 90, 100], [110, 120, 130, 140, 150]]
TOKENS = 5

# Every way in which transformers computes the same continuation.
MODES = {
    "full recompute": {"use_cache": False},
    "chunked prefill": {"prefill_chunk_size": 3},
    "static cache": {"cache_implementation": "static", "disable_compile": True},  # on a card it would be compiled
}


def generate(model: PreTrainedModel, prompts: list[list[int]], **options: object) -> tuple[Tensor, Tensor]:
    """Continue left-padded prompts by TOKENS tokens: new tokens (rows, TOKENS), their logits (rows, TOKENS, vocab)."""
    ids, mask = models.pad(prompts, side="left", pad_id=model.config.pad_token_id, device=model.device)
    options = {"do_sample": False, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS} | options
    with torch.no_grad():
        output = model.generate(ids, attention_mask=mask, output_logits=True, return_dict_in_generate=True, **options)
    return output.sequences[:, ids.shape[1] :], torch.stack(output.logits, 1)


def score(model: PreTrainedModel, prompts: list[list[int]], continuations: list[list[int]]) -> list[Tensor]:
    """Logits of given continuations in one right-padded forward, a (tokens, vocab) tensor a row."""
    texts = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    ids, mask = models.pad(texts, side="right", pad_id=model.config.pad_token_id, device=model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), sites.prompt(model, [len(prompt) for prompt in prompts], mask):
        logits = model(ids, attention_mask=mask, position_ids=positions).logits
    return [logits[row, len(prompt) - 1 : len(text) - 1] for row, (prompt, text) in enumerate(zip(prompts, texts))]


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Equal within 1e-5 of the largest logit, with the same likeliest tokens."""
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


def by_name(subjects: list[Subject]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("subject", subjects, ids=str)


@by_name(CHANGING)
def test_what_is_attached_changes_the_logits(subject: Subject) -> None:
    _, base = generate(subject.model, PROMPTS)
    with subject.attached(subject.model):
        _, steered = generate(subject.model, PROMPTS)
    changes = (steered - base).abs().amax(-1)
    # A steer may find nothing to change in a prompt.
    assert (changes.max() if subject.is_steer else changes.min()) > 1e-3 * base.abs().max()


@by_name(UNCHANGING)
def test_an_edit_without_effect_gives_base_logits_bit_for_bit(subject: Subject) -> None:
    base = generate(subject.model, PROMPTS)
    scored = score(subject.model, PROMPTS, base[0].tolist())
    with subject.attached(subject.model):
        assert all(map(torch.equal, generate(subject.model, PROMPTS), base))
        assert all(map(torch.equal, score(subject.model, PROMPTS, base[0].tolist()), scored))


@pytest.mark.parametrize("mode", MODES)
@by_name(CHANGING)
def test_cached_decoding_is_every_other_way_of_decoding(subject: Subject, mode: str) -> None:
    with subject.attached(subject.model):
        tokens, logits = generate(subject.model, PROMPTS)
        other_tokens, other_logits = generate(subject.model, PROMPTS, **MODES[mode])
    assert torch.equal(other_tokens, tokens)
    assert_same(other_logits, logits)


@by_name(CHANGING)
def test_beams_are_the_same_cached_and_recomputed(subject: Subject) -> None:
    with subject.attached(subject.model):
        cached = generate(subject.model, PROMPTS, num_beams=3)
        recomputed = generate(subject.model, PROMPTS, num_beams=3, use_cache=False)
    assert torch.equal(cached[0], recomputed[0])
    assert_same(cached[1], recomputed[1])


@by_name(CHANGING)
def test_a_padded_batch_is_its_prompts_one_by_one(subject: Subject) -> None:
    with subject.attached(subject.model):
        tokens, logits = generate(subject.model, PROMPTS)
        for row, prompt in enumerate(PROMPTS):
            alone_tokens, alone_logits = generate(subject.model, [prompt])
            assert torch.equal(tokens[row], alone_tokens[0])
            assert_same(logits[row], alone_logits[0])


@by_name(CHANGING)
def test_scoring_a_continuation_gives_the_logits_it_was_decoded_with(subject: Subject) -> None:
    with subject.attached(subject.model):
        tokens, logits = generate(subject.model, PROMPTS)
        for row, scored in enumerate(score(subject.model, PROMPTS, tokens.tolist())):
            assert_same(scored, logits[row])


@by_name(SUBJECTS)
def test_afterwards_the_model_is_as_before(subject: Subject) -> None:
    before = _state(subject.model)
    _, base = generate(subject.model, PROMPTS)
    with subject.attached(subject.model):
        generate(subject.model, PROMPTS)
    assert _state(subject.model) == before
    with pytest.raises(KeyboardInterrupt), subject.attached(subject.model):
        generate(subject.model, PROMPTS, stopping_criteria=[_interrupt])
    assert _state(subject.model) == before
    assert torch.equal(generate(subject.model, PROMPTS)[1], base)


def _interrupt(*_: object, **__: object) -> Tensor:
    raise KeyboardInterrupt


def _state(model: PreTrainedModel) -> object:
    """The module tree and every hook in it, parameters by identity, and what the instance itself carries."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    hooks += ("_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")
    tree = [
        (path, id(module), sorted(module.__dict__), [list(getattr(module, kind)) for kind in hooks])
        for path, module in model.named_modules()
    ]
    return tree, [(name, id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()]
