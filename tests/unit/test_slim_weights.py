"""SLIM's third stage: which tokens its pairs hold, the loss by hand, and that weights follow a preference."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from steerlab import sites
from steerlab.methods import slim_weights
from steerlab.models import encode
from steerlab.sites import Site, Where
from tests.laws.subjects import handle

TEXTS = [("Q: Why?\nA: Because.", 11), ("Q: Who came?\nA: Nobody did.", 16), ("no prompt at all here", 0)]
MODEL = handle("llama")
PLACE = Site("block_output", 1)


@contextmanager
def editing(weights: Tensor) -> Iterator[None]:
    """One layer is pushed along a line as far as its weight says."""

    def edit(x: Tensor, where: Where) -> Tensor:
        return x + weights[0] * torch.linspace(-0.4, 0.4, x.shape[-1])

    with sites.edit(MODEL.load(), {PLACE: edit}, scope="from_last_prompt_token"):
        yield


def test_a_pair_holds_the_prompts_tokens_and_as_many_of_either_continuation() -> None:
    pairs = slim_weights._pairs(MODEL, TEXTS, nullcontext())
    tokenizer = MODEL.info.tokenizer
    for (text, start), (prompt, own, other) in zip(TEXTS, pairs, strict=True):
        assert prompt + own == encode(tokenizer, text)[: len(prompt) + slim_weights.LONGEST]
        if start:
            assert tokenizer.decode(own) == text[start:] and tokenizer.decode(prompt).endswith("A: ")
        else:
            assert len(prompt) == len(encode(tokenizer, text)) // 2
        assert len(other) == len(own)
        with torch.no_grad():
            logits = MODEL.load()(torch.tensor([prompt])).logits[0, -1]
        assert other[0] == int(logits.argmax())  # what the model itself goes on with


def test_a_token_across_the_border_belongs_to_what_follows() -> None:
    class Words:
        """A token a word, its blank before it."""

        bos_token, pad_token_id = None, 0

        def __call__(self, text: str, **how: object) -> dict:
            ends = [place for place, letter in enumerate(text) if letter == " "] + [len(text)]
            return {"input_ids": list(range(len(ends))), "offset_mapping": [(0, end) for end in ends]}

    text = "Q: Why? A: Because not"  # the answer begins behind the blank that its first token begins with
    assert slim_weights._cut(Words(), text, text.index("Because")) == ([0, 1, 2], [3, 4])  # pyright: ignore


def test_preferences_are_the_continuations_log_probabilities() -> None:
    body = MODEL.load()
    pairs = [([5, 6, 7], [8, 9], [10, 11]), ([12, 13], [14], [15])]
    found = slim_weights._preferences(body, pairs, nullcontext())

    def by_hand(prompt: list[int], said: list[int]) -> float:
        with torch.no_grad():
            scores = body(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
        return sum(float(scores[len(prompt) - 1 + place, token]) for place, token in enumerate(said))

    wanted = [by_hand(prompt, own) - by_hand(prompt, other) for prompt, own, other in pairs]
    assert found.tolist() == pytest.approx(wanted, abs=1e-4)


def test_weights_fall_where_the_edit_makes_the_model_leave_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss by hand at the weights found is below that at the start, where every weight is 1."""
    monkeypatch.setattr(slim_weights, "EPOCHS", 10)
    before = slim_weights._pairs(MODEL, TEXTS, editing(torch.ones(1)))
    before = [pair for pair in before if pair[1] != pair[2]]
    found = slim_weights.fitted_weights(MODEL, TEXTS, 1, editing)
    assert 0 <= float(found) < 1

    def loss(weights: Tensor) -> float:
        with torch.no_grad():
            base = slim_weights._preferences(MODEL.load(), before, nullcontext())
            margin = slim_weights._preferences(MODEL.load(), before, editing(weights)) - base
        return float(-functional.logsigmoid(slim_weights.BETA * margin).mean())

    assert loss(found) < loss(torch.ones(1))


def test_without_a_changed_continuation_every_weight_stays_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert slim_weights.fitted_weights(MODEL, [], 2, editing).tolist() == [1.0, 1.0]
    assert "of 0 texts flagged by mistake no continuation changes" in caplog.text
