"""Score the official code's continuations, two steers composed, and count what they show."""

from pathlib import Path

from steerlab.job import job


def run(*, source: Path, scorers: list[Path], grid: Path, spec: dict) -> None:
    """Write one row a setting, metric and scorer as CSV. source: the raw folder of official_generations."""
    from steerlab import scores
    from steerlab.data import loaders
    from steerlab.metrics.grid import official_grid

    texts = loaders.official_generations(next(source.glob("*.jsonl.gz")))
    prompts = dict(zip(texts["id"], texts["prompt"]))
    judged = scores.texts(texts.drop(columns="prompt"), scores.chosen(spec["scorers"], scorers), prompts)
    intervals = {key: spec[key] for key in ("resamples", "confidence")}
    official_grid(judged, texts, **intervals).to_csv(grid, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {"scorers": []} | j.inputs
        run(**inputs, grid=j.outputs["grid"], spec=j.spec)
