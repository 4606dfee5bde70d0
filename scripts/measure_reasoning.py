"""Measure what steers, at the strengths that were picked, do to a model's answers to multiple-choice questions."""

from pathlib import Path

from steerlab.job import job


def run(*, model: Path, source: Path, steers: list[Path], choices: list[Path], questions: Path, spec: dict) -> None:
    """Write one row a steer and question as CSV. steers, choices: in the order of spec["methods"] (see `opened`).

    source: raw folder of the questions. spec: device, dtype, attention, door, questions (how many, None for all),
    batch_rows, methods.
    """
    from steerlab.analyses import reasoning
    from steerlab.analyses.steered import opened
    from steerlab.data import loaders
    from steerlab.models import ModelHandle

    handle = ModelHandle.of(model, spec)
    chosen = reasoning.chosen(loaders.read("reasoning", spec["door"], source), spec["questions"])
    steered = opened(handle, spec["methods"], steers, choices)
    reasoning.reasoning(handle, steered, chosen, batch_rows=spec["batch_rows"]).to_csv(questions, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {name: j.inputs[name] for name in ("model", "source", "steers", "choices")}
        run(**inputs, questions=j.outputs["questions"], spec=j.spec)
