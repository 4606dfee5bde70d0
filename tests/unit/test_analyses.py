"""Interpretation: closed forms and brute force on small tensors in float64, with an oracle that shares no code."""

from itertools import groupby, product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steerlab.analyses import interpretation
from tests.unit.largest import Largest

VOCABULARY, HIDDEN, TOKENS = 60, 8, 23
WORDS = [f"w{i}" for i in range(VOCABULARY)]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def losses_by_moved_embeddings(states, targets, embeddings, matrix):
    """The oracle: a full softmax in numpy, with the edit on the embeddings' side, e' = e + e M^T."""
    states, embeddings, matrix = states.numpy(), embeddings.numpy(), matrix.numpy()
    logits = states @ (embeddings + embeddings @ matrix.T).T
    odds = np.exp(logits)
    return -np.log(odds[np.arange(len(states)), targets.numpy()] / odds.sum(1))


# ---- directions and spectrum ----


def test_a_planted_direction_is_found_with_its_words_and_its_length():
    left, right = (torch.nn.functional.normalize(random(HIDDEN, seed=seed), dim=0) for seed in (1, 2))
    embeddings = random(VOCABULARY, HIDDEN)
    table = interpretation.directions(3 * torch.outer(left, right), embeddings, WORDS, words=5)
    order = np.argsort(embeddings.numpy() @ right.numpy())
    ends = {tuple(side.token) for _, side in table.groupby("side")}
    assert ends == {tuple(WORDS[i] for i in order[:5]), tuple(WORDS[i] for i in order[::-1][:5])}
    assert set(table.direction) == {1}, "a matrix of rank one has one direction"
    np.testing.assert_allclose(table.singular_value, 3)


def test_the_words_are_those_whose_logits_the_steer_moves_most():
    P1, P2, embeddings = random(HIDDEN, 3, seed=1), random(HIDDEN, 3, seed=2), random(VOCABULARY, HIDDEN)
    U, _, _ = interpretation.singular((P1, P2))
    table = interpretation.directions((P1, P2), embeddings, WORDS, words=4)
    for direction in range(3):
        state = U[:, direction]  # the state that this direction reads, and no other
        moved = ((state @ P1) @ P2.T @ embeddings.T).numpy()
        rows = table[table.direction == direction + 1]
        assert list(rows[rows.side == "largest"].token_id) == list(np.argsort(-moved)[:4])
        assert list(rows[rows.side == "smallest"].token_id) == list(np.argsort(moved)[:4])


@pytest.mark.parametrize("rank", [3, HIDDEN, 20])
def test_factors_give_the_directions_of_their_product(rank):
    P1, P2, embeddings = random(HIDDEN, rank, seed=1), random(HIDDEN, rank, seed=2), random(VOCABULARY, HIDDEN)
    by_factors = interpretation.directions((P1, P2), embeddings, WORDS)
    pd.testing.assert_frame_equal(by_factors, interpretation.directions(P1 @ P2.T, embeddings, WORDS))
    assert by_factors.direction.nunique() == min(rank, HIDDEN)


def test_singular_triples_put_the_matrix_together_again():
    P1, P2 = random(HIDDEN, 3, seed=1), random(HIDDEN, 3, seed=2)
    U, S, V = interpretation.singular((P1, P2))
    torch.testing.assert_close(U * S @ V.T, P1 @ P2.T)
    torch.testing.assert_close(V.T @ V, torch.eye(3, dtype=torch.float64))


def test_rows_of_embeddings_beyond_the_tokens_are_nobodys():
    table = interpretation.directions(random(HIDDEN, HIDDEN), random(VOCABULARY, HIDDEN), WORDS[:50])
    assert table.token_id.max() < 50
    with pytest.raises(ValueError, match="60 tokens but 50 embeddings"):
        interpretation.directions(random(HIDDEN, HIDDEN), random(50, HIDDEN), WORDS)


def test_half_precision_is_taken():
    table = interpretation.directions(random(HIDDEN, HIDDEN).bfloat16(), random(VOCABULARY, HIDDEN).bfloat16(), WORDS)
    assert len(table) == HIDDEN * 2 * 20


def test_energy_is_the_share_of_the_squared_norm():
    W = random(HIDDEN, HIDDEN)
    table = interpretation.spectrum(W)
    squares = np.sort(np.linalg.eigvalsh(W.numpy().T @ W.numpy()))[::-1]
    np.testing.assert_allclose(table.singular_value, np.sqrt(squares))
    np.testing.assert_allclose(table.energy, np.cumsum(squares) / (W.numpy() ** 2).sum())
    assert list(table["index"]) == list(range(1, HIDDEN + 1))


