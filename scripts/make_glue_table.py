"""Make the one tidy table of a GLUE task: texts or pairs with labels, in training, dev and test rows."""

from pathlib import Path

from steerlab.job import job


def run(*, source: Path, table: Path, spec: dict) -> None:
    """Write the table as parquet. source: the raw folder."""
    from steerlab.data import glue

    glue.make_table(spec["task"], spec["door"], source, spec["rows"]).to_parquet(table, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(source=j.inputs["source"], table=j.outputs["table"], spec=j.spec)
