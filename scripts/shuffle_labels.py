"""Shuffle the labels of a task's texts: what a control learns from that is to learn nothing."""

from pathlib import Path

from steerlab.job import job


def run(*, table: Path, shuffled: Path) -> None:
    """Write the table with other labels, and all else as it is."""
    import pandas as pd

    from steerlab.data import shuffled as labels

    labels.with_shuffled_labels(pd.read_parquet(table)).to_parquet(shuffled, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(table=j.inputs["table"], shuffled=j.outputs["shuffled"])
