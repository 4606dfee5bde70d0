"""Count the flagged states that a SLIM steer's maps bring to the wished side, of fitted rows and of test ones."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, steer: Path, coverage: Path, spec: dict, store: Path) -> None:
    """Write one row a head and part as CSV. spec: by part, as of capture_activations; the steer's seed and held_out."""
    from steerlab import activations, methods
    from steerlab.analyses import coverage as analysis
    from steerlab.data.splits import fitted_and_judging
    from steerlab.models import ModelHandle

    parts = {}
    for name in ("fitted", "test"):
        here = spec[name]
        handle = ModelHandle.of(model, here)
        data = activations.labelled_texts(handle.info.tokenizer, table, here["splits"])
        fitted, _ = fitted_and_judging(data, spec["seed"], spec["held_out"])
        places = fitted if name == "fitted" else range(len(data))
        parts[name] = analysis.Part(data, activations.of_training_texts(model, table, here, store), places)
    intervals = {key: spec[key] for key in ("resamples", "confidence")}
    analysis.coverage(methods.load(steer, handle), parts, **intervals).to_csv(coverage, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "table", "steer")}
        run(**inputs, coverage=j.outputs["coverage"], spec=j.spec, store=j.store)
