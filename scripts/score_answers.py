"""Score the log-likelihood of given answers in one cell: every setting of a steer, or the model as it is."""

import json
from pathlib import Path

from steerlab.job import job
from steerlab.store import WHOLE, Share


def run(
    *,
    model: Path,
    table: Path,
    steer: list[Path],
    choice: list[Path],
    scores: Path,
    spec: dict,
    work: Path,
    share: Share = WHOLE,
) -> None:
    """Write one row an answer and setting; finished slices lie in `work`.

    steer, choice: one path, or nothing; share: those of the slices that are asked for.
    """
    from steerlab.methods.settings import settings
    from steerlab.scores import answers

    picked = json.loads(choice[0].read_text())["pick"] if choice else None
    at = settings(spec["steps"], spec["strengths"], picked)
    rows = answers.of_cell(model, table, steer[0] if steer else None, at, spec, work, share)
    rows.to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, scores=j.outputs["scores"], spec=j.spec, work=j.work, share=j.share)
