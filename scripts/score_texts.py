"""Score the continuations of one cell, all seeds, by every scorer of texts."""

from pathlib import Path

from steerlab.job import job
from steerlab.store import WHOLE, Share


def run(
    *,
    continuations: list[Path],
    table: Path,
    scorers: list[Path],
    scores: Path,
    spec: dict,
    work: Path,
    share: Share = WHOLE,
) -> None:
    """Write one row a scorer and continuation; a classifier's finished slices lie in `work`.

    scorers: folders of those of spec["scorers"] that are prepared; share: those of the slices that are asked for.
    """
    from steerlab import scores as scoring
    from steerlab.data import tables

    texts = tables.continuations(continuations, spec["seeds"])
    prompts = dict(tables.prompts(table, split=spec["split"], rendering="plain"))
    chosen = scoring.chosen(spec["scorers"], scorers)
    scoring.texts(texts, chosen, prompts, work=work, share=share).to_parquet(scores, index=False)


if "snakemake" in globals():
    with job(snakemake) as j:
        inputs = {"scorers": []} | j.inputs
        run(**inputs, scores=j.outputs["scores"], spec=j.spec, work=j.work, share=j.share)
