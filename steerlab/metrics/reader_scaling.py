"""What is told of readers that differ in their training labels or their rank: the same test rows for all of them.

A reader of few labels has seen few of the test rows' labels; so that points compare, rows of seen labels are those of
labels that every reader of a model and setting has seen. Rows of unseen labels are the same for all.
"""

import pandas as pd

from steerlab.metrics import bootstrap, latent_reading

READER = ["model", "setting", "rank", "label_share"]
SIZES = ["trained_labels", "trained_rows"]
COLUMNS = [*READER, *SIZES, "part", "quantity", "seed", "value", "low", "high", "labels", "rows", "data"]
QUANTITIES = ("true", "true_minus_shuffled", "exact")


def table(
    rows: pd.DataFrame, *, resamples: int = bootstrap.RESAMPLES, confidence: float = bootstrap.CONFIDENCE
) -> pd.DataFrame:
    """One row a reader (READER), part, quantity and seed, and with seed "all" one over the seeds; COLUMNS.

    rows: as from steerlab.analyses.latent_reading, with READER and SIZES, how many labels and rows a reader was trained
    on; test rows are told. part, quantity: as in steerlab.metrics.latent_reading, of QUANTITIES.
    """
    test = rows[rows["split"] == "test"]
    found = []
    for _, of in test.groupby(["model", "setting"], sort=False):
        readers = [reader for _, reader in of.groupby(READER)]
        seen = [set(reader["label"][reader["label_is_seen"].astype(bool)]) for reader in readers]
        common = set.intersection(*seen)
        for reader in readers:
            kept = reader[~reader["label_is_seen"].astype(bool) | reader["label"].isin(common)]
            if kept.empty:
                continue
            told = latent_reading.table(kept, resamples=resamples, confidence=confidence)
            about = {name: reader[name].iloc[0] for name in [*READER, *SIZES]}
            found.append(told[told["quantity"].isin(QUANTITIES)].assign(**about))
    return pd.concat(found, ignore_index=True)[COLUMNS] if found else pd.DataFrame(columns=COLUMNS)
