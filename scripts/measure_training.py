"""Measure seconds a step and memory of training the head alone, the picked layer and all layers."""

import json
from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, choices: list[Path], costs: Path, spec: dict) -> None:
    """Write a row an intervention and its layers as CSV. choices: a file an intervention, in their order."""
    import pandas as pd

    from steerlab import layer_choices, measure, sites
    from steerlab.data import glue
    from steerlab.models import ModelHandle

    where = {
        key: spec["fitted"]["head"][key]
        for key in ("device", "dtype", "attention", "cards")
        if key in spec["fitted"]["head"]
    } | {"folder": model}
    blocks = sites.number_of_layers(ModelHandle(model).info.config)
    settings: list = [("none", [], spec["fitted"]["head"])]
    for intervention, path in zip(spec["interventions"], choices, strict=True):
        picked = layer_choices.picked_layer(json.loads(path.read_text()), spec["rule"])
        for name in ("picked", "all"):
            layers = layer_choices.named(name, blocks, picked)
            settings.append((name, layers, spec["fitted"][intervention]))
    rows = glue.of_split(pd.read_parquet(table), "train")
    measure.training_cost(where, rows, settings, steps=spec["steps"]).to_csv(costs, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, costs=j.outputs["costs"], spec=j.spec)
