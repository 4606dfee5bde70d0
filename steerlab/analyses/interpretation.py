"""What an LM-Steer has learnt: its directions in words, its spectrum, and what it makes of each token of a text.

Throughout, states are rows: c' = c + eps v c W with W = P1 P2^T, and logits = c' E^T. With W = U S V^T the logits
change by eps v sum_i s_i (c . u_i) (E v_i): the left singular directions read the hidden state, and the *right* ones
live in the space of the output embeddings, so that E v_i says which tokens gain and which lose. Read the other way
round, the steer moves each embedding by eps v e W^T = eps v sum_i s_i (e . v_i) u_i^T, and v_i again meets embeddings.
Which of its two ends gains depends on the sign of c . u_i, hence on the context. Source: LM-Steer, the section on
interpretation, and the official pca_analysis.py, which in spite of its name takes this SVD and centres nothing.

W is given as a tensor (d, d) or as its factors (P1, P2), each (d, r); nothing here is as large as vocabulary squared.
"""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor

Matrix = Tensor | tuple[Tensor, Tensor]
VALUES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # the bins among which a text's steer value is guessed
CHUNK_TOKENS = 128  # rows of logits that are held at a time

# ---- the steer alone: directions and spectrum ----


def directions(
    W: Matrix, embeddings: Tensor, tokens: Sequence[str], *, count: int = 10, words: int = 20
) -> pd.DataFrame:
    """The tokens with the largest and the smallest E v_i, for the first `count` right singular directions v_i of W.

    embeddings: (V, d), the output embeddings; tokens: the names of its first rows (rows beyond have no token).
    Returns a row a word: direction (from 1, by falling singular value), singular_value, side ("largest" | "smallest"),
    rank (from 1, outermost first; of equal products the lower id), token_id, token. Directions that W does not have
    (singular value 0 to rounding) are left out. An SVD leaves signs open; here the largest entry of v_i is positive.
    Raises ValueError if there are more tokens than embeddings.
    """
    values, products = _along(W, embeddings, tokens, count)
    rows = []
    for direction, value in enumerate(values.tolist()):
        for side, descending in (("largest", True), ("smallest", False)):
            order = products[:, direction].sort(descending=descending, stable=True).indices[:words].tolist()
            rows += [(direction + 1, value, side, rank + 1, token, tokens[token]) for rank, token in enumerate(order)]
    return pd.DataFrame(rows, columns=["direction", "singular_value", "side", "rank", "token_id", "token"])


def joined(table: pd.DataFrame, decode: Callable[[list[int]], str]) -> pd.DataFrame:
    """The words of each side as the one text that a scorer reads: direction, side, text.

    table: as `directions` gives it; decode: token ids to text, as a tokenizer's `decode`.
    """
    ordered = table.sort_values(["direction", "side", "rank"])
    rows = [
        (direction, side, decode(ids.tolist()))
        for (direction, side), ids in ordered.groupby(["direction", "side"])["token_id"]  # pyright: ignore
    ]
    return pd.DataFrame(rows, columns=["direction", "side", "text"])


def spectrum(W: Matrix) -> pd.DataFrame:
    """The singular values of W, falling: index (from 1), singular_value, energy (share of the sum of squares so far).

    The squares are also the variances of the edit c W along v_i for states c of unit covariance: the energy is then the
    explained variance of a PCA of the edits.
    """
    values = singular(W)[1].double().cpu()
    energy = values.square().cumsum(0) / values.square().sum()
    return pd.DataFrame(
        {"index": range(1, len(values) + 1), "singular_value": values.numpy(), "energy": energy.numpy()}
    )


def coordinates(W: Matrix, embeddings: Tensor, tokens: Sequence[str], *, count: int = 2) -> pd.DataFrame:
    """Where each token lies along the first right singular directions: token_id, token, direction_1 to direction_count.

    Arguments as of `directions`, whose words are the ends of these columns. A column of zeros is a direction that W
    does not have. Source: the official live demo's map of the vocabulary.
    """
    products = _along(W, embeddings, tokens, count)[1].double().cpu()
    products = torch.nn.functional.pad(products, (0, count - products.shape[1]))
    table = pd.DataFrame({"token_id": range(len(tokens)), "token": list(tokens)})
    return table.assign(**{f"direction_{i + 1}": products[:, i].numpy() for i in range(count)})


