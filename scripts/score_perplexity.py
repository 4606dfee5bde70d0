"""Score the log-likelihood of the continuations of one cell, all seeds, under the unsteered model."""

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

    continuations: one file a seed; share: those of the slices that are asked for.
    """
    from steerlab.scores import perplexity

    perplexity.of_cell(model, table, continuations, spec, work, share).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, scores=j.outputs["scores"], spec=j.spec, work=j.work, share=j.share)
