"""Measure how far steered models are from the unsteered one, over its own continuations of the test prompts."""

from pathlib import Path

from steerlab.job import job


def run(
    *,
    model: Path,
    table: Path,
    continuations: Path,
    steers: list[Path],
    choices: list[Path],
    divergence: Path,
    spec: dict,
) -> None:
    """Write one row a steered model and prompt as CSV. steers, choices: of those of spec["methods"] that have one.

    continuations: the unsteered model's, of which a prompt's first counts. spec: device, dtype, attention, methods (see
    steerlab.analyses.steered), renderings by method, prompts (of a class, None for all), tokens_a_batch.
    """
    import pandas as pd

    from steerlab.analyses import divergence as kl
    from steerlab.analyses.steered import Steered, opened
    from steerlab.data import tables
    from steerlab.models import ModelHandle

    def asked(rendering: str) -> dict[str, str]:
        return dict(tables.prompts(table, split="test", rendering=rendering, limit=spec["prompts"]))

    handle, prompts = ModelHandle.of(model, spec), asked("plain")
    first = pd.read_parquet(continuations).query("sample == 0").set_index("id")["tokens"]
    new = {id: list(map(int, first[id])) for id in prompts if id in first.index and len(first[id])}
    rendered = {method: asked(rendering) for method, rendering in spec["renderings"].items()}
    steered = [Steered(method, None, 0.0) for method in rendered]
    steered += opened(handle, spec["methods"], steers, choices)
    rows = kl.divergence(handle, steered, prompts, new, rendered=rendered, tokens_a_batch=spec["tokens_a_batch"])
    rows.to_csv(divergence, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        names = ("model", "table", "continuations", "steers", "choices")
        run(**{name: j.inputs[name] for name in names}, divergence=j.outputs["divergence"], spec=j.spec)