def singular(W: Matrix) -> tuple[Tensor, Tensor, Tensor]:
    """U (d, k), S (k,) falling, V (d, k) with W = U diag(S) V^T; k = min(d, r). At least float32.

    From factors by two QR decompositions and an SVD of (k, k). The largest entry of each column of V is positive.
    """
    if isinstance(W, Tensor):
        U, S, Vh = torch.linalg.svd(_precise(W), full_matrices=False)
        V = Vh.mT
    else:
        (Q1, R1), (Q2, R2) = (torch.linalg.qr(_precise(factor)) for factor in W)
        inner, S, innerh = torch.linalg.svd(R1 @ R2.mT)
        U, V = Q1 @ inner, Q2 @ innerh.mT
    sign = V.gather(0, V.abs().argmax(0, keepdim=True)).sign()
    return U * sign, S, V * sign


# ---- the steer as a reader of texts ----


def edits(W: Matrix, values: Sequence[float] = VALUES, *, epsilon: float) -> list[Tensor]:
    """eps v W, (d, d), for each steer value v: what `token_losses` takes. All other steers, the dummy too, are at 0."""
    whole = W if isinstance(W, Tensor) else W[0] @ W[1].mT
    return [epsilon * value * whole for value in values]


def token_losses(
    states: Tensor,
    targets: Tensor,
    embeddings: Tensor,
    matrices: Sequence[Tensor],
    *,
    bias: Tensor | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Negative log-likelihood of each target under each edit, in nats: (edits, tokens), float32, or float64 as given.

    states: (tokens, d), each the one that predicts its target, so a text's states but the last; targets: (tokens,)
    int64; embeddings: (V, d); matrices: M (d, d), c' = c + c M, the scale already inside; bias: (V,), where the output
    layer has one. At most (chunk_tokens, V) logits are held at a time. Half precision is computed in float32, because
    the differences between edits are smaller than its rounding.
    Raises ValueError if states and targets are not equally many.
    """
    if len(states) != len(targets):
        raise ValueError(f"{len(states)} states for {len(targets)} targets; pass the state that predicts each target")
    embeddings = _precise(embeddings)
    losses = embeddings.new_empty(len(matrices), len(states))
    for row, matrix in enumerate(matrices):
        for start in range(0, len(states), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            state = states[part].to(embeddings)
            logits = (state + state @ matrix.to(embeddings)) @ embeddings.mT
            if bias is not None:
                logits += bias
            losses[row, part] = torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")
    return losses


def evidence(
    states: Tensor,
    targets: Tensor,
    embeddings: Tensor,
    steered: Tensor,
    compared: Tensor,
    *,
    bias: Tensor | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Each token's log-likelihood under the edit `steered` less that under `compared`, both (d, d): (tokens,), nats.

    The other arguments as of `token_losses`. Positive: the token speaks for the value behind `steered`.
    """
    losses = token_losses(states, targets, embeddings, [steered, compared], bias=bias, chunk_tokens=chunk_tokens)
    return losses[1] - losses[0]


def spans(evidence: Tensor | Sequence[float], most: int = 4, longest: int = 10) -> list[tuple[int, int]]:
    """The spans [start, end) of largest summed evidence: at most `most`, of at most `longest` tokens, none touching.

    evidence: (tokens,), -inf where no span may go. A token at least lies between two spans, else a reader would see one
    span that is too long. Of equal sums the fewer, then the shorter spans; none where no token has positive evidence.
    """
    values = [float(value) for value in evidence]
    # best[i] = (sum, spans): the best of at most k spans among the first i tokens, for k = 0, 1, ..., most.
    best: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())] * (len(values) + 1)
    for _ in range(most):
        fewer, best = best, best[:1]
        for end in range(1, len(values) + 1):
            found, total = max(fewer[end], best[end - 1], key=lambda option: option[0]), 0.0
            for start in range(end - 1, max(-1, end - 1 - longest), -1):
                total += values[start]
                before = fewer[max(0, start - 1)]
                if before[0] + total > found[0]:
                    found = (before[0] + total, (*before[1], (start, end)))
            best.append(found)
    return list(best[-1][1])


