"""One cell's files read for its metrics: its continuations with their scores, and the answers it was given."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from steerlab.data import tables
from steerlab.metrics import calibrated, multiple_choice, prompt_sums
from steerlab.metrics.continuations import Texts

Files = Mapping[str, Sequence[Path]]


def texts(files: Files, seeds: Sequence[int], maps: Mapping[str, calibrated.Map]) -> Texts | None:
    """The continuations of all seeds with their scores, raw and after them calibrated; None where there are none.

    files: continuations, one a seed in their order; scores; perplexity, one a judge. maps: by scorer.
    """
    if not files["continuations"]:
        return None
    scores = pd.concat(map(pd.read_parquet, files["scores"]), ignore_index=True)
    judged = files["perplexity"]
    perplexity = pd.concat(map(pd.read_parquet, judged), ignore_index=True) if judged else None
    return Texts(
        tables.continuations(files["continuations"], seeds), calibrated.with_calibrated(scores, maps), perplexity
    )


def answers(files: Files, seeds: Sequence[int], table: Path, split: str) -> pd.DataFrame | None:
    """MC1 and MC2 of every question (see `multiple_choice.by_question`); None where no answers were given.

    files: answers, one a seed in their order, or the first seed's alone, where they are the same for all. table: the
    task's.
    """
    if not files["answers"]:
        return None
    scores = tables.continuations(files["answers"], seeds[: len(files["answers"])])
    return multiple_choice.by_question(scores, tables.answers(table, split=split))


def by_prompt(files: Files, seeds: Sequence[int], table: Path, wanted: Mapping[str, str]) -> pd.DataFrame:
    """One row a metric, setting, seed and prompt of a test cell: metric, steps, strength, seed, id, numerator,
    denominator (see `prompt_sums` and `multiple_choice.sums`).

    wanted: scorer by metric; a metric that the cell has not, or not by this scorer, has no rows.
    """
    parts = []
    if (found := texts(files, seeds, {})) is not None:
        parts.append(prompt_sums.of_texts(found.generations, found.scores, found.perplexity))
    if (given := answers(files, seeds, table, "test")) is not None:
        parts.append(multiple_choice.sums(given))
    rows = pd.concat(parts, ignore_index=True)
    kept = rows[rows.scorer == rows.metric.map(wanted)]
    return kept[["metric", *prompt_sums.PROMPT, "numerator", "denominator"]]
