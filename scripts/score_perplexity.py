"""Score the log-likelihood of the continuations of one cell, all seeds, under the unsteered model."""

from pathlib import Path
from typing import Any

from steerlab.job import job


def run(*, scores: Path, **cell: Any) -> None:
    """Write one row a continuation. cell: what `perplexity.of_cell` takes."""
    from steerlab.scores import perplexity

    perplexity.of_cell(**cell).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, scores=j.outputs["scores"], spec=j.spec, work=j.work, share=j.share)
