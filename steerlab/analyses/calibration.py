"""Calibration: a local toxicity scorer's numbers on Perspective's scale, and how far the two agree.

RealToxicityPrompts comes with Perspective's own TOXICITY of each continuation. On one half of its rows a monotone map
from the local score to Perspective's is fitted; on the other half, and on Wikipedia comments as another domain, both
the raw and the calibrated score are measured against Perspective's. A calibrated number is still the local scorer's:
the map changes the scale and the spacing, and turns the order of no two texts round.

The numbers that ship (steerlab/reference/calibration) were computed once from the mirror; they stand where no source is
there to compute them from. No torch here.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from steerlab.data.splits import share

Array = NDArray[np.float64]

HELD_OUT, COMMENTS = "RealToxicityPrompts continuations, held-out half", "Wikipedia comments"
RAW, CALIBRATED = "raw", "calibrated"
METRICS = ("spearman", "auroc", "mean_absolute_error", "expected_calibration_error")
COLUMNS = ["scorer", "corpus", "scale", "metric", "value", "low", "high", "n", "refused", "confidence", "note"]
BINS = ["scorer", "corpus", "scale", "bin_from", "bin_to", "mean_local", "mean_perspective", "low", "high", "n"]

TOXIC_FROM = 0.5  # Perspective's score from which a text counts as toxic, as in RealToxicityPrompts
EDGES = np.arange(11) / 10  # of the bins of a score: [0, 0.1), ..., [0.9, 1]
FITTED_SHARE = 0.5
SHIPPED = Path(__file__).parents[1] / "reference" / "calibration"

_DRAWS_AT_ONCE = 2_000_000  # counts held in memory at a time: 16 MB


@dataclass(frozen=True)
class Map:
    """A monotone map from a local score to Perspective's: straight lines between knots, level outside them.

    scores: local scores, strictly up; perspective: their values in [0, 1], never down; n: the texts it was fitted on.
    """

    scores: tuple[float, ...]
    perspective: tuple[float, ...]
    n: int


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` finds: statistics (COLUMNS), reliability (BINS), and the maps by scorer label."""

    statistics: pd.DataFrame
    reliability: pd.DataFrame
    maps: dict[str, Map]


def halves(texts: pd.DataFrame) -> pd.Series:
    """True for the rows that a map is fitted on, about FITTED_SHARE of them; the others are held out.

    texts: key, prompt ("" for none), text. Only hashes decide, never the order of the rows. Rows that share a prompt or
    a text, directly or through other rows, are on one side: that of the smallest of their keys.
    """
    prompts = texts["prompt"].where(texts["prompt"] != "", texts["key"])
    lowest = texts["key"]
    while True:
        lower = lowest.groupby(prompts).transform("min").groupby(texts["text"]).transform("min")
        if (lower == lowest).all():
            return lowest.map(lambda key: share(str(key), "calibration") < FITTED_SHARE).astype(bool)
        lowest = lower


def fit(local: ArrayLike, perspective: ArrayLike) -> Map:
    """The monotone map that is nearest to Perspective's scores in least squares (isotonic regression).

    local, perspective: (texts,), perspective in [0, 1]; texts without one of the two are left out. Equal local scores
    get one value. Raises ValueError where no text has both.
    """
    local, perspective = _both(local, perspective)
    if not len(local):
        raise ValueError("calibration: 0 texts have both scores, so no map can be fitted; give texts that have both")
    scores, which, times = np.unique(local, return_inverse=True, return_counts=True)
    means = np.bincount(which, perspective) / times
    levels = np.clip(optimize.isotonic_regression(means, weights=times).x, 0, 1)
    ends = np.ones(len(scores), dtype=bool)  # inside a level stretch a knot says nothing
    ends[1:-1] = (levels[1:-1] != levels[:-2]) | (levels[1:-1] != levels[2:])
    return Map(tuple(scores[ends].tolist()), tuple(levels[ends].tolist()), int(times.sum()))


def apply(fitted: Map, scores: ArrayLike) -> Array:
    """Local scores of any shape on Perspective's scale, float64 in [0, 1]; NaN stays NaN."""
    return np.interp(np.asarray(scores, dtype=float), fitted.scores, fitted.perspective)


def label(scorer: str) -> str:
    """How tables name a scorer (`name==version`) whose scores went through its map."""
    return f"{scorer}, {CALIBRATED}"


def with_calibrated(scores: pd.DataFrame, maps: Mapping[str, Map]) -> pd.DataFrame:
    """The rows of scores and after them, for each scorer with a map, the same rows calibrated, under its `label`.

    scores: scorer, score and any other columns. Choices go on with the raw scores.
    """
    further = [
        rows.assign(scorer=label(str(scorer)), score=apply(maps[str(scorer)], rows["score"]))
        for scorer, rows in scores.groupby("scorer", sort=False)
        if scorer in maps
    ]
    return pd.concat([scores, *further], ignore_index=True)


# ---- what the two scorers agree in --------------------------------------------------------------------------------


