"""Derive one steer from others: a random control, a composition, a transfer to another model."""

import importlib
import json
from pathlib import Path

from steerlab.job import job


def run(
    *,
    model: Path,
    source: Path,
    table: Path,
    steers: list[Path],
    choices: list[Path],
    steer: Path,
    spec: dict,
) -> None:
    """Save the derived steer. source: the model that `steers` were trained on; choices: of those of spec["chosen"].

    table: of the task, or where nothing is chosen of what the steer was trained on.
    """
    from steerlab import methods
    from steerlab.data import tables
    from steerlab.methods.protocol import Origin
    from steerlab.models import ModelHandle

    trained_on, picks = ModelHandle.of(source, spec), iter(choices)
    read = [json.loads(next(picks).read_text())["pick"] if chosen else None for chosen in spec["chosen"]]
    origin = Origin(
        steers={
            name: methods.load(folder, trained_on, steps=(pick["steps"] or None) if pick else None)
            for name, folder, pick in zip(spec["of"], steers, read, strict=True)
        },
        model=trained_on,
        prompts=tuple(tables.to_derive_on(table, is_chosen=read[0] is not None, texts=spec["texts"])),
        strength=read[0]["strength"] if read[0] else 1.0,
        seed=spec["seed"],
        picks={name: pick for name, pick in zip(spec["of"], read) if pick},
    )
    module, _, function = spec["derive"].partition(":")
    derive = getattr(importlib.import_module(module), function)
    derive(ModelHandle.of(model, spec), origin, **spec["hyperparameters"]).save(steer)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {"choices": []} | j.inputs
        run(**inputs | {"source": inputs["source"][0]}, steer=j.outputs["steer"], spec=j.spec)
