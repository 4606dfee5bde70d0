"""Labels that have changed places: what a control learns from that sees the same texts and is to learn nothing."""

import pandas as pd

from steerlab.data.splits import text_digest


def with_shuffled_labels(table: pd.DataFrame) -> pd.DataFrame:
    """A task's table whose labelled texts, split by split, have changed their labels, and nothing else.

    Labels move among the texts of a group, as the answers of one question, or, where a text is a group of its own,
    among all of them, in an order that hashes of the texts decide: how many have each label stays.
    """
    found = table.copy()
    texts = found[found["role"] == "train"]
    several = texts.groupby("group")["id"].transform("size") > 1
    place = texts["group"].where(several, "")
    for _, rows in texts.groupby([texts["split"], place], sort=False):
        order = sorted(rows.index, key=lambda index: text_digest(f"shuffled labels {rows['id'][index]}"))
        found.loc[order, "label"] = rows["label"].to_numpy()
    return found
