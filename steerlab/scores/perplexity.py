"""Perplexity of continuations under a model that is not steered: the price in fluency that a steer pays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import store
from steerlab.data import tables
from steerlab.likelihood import log_likelihoods
from steerlab.models import ModelHandle
from steerlab.scores import by_slices

PROMPTS_A_SLICE = 10  # what a killed job loses at most


def of_cell(
    model: Path,
    table: Path,
    continuations: Sequence[Path],
    spec: Mapping[str, Any],
    work: Path,
    share: store.Share = store.WHOLE,
) -> pd.DataFrame:
    """The scores of one cell, all seeds and strengths, a few prompts at a time; finished slices lie in `work`.

    The perplexity is always taken after the plain prompt, whatever rendering the continuation was drawn from.
    continuations: one file a seed, in the order of spec["seeds"]; spec: device, dtype, attention, split, seeds,
    tokens_a_batch, and unsteered: True if the judging model is the one that was steered. share: those of the slices
    that are asked for; the rows are theirs alone.
    """
    handle = ModelHandle.of(model, spec)
    prompts = pd.DataFrame(tables.prompts(table, split=spec["split"], rendering="plain"), columns=["id", "text"])
    generations = tables.continuations(continuations, spec["seeds"])

    def compute(ids: list[str]) -> pd.DataFrame:
        rows = generations.loc[generations["id"].isin(ids)]
        return score(handle, rows, prompts, tokens_a_batch=spec["tokens_a_batch"], unsteered=spec["unsteered"])

    how = {"work": work, "share": share, "desc": "perplexity"}
    return by_slices(list(prompts["id"]), PROMPTS_A_SLICE, compute, **how)


def score(
    handle: ModelHandle,
    generations: pd.DataFrame,
    prompts: pd.DataFrame,
    *,
    tokens_a_batch: int,
    unsteered: bool = True,
) -> pd.DataFrame:
    """How unlikely a model, as it is, finds each continuation after its prompt.

    generations: columns id and text (the continuation), and any others; prompts: columns id and text, one row an id.
    Returns the generations without text and tokens, in their order, with scorer (the model's
    name, with ", unsteered" if it is the one that was steered), nll (nats,
    summed over the scored tokens) and tokens (their number; 0 for an empty continuation). The perplexity of any set of
    rows is exp(sum of nll / sum of tokens). Raises KeyError for an id without a prompt.
    """
    texts = dict(zip(prompts["id"], prompts["text"]))
    pairs = [(texts[id_], text) for id_, text in zip(generations["id"], generations["text"])]
    scored = log_likelihoods(handle.load(), handle.info.tokenizer, pairs, tokens_a_batch=tokens_a_batch)
    return generations.drop(columns=["text", "tokens"], errors="ignore").assign(
        scorer=handle.info.name + ", unsteered" * unsteered,
        nll=[nll for nll, _ in scored],
        tokens=[tokens for _, tokens in scored],
    )
