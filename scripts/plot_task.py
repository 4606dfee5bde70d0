"""Plot the figure of one task from the metrics of all methods, and write the CSV behind it."""

from pathlib import Path

from steerlab.job import job


def run(*, metrics: list[Path], figure: Path, data: Path) -> None:
    """Write the figure as SVG and its rows as CSV."""
    import pandas as pd

    from steerlab.figures import style, toxicity

    table = pd.concat([pd.read_csv(path) for path in metrics], ignore_index=True)
    toxicity.drawn(table).to_csv(data, index=False)
    style.save(toxicity.plot(table), figure)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(metrics=j.inputs["metrics"], figure=j.outputs["figure"], data=j.outputs["data"])
