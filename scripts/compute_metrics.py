"""Compute the metrics of one cell beside the unsteered model's, with bootstrap intervals over prompts."""

from pathlib import Path

from steerlab.job import job


def run(
    *,
    continuations: list[Path],
    scores: list[Path],
    perplexity: list[Path],
    table: Path,
    base_continuations: list[Path],
    base_scores: list[Path],
    base_perplexity: list[Path],
    maps: list[Path],
    metrics: Path,
    spec: dict,
) -> None:
    """Write one row a metric, setting, class of prompts and seed as CSV.

    continuations: one file a seed, in the order of spec["seeds"]; perplexity: one file a judge. Those of the unsteered
    model follow the same order, with spec["base_seeds"]; without any, the rows have no difference. maps: the file of
    the scorers' maps to Perspective's scale, or none for those that ship, where spec has "shipped_maps" (their digest),
    or for none.
    """
    from steerlab.data import tables
    from steerlab.metrics import calibrated
    from steerlab.metrics import continuations as of_continuations

    labels = dict(spec)
    seeds, base_seeds = labels.pop("seeds"), labels.pop("base_seeds")
    shipped = labels.pop("shipped_maps", None)
    known = calibrated.read_maps(*maps) if maps or shipped else {}
    texts = _texts(continuations, seeds, scores, perplexity, known)
    base = _texts(base_continuations, base_seeds, base_scores, base_perplexity, known) if base_continuations else None
    classes = tables.prompt_classes(table, split=labels["split"])
    of_continuations.metrics(texts, base, classes=classes, **labels).to_csv(metrics, index=False)


def _texts(continuations: list[Path], seeds: list[int], scores: list[Path], perplexity: list[Path], maps: dict):
    """The texts with their scores, raw and after them calibrated."""
    import pandas as pd

    from steerlab.data import tables
    from steerlab.metrics import calibrated
    from steerlab.metrics.continuations import Texts

    judged = pd.concat(map(pd.read_parquet, perplexity), ignore_index=True) if perplexity else None
    scored = calibrated.with_calibrated(pd.concat(map(pd.read_parquet, scores), ignore_index=True), maps)
    return Texts(tables.continuations(continuations, seeds), scored, judged)


if "snakemake" in globals():
    with job(snakemake) as j:
        absent = {"perplexity": [], "base_continuations": [], "base_scores": [], "base_perplexity": [], "maps": []}
        run(**(absent | j.inputs), metrics=j.outputs["metrics"], spec=j.spec)
