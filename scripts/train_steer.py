"""Train one steer: a method on a task with a seed, from activations in the store, or through a reader of states."""

import json
from pathlib import Path

from steerlab.job import job


def run(
    *,
    model: Path,
    table: Path,
    steer: Path,
    spec: dict,
    store: Path,
    layer: list[Path] | None = None,
    reader: list[Path] | None = None,
    resumed: dict | None = None,
) -> None:
    """Fit the steer and save its folder. layer: the choice whose pick by `layer_rule` the fit is told, one or none.

    reader: that through which it is trained, one or none; the table is then that of a control, and resumed holds
    `checkpoints` and `checkpoint_every`, which change no bytes.
    """
    import pandas as pd

    from steerlab import activations, methods
    from steerlab.models import ModelHandle

    steer_class = methods.load_class(spec["steer"])
    captured = activations.of_training_texts(model, table, spec, store) if spec["site"] else None
    handle = ModelHandle.of(model, spec)
    if reader:
        data, told = pd.read_parquet(table), {"reader": reader[0]} | (resumed or {})
    else:
        data = activations.labelled_texts(handle.info.tokenizer, table)
        # Read as plain data: no steer that is told no layer is to depend on the code that chooses layers.
        told = {"picked": json.loads(layer[0].read_text())["picks"][spec["layer_rule"]]} if layer else {}
    steer_class.fit(handle, data, captured, seed=spec["seed"], **spec["hyperparameters"], **told).save(steer)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "table", "layer", "reader") if name in j.inputs}
        resumed = {"checkpoints": j.work, "checkpoint_every": j.config["latentqa"]["checkpoint_every"]}
        run(**inputs, steer=j.outputs["steer"], spec=j.spec, store=j.store, resumed=resumed)
