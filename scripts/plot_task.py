"""Plot the figure of one task from the metrics of all methods, with its caption and the CSV behind it."""

from pathlib import Path

from steerlab.job import job


def run(*, metrics: list[Path], figure: Path, data: Path, caption: Path, spec: dict) -> None:
    """Write the figure as SVG, its rows as CSV and its caption, filled in, as reStructuredText."""
    import pandas as pd

    from steerlab.figures import captions, style, toxicity

    table = pd.concat([pd.read_csv(path, dtype={"seed": str}) for path in metrics], ignore_index=True)
    table.to_csv(data, index=False)
    caption.write_text(captions.caption(spec["caption"], table, confidence=spec["confidence"]))
    style.save(toxicity.plot(table), figure)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(metrics=j.inputs["metrics"], **j.outputs, spec=j.spec)
