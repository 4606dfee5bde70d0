"""Which tokens a forward is about, and which of them are in scope: the one rule for positions, without any hook.

Columns are counted from the left of the batch, pads and cached tokens included; positions from a row's first real
token. What decides whether a forward is in scope wholly or not at all are ints, so that nothing waits for a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Scope = Literal["all", "from_last_prompt_token"]
SCOPES = ("all", "from_last_prompt_token")  # the second: the last prompt token and everything after it


class PositionError(ValueError):
    """A forward of which the tokens' positions cannot be known; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Where:
    """What the states that an edit is given belong to; tensors on the states' device, not to be changed.

    layer: of the site, None where it has none.
    position: (batch, seq) int64, counted from the row's first real token, which has 0; pads in front of it have -1.
    is_pad: (batch, seq) bool. is_prompt: (batch, seq) bool, real tokens of the prompt, its last one included.
    columns: which columns of the forward these are: all but at the head, whose states logits_to_keep cuts.
    """

    layer: int | None
    position: Tensor
    is_pad: Tensor
    is_prompt: Tensor
    columns: slice | Tensor = field(default_factory=lambda: slice(None))

    def on(self, device: torch.device) -> "Where":
        """The same with its tensors on a device; itself if they are there."""
        if self.position.device == device:
            return self
        moved = {name: getattr(self, name).to(device) for name in ("position", "is_pad", "is_prompt")}
        columns = self.columns.to(device) if isinstance(self.columns, Tensor) else self.columns
        return replace(self, **moved, columns=columns)


@dataclass(frozen=True, eq=False)
class Prompts:
    """A batch of prompts.

    mask: (rows, columns) bool, True on real tokens; position: like it, see `Where`; lengths: (rows,), real tokens.
    first, full: the columns at which "from_last_prompt_token" begins in the earliest and in the latest row.
    """

    mask: Tensor
    position: Tensor
    lengths: Tensor
    first: int
    full: int

    @classmethod
    def noted(cls, mask: Tensor, lengths: Sequence[int] | Tensor | None = None) -> "Prompts":
        """Prompts told from outside a forward (this waits for the device); lengths None: each row's real tokens.

        Raises PositionError for a length outside 1 .. the row's real tokens.
        """
        mask = mask.bool()
        position = mask.cumsum(1) - 1
        real = position[:, -1] + 1
        lengths = real if lengths is None else torch.as_tensor(lengths, device=mask.device)
        if lengths.shape != real.shape or bool(((lengths < 1) | (lengths > real)).any()):
            raise PositionError(
                f"prompt lengths {lengths.tolist()} do not fit rows of {real.tolist()} real tokens; "
                "give each row of the mask a length from 1 to its real tokens"
            )
        last = ((position == lengths[:, None] - 1) & mask).int().argmax(1)
        return cls(mask, position, lengths, int(last.min()), int(last.max()))

    @classmethod
    def guessed(cls, mask: Tensor, columns_before: int) -> "Prompts":
        """The prompts of a forward about which nothing was told: its tokens if the cache is empty, else none of them.

        mask: (rows, columns), of all columns so far, the columns_before cached ones included.
        """
        mask = mask.bool()
        position = mask.cumsum(1) - 1
        if columns_before:
            return cls(mask, position, torch.zeros_like(position[:, -1]), first=0, full=0)
        return cls(mask, position, position[:, -1] + 1, first=0, full=mask.shape[1])

    def for_rows(self, rows: int) -> "Prompts":
        """The same for a forward of n times as many rows, n neighbouring ones a prompt: beams, num_return_sequences."""
        times, rest = divmod(rows, self.mask.shape[0])
        if rest:
            raise PositionError(
                f"a forward of {rows} rows does not continue {self.mask.shape[0]} prompts; note its own"
            )
        if times == 1:
            return self
        many = {name: getattr(self, name).repeat_interleave(times, 0) for name in ("mask", "position", "lengths")}
        return replace(self, **many)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one forward; in_scope: (batch, seq) bool, or one for all: those in "from_last_prompt_token"."""

    where: Where
    in_scope: Tensor | bool

    @classmethod
    def of_columns(cls, prompts: Prompts, start: int, stop: int) -> "Tokens":
        """Those of columns start to stop (exclusive); columns after the prompts' mask are real tokens."""
        width = prompts.mask.shape[1]
        new = torch.arange(max(start, width) - width, max(stop, width) - width, device=prompts.mask.device)
        position = torch.cat([prompts.position[:, start:stop], prompts.position[:, -1:] + 1 + new], 1)
        is_pad = nn.functional.pad(~prompts.mask[:, start:stop], (0, new.shape[0]))
        where = Where(None, position, is_pad, (position < prompts.lengths[:, None]) & ~is_pad)
        if start >= prompts.full or stop <= prompts.first:
            return cls(where, start >= prompts.full)
        return cls(where, (position >= prompts.lengths[:, None] - 1) & ~is_pad)

    @classmethod
    def after_prompts(cls, position: Tensor) -> "Tokens":
        """Those after all prompts; position: (batch, seq) int64, as `Where` has it."""
        none = torch.zeros_like(position, dtype=torch.bool)
        return cls(Where(None, position, none, none), True)

    def kept(self, logits_to_keep: int | Tensor) -> "Tokens":
        """Those that transformers' `logits_to_keep` leaves: the last n (0: all), or the columns of a 1-D tensor."""
        if isinstance(logits_to_keep, int):
            if logits_to_keep == 0:
                return self
            keep = slice(-logits_to_keep, None)
        elif logits_to_keep.ndim == 1:
            keep = logits_to_keep
        else:
            raise PositionError(f"logits_to_keep has {logits_to_keep.ndim} dimensions; give an int or a 1-D tensor")
        states = (self.where.position, self.where.is_pad, self.where.is_prompt)
        where = Where(None, *(each[:, keep] for each in states), columns=keep)
        return Tokens(where, self.in_scope if isinstance(self.in_scope, bool) else self.in_scope[:, keep])


def forward_mask(given: Tensor | Mapping[str, Tensor] | None, states: Tensor, columns: int) -> Tensor:
    """The mask (rows, columns) that a forward brings; without one all tokens are real.

    Raises PositionError for a mask that is not 2-D, which does not say where a prompt ends.
    """
    if given is None:
        return torch.ones(states.shape[0], columns, dtype=torch.bool, device=states.device)
    if not isinstance(given, Tensor) or given.ndim != 2:
        raise PositionError("a forward with a mask of four dimensions does not say where its prompt ends; use `prompt`")
    return given


def generate_mask(model: PreTrainedModel, inputs: Tensor | None, kwargs: Mapping[str, Any]) -> Tensor:
    """The mask (rows, columns) that `generate` works with: the one given, or else what it infers from pad tokens."""
    if kwargs.get("attention_mask") is not None:
        return kwargs["attention_mask"]
    tokens = next((t for t in (inputs, kwargs.get("inputs_embeds"), kwargs.get("input_ids")) if t is not None), None)
    if tokens is None:  # generate then starts from the begin-of-sequence token alone
        return torch.ones(1, 1)
    config = kwargs.get("generation_config") or model.generation_config
    pad = kwargs.get("pad_token_id", config.pad_token_id)
    eos = kwargs.get("eos_token_id", config.eos_token_id)
    if tokens.ndim == 3 or pad is None or pad in (eos if isinstance(eos, list) else [eos]):
        return torch.ones(tokens.shape[:2])
    return tokens != pad
