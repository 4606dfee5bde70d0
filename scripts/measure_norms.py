"""Measure what steers, at the strengths that were picked, do to the norms of hidden states on dev prompts."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, steers: list[Path], choices: list[Path], norms: Path, spec: dict) -> None:
    """Write one row a steer and place as CSV. steers, choices: in the order of spec["methods"] (see `opened`).

    spec: device, dtype, attention, resamples, confidence, methods; prompts (how many, None for all) and new_tokens
    where it has them.
    """
    from steerlab.analyses import norms as of_norms
    from steerlab.analyses.steered import opened
    from steerlab.data import tables
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    steered = opened(handle, spec["methods"], steers, choices)
    prompts = tables.prompts(table, split="dev", rendering="plain", limit=spec.get("prompts"))
    how = {key: spec[key] for key in ("resamples", "confidence", "new_tokens") if key in spec}
    of_norms.norms(handle, steered, prompts, **how).to_csv(norms, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "table", "steers", "choices")}
        run(**inputs, norms=j.outputs["norms"], spec=j.spec)
