"""Generate the continuations of one cell: every setting of a steer, or the model as it is, with one seed."""

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
    continuations: Path,
    spec: dict,
    work: Path,
    share: Share = WHOLE,
) -> None:
    """Write one row a continuation; finished batches lie in `work`.

    steer, choice: one path, or nothing; share: those of the batches that are asked for.
    """
    from steerlab import generations
    from steerlab.methods.settings import settings

    picked = json.loads(choice[0].read_text())["pick"] if choice else None
    at = settings(spec["steps"], spec["strengths"], picked)
    rows = generations.of_cell(model, table, steer[0] if steer else None, at, spec, work, share)
    rows.to_parquet(continuations, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, continuations=j.outputs["continuations"], spec=j.spec, work=j.work, share=j.share)
