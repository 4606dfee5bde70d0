"""Capture the activations of a task's training texts at one site of every block."""

import json
from pathlib import Path

from steerlab.job import job
from steerlab.store import WHOLE, Share


def run(*, model: Path, table: Path, manifest: Path, spec: dict, store: Path, share: Share = WHOLE) -> None:
    """Fill the store and write the manifest that names what is there. share: those of its files that are asked for."""
    from steerlab import activations

    captured = activations.of_training_texts(model, table, spec, store, share)
    shards = [str(path.relative_to(store)) for path in captured.files]
    about = {"site": captured.site, "layers": len(captured.layers_captured), "shards": shards}
    manifest.write_text(json.dumps(about, indent=1) + "\n")


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs, w = {name: j.inputs[name] for name in ("model", "table")}, snakemake.wildcards
        first, *others = j.config.get("together", {}).get(f"{w.model}/{w.task}") or [None]
        also = {"together": others} if first == [w.site, w.positions] and w.part == "fitted" else {}
        run(**inputs, manifest=j.outputs["manifest"], spec=j.spec | also, store=j.store, share=j.share)
