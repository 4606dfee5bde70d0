"""Calibrate the local toxicity scorers to Perspective's scores, and measure how far they agree."""

from pathlib import Path

from steerlab.job import job


def run(
    *,
    scored_continuations: Path,
    scored_comments: Path,
    scorers: list[Path],
    statistics: Path,
    reliability: Path,
    maps: Path,
    spec: dict,
) -> None:
    """Write the statistics and the bins as CSV, the maps as JSON.

    scored_continuations, scored_comments: raw folders; scorers: folders of those of spec["scorers"] that are prepared.
    """
    import pandas as pd

    from steerlab import scores
    from steerlab.analyses import calibration
    from steerlab.data import loaders
    from steerlab.metrics import calibrated

    folders = {"scored_continuations": scored_continuations, "scored_comments": scored_comments}
    texts = {name: loaders.scored(name, spec["doors"][name], folder)[0] for name, folder in folders.items()}
    fitted = calibration.halves(texts["scored_continuations"])
    texts["scored_continuations"] = texts["scored_continuations"].assign(fitted=fitted)
    both = pd.concat(rows.drop(columns="prompt").assign(corpus=name) for name, rows in texts.items())
    judged = scores.texts(both, scores.chosen(spec["scorers"], scorers))
    by_corpus = [judged[judged["corpus"] == name] for name in folders]
    found = calibration.calibrate(*by_corpus, resamples=spec["resamples"], confidence=spec["confidence"])
    found.statistics.to_csv(statistics, index=False)
    found.reliability.to_csv(reliability, index=False)
    calibrated.write_maps(found.maps, maps)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**{"scorers": []} | j.inputs, **j.outputs, spec=j.spec)
