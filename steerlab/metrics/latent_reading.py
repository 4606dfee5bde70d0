"""What is told of readers: how far a row's own states help its answer, by a bootstrap over labels.

Rows of one label are alike, so labels are drawn again with all their rows, of all seeds where seeds are pooled.
"""

import pandas as pd

from steerlab.metrics import bootstrap

QUANTITIES = ("true", "shuffled", "none", "true_minus_shuffled", "true_minus_none", "exact", "probe")
LOSSES = QUANTITIES[:3]
COLUMNS = ["setting", "split", "part", "quantity", "seed", "value", "low", "high", "labels", "rows", "chance", "data"]
PARTS = {True: "unseen stimuli of seen labels", False: "unseen labels"}


def table(
    rows: pd.DataFrame, *, resamples: int = bootstrap.RESAMPLES, confidence: float = bootstrap.CONFIDENCE
) -> pd.DataFrame:
    """One row a setting, split, part of it, quantity and seed, and with seed "all" one over the seeds; COLUMNS.

    rows: as from steerlab.analyses.latent_reading, of any number of settings and seeds. quantity: a mean loss (nats a
    token) under a condition; the mean difference of two, on the rows that have both; the share of one-word answers that
    are exactly right; the probe's accuracy, which depends on no seed. labels, rows: how many are behind it.
    """
    how = {"resamples": resamples, "confidence": confidence}
    found = []
    for (setting, split, unseen), part in rows.groupby(["setting", "split", ~rows["label_is_seen"].astype(bool)]):
        values = _values(part)
        for quantity in QUANTITIES:
            of = values[values["quantity"] == quantity]
            of = of.drop_duplicates("id") if quantity == "probe" else of  # beside the readers of all seeds the same
            by_seed = of.groupby("seed") if quantity != "probe" else []
            for seed, here in [(str(seed), each) for seed, each in by_seed] + [("all", of)]:
                if here.empty:
                    continue
                sums = here.groupby("label")["value"].agg(["sum", "size"])
                estimate = bootstrap.ratio(sums["sum"], sums["size"], **how)
                about = (estimate.value, estimate.low, estimate.high, estimate.n, here["id"].nunique())
                more = (here["chance"].iloc[0], ", ".join(sorted(part["data"].unique())))
                found.append((setting, split, PARTS[not unseen], quantity, seed, *about, *more))
    return pd.DataFrame(found, columns=COLUMNS)


def _values(part: pd.DataFrame) -> pd.DataFrame:
    """A value a row of the table, seed and quantity: id, label, seed, quantity, value, chance."""
    keys = ["id", "label", "seed"]
    judged = part[part["condition"].isin(LOSSES)]
    losses = judged.pivot(index=keys, columns="condition", values="loss").reindex(columns=list(LOSSES))
    for other in ("shuffled", "none"):
        losses[f"true_minus_{other}"] = losses["true"] - losses[other]
    long = losses.melt(var_name="quantity", ignore_index=False).dropna().reset_index()
    right = part.dropna(subset="right")
    right = right.assign(quantity=right["condition"].map({"true": "exact", "probe": "probe"}), value=right["right"])
    return pd.concat([long.assign(chance=float("nan")), right[[*keys, "quantity", "value", "chance"]]])
