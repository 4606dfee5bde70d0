"""LM-Steer: what it costs in decoding, what the cached states save in training, and how much memory a step takes."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.decoding import REST, SUBJECTS, edited
from benchmarks.memory import peak_mib
from benchmarks.pairs import Ratio, interleaved, ratio_of
from steerlab import activations, sites
from steerlab.methods.lm_steer import LMSteer, steered_loss, steered_states
from steerlab.models import ModelHandle, encode, pad
from steerlab.sites import Site

TOKENS, EPS = 1024, 1e-3  # of the step whose memory is measured
# 16 texts of 32 to 34 tokens of SmolLM2's tokenizer, one batch of the default configuration.
TEXTS = [f"{subject} {rest}, and so {REST[(i + 1) % len(REST)]}" for subject in SUBJECTS for i, rest in enumerate(REST)]


def steered_decoding(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding under an LM-Steer of the default rank over plain decoding. To a width of 4,000 the edit is one product
    with a (hidden, hidden) matrix: steer and dummy together have at least half of it as rank."""
    return _steered("LM-Steer, default rank / plain", None, handle, pairs)


def steered_decoding_low_rank(handle: ModelHandle, pairs: int) -> Ratio:
    """The same at an eighth of the width, where the edit is two thin products."""
    return _steered("LM-Steer, rank of an eighth / plain", handle.load().config.hidden_size // 8, handle, pairs)


def cached_training(handle: ModelHandle, pairs: int) -> Ratio:
    """A training step from cached states over one that runs the model's body first, as a share of what it can be.

    A step is LM-Steer's own: loss, gradient, Adam, on 16 texts of some 32 tokens. With t_head the time of a step whose
    states lie ready and t_body that of the body, no cache can gain more than (t_body + t_head) / t_head; all four are
    timed in one turn.
    """
    with _captured(handle) as captured:
        step = _Step(handle, captured)
        ready = step.from_cache()
        works = [
            lambda: step.take(step.from_cache()),
            lambda: step.take(step.from_body()),
            step.from_body,
            lambda: step.take(ready),
        ]
        seconds = interleaved(works, pairs)
    cached, anew, body, head = seconds.T
    bounds = (body + head) / head
    name = f"step, cached / anew, of its bound {np.median(bounds):.2f}"
    return ratio_of(name, 0.9, anew / cached / bounds, seconds, tokens=len(step.targets))


def training_memory(handle: ModelHandle, pairs: int) -> Ratio:
    """Peak memory of a process that takes a step on 1,024 tokens: one that makes all logits at once, in float32, over
    ours. Neither holds the model's body; the interpreter and torch count on both sides on a CPU."""
    ways = ("ours", "all logits")
    taken = np.array(
        [[peak_mib(step_on_many_tokens, handle, way, without_model=True) for way in ways] for _ in range(min(pairs, 3))]
    )
    return ratio_of("peak memory, all logits at once / ours", 1.5, taken[:, 1] / taken[:, 0], taken, unit="MiB")


class _Step:
    """One batch of texts, a fresh steer, and the two ways to its states."""

    def __init__(self, handle: ModelHandle, captured: activations.Activations):
        steer = _fitted(handle, captured, None)
        self.handle, self.eps = handle, steer.record.config["eps"]
        self.tensors = {name: tensor.to(handle.device).requires_grad_() for name, tensor in steer.tensors.items()}
        self.adam = torch.optim.Adam(self.tensors.values(), lr=steer.record.config["learning_rate"])
        self.embeddings = handle.output_embeddings()
        self.sequences = [encode(handle.info.tokenizer, text) for text in TEXTS]
        self.targets = torch.tensor([token for ids in self.sequences for token in ids[1:]], device=handle.device)
        label = _data()["label"].to_numpy()
        owners = np.repeat(np.arange(len(TEXTS)), [len(ids) - 1 for ids in self.sequences])
        values = torch.tensor(label[owners], dtype=torch.float32, device=handle.device)
        self.values = torch.stack([values, torch.ones_like(values)], dim=1)
        self.places = {}
        for rows, states in captured.shards(Site("lm_head_input")):
            self.places |= {int(row): states[torch.from_numpy(rows == row)] for row in np.unique(rows)}

    def from_cache(self) -> Tensor:
        """(tokens, hidden), the states that predict the targets."""
        return torch.cat([self.places[row][:-1] for row in range(len(TEXTS))]).to(self.handle.device)

    @torch.no_grad()
    def from_body(self) -> Tensor:
        """The same, by running the body."""
        model, pad_id = self.handle.load(), self.handle.info.tokenizer.pad_token_id or 0
        ids, mask = pad(self.sequences, side="right", pad_id=pad_id, device=self.handle.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with sites.without_head(model):
            states = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        return states[:, :-1][mask[:, 1:].bool()]

    def take(self, states: Tensor) -> None:
        loss = steered_loss(states, self.targets, self.embeddings, self.tensors, self.values, self.eps)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        float(loss.detach())  # waits for a card


def _steered(name: str, rank: int | None, handle: ModelHandle, pairs: int) -> Ratio:
    with _captured(handle) as captured:
        steer = _fitted(handle, captured, rank)
    return edited(name, 0.95, lambda: steer.attached(handle.load()), handle, pairs)


def _fitted(handle: ModelHandle, captured: activations.Activations, rank: int | None) -> LMSteer:
    """After one step: how long it takes to use does not depend on what it learnt."""
    return LMSteer.fit(handle, _data(), captured, seed=0, rank=rank, steps=[1], batch_texts=len(TEXTS), held_out=0.0)


@contextmanager
def _captured(handle: ModelHandle) -> Iterator[activations.Activations]:
    """The states of the texts, in a store that is gone afterwards."""
    rows = activations.select(handle.info.tokenizer, TEXTS, "all")
    with tempfile.TemporaryDirectory() as folder:
        yield activations.capture(
            handle, rows, "lm_head_input", folder=Path(folder), batch_rows=len(TEXTS), shard_rows=len(TEXTS)
        )


def _data() -> pd.DataFrame:
    labels = [1.0 if i % 2 else -1.0 for i in range(len(TEXTS))]
    return pd.DataFrame({"id": [f"{i:02}" for i in range(len(TEXTS))], "text": TEXTS, "label": labels})


def step_on_many_tokens(handle: ModelHandle, which: str) -> None:
    """A training step on 1,024 random states, in the way of `which`."""
    embeddings = handle.output_embeddings()
    vocab, hidden = embeddings.shape
    generator = torch.Generator().manual_seed(0)
    where = {"device": handle.device}
    states = torch.randn(TOKENS, hidden, generator=generator).to(embeddings)
    targets = torch.randint(vocab, (TOKENS,), generator=generator).to(**where)
    values = torch.ones(TOKENS, 2, **where)
    names = ("projector1", "projector2")
    tensors = {name: torch.randn(2, hidden, max(1, hidden // 4), generator=generator) * 1e-2 for name in names}
    tensors = {name: tensor.to(**where).requires_grad_() for name, tensor in tensors.items()}
    adam = torch.optim.Adam(tensors.values(), lr=1e-2)
    loss = steered_loss if which == "ours" else _loss_of_all_logits
    loss(states, targets, embeddings, tensors, values, EPS).backward()
    adam.step()


def _loss_of_all_logits(
    states: Tensor, targets: Tensor, embeddings: Tensor, tensors: dict[str, Tensor], values: Tensor, eps: float
) -> Tensor:
    """The loss as it is written first: every logit at once, in float32."""
    steered = steered_states(states.float(), tensors, values, eps)
    return functional.cross_entropy((steered.to(embeddings.dtype) @ embeddings.T).float(), targets)
