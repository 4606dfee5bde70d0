"""Choose a layer of a model by how its layers go with readers' eye movements."""

from pathlib import Path

from steerlab.job import job


def run(*, curves: Path, choice: Path, spec: dict) -> None:
    """Write the candidates and the picks as JSON. spec: model, its name."""
    import pandas as pd

    from steerlab import layer_choices, store

    store.write_json(choice, {"model": spec["model"]} | layer_choices.by_reading(pd.read_csv(curves)))


if "snakemake" in globals():
    with job(snakemake) as j:
        run(curves=j.inputs["curves"], choice=j.outputs["choice"], spec=j.spec)
