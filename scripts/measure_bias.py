"""Measure how likely a model, as it is, instructed and steered, finds the two sentences of each pair."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, pairs: Path, spec: dict, steers: list[Path] | None = None) -> None:
    """Write one row a method, strength and pair as CSV. steers: of the methods that have strengths, in their order.

    spec: device, dtype, attention, asked (method, rendering and strengths, none for the model as it is), seed,
    tokens_a_batch.
    """
    import pandas as pd

    from steerlab import methods
    from steerlab.analyses import bias
    from steerlab.analyses.steered import Steered
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    given, folders, parts = pd.read_parquet(table), iter(steers or []), []
    for each in spec["asked"]:
        rows = given[given["rendering"] == each["rendering"]]
        steer = methods.load(next(folders), handle) if each["strengths"] else None
        for strength in each["strengths"] or [0.0]:
            one = Steered(each["method"], steer, strength)
            parts.append(bias.bias(handle, one, rows, tokens_a_batch=spec["tokens_a_batch"]))
    pd.concat(parts, ignore_index=True).assign(seed=spec["seed"]).to_csv(pairs, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "table", "steers") if name in j.inputs}
        run(**inputs, pairs=j.outputs["pairs"], spec=j.spec)
