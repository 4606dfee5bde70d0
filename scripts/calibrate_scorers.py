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
    from steerlab import scores
    from steerlab.analyses import calibration
    from steerlab.data import loaders

    folders = {"scored_continuations": scored_continuations, "scored_comments": scored_comments}
    texts = {name: loaders.scored(name, spec["doors"][name], folder)[0] for name, folder in folders.items()}
    continuations, comments = texts.values()
    continuations = continuations.assign(fitted=calibration.halves(continuations))
    judges = scores.chosen(spec["scorers"], scorers)
    judged = [scores.texts(rows.drop(columns="prompt"), judges) for rows in (continuations, comments)]
    found = calibration.calibrate(*judged, resamples=spec["resamples"], confidence=spec["confidence"])
    found.statistics.to_csv(statistics, index=False)
    found.reliability.to_csv(reliability, index=False)
    calibration.write_maps(found.maps, maps)


if "snakemake" in globals():
    with job(snakemake) as j:
        run(**{"scorers": []} | j.inputs, **j.outputs, spec=j.spec)
