"""Build the page: every figure with its caption and table, the costs, the sources, the configuration."""

from pathlib import Path

from steerlab.job import job


def run(*, figures: list[Path], results: Path, page: Path, spec: dict) -> None:
    """Write one HTML file. figures: SVG files with .csv and .rst beside them; results: where the sidecars lie."""
    import yaml

    from steerlab.report import costs
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
    )
    page.write_text(html)


if "snakemake" in globals():
    with job(snakemake) as j:
        page = j.outputs["page"]  # results/report/<temporary name>
        run(figures=j.inputs["figures"], results=page.parents[1], page=page, spec=j.spec)
