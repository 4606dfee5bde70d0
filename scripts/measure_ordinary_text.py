"""Measure what steers, at the strengths that were picked, cost on ordinary text: cross-entropy and KL divergence."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, source: Path, steers: list[Path], choices: list[Path], texts: Path, spec: dict) -> None:
    """Write one row a steer and text as CSV. steers, choices: in the order of spec["methods"] (see `opened`).

    source: raw folder of the texts. spec: device, dtype, attention, door, texts (how many, None for all), tokens,
    tokens_a_batch, methods.
    """
    from steerlab.analyses import ordinary_text
    from steerlab.analyses.steered import opened
    from steerlab.data import loaders
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    there = loaders.read("ordinary_text", spec["door"], source)["text"]
    chosen = ordinary_text.chosen(list(there), spec["texts"])
    steered = opened(handle, spec["methods"], steers, choices)
    how = {key: spec[key] for key in ("tokens", "tokens_a_batch")}
    ordinary_text.ordinary_text(handle, steered, chosen, **how).to_csv(texts, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "source", "steers", "choices")}
        run(**inputs, texts=j.outputs["texts"], spec=j.spec)
