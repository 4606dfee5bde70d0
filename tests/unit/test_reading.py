"""Reading one LM-Steer on a tiny model: which texts are read, and what the tables say of them."""

import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch

from steerlab.analyses import interpretation, reading
from steerlab.data.splits import by_seed
from steerlab.methods.lm_steer import LMSteer
from steerlab.models import encode
from tests.laws.subjects import capture, handle
from tests.unit.test_lm_steer import random_tensors, steer_of

SPEC = {"directions": 3, "words": 4, "value": 5.0, "texts": 12, "seed": 3, "held_out": 0.4}
WORDS = ("thank", "you", "go", "away", "fool", "kind", "day", "hate", "love", "bad")


class Judge:
    """A text's score is its length."""

    name, version, quantity = "length", "1.0", "toxicity"

    def score(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([float(len(text)) for text in texts])


@functools.cache
def data() -> pd.DataFrame:
    texts = [f"{first} {second}" for first in WORDS[:6] for second in WORDS[3:9]]
    labels = [1.0 if i % 3 else -1.0 for i in range(len(texts))]
    return pd.DataFrame({"id": [f"id{i:02}" for i in range(len(texts))], "label": labels, "text": texts})


@functools.cache
def steer(kind: str = "multiply") -> LMSteer:
    return steer_of(handle("llama"), random_tensors(kind))


@functools.cache
def tables(kind: str = "multiply") -> dict[str, pd.DataFrame]:
    captured = capture(handle("llama"), list(data()["text"]), "lm_head_input")
    return reading.read(handle("llama"), steer(kind), data(), captured, Judge(), SPEC)


def held_out() -> list[str]:
    return by_seed(list(data()["id"]), SPEC["seed"], SPEC["held_out"])[1]


def losses_by_transformers(text: str, value: float) -> torch.Tensor:
    """Of every token but the first, with steer 0 at a value and the dummy off."""
    model, ids = handle("llama").load(), torch.tensor([encode(handle("llama").info.tokenizer, text)])
    with steer().attached_values(model, [value, 0.0]), torch.no_grad():
        logits = model(ids).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")


@pytest.mark.parametrize(
    "table, columns",
    [
        (
            "directions",
            "direction singular_value side rank token_id token toxicity scorer model",
        ),
        ("spectrum", "index singular_value energy model"),
        ("coordinates", "token_id token direction_1 direction_2"),
        ("evidence", "id label position token evidence span"),
        ("guesses", "id label guess model"),
    ],
)
@pytest.mark.parametrize("kind", ["multiply", "full"])
def test_every_table_has_its_columns(table: str, columns: str, kind: str) -> None:
    assert list(tables(kind)) == ["directions", "spectrum", "coordinates", "evidence", "guesses"]
    assert list(tables(kind)[table].columns) == columns.split()
    assert len(tables(kind)[table])


def test_the_directions_are_as_many_as_asked_each_end_with_its_words_and_its_score() -> None:
    directions = tables()["directions"]
    assert directions.groupby(["direction", "side"]).size().tolist() == [4] * 6
    tokenizer = handle("llama").info.tokenizer
    for _, end in directions.groupby(["direction", "side"]):
        expected = len(tokenizer.decode(end.sort_values("rank")["token_id"].tolist()))
        assert set(end["toxicity"]) == {float(expected)}
    assert set(directions["scorer"]) == {"length==1.0"}


def test_directions_and_spectrum_are_of_the_labels_steer_and_not_of_the_dummy() -> None:
    p1, p2 = (tensor[0].double() for tensor in steer().tensors.values())
    expected = torch.linalg.svdvals(p1 @ p2.T)[:3]
    np.testing.assert_allclose(tables()["spectrum"]["singular_value"], expected, rtol=1e-5)
    found = tables()["directions"].groupby("direction")["singular_value"].first()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_only_held_out_texts_are_read_the_first_by_their_ids() -> None:
    read = tables()["guesses"]["id"]
    assert sorted(read) == sorted(held_out())[: SPEC["texts"]]
    assert 0 < len(read) < len(data())
    assert set(tables()["evidence"]["id"]) <= set(read)


def test_tokens_are_shown_of_as_many_texts_of_either_label() -> None:
    shown = tables()["evidence"].groupby("id")["label"].first()
    assert (shown > 0).sum() == (shown < 0).sum() == reading.SHOWN // 2


def test_the_tokens_of_a_text_are_all_there_in_order() -> None:
    texts = data().set_index("id")["text"]
    for name, tokens in tables()["evidence"].groupby("id"):
        assert tokens["position"].tolist() == list(range(len(tokens)))
        assert "".join(tokens["token"]).replace("Ġ", " ") == texts[name]
        assert np.isnan(tokens["evidence"].iloc[0])  # nothing predicts it
        assert tokens["evidence"].iloc[1:].notna().all()


def test_evidence_is_the_gain_in_transformers_log_likelihood_from_one_value_to_its_negative() -> None:
    texts = data().set_index("id")["text"]
    for name, tokens in tables()["evidence"].groupby("id"):
        expected = losses_by_transformers(texts[name], -SPEC["value"]) - losses_by_transformers(
            texts[name], SPEC["value"]
        )
        np.testing.assert_allclose(tokens["evidence"].iloc[1:], expected, atol=1e-4)


def test_the_guess_is_the_value_at_which_transformers_loss_is_least() -> None:
    texts = data().set_index("id")["text"]
    for name, guess in zip(tables()["guesses"]["id"], tables()["guesses"]["guess"]):
        means = [losses_by_transformers(texts[name], value).mean().item() for value in interpretation.VALUES]
        assert guess == interpretation.VALUES[int(np.argmin(means))]


def test_labels_stay_with_their_texts() -> None:
    labels = data().set_index("id")["label"]
    for name, label in zip(tables()["guesses"]["id"], tables()["guesses"]["label"]):
        assert labels[name] == label


@pytest.mark.parametrize("kind", ["add", "offset"])
def test_an_adaptor_without_directions_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"only multiply has directions, this is {kind}"):
        tables(kind)


def test_a_seed_that_holds_no_text_out_is_refused_in_one_sentence() -> None:
    captured = capture(handle("llama"), list(data()["text"]), "lm_head_input")
    with pytest.raises(ValueError, match="no held-out text to read.*; raise held_out") as error:
        reading.read(handle("llama"), steer(), data(), captured, Judge(), SPEC | {"held_out": 0.0})
    assert "\n" not in str(error.value)
