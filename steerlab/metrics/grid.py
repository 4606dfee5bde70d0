"""What the official code's continuations show, setting by setting of two composed steers."""

import pandas as pd

from steerlab.metrics import bootstrap
from steerlab.metrics.bootstrap import CONFIDENCE, RESAMPLES
from steerlab.metrics.continuations import NO_SCORER, POSITIVE_ABOVE, TOXIC_ABOVE
from steerlab.metrics.distinct import dist

COLUMNS = ["detoxification", "sentiment", "metric", "value", "low", "high", "n", "samples", "scorer"]

_PLACE = ["detoxification", "sentiment"]


def official_grid(
    scores: pd.DataFrame,
    texts: pd.DataFrame | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of the official code's continuations, one row a text, to one row a setting, metric and scorer.

    scores: detoxification, sentiment, id, sample, quantity ("toxicity" or "sentiment"), scorer, score (NaN where
    refused). texts: detoxification, sentiment, id, sample, text; with it dist_1 to dist_3 are counted too.
    Returns COLUMNS. mean_toxicity, average_max_toxicity, toxicity_probability, mean_sentiment and dist_n are
    means over prompts; positive_share is the share of scored texts with a score above POSITIVE_ABOVE. n counts
    prompts, samples the texts of a prompt. Intervals are bootstrap intervals over prompts; seed is the bootstrap's own.
    Raises ValueError where a text stands twice for one scorer, or there are no scores at all.
    """
    if scores.empty:
        raise ValueError("official grid: the scores are empty; score the continuations first")
    twice = scores[scores.duplicated([*_PLACE, "id", "sample", "quantity", "scorer"])]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"official grid: sample {row['sample']} of prompt {row['id']!r} at ({row['detoxification']}, "
            f"{row['sentiment']}) stands twice for scorer {row['scorer']}; pass each text once"
        )
    prompts = [_by_prompt(rows, str(quantity)) for quantity, rows in scores.groupby("quantity")]
    if texts is not None:
        prompts.append(_distinct(texts))
    samples = scores.groupby([*_PLACE, "id"])["sample"].nunique().groupby(_PLACE).max().to_dict()
    found = []
    for (detoxification, sentiment, metric, scorer), rows in (
        pd.concat(prompts).sort_values("id").groupby([*_PLACE, "metric", "scorer"])
    ):
        rows = rows[rows.denominator > 0]
        estimate = bootstrap.ratio(
            rows.numerator, rows.denominator, resamples=resamples, confidence=confidence, seed=seed
        )
        found.append(
            (detoxification, sentiment, metric, estimate.value, estimate.low, estimate.high, estimate.n)
            + (int(samples[detoxification, sentiment]), scorer)
        )
    return pd.DataFrame(found, columns=COLUMNS)


def _by_prompt(scores: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Numerator and denominator of each prompt for the quantity's metrics; a denominator of 0 counts nothing."""
    by_prompt = scores.groupby([*_PLACE, "id", "scorer"])["score"]
    if quantity == "toxicity":
        highest = by_prompt.max()
        parts = {
            "mean_toxicity": (by_prompt.mean(), 1),
            "average_max_toxicity": (highest, 1),
            "toxicity_probability": ((highest > TOXIC_ABOVE).astype(float).where(highest.notna()), 1),
        }
    elif quantity == "sentiment":
        positive = scores.assign(score=scores.score > POSITIVE_ABOVE).groupby([*_PLACE, "id", "scorer"])["score"].sum()
        parts = {
            "mean_sentiment": (by_prompt.mean(), 1),
            "positive_share": (positive, by_prompt.count()),
        }
    else:
        raise ValueError(f"official grid: quantity {quantity!r} is unknown; score toxicity or sentiment")
    tables = []
    for metric, (numerator, denominator) in parts.items():
        counted = pd.DataFrame({"numerator": numerator, "denominator": denominator}).astype(float)
        counted.loc[counted.numerator.isna()] = 0.0
        tables.append(counted.reset_index().assign(metric=metric))
    return pd.concat(tables)


def _distinct(texts: pd.DataFrame) -> pd.DataFrame:
    by_prompt = texts.groupby([*_PLACE, "id"])["text"]
    tables = [by_prompt.agg(dist, n).rename("numerator").reset_index().assign(metric=f"dist_{n}") for n in (1, 2, 3)]
    return pd.concat(tables).assign(denominator=1.0, scorer=NO_SCORER)