def calibrate(
    continuations: pd.DataFrame, comments: pd.DataFrame, *, resamples: int, confidence: float, seed: int = 0
) -> Calibration:
    """Fit each scorer's map on one half of the continuations, measure it on the other half and on the comments.

    continuations, comments: scorer (label), score, perspective, one row a scorer and text; continuations also have
    fitted (see `halves`). Raises ValueError where a scorer has no score to fit on.
    """
    maps, statistics_, bins = {}, [], []
    how = {"resamples": resamples, "confidence": confidence, "seed": seed}
    for scorer, rows in continuations.groupby("scorer", sort=False):
        to_fit = rows[rows["fitted"]]
        maps[str(scorer)] = fitted = fit(to_fit["score"], to_fit["perspective"])
        for corpus, texts in ((HELD_OUT, rows[~rows["fitted"]]), (COMMENTS, comments[comments["scorer"] == scorer])):
            for scale, scores in ((RAW, texts["score"]), (CALIBRATED, apply(fitted, texts["score"]))):
                names = {"scorer": scorer, "corpus": corpus, "scale": scale}
                statistics_.append(statistics(scores, texts["perspective"], **how).assign(**names))
                bins.append(reliability(scores, texts["perspective"], **how).assign(**names))
    return Calibration(
        pd.concat(statistics_, ignore_index=True)[COLUMNS], pd.concat(bins, ignore_index=True)[BINS], maps
    )


def statistics(
    local: ArrayLike, perspective: ArrayLike, *, resamples: int, confidence: float, seed: int = 0
) -> pd.DataFrame:
    """One row a metric of METRICS: metric, value, low, high, n, refused, confidence, note.

    local, perspective: (texts,), both in [0, 1]. n counts the texts that have both scores; refused those without a
    local one; confidence is that of the interval.
      spearman: the correlation of ranks, equal scores sharing their mean rank.
      auroc: of the pairs of a text that Perspective scores at TOXIC_FROM or above and one that it scores below, the
      share in which the local score of the first is higher, ties as half.
      mean_absolute_error: of local minus Perspective.
      expected_calibration_error: with the texts in the bins of EDGES by their local score, the sum over bins of the
      bin's share of the texts times |mean local score - mean of Perspective's scores| in the bin.

    low, high: percentile bootstrap over texts. The calibration error cannot be below 0 and grows with noise, so its
    resamples lie rather above it, and `low` is the value itself where all do. A value that is not defined is NaN, and
    the note says why. Raises ValueError for arrays of two lengths, a score outside [0, 1], and what is no interval.
    """
    refused = int(np.isnan(np.asarray(local, dtype=float)).sum())
    local, perspective = _both(local, perspective)
    toxic, off, bins = perspective >= TOXIC_FROM, local - perspective, _bins(local)

    def measure(times: Array) -> Array:
        drawn = times.sum(axis=1)
        ranks = _ranks(local, times)
        return np.stack(
            [
                _correlation(ranks, _ranks(perspective, times), times),
                _auroc(ranks, toxic, times),
                (times * np.abs(off)).sum(axis=1) / drawn,
                np.abs(_sums(times * off, bins)).sum(axis=1) / drawn,
            ],
            axis=1,
        )

    n = len(local)
    ends = _estimates(measure, n, len(METRICS), resamples, confidence, seed)
    notes = {"spearman": "", "auroc": ""}
    if n and (len(np.unique(local)) == 1 or len(np.unique(perspective)) == 1):
        notes["spearman"] = "not defined: every score is the same"
    if n and len(np.unique(toxic)) == 1:
        notes["auroc"] = f"not defined: no text is {'below' if toxic[0] else 'at'} {TOXIC_FROM} by Perspective"
    empty = "" if n else "not defined: no text has both scores"
    rows = [
        (metric, *ends[place], n, refused, confidence, empty or notes.get(metric, ""))
        for place, metric in enumerate(METRICS)
    ]
    return pd.DataFrame(rows, columns=COLUMNS[3:])


def reliability(
    local: ArrayLike, perspective: ArrayLike, *, resamples: int, confidence: float, seed: int = 0
) -> pd.DataFrame:
    """One row a bin of the local score that holds a text: bin_from, bin_to, mean_local, mean_perspective, low, high, n.

    low, high: percentile bootstrap over texts of the mean of Perspective's scores; NaN in a bin of one text.
    """
    local, perspective = _both(local, perspective)
    which = _bins(local)
    bins, counts = np.unique(which, return_counts=True)

    def measure(times: Array) -> Array:
        with np.errstate(invalid="ignore"):  # a resample may hold no text of a bin
            return _sums(times * perspective, which) / _sums(times, which)

    ends = _estimates(measure, len(local), len(bins), resamples, confidence, seed)
    ends[counts < 2, 1:] = np.nan
    return pd.DataFrame(
        {
            "bin_from": EDGES[bins],
            "bin_to": EDGES[bins + 1],
            "mean_local": np.bincount(which, local)[bins] / counts,
            "mean_perspective": ends[:, 0],
            "low": ends[:, 1],
            "high": ends[:, 2],
            "n": counts,
        }
    )


