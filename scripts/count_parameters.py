"""Count the numbers of a steer and of its model."""

from pathlib import Path

from steerlab.job import job


def run(*, steer: Path, model: Path, parameters: Path) -> None:
    """Write one row as CSV. steer, model: folders."""
    from steerlab import parameters as counts

    counts.counted([steer], [model]).to_csv(parameters, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, **j.outputs)