def test_energy_is_the_explained_variance_of_the_edits_of_white_states():
    W = random(HIDDEN, HIDDEN)
    white = torch.linalg.qr(random(200, HIDDEN, seed=3))[0]  # columns of equal length at right angles
    variances = np.sort(np.linalg.eigvalsh(((white @ W).T @ (white @ W)).numpy()))[::-1]
    np.testing.assert_allclose(interpretation.spectrum(W).energy, np.cumsum(variances) / variances.sum())


def test_coordinates_have_the_words_at_their_ends():
    W, embeddings = random(HIDDEN, HIDDEN), random(VOCABULARY, HIDDEN)
    table, words = interpretation.coordinates(W, embeddings, WORDS), interpretation.directions(W, embeddings, WORDS)
    for direction in (1, 2):
        ends = words[(words.direction == direction) & (words["rank"] == 1)].set_index("side").token_id
        assert ends["largest"] == table[f"direction_{direction}"].idxmax()
        assert ends["smallest"] == table[f"direction_{direction}"].idxmin()


def test_coordinates_along_a_missing_direction_are_zero():
    W = torch.outer(random(HIDDEN, seed=1), random(HIDDEN, seed=2))
    assert (interpretation.coordinates(W, random(VOCABULARY, HIDDEN), WORDS).direction_2 == 0).all()


def test_a_side_is_joined_from_the_outermost_word_inwards():
    table = interpretation.directions(random(HIDDEN, HIDDEN), random(VOCABULARY, HIDDEN), WORDS, count=2, words=3)
    texts = interpretation.joined(table.sample(frac=1, random_state=0), lambda ids: " ".join(WORDS[i] for i in ids))
    first = table[(table.direction == 1) & (table.side == "largest")]
    assert texts[(texts.direction == 1) & (texts.side == "largest")].text.item() == " ".join(first.token)
    assert len(texts) == 4


# ---- losses and evidence ----


@pytest.fixture
def text():
    """States, targets, embeddings and a steer's matrix."""
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(5))
    return random(TOKENS, HIDDEN, seed=3), targets, random(VOCABULARY, HIDDEN, seed=4), random(HIDDEN, HIDDEN, seed=6)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 100])
def test_losses_are_those_of_a_full_softmax_over_moved_embeddings(text, chunk_tokens):
    states, targets, embeddings, W = text
    matrices = interpretation.edits(W, (-1.0, 0.0, 2.0), epsilon=0.1)
    found = interpretation.token_losses(states, targets, embeddings, matrices, chunk_tokens=chunk_tokens)
    expected = [losses_by_moved_embeddings(states, targets, embeddings, 0.1 * v * W) for v in (-1.0, 0.0, 2.0)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_factors_give_the_edits_of_their_product():
    P1, P2 = random(HIDDEN, 3, seed=1), random(HIDDEN, 3, seed=2)
    for one, other in zip(interpretation.edits((P1, P2), epsilon=0.1), interpretation.edits(P1 @ P2.T, epsilon=0.1)):
        torch.testing.assert_close(one, other)


def test_a_bias_of_the_output_layer_counts(text):
    states, targets, embeddings, W = text
    bias = random(VOCABULARY, seed=7)
    found = interpretation.token_losses(states, targets, embeddings, [0 * W], bias=bias)
    logits = (states @ embeddings.T + bias).numpy()
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(TOKENS), targets]
    np.testing.assert_allclose(found[0], expected)


def test_no_tensor_is_as_large_as_tokens_times_vocabulary(text):
    states, targets, embeddings, W = text
    with Largest() as largest:
        interpretation.token_losses(states, targets, embeddings, [W, W], chunk_tokens=4)
    assert largest.elements == max(4 * VOCABULARY, VOCABULARY * HIDDEN)


def test_half_precision_loses_no_more_than_the_inputs_do(text):
    states, targets, embeddings, W = (tensor.bfloat16() if tensor.is_floating_point() else tensor for tensor in text)
    found = interpretation.token_losses(states, targets, embeddings, [W])
    expected = losses_by_moved_embeddings(states.double(), targets, embeddings.double(), W.double())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_states_without_their_targets_are_refused(text):
    states, targets, embeddings, W = text
    with pytest.raises(ValueError, match="23 states for 22 targets"):
        interpretation.token_losses(states, targets[1:], embeddings, [W])


