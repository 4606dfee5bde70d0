"""How many prompts an interval of a given width needs, from the intervals of a pilot.

The width of a bootstrap interval over prompts falls with the root of their number, for a mean as for a paired
difference: n_needed = n (width now / width wanted)^2. More samples of the same prompts do not count here.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

CELL = ["model", "method", "task", "split", "metric"]
KINDS = {"value": ("low", "high"), "difference": ("difference_low", "difference_high")}
COLUMNS = [*CELL, "n", *(f"{kind}_{what}" for kind in KINDS for what in ("width", "needed", "times"))]


def needed(n: int, width: float, wanted: float) -> int:
    """Prompts at which an interval that is so wide with n of them is as wide as is wanted, or narrower.

    Raises ValueError for a width that is not above 0, or fewer than two prompts, which show no spread.
    """
    if wanted <= 0 or not math.isfinite(wanted):
        raise ValueError(f"pilot: the wanted width is {wanted}; give one above 0, in the metric's unit")
    if n < 2:
        raise ValueError(f"pilot: {n} prompts show no spread; run a pilot with more")
    return max(2, math.ceil(n * (width / wanted) ** 2 - 1e-9))


def table(metrics: pd.DataFrame, wanted: float, names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Prompts that each cell needs, for its own mean and for its difference from the base's on the same prompts.

    metrics: the metrics of test cells; names: the metrics to look at, by task. Of several strengths and scorers of a
    cell the widest interval counts, that of all seeds where there is one; calibrated scores are left out.
    Returns COLUMNS: needed are the prompts, times those over n, by which the cell's generating and scoring grow; NaN
    where there is no interval, or one that is a point.
    """
    named = np.array([metric in names.get(task, ()) for task, metric in zip(metrics["task"], metrics["metric"])])
    raw = ~metrics["scorer"].astype(str).str.endswith(", calibrated")
    rows = metrics[named & raw & (metrics["prompts"] == "all") & (metrics["n"] > 1)]
    pooled = rows["seed"].astype(str) == "all"
    rows = rows[pooled | ~pooled.groupby([rows[name] for name in CELL]).transform("any")]
    widths = {f"{kind}_width": rows[high] - rows[low] for kind, (low, high) in KINDS.items()}
    found = (
        rows.assign(**widths).groupby(CELL, sort=False)[["n", *widths]].agg({"n": "min"} | dict.fromkeys(widths, "max"))
    )
    found = found.reset_index()
    for kind in KINDS:
        widths = found[f"{kind}_width"].where(found[f"{kind}_width"] > 0)
        prompts = [needed(n, width, wanted) if width > 0 else np.nan for n, width in zip(found["n"], widths)]
        found[f"{kind}_width"], found[f"{kind}_needed"] = widths, np.array(prompts, dtype=float)
        found[f"{kind}_times"] = found[f"{kind}_needed"] / found["n"]
    return found[COLUMNS]
