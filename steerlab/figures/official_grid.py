"""The official code's own continuations, two steers composed: the figure composition at the paper's size.

Only a mirror holds them; the scorers are this project's.
"""

from collections.abc import Collection

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import selection
from steerlab.figures.composition import PLACE, check_places, half_widths, heat_maps
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.continuations import NO_SCORER

PANELS = ("mean_toxicity", "positive_share", "dist_2")


def table(grid: pd.DataFrame, *, scorers: Collection[str] = ()) -> pd.DataFrame:
    """What steerlab.metrics.grid.official_grid returns; of scores, those by `scorers` where any are named.

    Raises ValueError where a metric of the grid is by none of these.
    """
    kept = grid[grid.scorer.isin([*scorers, NO_SCORER])] if scorers else grid
    for metric in dict.fromkeys(grid.metric):
        if metric not in set(kept.metric):
            known = sorted(set(grid[grid.metric == metric].scorer))
            raise ValueError(f"figure official_grid: no {metric} by {list(scorers)}; name one of {known}")
    return kept.reset_index(drop=True)


def plot(table: pd.DataFrame) -> Figure:
    """Raises ValueError where a map would mix two scorers, or there is nothing to draw."""
    check_places("official_grid", table)
    shown = [metric for metric in PANELS if metric in set(table.metric)]
    if not shown:
        raise ValueError(f"figure official_grid: no rows of {list(PANELS)}; score the continuations first")
    return heat_maps(table, shown, rows="Detoxification\n(steer value)", columns="Sentiment (steer value)")


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """For captions/official_grid.rst: settings, prompts, samples, interval, scorers, half_width; each a phrase."""
    return {
        "settings": str(len(table[PLACE].drop_duplicates())),
        "prompts": selection.counted(table.n, "prompt"),
        "samples": selection.counted(table.samples, "sample"),
        "interval": selection.interval(confidence, "prompts"),
        "scorers": selection.scorers_named(table),
        "half_width": half_widths(table, PANELS),
    }
