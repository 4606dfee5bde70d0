"""How many of the states that SLIM's classifiers flag are on the wished side once they are mapped: a row a seed.

A large point is the share over all heads of the steered layer with its interval, small points are the heads; the panels
are the fitted texts and the test ones.
"""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "slim_coverage"
PANELS = {"fitted": "Fitted states\n(share brought over)", "test": "Test states\n(share brought over)"}
COLUMNS = ["model", "seed", "layer", "head", "part", "wished", "low", "high", "aimed", "states", "questions"]


def table(coverage: pd.DataFrame, *, model: str = "") -> pd.DataFrame:
    """The points, seeds and layers up; coverage: as from steerlab.analyses.coverage of any number of seeds.

    Returns COLUMNS. Raises ValueError where a part is missing, or a seed's head stands twice.
    """
    rows = coverage.astype({"seed": str, "head": str}).assign(model=model)
    if missing := set(PANELS) - set(rows.part):
        raise ValueError(f"figure {FIGURE}: no states of {sorted(missing)}; measure the coverage of both parts")
    if rows.duplicated(["seed", "layer", "head", "part"]).any():
        raise ValueError(f"figure {FIGURE}: a seed's head stands twice; pass each seed's coverage once")
    rows = rows.assign(order=pd.to_numeric(rows.seed), place=pd.to_numeric(rows["head"], errors="coerce"))
    return rows.sort_values(["order", "layer", "part", "place"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str, "head": str})
    several = table.groupby("seed")["layer"].nunique().max() > 1 or table.seed.nunique() > 1
    label = "layer " + table.layer.astype(str) + (", seed " + table.seed if several else "")
    shown = table.assign(
        group=table.seed, label=label, method="slim", metric=table.part, seed=table["head"], value=table.wished
    )
    figure, axes = marks.points_in_rows(shown, PANELS, large="all heads, with interval", small="one head")
    for panel in axes:
        panel.axvline(table.aimed.iloc[0], color=marks.GREY, linewidth=1.0, linestyle=(0, (4, 2)), zorder=0)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Phrases: model, seeds, aimed, interval; fitted and test: the share over all heads of each seed, and of what."""
    pooled = table.astype({"seed": str, "head": str}).query("head == 'all'")

    def said(part: str) -> str:
        return "; ".join(
            f"{row.wished:.3f} [{row.low:.3f}, {row.high:.3f}] of {row.states:,} "
            f"at layer {row.layer} in seed {row.seed}"
            for row in pooled[pooled.part == part].itertuples()
        )

    return {
        "model": selection.listed(table.model.dropna().unique()),
        "seeds": selection.counted([pooled.seed.nunique()], "seed"),
        "aimed": selection.listed(sorted(f"{each:.3g}" for each in table.aimed.unique())),
        "interval": f"{100 * confidence:g} % percentile bootstrap interval over questions",
        "fitted": said("fitted"),
        "test": said("test"),
    }
