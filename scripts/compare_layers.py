"""Compare a task's classifiers: one layer's intervention against another layer's, all layers' and the head alone."""

from pathlib import Path

from steerlab.job import job


def run(*, swept: list[Path], trained: list[Path], metrics: Path, spec: dict) -> None:
    """Write the metric of every classifier as CSV: dev rows of the sweeps, test rows of the others."""
    import pandas as pd

    from steerlab.metrics import glue

    about = {"model": spec["model"], "task": spec["task"]}
    frames = []
    for path in swept:  # .../<intervention>/<task>/dev/layers.parquet
        frames.append(pd.read_parquet(path).assign(intervention=path.parts[-4], layers="swept", **about))
    for path in trained:  # .../<intervention>/<task>/test/<layers>/<seed>.parquet
        of = {"intervention": path.parts[-5], "layers": path.parts[-2]}
        frames.append(pd.read_parquet(path).assign(**of, **about))
    found = pd.concat([frame.astype({"layer": "Int64"}) for frame in frames], ignore_index=True)
    intervals = {key: spec[key] for key in ("resamples", "confidence")}
    glue.table(found, spec["metric"], **intervals).to_csv(metrics, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**{"swept": []} | j.inputs, metrics=j.outputs["metrics"], spec=j.spec)
