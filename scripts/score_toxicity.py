"""Score the toxicity of the continuations of one cell, all seeds."""

from pathlib import Path

from steerlab.job import job


def run(*, continuations: list[Path], scores: Path, spec: dict) -> None:
    """Write one row a continuation. continuations: one file a seed, in the order of spec["seeds"]."""
    from steerlab import scores as scoring
    from steerlab.data import tables

    texts = tables.continuations(continuations, spec["seeds"])
    scoring.toxicity(texts, spec["scorer"]).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(continuations=j.inputs["continuations"], scores=j.outputs["scores"], spec=j.spec)
