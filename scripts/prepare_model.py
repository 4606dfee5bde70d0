"""Prepare a model folder: safetensors, tokenizer, and model.json with its revision."""

from pathlib import Path

from steerlab.job import job


def run(*, source: list[Path], folder: Path, spec: dict) -> None:
    """Write the model folder. source: what it is made from, for a GGUF file its raw folder."""
    from steerlab import models

    file = next(source[0].glob("*.gguf")) if spec["definition"]["kind"] == "gguf" else None
    models.prepare(spec["definition"], folder, name=spec["name"], source=file)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(source=j.inputs["source"], folder=j.outputs["folder"], spec=j.spec)
