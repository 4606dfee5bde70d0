"""What steers cost in time: seconds a new token beside the unsteered model's, and the seconds of their training.

Both models draw the same number of tokens after the same prompts in one process, turn by turn, and of each the fastest
turn counts: what else the machine does in the meantime then falls on both. Times differ from run to run.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from steerlab.analyses.steered import Steered
from steerlab.generations import Decoding, generate
from steerlab.models import ModelHandle
from steerlab.progress import progress

CHARACTERS = 120  # of a prompt, its last ones: reading what precedes all questions would hide what a new token costs
COLUMNS = ["method", "steps", "strength", "seconds_a_token", "base_seconds_a_token", "training_seconds"]

Prompts = Sequence[tuple[str, str]]  # (id, text)


def speed(
    model: ModelHandle,
    steered: Sequence[Steered],
    prompts: Prompts,
    *,
    tokens: int,
    turns: int,
    rendered: Mapping[str, Prompts] | None = None,
    trained_in: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """One row a steered model, with COLUMNS; a token is one of one row of the batch.

    prompts: one batch; tokens: new ones a row. rendered: by method, other renderings of the prompts, for methods whose
    steer is None. trained_in: seconds by method; NaN where a method has none.
    """
    decoding = Decoding(max_new_tokens=tokens, min_new_tokens=tokens)

    def seconds(asked: Prompts, one: Steered | None = None) -> float:
        with one.steer.attached(model.load(), one.strength) if one and one.steer else nullcontext():
            started = time.perf_counter()
            generate(model.load(), model.info.tokenizer, asked, decoding, seed=0)
            return (time.perf_counter() - started) / (len(asked) * tokens)

    rows = []
    seconds(prompts)  # what is set up at the first call is no steer's
    for one in progress(steered, total=len(steered), desc="speed", unit="steer"):
        read = prompts if one.steer else (rendered or {})[one.method]
        both = [(seconds(read, one), seconds(prompts)) for _ in range(turns)]
        own, base = (min(each) for each in zip(*both))
        trained = (trained_in or {}).get(one.method, float("nan"))
        rows.append((one.method, one.steps, one.strength, own, base, trained))
    return pd.DataFrame(rows, columns=COLUMNS)


def seconds_of(steer: Path) -> float:
    """Seconds of the job that made a steer, from its sidecar; NaN where it has none, as a copied folder."""
    sidecar = steer.with_name(steer.name + ".run.json")
    return json.loads(sidecar.read_text())["seconds"] if sidecar.is_file() else float("nan")
