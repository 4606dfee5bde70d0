"""Build the page: every figure with its caption and table, the costs, the sources, the configuration."""

from collections.abc import Sequence
from pathlib import Path

from steerlab.job import job


def run(*, figures: list[Path], results: Path, page: Path, spec: dict, cards: Sequence[Path] = ()) -> None:
    """Write one HTML file. figures: SVG files with .csv and .rst beside them; results: where the sidecars lie; cards:
    of steers, <model>/<method>/<task>.html below the page's folder."""
    import yaml

    from steerlab.report import card, costs
    from steerlab.report import page as report

    config, groups = spec["config"], spec["groups"]
    provenance = {
        "Run": {key: config[key] for key in ("device", "dtype", "attention", "threads")},
        "Versions": costs.versions(results),
    }
    html = report.build(
        [
            report.figure(path, title=f"{path.stem.replace('_', ' ')}, {path.parent.name}", group=groups[path.stem])
            for path in figures
        ],
        costs=costs.collect(results),
        provenance=provenance,
        config=yaml.safe_dump(config, sort_keys=False),
        sources=spec["sources"],
        not_run=spec["not_run"],
        cards=[(card.named(path), path.relative_to(page.parent).as_posix()) for path in cards],
    )
    page.write_text(html)


if "snakemake" in globals():
    with job(snakemake) as j:
        page = j.outputs["page"]  # results/report/<temporary name>
        inputs = {name: j.inputs[name] for name in ("figures", "cards")}
        run(**inputs, results=page.parents[1], page=page, spec=j.spec)
