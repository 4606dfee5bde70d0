"""What is told of candidates found in hidden states: shares that are right, and paired differences, by a bootstrap.

Drawn again are units (a subject, a label) with all their rows, of all seeds where seeds are pooled. What the model says
in words, and a probe, depend on no reader: they have one setting, MODEL_ALONE, and no seeds.
"""

import pandas as pd

from steerlab.metrics import bootstrap

READER, BESIDE = ("true", "shuffled", "none"), ("in_words", "probe")
CONDITIONS = (*READER, *BESIDE)
DIFFERENCES = {"true_minus_shuffled": "shuffled", "true_minus_none": "none", "true_minus_in_words": "in_words"}
QUANTITIES = {"right": "identified", "exact": "exact", "contained": "contained"}  # column of the rows: its name
MODEL_ALONE = "model alone"
COLUMNS = [
    "group", "setting", "condition", "quantity", "seed", "value", "low", "high", "units", "rows", "chance", "data",
]  # fmt: skip


def table(
    rows: pd.DataFrame, *, resamples: int = bootstrap.RESAMPLES, confidence: float = bootstrap.CONFIDENCE
) -> pd.DataFrame:
    """One row a group, setting, condition, quantity and seed, and with seed "all" one over the seeds; COLUMNS.

    rows: as from steerlab.analyses.identification, of any number of settings and seeds. condition: one of CONDITIONS,
    or a difference of two on the rows that have both. quantity: "identified", the share of rows whose right candidate
    is picked; "exact" and "contained", of answers that are the right one or have it in them. chance: of a pick, the
    mean over the rows. units, rows: how many are behind it.
    """
    how = {"resamples": resamples, "confidence": confidence}
    found, data = [], ", ".join(sorted(rows["data"].unique()))
    values = _values(rows)
    keys = ["group", "setting", "condition", "quantity"]
    for key, of in values.groupby(keys, sort=False):
        by_seed = (
            [] if of["setting"].iloc[0] == MODEL_ALONE else [(str(seed), each) for seed, each in of.groupby("seed")]
        )
        for seed, here in [*by_seed, ("all", of)]:
            sums = here.groupby("unit")["value"].agg(["sum", "size"])
            estimate = bootstrap.ratio(sums["sum"], sums["size"], **how)
            about = (estimate.value, estimate.low, estimate.high, estimate.n, here["id"].nunique())
            found.append((*key, seed, *about, here["chance"].mean(), data))  # pyright: ignore[reportGeneralTypeIssues]
    return pd.DataFrame(found, columns=COLUMNS)


def _values(rows: pd.DataFrame) -> pd.DataFrame:
    """A value a row, condition or difference, and quantity: id, group, unit, setting, seed, condition, quantity, value,
    chance (of a pick alone)."""
    alone = rows["condition"].isin(BESIDE)
    # It stands beside every reader; should several have brought it, it counts once.
    once = rows[alone].drop_duplicates(["group", "id", "condition"]).assign(setting=MODEL_ALONE, seed=-1)
    given = pd.concat([rows[~alone], once], ignore_index=True)
    about = ["id", "group", "unit", "setting", "seed", "condition"]
    long = given.melt([*about, "chance"], list(QUANTITIES), "quantity").dropna(subset="value")
    long = long.assign(quantity=long["quantity"].map(QUANTITIES))
    long["chance"] = long["chance"].where(long["quantity"] == "identified")
    own = given[given["condition"] == "true"]
    found = [long]
    for name, condition in DIFFERENCES.items():
        on = ["id", "group"] if condition in BESIDE else ["id", "group", "setting", "seed"]
        other = given[given["condition"] == condition].set_index(on)["right"].rename("other")
        both = own.join(other, on=on).dropna(subset=["right", "other"])
        value = both["right"].astype(float) - both["other"].astype(float)
        found.append(both[about].assign(condition=name, quantity="identified", value=value, chance=float("nan")))
    return pd.concat([frame for frame in found if len(frame)], ignore_index=True)
