"""Train one steer: a method on a task with a seed, from activations that are already in the store."""

import json
from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, steer: Path, spec: dict, store: Path, layer: list[Path] | None = None) -> None:
    """Fit the steer and save its folder. layer: the choice whose pick by `layer_rule` the fit is told, one or none."""
    from steerlab import activations, methods
    from steerlab.models import ModelHandle

    steer_class = methods.load_class(spec["steer"])
    captured = activations.of_training_texts(model, table, spec, store) if spec["site"] else None
    handle = ModelHandle(model, device=spec["device"], dtype=spec["dtype"], attention=spec["attention"])
    data = activations.labelled_texts(handle.info.tokenizer, table)
    # Read as plain data: no steer that is told no layer is to depend on the code that chooses layers.
    told = {"picked": json.loads(layer[0].read_text())["picks"][spec["layer_rule"]]} if layer else {}
    steer_class.fit(handle, data, captured, seed=spec["seed"], **spec["hyperparameters"], **told).save(steer)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {"layer": []} | {name: j.inputs[name] for name in ("model", "table", "layer") if name in j.inputs}
        run(**inputs, steer=j.outputs["steer"], spec=j.spec, store=j.store)
