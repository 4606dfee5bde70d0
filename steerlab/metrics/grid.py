"""What the official code's continuations show, setting by setting of two composed steers."""

import pandas as pd

from steerlab.metrics import bootstrap, prompt_sums
from steerlab.metrics.bootstrap import CONFIDENCE, RESAMPLES

COLUMNS = ["detoxification", "sentiment", "metric", "value", "low", "high", "n", "samples", "scorer"]
METRICS = (
    "mean_toxicity", "average_max_toxicity", "toxicity_probability", "mean_sentiment", "positive_share",
    "dist_1", "dist_2", "dist_3",
)  # fmt: skip

_PLACE = ["detoxification", "sentiment"]
_SETTING = dict(zip(_PLACE, prompt_sums.SETTING))  # what the sums over a prompt call the two


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
    Raises ValueError where a text stands twice for one scorer, for another quantity, or without any scores.
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
    if unknown := sorted(set(scores.quantity) - {"toxicity", "sentiment"}):
        raise ValueError(f"official grid: quantity {unknown[0]!r} is unknown; score toxicity or sentiment")
    texts = scores[:0].assign(text="") if texts is None else texts
    written, scored = (each.rename(columns=_SETTING).assign(seed=0) for each in (texts, scores))
    sums = prompt_sums.of_texts(written, scored, None)
    sums = sums[sums.metric.isin(METRICS)].sort_values("id")
    samples = scores.groupby([*_PLACE, "id"])["sample"].nunique().groupby(_PLACE).max().to_dict()
    found = []
    for (detoxification, sentiment, metric, scorer), rows in sums.groupby([*_SETTING.values(), "metric", "scorer"]):
        rows = rows[rows.denominator > 0]
        estimate = bootstrap.ratio(
            rows.numerator, rows.denominator, resamples=resamples, confidence=confidence, seed=seed
        )
        found.append(
            (detoxification, sentiment, metric, estimate.value, estimate.low, estimate.high, estimate.n)
            + (int(samples[detoxification, sentiment]), scorer)
        )
    return pd.DataFrame(found, columns=COLUMNS)
