"""How many of the states that SLIM's classifiers flag are on the wished side once they are mapped, seed by seed.

A large point is the share over all heads of the steered layer with its interval, small points are the heads; a row is
the fitted states or the test ones. Dashed is what the seed's kappa aims at.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "slim_coverage"
PARTS = {"fitted": "fitted states", "test": "test states"}
COLUMNS = ["model", "seed", "layer", "head", "part", "wished", "low", "high", "aimed", "states", "questions"]

_SHARE = "Share of the flagged states\nthat the map brings to the wished side"
_AIMED = {"color": marks.GREY, "linewidth": 1.0, "linestyle": (0, (4, 2))}


def table(coverage: pd.DataFrame, *, model: str = "") -> pd.DataFrame:
    """The points, seeds and layers up; coverage: as from steerlab.analyses.coverage of any number of seeds.

    Returns COLUMNS. Raises ValueError where a seed lacks a part, or a seed's head stands twice.
    """
    rows = coverage.astype({"seed": str, "head": str}).assign(model=model)
    for seed, of_seed in rows.groupby("seed"):
        if missing := sorted(set(PARTS) - set(of_seed.part)):
            raise ValueError(f"figure {FIGURE}: no {missing} states of seed {seed}; measure the coverage of both parts")
    if rows.duplicated(["seed", "layer", "head", "part"]).any():
        raise ValueError(f"figure {FIGURE}: a seed's head stands twice; pass each seed's coverage once")
    rows = rows.assign(order=pd.to_numeric(rows.seed), place=pd.to_numeric(rows["head"], errors="coerce"))
    return rows.sort_values(["order", "layer", "part", "place"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str, "head": str})
    of = {"group": _steered(table), "label": table.part.map(PARTS), "value": table.wished}
    shown = table.assign(**of, method="slim", metric="wished", seed=table["head"])
    aims = table.groupby(of["group"], sort=False)["aimed"].first()
    figure, (panel,) = marks.points_in_rows(
        shown, {"wished": _SHARE}, headings=True, large="all heads, with interval", small="one head",
        more=[marks.pooled_handle("aimed at", marker="none", **_AIMED)],
    )  # fmt: skip
    rows = np.reshape(panel.get_yticks(), (len(aims), len(PARTS)))
    panel.vlines(aims, rows.min(1) - 0.45, rows.max(1) + 0.6, zorder=1, **_AIMED)  # pyright: ignore
    begin = _begin(table)
    panel.set_xlim(begin - 0.02 * (1 - begin), 1 + 0.02 * (1 - begin))
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    return figure


def _begin(table: pd.DataFrame) -> float:
    """Where the axis begins, at the tenth below all marks: near 1 the heads would stand on each other."""
    return min(np.floor(10 * np.nanmin(table[["wished", "low", "aimed"]])) / 10, 0.9)


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Phrases: model, seeds, aimed, interval; fitted and test: the share over all heads of each seed, and of what;
    empty: how many heads have no point, as they flag nothing; empty itself where all have one; cut: "yes" where the
    axis does not begin at 0."""
    table = table.astype({"seed": str, "head": str})
    is_pooled = table["head"] == "all"
    pooled, heads = table[is_pooled], table[~is_pooled]
    missing = int(heads.wished.isna().sum())
    said = {part: "; ".join(map(_said, pooled[pooled.part == part].to_dict("records"))) for part in PARTS}
    return said | {
        "model": selection.listed(table.model.dropna().unique()),
        "seeds": selection.counted([pooled.seed.nunique()], "seed"),
        "aimed": selection.listed(dict.fromkeys(f"{each:.3f}" for each in sorted(table.aimed.unique()))),
        "interval": selection.interval(confidence, "questions"),
        "empty": f"{missing} of {len(heads)}" if missing else "",
        "cut": "yes" if _begin(table) > 0 else "",
    }


def _steered(table: pd.DataFrame) -> pd.Series:
    """What a row's states belong to: the layer, with the seed where there are several."""
    seed = ", seed " + table.seed if table.seed.nunique() > 1 else ""
    return "layer " + table.layer.astype(str) + seed


def _said(row: dict) -> str:
    where = f"at layer {row['layer']} in seed {row['seed']}"
    if pd.isna(row["wished"]):
        return f"none flagged {where}"
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if pd.notna(row["low"]) else ""
    return f"{row['wished']:.3f}{interval} of {row['states']:,} {where}"