def marked_texts(
    ids: Sequence[str],
    labels: Sequence[float],
    rows: Sequence[int],
    tokens: Sequence[str],
    evidence: Tensor | Sequence[float],
    *,
    most: int = 4,
    longest: int = 10,
) -> pd.DataFrame:
    """Tokens with their evidence and spans: id, label, position (from 0), token, evidence, span (from 1; 0: in none).

    ids, labels: (texts,); rows: (tokens,) index of each token's text, as `Activations.shards` gives it; evidence:
    (tokens,) for the positive value against the negative one, NaN for a token that nothing predicts (a text's first).
    The spans are those that speak most for the text's own label: of -evidence where the label is negative.
    """
    flat = pd.DataFrame({"row": list(rows), "token": list(tokens), "evidence": [float(value) for value in evidence]})
    texts = []
    for row, text in flat.groupby("row"):
        sign = -1.0 if labels[int(row)] < 0 else 1.0  # pyright: ignore[reportArgumentType]
        span = [0] * len(text)
        for number, (start, end) in enumerate(spans((sign * text.evidence).fillna(-torch.inf), most, longest)):
            span[start:end] = [number + 1] * (end - start)
        texts.append(text.assign(id=ids[int(row)], label=labels[int(row)], position=range(len(text)), span=span))  # pyright: ignore
    columns = ["id", "label", "position", "token", "evidence", "span"]
    return pd.concat(texts, ignore_index=True)[columns] if texts else pd.DataFrame(columns=columns)


# ---- guessing the steer value of a text ----


def guess_value(losses: Tensor, values: Sequence[float] = VALUES) -> float:
    """The steer value under which a text's mean token loss is least; losses: (values, tokens), nats.

    Of equal losses the value nearest to 0. Raises ValueError for a text of which no token is predicted.
    """
    if losses.shape[0] != len(values) or losses.shape[1] == 0:
        raise ValueError(
            f"losses of shape {tuple(losses.shape)} for {len(values)} values; need one row a value, 1+ tokens"
        )
    means = losses.mean(1).tolist()
    return min(zip(means, values), key=lambda pair: (pair[0], abs(pair[1])))[1]


def guesses(
    ids: Sequence[str],
    labels: Sequence[float],
    rows: Tensor | Sequence[int],
    losses: Tensor,
    values: Sequence[float] = VALUES,
) -> pd.DataFrame:
    """The guessed steer value of each text: id, label, guess.

    ids, labels: (texts,); rows: (tokens,) index of each token's text; losses: (values, tokens), of `token_losses`
    with the matrices of `edits(W, values)`. Raises ValueError for a text without tokens.
    """
    rows = torch.as_tensor(rows)
    empty = set(range(len(ids))) - set(rows.tolist())
    if empty:
        raise ValueError(f"text {ids[min(empty)]!r} has no predicted token, so no value can be guessed; leave it out")
    found = [guess_value(losses[:, (rows == row).to(losses.device)], values) for row in range(len(ids))]
    return pd.DataFrame({"id": list(ids), "label": list(labels), "guess": found})


def sign_accuracy(guesses: pd.DataFrame) -> pd.DataFrame:
    """How often the guess has the label's sign: label, n, correct, undecided (guess 0), shares of the label's texts.

    guesses: id, label, guess; labels of 0 have no sign and are left out.
    """
    signed = guesses[guesses.label != 0]
    shares = signed.assign(correct=signed.guess * signed.label > 0, undecided=signed.guess == 0)
    return (
        shares.groupby("label")
        .agg(n=("id", "size"), correct=("correct", "mean"), undecided=("undecided", "mean"))
        .reset_index()
    )


# ---- helpers ----


def _along(W: Matrix, embeddings: Tensor, tokens: Sequence[str], count: int) -> tuple[Tensor, Tensor]:
    """Singular values (k,) and E v_i (tokens, k) of the first k <= count directions that W has."""
    if len(tokens) > len(embeddings):
        raise ValueError(f"{len(tokens)} tokens but {len(embeddings)} embeddings; pass the model's own tokenizer")
    _, S, V = singular(W)
    rounding = S.amax() * len(V) * torch.finfo(S.dtype).eps  # as torch.linalg.matrix_rank counts
    count = min(count, int(S.gt(rounding).sum()))
    V = V[:, :count].to(embeddings.device)
    blocks = embeddings[: len(tokens)].split(8192)  # no float32 copy of a whole table in half precision
    return S[:count], torch.cat([block.to(V.dtype) @ V for block in blocks]).cpu()


def _precise(tensor: Tensor) -> Tensor:
    """At least float32: there is no SVD in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
