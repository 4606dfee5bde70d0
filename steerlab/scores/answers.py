"""Log-likelihoods of the answers that a question offers: which of them a model, steered or not, would rather give."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.data import tables
from steerlab.likelihood import log_likelihoods
from steerlab.methods.settings import at_settings
from steerlab.models import ModelHandle, Tokenizer
from steerlab.store import WHOLE, Share

QUESTIONS_A_SLICE = 20  # what a killed job loses at most
COLUMNS = ["group", "id", "steps", "strength", "log_likelihood", "tokens"]


def of_cell(
    model: Path,
    table: Path,
    steer: Path | None,
    settings: Sequence[tuple[int, float]],
    spec: Mapping[str, Any],
    work: Path,
    share: Share = WHOLE,
) -> pd.DataFrame:
    """The answers of one cell under every setting, a few questions at a time; finished slices lie in `work`.

    model: model folder; table: the task's table; steer: a steer's folder, None for the model as it is; settings: its
    training steps (0 where it has none) and strength, one after the other.
    spec: device, dtype, attention, split, rendering (of the prompt), prompts (the first so many questions by id, None
    for all), seed, has_checkpoints (of the steer, by steps) and tokens_a_batch, as the experiment gives them. share:
    those of the slices, of all settings together, that are asked for; the rows are theirs alone.
    Returns a row an answer and setting, COLUMNS of `score` with steps and strength; sorted by steps, strength, group,
    id. Raises ValueError for a question without answers or without a correct one.
    """
    handle = ModelHandle.of(model, spec)
    prompts = tables.prompts(table, split=spec["split"], rendering=spec["rendering"], limit=spec["prompts"])
    answers = tables.answers(table, split=spec["split"])
    slices = [dict(prompts[start : start + QUESTIONS_A_SLICE]) for start in range(0, len(prompts), QUESTIONS_A_SLICE)]

    def compute(asked: dict[str, str]) -> pd.DataFrame:
        rows = answers[answers.group.isin(list(asked))]
        return score(handle.load(), handle.info.tokenizer, rows, asked, tokens_a_batch=spec["tokens_a_batch"])

    how = {"work": work, "share": share, "desc": f"answers, seed {spec['seed']}", "unit": "slice"}
    how |= {"has_checkpoints": spec["has_checkpoints"], "columns": COLUMNS}
    rows = at_settings(steer, handle, settings, slices, compute, **how)
    return rows.sort_values(["steps", "strength", "group", "id"], ignore_index=True)[COLUMNS]


def score(
    model: Any, tokenizer: Tokenizer, answers: pd.DataFrame, prompts: Mapping[str, str], *, tokens_a_batch: int
) -> pd.DataFrame:
    """How likely a model finds each answer, after a space, as what continues its question's prompt.

    answers: columns group, id, text; prompts: group -> prompt. Inside `sites.edit` the scores are the steered model's.
    Returns, in the order of the answers, group, id, log_likelihood (nats, summed over the answer's tokens), tokens
    (their number). Raises KeyError for an answer without a prompt, FloatingPointError for a likelihood that is not
    finite.
    """
    pairs = [(prompts[group], f" {text}") for group, text in zip(answers["group"], answers["text"])]
    scored = log_likelihoods(model, tokenizer, pairs, tokens_a_batch=tokens_a_batch)
    likelihoods = {"log_likelihood": [0.0 - nll for nll, _ in scored], "tokens": [tokens for _, tokens in scored]}
    return answers[["group", "id"]].reset_index(drop=True).assign(**likelihoods)
