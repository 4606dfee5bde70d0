"""Prepare a scorer's folder: the files it is loaded from, and scorer.json with its name and version."""

from pathlib import Path

from steerlab.job import job


def run(*, source: list[Path], folder: Path, spec: dict) -> None:
    """Write the scorer folder. source: the raw folder it is made from, or nothing; spec: scorer (path)."""
    from steerlab import scores

    scores.prepare(spec["scorer"], folder, source=source[0] if source else None)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(source=j.inputs["source"], folder=j.outputs["folder"], spec=j.spec)
