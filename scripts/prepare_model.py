"""Prepare a model folder: safetensors, tokenizer, and model.json with its revision."""

from pathlib import Path

from steerlab.job import job


def run(*, source: list[Path], folder: Path, spec: dict, mirror: str | None = None) -> None:
    """Write the model folder. source: what it is made from; a GGUF file's raw folder, or another model's folder."""
    from steerlab import models

    of_hub = Path(mirror) if mirror and spec["definition"]["kind"] == "hub" else None
    made_of = source[0] if spec["definition"]["kind"] in ("gguf", "rotated") else of_hub
    models.prepare(spec["definition"], folder, name=spec["name"], source=made_of)


if "snakemake" in globals():
    with job(snakemake) as j:
        mirror = j.config["data"]["mirror"]
        run(source=j.inputs["source"], folder=j.outputs["folder"], spec=j.spec, mirror=mirror)