def test_evidence_is_the_gain_in_log_likelihood(text):
    states, targets, embeddings, W = text
    found = interpretation.evidence(states, targets, embeddings, 0.1 * W, -0.1 * W)
    worse, better = (losses_by_moved_embeddings(states, targets, embeddings, s * W) for s in (-0.1, 0.1))
    np.testing.assert_allclose(found.numpy(), worse - better, atol=1e-12)


# ---- spans ----


def best_sum(values, most, longest):
    """Brute force: every choice of tokens, whose runs are the spans."""
    sums = [0]
    for chosen in product([False, True], repeat=len(values)):
        runs = [len(list(run)) for taken, run in groupby(chosen) if taken]
        if len(runs) <= most and max(runs, default=0) <= longest:
            sums.append(sum(value for value, taken in zip(values, chosen) if taken))
    return max(sums)


@given(st.lists(st.integers(-9, 9), max_size=10), st.integers(0, 4), st.integers(1, 4))
def test_spans_have_the_largest_sum_there_is(values, most, longest):
    found = interpretation.spans(values, most, longest)
    assert sum(sum(values[start:end]) for start, end in found) == best_sum(values, most, longest)
    assert len(found) <= most
    assert all(0 < end - start <= longest and start >= 0 and end <= len(values) for start, end in found)
    assert all(end < start for (_, end), (start, _) in zip(found, found[1:])), "a token lies between two spans"


def test_spans_take_no_more_tokens_than_they_need():
    assert interpretation.spans([0, 0, 2, 0, -1, 1, 0]) == [(2, 3), (5, 6)]
    assert interpretation.spans([0.0, -1.0]) == interpretation.spans([]) == []


def test_marked_texts_have_spans_for_their_own_label_and_none_at_a_token_without_evidence():
    evidence = torch.tensor([torch.nan, 1.0, -2.0, torch.nan, 1.0, -2.0])
    table = interpretation.marked_texts(["a", "b"], [1.0, -1.0], [0, 0, 0, 1, 1, 1], list("uvwxyz"), evidence)
    assert list(table.span) == [0, 1, 0, 0, 0, 1]
    assert list(table.position) == [0, 1, 2, 0, 1, 2]
    assert list(table.id) == list("aaabbb")
    assert list(table.token) == list("uvwxyz")


# ---- guesses ----


def test_the_guess_is_the_bin_of_least_mean_loss():
    losses = torch.ones(7, 3, dtype=torch.float64)
    losses[5] = torch.tensor([0.1, 0.1, 2.5])
    assert interpretation.guess_value(losses) == 2.0
    losses[5, 2] = 2.9
    assert interpretation.guess_value(losses) == 0.0, "of equal means the value nearest to 0"


def test_texts_drawn_from_a_steered_model_are_guessed_back():
    embeddings, W = random(VOCABULARY, HIDDEN), random(HIDDEN, HIDDEN, seed=1)
    matrices = interpretation.edits(W, epsilon=0.1)
    planted, rows, states, targets = [-3.0, -1.0, 0.0, 2.0], [], [], []
    for row, value in enumerate(planted):
        state = random(4000, HIDDEN, seed=10 + row)
        odds = (state @ (torch.eye(HIDDEN) + 0.1 * value * W) @ embeddings.T).softmax(-1)
        targets.append(torch.multinomial(odds, 1, generator=torch.Generator().manual_seed(row))[:, 0])
        states.append(state)
        rows += [row] * 4000
    losses = interpretation.token_losses(torch.cat(states), torch.cat(targets), embeddings, matrices)
    table = interpretation.guesses(list("abcd"), planted, rows, losses)
    assert list(table.guess) == planted
    assert list(table.columns) == ["id", "label", "guess"]


def test_a_text_without_tokens_is_named():
    with pytest.raises(ValueError, match="'b' has no predicted token"):
        interpretation.guesses(["a", "b"], [1, -1], [0, 0], torch.ones(7, 2))


def test_sign_accuracy_counts_a_guess_of_zero_as_undecided():
    table = pd.DataFrame(
        {"id": list("abcdef"), "label": [1, 1, 1, -1, -1, 0], "guess": [3.0, 0.0, -1.0, -2.0, -1.0, 1.0]}
    )
    found = interpretation.sign_accuracy(table).set_index("label")
    assert found.n.to_dict() == {-1: 2, 1: 3}
    assert found.correct.to_dict() == {-1: 1.0, 1: pytest.approx(1 / 3)}
    assert found.undecided.to_dict() == {-1: 0.0, 1: pytest.approx(1 / 3)}
