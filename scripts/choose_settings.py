"""Choose a steer's strength and training steps from the metrics of dev prompts."""

from pathlib import Path

from steerlab.job import job


def run(*, metrics: Path, choice: Path, spec: dict) -> None:
    """Write the candidates and the pick as JSON. spec: the keywords of steerlab.choices.choose."""
    import pandas as pd

    from steerlab import choices, store

    store.write_json(choice, choices.choose(pd.read_csv(metrics, dtype={"seed": str}), **spec))


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**j.inputs, choice=j.outputs["choice"], spec=j.spec)
