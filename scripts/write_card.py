"""Write the card of a method's steers on a task: what they edit, what they do and cost, side effects, examples."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from steerlab.job import job


def run(*, files: Mapping[str, Sequence[Path]], metrics: Path, table: Path, card: Path, page: Path, spec: dict) -> None:
    """Write Markdown and the same as HTML.

    files: steers, in the order of spec["seeds"]; choice and norms, one or none; trained_on, the table that their fits
    were given; comparisons, of all tasks; continuations, scores and answers as steerlab.metrics.cell reads them, and
    under "base_" the unsteered model's. metrics: those of the cell; table: the task's.
    """
    import pandas as pd

    from steerlab.data import tables
    from steerlab.metrics import cell
    from steerlab.report import card as cards
    from steerlab.report import markdown, saved_steers

    values, texts = [], []
    for prefix, method, seeds in (("", spec["method"], spec["seeds"]), ("base_", "base", spec["base_seeds"])):
        own = {kind: files[f"{prefix}{kind}"] for kind in ("continuations", "scores", "answers")} | {"perplexity": []}
        values.append(cell.by_prompt(own, seeds, table, {spec["metric"]: spec["scorer"]}).assign(method=method))
        if own["continuations"]:
            texts.append(tables.continuations(own["continuations"], seeds).assign(method=method))
    steers = {seed: saved_steers.saved(folder) for seed, folder in zip(spec["seeds"], files["steers"], strict=True)}
    given = pd.read_parquet(files["trained_on"][0])
    rows = tables.training_rows(files["trained_on"][0]) if "role" in given else given
    measured = cards.Measured(
        choice=json.loads(files["choice"][0].read_text()) if files["choice"] else None,
        comparisons=pd.concat(map(pd.read_csv, files["comparisons"]), ignore_index=True),
        metrics=pd.read_csv(metrics),
        norms=pd.concat(map(pd.read_csv, files["norms"])) if files["norms"] else pd.DataFrame(),
        values=pd.concat(values, ignore_index=True),
        prompts=dict(tables.prompts(table, split="test", rendering="plain")),
        continuations=pd.concat(texts, ignore_index=True) if len(texts) == 2 else pd.DataFrame(),
        trained_on=cards.training_texts(rows, steers.values()),
    )
    written = cards.of_run(spec, steers, measured)
    card.write_text(written)
    page.write_text(markdown.html(written))


if "snakemake" in globals():
    with job(snakemake) as j:
        files = {name: paths for name, paths in j.inputs.items() if name not in ("metrics", "table")}
        run(files=files, metrics=j.inputs["metrics"], table=j.inputs["table"], **j.outputs, spec=j.spec)
