"""Correlate the layers of a model with readers' eye movements, layer by layer and feature by feature."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, curves: Path, spec: dict) -> None:
    """Write one row a corpus, measure, feature and layer as CSV.

    spec: device, dtype, attention, batch_sentences, permutations, resamples, confidence.
    """
    import pandas as pd

    from steerlab.analyses import eye_tracking
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    how = {key: spec[key] for key in ("batch_sentences", "permutations", "resamples", "confidence")}
    eye_tracking.eye_tracking(handle, pd.read_parquet(table), **how).to_csv(curves, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, curves=j.outputs["curves"], spec=j.spec)
