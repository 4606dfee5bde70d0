"""Choose the block that a method adapts, from the dev metrics of its variants that adapt one block each."""

from pathlib import Path

from steerlab.job import job


def run(*, metrics: list[Path], model: Path, choice: Path, spec: dict) -> None:
    """Write the candidates and the picks as JSON. metrics: a table a variant; model: the folder of the model, whose
    depth is asked; spec: the other keywords of steerlab.layer_choices.by_sweep."""
    import pandas as pd

    from steerlab import layer_choices, sites, store
    from steerlab.models import ModelHandle

    tables = pd.concat([pd.read_csv(path, dtype={"seed": str}) for path in metrics], ignore_index=True)
    depth = sites.number_of_layers(ModelHandle(model).info.config)
    store.write_json(choice, layer_choices.by_sweep(tables, **spec, model_layers=depth))


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, choice=j.outputs["choice"], spec=j.spec)
