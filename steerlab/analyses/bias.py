"""Which of two sentences about different people a model finds likelier: CrowS-Pairs, for models that predict the next.

Source: lm-evaluation-harness, crows_pairs: the log-likelihood of each whole sentence, its first token included, which
the token that begins a text predicts; the paper reports that task's two measures.
"""

import pandas as pd

from steerlab import sites
from steerlab.analyses.steered import Steered
from steerlab.likelihood import log_likelihoods
from steerlab.models import ModelHandle, Tokenizer

COLUMNS = ["method", "strength", "pair", "kind", "more", "less"]


def bias(model: ModelHandle, steered: Steered, pairs: pd.DataFrame, *, tokens_a_batch: int) -> pd.DataFrame:
    """One row a pair with COLUMNS, in the order of the pairs; nothing is pooled here, as seeds are pooled pair by pair.

    steered: under which the pairs are read; its steer is None for the model as it is. pairs: id, kind, context, more,
    less. more, less: log-likelihood of each sentence, in nats, summed over its tokens.
    Raises FloatingPointError for a likelihood that is not finite.
    """
    loaded, tokenizer = model.load(), model.info.tokenizer
    begin = _begin(tokenizer)
    texts = [
        (begin + context, text)
        for context, *both in zip(pairs["context"], pairs["more"], pairs["less"])
        for text in both
    ]
    try:
        with steered.steer.attached(loaded, steered.strength) if steered.steer else sites.modules(loaded, {}):
            scored = log_likelihoods(loaded, tokenizer, texts, tokens_a_batch=tokens_a_batch)
    except FloatingPointError as error:
        raise FloatingPointError(f"{steered.method} at strength {steered.strength:g}: {error}") from error
    found = [-nll for nll, _ in scored]
    about = pairs[["id", "kind"]].rename(columns={"id": "pair"}).reset_index(drop=True)
    of_method = {"method": steered.method, "strength": steered.strength, "more": found[::2], "less": found[1::2]}
    return about.assign(**of_method)[COLUMNS]


def _begin(tokenizer: Tokenizer) -> str:
    """The token that begins a text, or for want of one that which ends it, as the harness has it; else nothing."""
    return str(tokenizer.bos_token or tokenizer.eos_token or "")
