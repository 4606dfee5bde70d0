"""Train one classifier on a task's training rows, and predict its test rows."""

import json
from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, choice: list[Path], predictions: Path, spec: dict) -> None:
    """Write a row a test row as parquet. choice: the file that layers "picked" or "random" come from, else none."""
    import pandas as pd

    from steerlab import classifiers, layer_choices, sites
    from steerlab.data import glue
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    rows, blocks = pd.read_parquet(table), sites.number_of_layers(handle.info.config)
    picked = layer_choices.picked_layer(json.loads(choice[0].read_text()), spec["rule"]) if choice else None
    layers = layer_choices.named(spec["layers"], blocks, picked, seed=spec["seed"])
    fitted, asked = (glue.of_split(rows, split) for split in ("train", "test"))
    recipe = classifiers.Recipe.of(spec)
    found = classifiers.fit_and_predict(handle, fitted, asked, recipe, layers=layers, seed=spec["seed"])
    one = layers[0] if len(layers) == 1 else None
    where = {"layer": pd.array([one] * len(found), dtype="Int64"), "blocks": blocks}
    found.assign(**where, split=asked.split, seed=spec["seed"]).to_parquet(predictions, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**{"choice": []} | j.inputs, predictions=j.outputs["predictions"], spec=j.spec)
