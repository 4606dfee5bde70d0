"""Score the log-likelihood of the continuations of one cell, all seeds, under the unsteered model."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, continuations: list[Path], scores: Path, spec: dict, work: Path) -> None:
    """Write one row a continuation; finished batches lie in `work`. continuations: one file a seed."""
    from steerlab.scores import perplexity

    perplexity.of_cell(model, table, continuations, spec, work).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, scores=j.outputs["scores"], spec=j.spec, work=j.work)
