"""Judge the generated answers of one cell, all seeds, by a model that was tuned to: are they true, do they inform?"""

from pathlib import Path
from typing import Any

from steerlab.job import job


def run(*, scores: Path, **cell: Any) -> None:
    """Write one row a continuation. cell: what `judge.of_cell` takes."""
    from steerlab.scores import judge

    judge.of_cell(**cell).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, scores=j.outputs["scores"], spec=j.spec, work=j.work, share=j.share)
