"""Generate the continuations of one cell: every strength of a steer, or the model as it is, with one seed."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, steer: list[Path], continuations: Path, spec: dict, work: Path) -> None:
    """Write one row a continuation; finished batches lie in `work`. steer: its folder, or nothing."""
    from steerlab import generations

    generations.of_cell(model, table, steer[0] if steer else None, spec, work).to_parquet(continuations, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, continuations=j.outputs["continuations"], spec=j.spec, work=j.work)
