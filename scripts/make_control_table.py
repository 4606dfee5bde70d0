"""Make the table that a control is learnt from: dialogs, each with what a reader is wished to answer about them."""

from pathlib import Path

from steerlab.job import job


def run(*, sources: dict[str, Path], own: list[Path], table: Path, spec: dict) -> None:
    """Write the table as parquet. sources: raw folder by source; own: the user's files of wishes, in their order."""
    from steerlab.tasks import control

    control.make_table(sources, spec["doors"], spec["settings"], own).to_parquet(table, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        sources = {name: j.inputs[name][0] for name in j.spec["doors"]}
        run(sources=sources, own=j.inputs.get("own", []), table=j.outputs["table"], spec=j.spec)
