"""LM-Steer: a linear change of the output word embeddings, seen from the last hidden state.

With c the hidden state after the final norm and E the output embeddings, steer k with value v_k gives

    multiply   c' = c + eps sum_k v_k (c P1_k) P2_k^T      P1, P2: (hidden, rank); rank "full": c W_k in their place
    add        c' = c + eps sum_k v_k A_k                  A: (hidden,)
    offset     logits = E c + eps sum_k v_k O_k            O: (vocab,)

and logits = E c', so that every word embedding is transformed alike. Steer 0 is trained with the text's label as its
value; steer 1, the dummy, is always on and learns what all texts have in common, so that steer 0 holds the difference.

Source: Han et al., "Word Embeddings Are Steers for Language Models" (LM-Steer), section 3, and its code. Unlike the
code: pads do not count in the loss, the states are computed once and cached, the default rank is at most a quarter of
the width, and a value of 0 for steer 0 alone is not taken for the unsteered model, which only strength 0 is.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from math import inf
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from steerlab import sites
from steerlab.data.splits import fitted_and_judging, share
from steerlab.losses import linear_cross_entropy
from steerlab.methods import steer_files
from steerlab.methods.protocol import Activations, Origin, check_strength
from steerlab.models import ModelHandle, encode, identity, pad
from steerlab.progress import progress
from steerlab.sites import Site
from steerlab.store import digest

Adaptor = Literal["multiply", "add", "offset"]

FULL_RANK_VARIANCE = 1e-3  # of the full matrix's entries, as the paper has it; the code has no such option


@dataclass(frozen=True, eq=False)
class LMSteer:
    """A trained steer at one number of training steps.

    tensors: float32; multiply: projector1 and projector2, (steers, hidden, rank), or matrix, (steers, hidden, hidden);
    add: vector, (steers, hidden); offset: offset, (steers, vocab). checkpoints: the same at every number of steps.
    """

    checkpoints: Mapping[int, Mapping[str, Tensor]]
    steps: int
    record: steer_files.Record

    strengths: ClassVar[tuple[float, float]] = (-inf, inf)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors after `steps` training steps."""
        return self.checkpoints[self.steps]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The states before the output embeddings; the logits for the adaptor offset."""
        return self.record.sites

    @classmethod
    def fit(
        cls,
        model: ModelHandle,
        data: pd.DataFrame,
        activations: Activations,
        *,
        seed: int,
        adaptor: Adaptor = "multiply",
        rank: int | Literal["full"] | None = None,
        eps: float = 1e-3,
        init: float = 1e-2,
        values: Sequence[float] = (5.0, 1.0),
        steps: Sequence[int] = (60,),
        batch_texts: int = 32,
        max_tokens: int = 256,
        learning_rate: float = 1e-2,
        regularization: float = 0.0,
        texts: int | None = None,
        held_out: float = 0.1,
        official_code: bool = False,
    ) -> Self:
        """See `Steer.fit`. data: `id`, `text`, `label` in [-1, 1]. activations: of `lm_head_input` at all positions.

        rank: None is min(1000, hidden / 4). init: the projectors' entries are N(0, 1) times this. values: of steer 0
        and of the dummy at strength 1; one value: no dummy. steps: checkpoints, the last one is where training ends.
        regularization: times the sum of the squared entries of the projectors. texts: at most so many training texts,
        as many of each sign. held_out: share of the texts left out, drawn by the seed.
        official_code: pads count in the loss, as in the code; the model's body is then run in every step.
        Raises ValueError for states that are not finite and where no text is left to train on.
        """
        rows = training_rows(data, seed, held_out, texts)
        embeddings = model.output_embeddings()
        generator = torch.Generator().manual_seed(seed)
        tensors = _initial(adaptor, rank, len(values), embeddings.shape, init, generator)
        tensors = {name: tensor.to(model.device).requires_grad_() for name, tensor in tensors.items()}
        order = _order(rows, batch_texts, generator)
        if official_code:
            batches = _run_batches(model, data, order, max_tokens)
        else:
            batches = _cached_batches(activations, model.info.tokenizer, data, order, max_tokens)
        labels = torch.tensor(data["label"].to_numpy(), dtype=torch.float32, device=model.device)
        adam = torch.optim.Adam(tensors.values(), lr=learning_rate)
        checkpoints: dict[int, dict[str, Tensor]] = {}
        for step, (states, targets, owners) in enumerate(
            progress(islice(batches, max(steps)), total=max(steps), desc=f"LM-Steer, seed {seed}", unit="step"), start=1
        ):
            # The dummy's value is 1 for every text.
            dummies = torch.ones(len(owners), len(values) - 1, device=model.device)
            v = torch.cat([labels[owners][:, None], dummies], dim=1)
            loss = steered_loss(states.to(model.device), targets.to(model.device), embeddings, tensors, v, eps)
            if regularization:
                loss = loss + regularization * torch.stack([each.square().sum() for each in tensors.values()]).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            if step in steps:
                checkpoints[step] = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        record = steer_files.Record.of_fit(
            cls, model, data,
            seed=seed,
            config={
                "adaptor": adaptor, "rank": rank, "eps": eps, "init": init, "values": list(values),
                "weights": [1.0], "steps": sorted(steps), "batch_texts": batch_texts, "max_tokens": max_tokens,
                "learning_rate": learning_rate, "regularization": regularization, "texts": texts,
                "held_out": held_out, "official_code": official_code,
            },
            sites=(Site("logits") if adaptor == "offset" else Site("lm_head_input"),),
        )  # fmt: skip
        return cls(checkpoints, max(steps), record)

    def values_at(self, strength: float) -> list[float]:
        """The steers' values at a strength s: (5 s, min(1, |s|)), for the default values (5, 1); s scaled by the weight
        of each steer that was composed."""
        label, *dummy = self.record.config["values"]
        scaled = [strength * weight for weight in self.record.config["weights"]]
        return [value for s in scaled for value in (label * s, *(each * min(1.0, abs(s)) for each in dummy))]

    def attached(self, model: PreTrainedModel, strength: float = 1.0) -> AbstractContextManager[None]:
        """See `Steer.attached`; the steers' values are `values_at(strength)`, and every token is steered."""
        check_strength(strength, self.strengths)
        return self.attached_values(model, self.values_at(strength))

    def attached_values(self, model: PreTrainedModel, values: Sequence[float]) -> AbstractContextManager[None]:
        """As `attached`, with the steers' raw values; all of them 0 attach nothing.

        Raises ValueError unless there is one value a steer.
        """
        steer_files.check_model(self.record, identity(model))
        if len(values) != self.number_of_steers:
            raise ValueError(
                f"this LM-Steer has {self.number_of_steers} steers, got {len(values)} values; give one each"
            )
        if not any(values):
            return nullcontext()
        eps = self.record.config["eps"]
        v = torch.tensor(values, dtype=torch.float32)
        device, dtype = sites.device_of(model, self.sites[0]), model.dtype
        if "vector" in self.tensors or "offset" in self.tensors:
            (rows,) = self.tensors.values()
            added = (eps * v @ rows).to(device, dtype)
            return sites.edit(model, {self.sites[0]: lambda x, where: x + added})
        left, right = (factor.to(device, dtype) for factor in self._factors(v))
        if left.shape[1] * 2 >= left.shape[0]:
            product = self.change(values).to(device, dtype)
            return sites.edit(model, {self.sites[0]: lambda x, where: x + x @ product})
        return sites.edit(model, {self.sites[0]: lambda x, where: x + x @ left @ right.T})

    @property
    def number_of_steers(self) -> int:
        """Steers side by side, the dummy among them."""
        return next(iter(self.tensors.values())).shape[0]

    def change(self, values: Sequence[float]) -> Tensor:
        """The (hidden, hidden) float32 matrix M of c' = c + c M at these values; multiply only."""
        left, right = self._factors(torch.tensor(values, dtype=torch.float32))
        return left @ right.T

    def _factors(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """(hidden, all ranks) each: their product is the change at the values v, eps included."""
        eps, tensors = self.record.config["eps"], self.tensors
        if "matrix" in tensors:
            change = eps * torch.einsum("k,kij->ij", v, tensors["matrix"])
            return change, torch.eye(len(change))
        left = tensors["projector1"].transpose(0, 1).flatten(1)
        right = (eps * v[:, None, None] * tensors["projector2"]).transpose(0, 1).flatten(1)
        return left, right

    def save(self, folder: Path) -> None:
        """See `Steer.save`; a tensor is named `<steps>/<name>`, and every checkpoint is kept."""
        named = {f"{steps}/{name}": tensor for steps, each in self.checkpoints.items() for name, tensor in each.items()}
        steer_files.save(folder, self.record, named)

    @classmethod
    def load(cls, folder: Path, steps: int | None = None) -> Self:
        """The steer after so many training steps, the last checkpoint by default; raises ValueError for another."""
        record, tensors = steer_files.read(folder)
        checkpoints: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            at, _, name = key.partition("/")
            checkpoints.setdefault(int(at), {})[name] = tensor
        steps = max(checkpoints) if steps is None else steps
        if steps not in checkpoints:
            raise ValueError(
                f"{folder} has no checkpoint at {steps} steps, only at {sorted(checkpoints)}; add it to steps"
            )
        return cls(checkpoints, steps, record)

    def with_random_directions(self, generator: torch.Generator) -> Self:
        """The control: every change W is rotated on both sides at random, so that its singular values stay."""

        def rotated(tensor: Tensor, axis: int) -> Tensor:
            size = tensor.shape[axis]
            rotation = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q.float()
            return (tensor.movedim(axis, -1) @ rotation).movedim(-1, axis)

        if "offset" in self.tensors:  # a rotation of the vocabulary would be (vocab, vocab): its words are shuffled
            order = torch.randperm(self.tensors["offset"].shape[1], generator=generator)
            return self.made_into({"offset": self.tensors["offset"][:, order]}, config={"random": True})
        tensors = {name: rotated(tensor, 1) for name, tensor in self.tensors.items()}
        if "matrix" in tensors:
            tensors = {"matrix": rotated(tensors["matrix"], 2)}
        return self.made_into(tensors, config={"random": True})

    def scaled(self, factor: float) -> Self:
        """The steer whose edit is `factor` times this one's."""
        return self.made_into(self.tensors, config={"eps": self.record.config["eps"] * factor})

    def made_into(self, tensors: Mapping[str, Tensor], *, config: Mapping[str, object], **facts: str) -> Self:
        """A steer made from this one, at the same number of steps; config, facts: what changes in its record."""
        record = dataclasses.replace(self.record, config=self.record.config | dict(config), **facts)
        return type(self)({self.steps: dict(tensors)}, self.steps, record)


def composed(
    model: ModelHandle, origin: Origin, *, weights: Mapping[str, float], values: Sequence[float] | None = None
) -> LMSteer:
    """Several steers as one: the changes add up, sum_k w_k v_k W_k, where nesting them would multiply (I + eps v W).

    weights: by task, as origin's steers are. values: other ones at strength 1.
    Raises KeyError for a task without a steer, ValueError for steers of different adaptors, scales or values.
    """
    steers, shared = [origin.steers[task] for task in weights], ("adaptor", "eps", "values")
    kinds = {str([steer.record.config[key] for key in shared]) for steer in steers}
    if len(kinds) > 1:
        raise ValueError(f"cannot compose steers that differ in {', '.join(shared)}: {sorted(kinds)}; train them alike")
    tensors = {
        name: torch.cat([_widened(steer.tensors[name], steers, name) for steer in steers]) for name in steers[0].tensors
    }
    first = steers[0].record.config
    config = {"weights": list(weights.values()), "values": list(values or first["values"]), "of": list(weights)}
    data = digest([steer.record.data for steer in steers])
    return steers[0].made_into(tensors, config=config, data=data)


def _widened(projector: Tensor, steers: Sequence[LMSteer], name: str) -> Tensor:
    """Filled up with zeros to the largest last dimension of the steers: a lower rank is no other product."""
    width = max(steer.tensors[name].shape[-1] for steer in steers)
    return functional.pad(projector, (0, width - projector.shape[-1]))


def training_rows(data: pd.DataFrame, seed: int, held_out: float, texts: int | None = None) -> list[int]:
    """Places in `data` of the rows that a seed trains on: not held out, and of each sign of the label at most an equal
    share of `texts`, drawn by the seed so that a larger number keeps the rows of a smaller one."""
    rows, _ = fitted_and_judging(data, seed, held_out)
    if texts is None:
        return rows
    signs = np.sign(data["label"].to_numpy())
    drawn = sorted(rows, key=lambda row: share(data["id"].iloc[row], f"texts {seed}"))
    classes = [[row for row in drawn if signs[row] == sign] for sign in (1.0, -1.0, 0.0)]
    classes = [rows for rows in classes if rows]
    return sorted(row for rows in classes for row in rows[: texts // len(classes)])


def steered_states(states: Tensor, tensors: Mapping[str, Tensor], values: Tensor, eps: float) -> Tensor:
    """c' of states c, (..., hidden), under values, (..., steers), one row a state; multiply and add."""
    if "vector" in tensors:
        return states + eps * values @ tensors["vector"]
    if "matrix" in tensors:
        return states + eps * torch.einsum("...k,...i,kij->...j", values, states, tensors["matrix"])
    inner = torch.einsum("...i,kir->...kr", states, tensors["projector1"]) * values[..., None]
    return states + eps * torch.einsum("...kr,kjr->...j", inner, tensors["projector2"])


def steered_loss(
    states: Tensor, targets: Tensor, embeddings: Tensor, tensors: Mapping[str, Tensor], values: Tensor, eps: float
) -> Tensor:
    """Mean cross-entropy of the steered model. states: (tokens, hidden), any float dtype, those that predict targets,
    (tokens,) int64; embeddings: (vocab, hidden); values: (tokens, steers)."""
    states = states.to(values.dtype)
    if "offset" in tensors:
        return linear_cross_entropy(states, embeddings, targets, values=values, offsets=eps * tensors["offset"])
    return linear_cross_entropy(steered_states(states, tensors, values, eps), embeddings, targets)


# ---- training ----


def _initial(
    adaptor: Adaptor,
    rank: int | Literal["full"] | None,
    steers: int,
    vocab_hidden: Sequence[int],
    init: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    vocab, hidden = vocab_hidden

    def normal(*shape: int) -> Tensor:
        return torch.randn(steers, *shape, generator=generator)

    match adaptor:
        case "add":
            return {"vector": normal(hidden)}
        case "offset":
            return {"offset": normal(vocab)}
    if rank == "full":
        return {"matrix": normal(hidden, hidden) * FULL_RANK_VARIANCE**0.5}
    rank = min(1000, max(1, hidden // 4)) if rank is None else rank
    return {name: normal(hidden, rank) * init for name in ("projector1", "projector2")}


Batch = tuple[Tensor, Tensor, Tensor]  # states (tokens, hidden), targets (tokens,), the row of each token (tokens,)


def _order(rows: Sequence[int], batch_texts: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of rows without end: both classes shuffled together, anew in every epoch."""
    if not rows:
        raise ValueError("LM-Steer has no text to train on; raise the number of texts or hold fewer of them out")
    while True:
        shuffled = [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]
        for start in range(0, len(shuffled), batch_texts):
            yield shuffled[start : start + batch_texts]


def _cached_batches(
    activations: Activations, tokenizer: object, data: pd.DataFrame, order: Iterator[list[int]], max_tokens: int
) -> Iterator[Batch]:
    """The batches' tokens without any pad. The states are memory-mapped: only those in use are in memory."""
    site, places = Site("lm_head_input"), {}
    for rows, states in activations.shards(site):
        steer_files.check_finite(states, site, data["id"].iloc[rows].tolist())
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(rows)]):
            places[int(rows[start])] = states[start:stop]
    texts = list(data["text"])
    for batch in order:
        whole = {row: encode(tokenizer, texts[row]) for row in batch}
        for row, tokens in whole.items():
            if len(tokens) != len(places[row]):
                raise ValueError(
                    f"example {data['id'].iloc[row]} has {len(tokens)} tokens and {len(places[row])} states; "
                    "capture the states of these texts, at all positions"
                )
        ids = {row: tokens[:max_tokens] for row, tokens in whole.items()}
        lengths = [len(ids[row]) - 1 for row in batch]
        if sum(lengths):  # else all its texts are of one token, which nothing predicts
            states = torch.cat([places[row][:length] for row, length in zip(batch, lengths)])
            targets = torch.tensor([token for row in batch for token in ids[row][1:]])
            yield states, targets, torch.tensor(batch).repeat_interleave(torch.tensor(lengths))


@torch.no_grad()
def _run_batches(
    model: ModelHandle, data: pd.DataFrame, order: Iterator[list[int]], max_tokens: int
) -> Iterator[Batch]:
    """The same with the official code's padding: rows are filled up with the end of the sequence, and predict it."""
    tokenizer, texts = model.info.tokenizer, list(data["text"])
    for batch in order:
        sequences = [encode(tokenizer, texts[row])[:max_tokens] for row in batch]
        ids, mask = pad(sequences, side="right", pad_id=tokenizer.eos_token_id, device=model.device)
        with sites.without_head(model.load()):  # without position_ids, so that those of pads go on, as there
            states = model.load()(input_ids=ids, attention_mask=mask, use_cache=False).logits
        owners = torch.tensor(batch)[:, None].expand(-1, ids.shape[1] - 1)
        yield states[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), owners.flatten()
