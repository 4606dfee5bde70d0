"""How many prompts an interval of a given width needs, from the intervals of a pilot.

The width of a bootstrap interval over prompts falls with the root of their number, for a mean as for a paired
difference: n_needed = n (width now / width wanted)^2. More samples of the same prompts do not count here.
"""

import math

import numpy as np
import pandas as pd

CELL = ["model", "method", "task", "split", "metric", "scorer"]
KINDS = {"value": ("low", "high"), "difference": ("difference_low", "difference_high")}
COLUMNS = [*CELL, "interval", "n", "width", "n_needed", "times"]


def needed(n: int, width: float, wanted: float) -> int:
    """Prompts at which an interval that is so wide with n of them is as wide as is wanted, or narrower.

    Raises ValueError for a width that is not above 0, or fewer than two prompts, which show no spread.
    """
    if wanted <= 0 or not math.isfinite(wanted):
        raise ValueError(f"pilot: the wanted width is {wanted}; give one above 0, in the metric's unit")
    if n < 2:
        raise ValueError(f"pilot: {n} prompts show no spread; run a pilot with more")
    return max(2, math.ceil(n * (width / wanted) ** 2 - 1e-9))


def table(metrics: pd.DataFrame, wanted: float, names: list[str]) -> pd.DataFrame:
    """Prompts that each cell needs, for its own mean and for its difference from the base's on the same prompts.

    metrics: the metrics of test cells; names: metrics to look at. Of several strengths of a cell the widest interval
    counts; seeds taken together go before single ones, single classes of prompts after all of them.
    Returns COLUMNS: times is n_needed over n, by which the cell's generating and scoring grow. Cells whose interval is
    a point, or has no value, are left out.
    """
    rows = metrics[metrics["metric"].isin(names) & (metrics["prompts"] == "all")].astype({"seed": str})
    together = rows[rows["seed"] == "all"]
    alone = rows.merge(together[CELL].drop_duplicates(), on=CELL, how="left", indicator=True)
    rows = pd.concat([together, alone[alone.pop("_merge") == "left_only"]], ignore_index=True)
    found = []
    for kind, (low, high) in KINDS.items():
        wide = rows.assign(width=rows[high] - rows[low], interval=kind)
        found.append(wide[np.isfinite(wide["width"]) & (wide["width"] > 0) & (wide["n"] > 1)])
    widest = pd.concat(found, ignore_index=True).sort_values("width", ascending=False)
    widest = widest.drop_duplicates([*CELL, "interval"]).sort_values([*CELL, "interval"], ignore_index=True)
    widest["n_needed"] = [needed(int(n), width, wanted) for n, width in zip(widest["n"], widest["width"])]
    return widest.assign(times=widest["n_needed"] / widest["n"])[COLUMNS]
