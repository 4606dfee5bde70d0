"""Evaluate the probes that picked an HPR steer's layers on the answers to test questions."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, steer: Path, accuracies: Path, spec: dict, store: Path) -> None:
    """Write one row a layer as CSV. spec: as of capture_activations, with "splits" the test split alone."""
    from steerlab import activations, methods
    from steerlab.analyses import probes
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    captured = activations.of_training_texts(model, table, spec, store)
    data = activations.labelled_texts(handle.info.tokenizer, table, spec["splits"])
    rows = activations.select(handle.info.tokenizer, list(data["text"]), spec["positions"], list(data["start"]))
    intervals = {key: spec[key] for key in ("resamples", "confidence")}
    found = probes.accuracies(methods.load(steer, handle), data, rows, captured, **intervals)
    found.to_csv(accuracies, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "table", "steer")}
        run(**inputs, accuracies=j.outputs["accuracies"], spec=j.spec, store=j.store)
