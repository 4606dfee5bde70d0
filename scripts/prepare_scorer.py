"""Prepare a scorer's folder: the files it is loaded from, and scorer.json with its name and version."""

from pathlib import Path

from steerlab.job import job


def run(*, source: list[Path], folder: Path, spec: dict, mirror: str | None = None) -> None:
    """Write the scorer folder. source: what it is made from, or nothing; spec: scorer (path), perhaps a definition."""
    from steerlab import scores

    of_hub = Path(mirror) if mirror and "repo" in spec.get("definition", {}) else None
    made_of = source[0] if source else of_hub
    scores.prepare(spec["scorer"], folder, source=made_of, definition=spec.get("definition"))


if "snakemake" in globals():
    with job(snakemake) as j:
        mirror = j.config["data"]["mirror"]
        run(source=j.inputs["source"], folder=j.outputs["folder"], spec=j.spec, mirror=mirror)
