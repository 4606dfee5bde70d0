"""The cross-entropy of a language model's head on given states, without ever holding a (tokens, vocab) tensor."""

from typing import Any

import torch
from torch import Tensor

CHUNK = 256  # tokens whose logits are held at a time: 50 MB in float32 at 49,152 words


def linear_cross_entropy(
    states: Tensor,
    embeddings: Tensor,
    targets: Tensor,
    *,
    values: Tensor | None = None,
    offsets: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Mean over tokens of -log softmax(states E^T + values offsets)[target], differentiable in states and offsets.

    states: (tokens, hidden); embeddings: E, (vocab, hidden), no gradient; targets: (tokens,) int64; values: (tokens,
    steers) and offsets: (steers, vocab), both or neither. The logits are made in the embeddings' dtype and summed in
    float32; the gradient is taken in the same pass, so that no logits are made twice.
    Returns a scalar, float32 (float64 for float64 states).
    """
    return _LinearCrossEntropy.apply(states, embeddings, targets, values, offsets, chunk)  # pyright: ignore


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        embeddings: Tensor,
        targets: Tensor,
        values: Tensor | None,
        offsets: Tensor | None,
        chunk: int,
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=states.device)
        of_states = torch.zeros_like(states)
        of_offsets = torch.zeros_like(offsets) if offsets is not None else None
        for start in range(0, len(states), chunk):
            here = slice(start, start + chunk)
            target = targets[here, None]
            logits = states[here].to(embeddings.dtype) @ embeddings.T
            if logits.dtype not in (torch.float32, torch.float64):
                logits = logits.float()
            if offsets is not None and values is not None:
                logits = logits.addmm_(values[here].to(logits.dtype), offsets.to(logits.dtype))
            highest = logits.amax(-1, keepdim=True)
            wanted = logits.gather(-1, target) - highest
            weights = logits.sub_(highest).exp_()
            sums = weights.sum(-1, keepdim=True)
            total += (sums.log() - wanted).double().sum()
            # d loss / d logits = softmax - one-hot; the softmax is weights / sums.
            if ctx.needs_input_grad[0]:
                pulled = (weights.to(embeddings.dtype) @ embeddings).to(states.dtype) / sums.to(states.dtype)
                of_states[here] = pulled - embeddings[targets[here]].to(states.dtype)
            if of_offsets is not None and values is not None and ctx.needs_input_grad[4]:
                of_offsets += ((values[here] / sums).T @ weights).to(of_offsets.dtype)
                of_offsets.index_add_(1, targets[here], -values[here].T.to(of_offsets.dtype))
        ctx.save_for_backward(of_states, of_offsets)
        ctx.tokens = len(states)
        return (total / len(states)).to(torch.float64 if states.dtype == torch.float64 else torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        of_states, of_offsets = ctx.saved_tensors
        scale = gradients[0] / ctx.tokens
        return (
            of_states * scale if ctx.needs_input_grad[0] else None,
            None,
            None,
            None,
            of_offsets * scale if ctx.needs_input_grad[4] else None,
            None,
        )
