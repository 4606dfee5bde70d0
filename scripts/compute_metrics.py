"""Compute the metrics of one cell, a seed at a time and pooled, with bootstrap intervals over prompts."""

from pathlib import Path

from steerlab.job import job


def run(*, continuations: list[Path], toxicity: Path, perplexity: Path, metrics: Path, spec: dict) -> None:
    """Write one row a metric, strength and seed as CSV. continuations: one file a seed, in the order of the seeds."""
    import pandas as pd

    from steerlab.data import tables
    from steerlab.metrics import toxicity as of_toxicity

    labels = dict(spec)
    texts = tables.continuations(continuations, labels.pop("seeds"))
    scores = pd.read_parquet(toxicity), pd.read_parquet(perplexity)
    of_toxicity.metrics(texts, *scores, **labels).to_csv(metrics, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, metrics=j.outputs["metrics"], spec=j.spec)
