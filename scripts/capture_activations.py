"""Capture the activations of a task's training texts at one site of every block."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, manifest: Path, spec: dict, store: Path) -> None:
    """Fill the store's shards and write the manifest that names them."""
    from steerlab import activations
    from steerlab.store import write_json

    captured = activations.of_training_texts(model, table, spec, store)
    shards = [str(path.relative_to(store)) for path in captured.files]
    write_json(manifest, {"site": captured.site, "layers": captured.number_of_layers, "shards": shards})


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, manifest=j.outputs["manifest"], spec=j.spec, store=j.store)
