"""Fetch the raw files of one source through its door, verified."""

import os
from pathlib import Path

from steerlab.job import job


def run(*, folder: Path, spec: dict, mirror: str | None, environ: dict[str, str]) -> None:
    """Write the source's files into `folder`."""
    from steerlab.data import doors, sources

    folder.mkdir(parents=True)
    source = sources.table()[spec["source"]]
    doors.fetch(source, spec["door"], folder, mirror=Path(mirror) if mirror else None, environ=environ)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(folder=j.outputs["folder"], spec=j.spec, mirror=j.config["data"]["mirror"], environ=dict(os.environ))
