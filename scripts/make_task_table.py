"""Make the one tidy table of a task: prompts and training texts with labels, splits and character spans."""

import importlib
from pathlib import Path

from steerlab.job import job


def run(*, sources: dict[str, Path], table: Path, spec: dict) -> None:
    """Write the table of the task's module as parquet. sources: raw folder by source."""
    task = importlib.import_module(spec["module"])
    task.make_table(sources, spec["doors"], spec["settings"]).to_parquet(table, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(sources=j.inputs, table=j.outputs["table"], spec=j.spec)
