"""Fetch the raw files of one source through its door, verified."""

import os
from pathlib import Path

from steerlab.job import job


def run(*, folder: Path, spec: dict, mirror: str | None, environ: dict[str, str], work: Path) -> None:
    """Write the source's files into `folder`; what a cut download got so far stays in `work`."""
    from steerlab.data import doors, sources

    folder.mkdir(parents=True)
    source, at = sources.table()[spec["source"]], Path(mirror) if mirror else None
    doors.fetch(source, spec["door"], folder, mirror=at, environ=environ, parts=work)


if "snakemake" in globals():
    with job(snakemake) as j:
        mirror = j.config["data"]["mirror"]
        run(folder=j.outputs["folder"], spec=j.spec, mirror=mirror, environ=dict(os.environ), work=j.work)
