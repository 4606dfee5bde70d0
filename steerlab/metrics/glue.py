"""What GLUE's classifiers are told by: accuracy, Matthews' correlation (CoLA) or Pearson's (STS-B), with intervals.

All three are functions of sums over rows, so that a bootstrap over rows, paired where two classifiers read the same
ones, draws the sums again and not the rows. Matthews' correlation of two classes is Pearson's of their numbers 0 and 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from steerlab.metrics import bootstrap
from steerlab.metrics.bootstrap import Array, Estimate

METRICS = ("accuracy", "matthews", "pearson")
COLUMNS = ["model", "task", "split", "intervention", "layers", "layer", "seed", "against"]
COLUMNS += ["metric", "value", "low", "high", "n", "parameters", "blocks"]
AGAINST = ("random", "all")  # what the picked layer is compared with, on the same rows
_SETTING = ["split", "intervention", "layers", "layer"]


def score(metric: str, labels: ArrayLike, predictions: ArrayLike) -> float:
    """The metric of predictions for rows with these labels.

    Where all predictions, or all labels, are the same, Matthews' correlation is 0 and Pearson's NaN, as in
    scikit-learn and scipy. Raises ValueError for a metric that is none of METRICS.
    """
    return estimate(metric, np.asarray(labels), [np.asarray(predictions)], resamples=1).value


def estimate(
    metric: str,
    labels: Array,
    predictions: Sequence[Array],
    against: Sequence[Array] = (),
    *,
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
) -> Estimate:
    """The metric with its interval over rows, its mean over several classifiers (seeds) that predict for the same rows.

    labels: (rows,); predictions: (rows,) each; against: those of other classifiers, whose mean is taken off.
    """
    if metric not in METRICS:
        raise ValueError(f"glue: unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    columns, width = _columns(metric, labels, [*predictions, *against])
    own = len(predictions)

    def statistic(sums: Array) -> Array:
        values = _of_sums(metric, sums.reshape(*sums.shape[:-1], -1, width))
        other = values[..., own:].mean(-1) if len(against) else 0.0
        return values[..., :own].mean(-1) - other

    return bootstrap.of_sums(columns, statistic, resamples=resamples, confidence=confidence)


def table(predictions: pd.DataFrame, metric: str, *, resamples: int, confidence: float) -> pd.DataFrame:
    """The metric of every classifier and over its seeds, and what the picked layer gains on others.

    predictions: model, task, split, intervention, layers, layer (pandas' NA where it is none or several), seed, id,
    label, prediction, parameters, blocks (of the model); of one model and task. Returns COLUMNS: a row a seed, and one
    with seed "all"; rows with `against` hold the picked layer's value less that of the layers so named, of the same
    intervention.
    Raises ValueError where classifiers that are compared were asked about other rows.
    """
    intervals = {"resamples": resamples, "confidence": confidence}
    about = {name: predictions[name].iloc[0] for name in ("model", "task")} | {"metric": metric}
    rows: list[dict[str, Any]] = []
    found: dict[tuple, pd.DataFrame] = {}
    grouping = [name for name in _SETTING if name != "layer"]
    for key, group in predictions.groupby([*grouping, predictions.layer.where(predictions.split == "dev", -1)]):
        here = about | dict(zip(_SETTING, key)) | {"against": "", "parameters": int(group.parameters.iloc[0])}
        here["blocks"] = int(group.blocks.iloc[0])
        wide = _wide(group)
        found[key[:-1]] = wide
        for seed in [*(wide.columns if len(wide.columns) > 1 else ()), "all"]:
            chosen = wide if seed == "all" else wide[[seed]]
            layers = group.layer if seed == "all" else group.layer[group.seed == seed]
            layer = layers.iloc[0] if layers.nunique() == 1 else pd.NA
            rows.append(here | {"seed": str(seed), "layer": layer} | _estimated(metric, chosen, None, intervals))
    for (split, intervention, layers), wide in found.items():
        for other in AGAINST if (split, layers) == ("test", "picked") else ():
            base = found.get((split, intervention, other))
            if base is not None:
                here = about | {"split": split, "intervention": intervention, "layers": layers, "seed": "all"}
                rows.append(here | {"against": other} | _estimated(metric, wide, base, intervals))
    return pd.DataFrame(rows).reindex(columns=COLUMNS).astype(dict.fromkeys(("layer", "parameters", "blocks"), "Int64"))


def by_layer(predictions: pd.DataFrame, metric: str) -> dict[int, float]:
    """layer -> the metric's mean over seeds; predictions: layer, seed, label, prediction, of the dev split alone.

    Raises ValueError for rows of another split: a choice must see no test row.
    """
    if others := sorted(set(predictions.split) - {"dev"}):
        raise ValueError(f"glue: predictions of split {others[0]} were given; choose a layer by dev rows alone")
    groups = predictions.groupby(["layer", "seed"])
    scores = groups.apply(lambda rows: score(metric, rows.label.to_numpy(), rows.prediction.to_numpy()))
    return {int(layer): float(value) for layer, value in scores.groupby("layer").mean().items()}  # pyright: ignore


def _wide(group: pd.DataFrame) -> pd.DataFrame:
    """A column a seed, a row a text: index (place, id, label)."""
    place = group.groupby("seed").cumcount()
    wide = group.assign(place=place).set_index(["place", "id", "label", "seed"])["prediction"].unstack()
    if wide.isna().any(axis=None):
        raise ValueError("glue: seeds were asked about different rows; predict for the same ones")
    return wide


def _estimated(metric: str, wide: pd.DataFrame, base: pd.DataFrame | None, intervals: dict) -> dict[str, Any]:
    if base is not None and not wide.index.equals(base.index):
        raise ValueError("glue: classifiers to compare were asked about different rows; predict for the same ones")
    labels = wide.index.get_level_values("label").to_numpy(dtype=float)
    own, other = (list(each.to_numpy(dtype=float).T) for each in (wide, wide[[]] if base is None else base))
    return vars(estimate(metric, labels, own, other, **intervals))


def _columns(metric: str, labels: Array, predictions: Sequence[Array]) -> tuple[list[Array], int]:
    """What is summed over the rows, for each of the predictions so many columns."""
    y, one = np.asarray(labels, dtype=float), np.ones(len(labels))
    if metric == "accuracy":
        return [column for x in predictions for column in (one, (x == y).astype(float))], 2
    y = y - y.mean()  # changes no correlation, and keeps the sums of squares small
    centred = [x - x.mean() for x in predictions]
    return [column for x in centred for column in (one, x, y, x * x, y * y, x * y)], 6


def _of_sums(metric: str, sums: Array) -> Array:
    """(..., predictions) from (..., predictions, columns)."""
    if metric == "accuracy":
        return sums[..., 1] / sums[..., 0]
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread = np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0)
    constant = spread <= 1e-12 * np.maximum(n * xx * n * yy, 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (n * xy - x * y) / np.sqrt(spread)
    return np.where(constant, 0.0 if metric == "matthews" else np.nan, value)
