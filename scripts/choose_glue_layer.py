"""Choose the layer of an intervention by what the sweep predicted for the dev rows."""

from pathlib import Path

from steerlab.job import job


def run(*, predictions: Path, choice: Path, spec: dict) -> None:
    """Write the candidates and each rule's pick as JSON."""
    import pandas as pd

    from steerlab import layer_choices, store
    from steerlab.metrics import glue

    swept = pd.read_parquet(predictions)
    scores = glue.by_layer(swept, spec["metric"])
    found = layer_choices.by_validation(scores, int(swept.blocks.iloc[0]))
    about = {"metric": spec["metric"], "rows": int(swept.groupby(["layer", "seed"]).size().iloc[0])}
    store.write_json(choice, found | about | {"seeds": sorted(map(int, swept.seed.unique()))})


if "snakemake" in globals():
    with job(snakemake) as j:
        run(predictions=j.inputs["predictions"], choice=j.outputs["choice"], spec=j.spec)
