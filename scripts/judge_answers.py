"""Judge the generated answers of one cell, all seeds, by a model that was tuned to: are they true, do they inform?"""

from pathlib import Path

from steerlab.job import job
from steerlab.store import WHOLE, Share


def run(
    *,
    model: Path,
    table: Path,
    continuations: list[Path],
    scores: Path,
    spec: dict,
    work: Path,
    share: Share = WHOLE,
) -> None:
    """Write one row a continuation; finished slices lie in `work`.

    model: the judge; continuations: one file a seed; share: those of the slices that are asked for.
    """
    from steerlab.scores import judge

    judge.of_cell(model, table, continuations, spec, work, share).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, scores=j.outputs["scores"], spec=j.spec, work=j.work, share=j.share)
