"""What a decoder is trained and judged on: states of a table's reads, its prompts, and how states are normalised."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from steerlab import latent_reads
from steerlab.activations import states_of
from steerlab.data.splits import fitted_and_judging
from steerlab.decoder_prompts import Prompt, Template
from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle, Tokenizer
from steerlab.sites import Site

log = logging.getLogger(__name__)

Normalise = Literal["none", "zscore", "learnt"]
Example = tuple[Prompt, int]  # and the index of its read

READS_AT_ONCE = 64  # whose states are in memory when statistics are taken


def template_of(tokenizer: Tokenizer, config: Mapping[str, Any]) -> Template:
    """How a decoder with this configuration has its prompts made."""
    return Template(tokenizer, config["answer_role"], config["shift_position_ids"])


class Reads:
    """The different reads of a table. rows: tokens and places; which: the index of each data row's read."""

    def __init__(
        self, model: ModelHandle, data: pd.DataFrame, activations: Activations | None, site: Site, official_code: bool
    ):
        self.model, self.activations, self.site = model, activations, site
        self.rows, self.which = latent_reads.reads(model.info.tokenizer, data, official_code=official_code)

    def states(self, reads: Sequence[int]) -> list[Tensor]:
        """The states of these reads, (places shown, hidden) each, of the model as it is: open nothing on it before.

        Raises ValueError for activations of another table.
        """
        rows = [self.rows[read] for read in reads]
        if self.activations is None:
            return [each for (each,) in states_of(self.model, rows, [self.site], len(rows))]
        found = self.activations.of_rows(self.site, reads)
        if any(len(states) != len(row.selected) for states, row in zip(found, rows)):
            raise ValueError("these activations are not those of the table's reads; capture them from this table")
        return found


def examples(
    template: Template,
    data: pd.DataFrame,
    reads: Reads,
    *,
    seed: int,
    held_out: float,
    max_tokens: int,
    last_answer_only: bool,
) -> tuple[list[Example], list[Example]]:
    """Those that are fitted on and those that judge; longer ones than max_tokens are left out.

    Raises ValueError where none is left to fit on.
    """
    found, parts = [], fitted_and_judging(data, seed, held_out)
    for part in parts:
        rows = [(reads.which[i], data["question"].iloc[i], data["answer"].iloc[i]) for i in part]
        made = [(prompt(template, reads, *row, last_answer_only), row[0]) for row in rows]
        found.append([each for each in made if len(each[0].ids) <= max_tokens])
    dropped = sum(map(len, parts)) - sum(map(len, found))
    if dropped:
        log.warning("LatentQA: %d of %d prompts are longer than max_tokens and say nothing", dropped, len(data))
    if not found[0]:
        raise ValueError("LatentQA has no example to train on; give some, hold fewer out or raise max_tokens")
    return found[0], found[1]


def prompt(
    template: Template,
    reads: Reads,
    read: int,
    question: str | Sequence[str],
    answer: str | Sequence[str],
    last_answer_only: bool,
) -> Prompt:
    """The prompt about a read, of one question and answer or of lists of them, as many of the one as of the other."""
    questions, answers = ([each] if isinstance(each, str) else list(each) for each in (question, answer))
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions have {len(answers)} answers; give one for each")
    places = reads.rows[read].selected
    return template.prompt(len(places), questions, answers, last_answer_only=last_answer_only, places=places)


def normaliser(
    kind: Normalise, reads: Reads, fitted: Sequence[Example], hidden: int
) -> tuple[dict[str, Tensor], dict[str, nn.Parameter]]:
    """What `normalised` needs, on the model's device: what is fixed, and what is learnt, (hidden,) float32 each."""
    device = reads.model.device
    if kind == "learnt":
        return {}, {"scale": nn.Parameter(torch.ones(hidden, device=device))}
    if kind == "none":
        return {}, {}
    count, total, squares = 0, torch.zeros(hidden, dtype=torch.float64), torch.zeros(hidden, dtype=torch.float64)
    used = sorted({read for _, read in fitted})
    for start in range(0, len(used), READS_AT_ONCE):
        states = torch.cat(reads.states(used[start : start + READS_AT_ONCE])).double()
        count, total, squares = count + len(states), total + states.sum(0), squares + states.square().sum(0)
    mean = total / count
    spread = (squares / count - mean.square()).clamp(min=1e-12).sqrt()
    return {"mean": mean.float().to(device), "spread": spread.float().to(device)}, {}


def normalised(states: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """The states as the decoder gets them, (count, hidden); differentiable in them and in what is learnt."""
    if "scale" in tensors:
        return states.float() * tensors["scale"].to(states.device)
    if "mean" in tensors:
        return (states.float() - tensors["mean"].to(states.device)) / tensors["spread"].to(states.device)
    return states