# ---- files --------------------------------------------------------------------------------------------------------


def write_maps(maps: Mapping[str, Map], path: Path) -> None:
    """JSON: scorer label -> {"n": texts fitted on, "knots": [[local score, Perspective's], ...]}."""
    lines = [
        f"{json.dumps(scorer)}: {json.dumps({'n': one.n, 'knots': list(zip(one.scores, one.perspective))})}"
        for scorer, one in sorted(maps.items())
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_maps(path: Path = SHIPPED / "maps.json") -> dict[str, Map]:
    """The maps by scorer label, from a file of `write_maps`, by default from the one that ships."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    knots = {scorer: tuple(zip(*one["knots"])) for scorer, one in plain.items()}
    return {scorer: Map(*knots[scorer], n=one["n"]) for scorer, one in plain.items()}


# ---- the bootstrap ------------------------------------------------------------------------------------------------


def _both(local: ArrayLike, perspective: ArrayLike) -> tuple[Array, Array]:
    """The texts that have both scores, in an order of their own: sums then do not depend on the order given."""
    columns = [np.asarray(scores, dtype=float) for scores in (local, perspective)]
    if columns[0].shape != columns[1].shape or columns[0].ndim != 1:
        shapes = " and ".join(str(column.shape) for column in columns)
        raise ValueError(f"calibration: got scores of shapes {shapes}; give one local and one of Perspective's a text")
    table = np.stack(columns)
    table = table[:, ~np.isnan(table).any(axis=0)]
    if ((table < 0) | (table > 1)).any():
        raise ValueError(f"calibration: a score is {table[(table < 0) | (table > 1)][0]:g}; give scores from 0 to 1")
    first, second = table[:, np.lexsort(table)]
    return first, second


def _bins(local: Array) -> NDArray[np.intp]:
    """The place of each score's bin; 1 is in the last."""
    return np.searchsorted(EDGES[1:-1], local, side="right")


def _sums(values: Array, which: NDArray[np.intp]) -> Array:
    """(resamples, bins that hold a text): sums of the values (resamples, texts) by the texts' bins, bins up."""
    order = np.argsort(which, kind="stable")
    _, starts = np.unique(which[order], return_index=True)
    return np.add.reduceat(values[:, order], starts, axis=1) if len(which) else values[:, :0]


def _ranks(values: Array, times: Array) -> Array:
    """(resamples, texts): mean ranks from 1 in samples that hold each text as many times as `times` says."""
    _, which = np.unique(values, return_inverse=True)
    held = _sums(times, which)
    return (np.cumsum(held, axis=1) - (held - 1) / 2)[:, which]


def _correlation(x: Array, y: Array, times: Array) -> Array:
    drawn = times.sum(axis=1, keepdims=True)
    x = x - (times * x).sum(axis=1, keepdims=True) / drawn
    y = y - (times * y).sum(axis=1, keepdims=True) / drawn
    spread = np.sqrt((times * x * x).sum(axis=1) * (times * y * y).sum(axis=1))
    with np.errstate(invalid="ignore"):  # all ranks are one: not defined
        return (times * x * y).sum(axis=1) / spread


def _auroc(ranks: Array, toxic: NDArray[np.bool_], times: Array) -> Array:
    """Mann and Whitney's U of the toxic texts over the number of pairs."""
    positive = (times * toxic).sum(axis=1)
    pairs = positive * (times.sum(axis=1) - positive)
    with np.errstate(invalid="ignore"):  # one class alone: not defined
        return ((times * toxic * ranks).sum(axis=1) - positive * (positive + 1) / 2) / pairs


def _estimates(
    measure: Callable[[Array], Array], n: int, measures: int, resamples: int, confidence: float, seed: int
) -> Array:
    """(measures, 3): value, low, high of each. measure: how often each text is drawn (resamples, n) -> its values."""
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"calibration: no interval has confidence {confidence} and {resamples} resamples; give a share such as "
            "0.95 and at least one resample"
        )
    found = np.full((measures, 3), np.nan)
    if not n:
        return found
    found[:, 0] = measure(np.ones((1, n)))[0]
    drawn = np.concatenate([measure(times) for times in _draws(n, resamples, seed)])
    tail = (1 - confidence) / 2
    for place, value in enumerate(found[:, 0]):
        known = drawn[~np.isnan(drawn[:, place]), place]
        if n > 1 and len(known) and not np.isnan(value):
            low, high = np.quantile(known, [tail, 1 - tail])
            found[place, 1:] = min(low, value), max(high, value)
    return found


def _draws(n: int, resamples: int, seed: int) -> Iterator[Array]:
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // n)
    for done in range(0, resamples, step):
        size = min(step, resamples - done)
        places = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(places.ravel(), minlength=size * n).reshape(size, n).astype(float)
