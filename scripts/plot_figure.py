"""Plot one figure from the tables it needs, with its caption and the CSV behind it."""

import importlib
from pathlib import Path

from steerlab.job import job


def run(*, inputs: dict[str, list[Path]], figure: Path, pdf: Path, data: Path, caption: Path, spec: dict) -> None:
    """Write the figure (SVG and PDF), its rows (CSV) and its caption, filled in (RST); inputs: files by kind."""
    from steerlab.figures import captions, style
    from steerlab.figures import inputs as files

    module = importlib.import_module(spec["module"])
    table = module.table(**files.read(inputs, spec["figure"]), **spec["arguments"])
    table.to_csv(data, index=False)
    facts = {"sample_data": spec["sample_data"]} | module.facts(table, **spec["intervals"])
    caption.write_text(captions.caption(spec["caption"], facts))
    style.save(module.plot(table), figure, pdf)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(inputs=j.inputs, **j.outputs, spec=j.spec)
