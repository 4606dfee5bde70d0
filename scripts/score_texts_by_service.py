"""Score the continuations of one cell, all seeds, by a service over the network; its answers are kept for ever."""

import os
from pathlib import Path

from steerlab.job import job


def run(
    *, continuations: list[Path], table: Path, scores: Path, spec: dict, store: Path, settings: dict, quota: float
) -> None:
    """Write one row a continuation. settings: of the service, with its key; quota: requests a second."""
    from steerlab import scores as scoring
    from steerlab.data import tables
    from steerlab.scores.network import NetworkScorer

    texts = tables.continuations(continuations, spec["seeds"])
    prompts = dict(tables.prompts(table, split=spec["split"], rendering="plain"))
    scorer = NetworkScorer(scoring.load(spec["scorer"], settings=settings), store, quota=quota)
    scoring.scored(texts, scorer, prompts).to_parquet(scores, index=False)


if "snakemake" in globals():
    from steerlab.scores import services

    with job(snakemake) as j:
        name = snakemake.wildcards.service
        settings = dict(j.config["scores"][name])
        quota = settings.pop("quota")
        settings["key"] = os.environ.get(services.KEYS[name], "")
        run(**j.inputs, scores=j.outputs["scores"], spec=j.spec, store=j.store, settings=settings, quota=quota)
