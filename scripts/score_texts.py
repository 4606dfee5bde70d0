"""Score the continuations of one cell, all seeds, by every scorer of texts."""

from pathlib import Path

from steerlab.job import job


def run(*, continuations: list[Path], table: Path, scorers: list[Path], scores: Path, spec: dict) -> None:
    """Write one row a scorer and continuation. scorers: folders of those of spec["scorers"] that are prepared."""
    from steerlab import scores as scoring
    from steerlab.data import tables

    texts = tables.continuations(continuations, spec["seeds"])
    prompts = dict(tables.prompts(table, split=spec["split"], rendering="plain"))
    scoring.texts(texts, scoring.chosen(spec["scorers"], scorers), prompts).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**{"scorers": []} | j.inputs, scores=j.outputs["scores"], spec=j.spec)
