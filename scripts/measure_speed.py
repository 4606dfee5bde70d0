"""Measure what steers cost in time: seconds a new token beside the unsteered model's, seconds of training."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, table: Path, steers: list[Path], choices: list[Path], speed: Path, spec: dict) -> None:
    """Write one row a steered model as CSV. steers, choices: of those of spec["methods"] that have one.

    spec: device, dtype, attention, methods (see steerlab.analyses.steered), renderings by method, tokens, rows, turns.
    """
    from steerlab.analyses import speed as times
    from steerlab.analyses.steered import Steered, opened
    from steerlab.data import tables
    from steerlab.models import ModelHandle

    def asked(rendering: str) -> list[tuple[str, str]]:
        first = tables.prompts(table, split="test", rendering=rendering)[: spec["rows"]]
        return [(id, text[-times.CHARACTERS :]) for id, text in first]

    handle = ModelHandle.of(model, spec)
    rendered = {method: asked(rendering) for method, rendering in spec["renderings"].items()}
    steered = [Steered(method, None, 0.0) for method in rendered]
    steered += opened(handle, spec["methods"], steers, choices)
    trained = {one["method"]: times.seconds_of(folder) for one, folder in zip(spec["methods"], steers, strict=True)}
    for one in spec["methods"]:  # of several methods at once, all of whose parts had to be trained
        trained[one["method"]] += sum(trained[part] for part in one.get("parts", []))
    how = {"tokens": spec["tokens"], "turns": spec["turns"], "rendered": rendered, "trained_in": trained}
    times.speed(handle, steered, asked("plain"), **how).to_csv(speed, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "table", "steers", "choices")}
        run(**inputs, speed=j.outputs["speed"], spec=j.spec)
