"""Read an LM-Steer: its directions in words, its spectrum, what it finds in held-out texts."""

import json
from pathlib import Path

from steerlab.job import job


def run(
    *,
    model: Path,
    table: Path,
    steer: Path,
    choice: Path,
    scorers: list[Path],
    folder: Path,
    spec: dict,
    store: Path,
) -> None:
    """Write directions.csv, spectrum.csv, coordinates.csv, evidence.csv and guesses.csv into `folder`."""
    from steerlab import activations, scores
    from steerlab.analyses import reading
    from steerlab.data import tables
    from steerlab.methods import load
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    fitted = load(steer, handle, steps=json.loads(choice.read_text())["pick"]["steps"])
    judge = scores.load(*scores.chosen(spec["scorers"], scorers)[0])
    captured = activations.of_training_texts(model, table, spec, store)
    folder.mkdir(parents=True)
    found = reading.read(handle, fitted, tables.training_rows(table), captured, judge, spec)
    for name, rows in found.items():
        rows.to_csv(folder / f"{name}.csv", index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {key: value for key, value in ({"scorers": []} | j.inputs).items() if key != "activations"}
        run(**inputs, folder=j.outputs["folder"], spec=j.spec, store=j.store)
