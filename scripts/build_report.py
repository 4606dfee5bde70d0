"""Build the page: every figure with its caption and table, the audit by people, the costs, cards, the configuration."""

from pathlib import Path

from steerlab.job import job


def run(
    *,
    figures: list[Path],
    tables: list[Path],
    agreement: list[Path],
    cards: list[Path],
    results: Path,
    page: Path,
    spec: dict,
) -> None:
    """Write one HTML file. figures: SVG files with .csv and .rst beside them; tables: of the tasks; agreement: one of
    people and scorers, or none; cards: of steers, <model>/<method>/<task>.html below the page's folder; results: where
    the sidecars lie."""
    import pandas as pd
    import yaml

    from steerlab import reference
    from steerlab.report import audit, card, costs
    from steerlab.report import cards as of_sources
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
        cards={
            "Data": of_sources.sources(spec["data"], {path.stem: pd.read_parquet(path) for path in tables}),
            "Models": of_sources.named(spec["models"]),
            "Scorers": of_sources.named(spec["scorers"]),
            "Papers": of_sources.papers(reference.papers()),
        },
        not_run=spec["not_run"],
        steers=[(card.named(path), path.relative_to(page.parent).as_posix()) for path in cards],
        sections=audit.sections(spec["pairs"], [pd.read_csv(path) for path in agreement]),
    )
    page.write_text(html)


if "snakemake" in globals():
    with job(snakemake) as j:
        page = j.outputs["page"]  # results/report/<temporary name>
        asked = {name: j.inputs[name] for name in ("figures", "tables", "agreement", "cards")}
        run(**asked, results=page.parents[1], page=page, spec=j.spec)
