"""Sentence pairs of CrowS-Pairs, a row a method and strength: how far apart their likelihoods are, which is the larger.

A large point is the mean over pairs of each pair's mean over seeds, with its bootstrap interval over pairs; small
points are the seeds. Differences from the unsteered model, which the caption tells, are paired by pair.
"""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, paired, selection, style
from steerlab.figures.truthfulness import signed
from steerlab.metrics import bootstrap

FIGURE = "control_bias"
PANELS = {"difference": "|Log-likelihood\ndifference| (nats)", "share": "Stereotypes\npreferred (share)"}
METRICS = tuple(name for panel in PANELS for name in (panel, f"{panel}_change"))
COLUMNS = ["model", "method", "strength", "seed", "metric", "value", "low", "high", "n"]
UNDECIDED = 0.5  # the share of a model that prefers neither side


def table(
    pairs: pd.DataFrame,
    *,
    model: str = "",
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
) -> pd.DataFrame:
    """COLUMNS, methods in the style's order, strengths up; seed "all" is over all seeds.

    pairs: as from steerlab.analyses.bias with a column seed, of any number of seeds; model: its name, for the caption.
    metric: one of METRICS: difference, |more - less| in nats; share, 1 where `more` is the likelier, else 0; and what
    changes from the unsteered model, whose numbers depend on no seed and stand there once. n: of pairs.
    Raises ValueError where the unsteered model is missing, or seeds have different pairs.
    """
    values = pairs.assign(difference=(pairs.more - pairs.less).abs(), share=(pairs.more > pairs.less).astype(float))
    base = values[values.method == "base"].drop_duplicates("pair")
    if base.empty:
        raise ValueError(f"figure {FIGURE}: no rows of method base; measure the unsteered model too")
    before = base.set_index("pair")
    values = pd.concat([base, values[values.method != "base"]]).assign(model=model)
    changes = {f"{name}_change": values[name] - values.pair.map(before[name]) for name in PANELS}
    rows = [
        first[["model", "method", "strength"]].to_dict() | numbers
        for _, part in values.assign(**changes).groupby("strength")
        for first, numbers in paired.by_method(
            FIGURE, part, "pair", METRICS, resamples=resamples, confidence=confidence
        )
    ]
    found = pd.DataFrame(rows)[COLUMNS]
    # Stable, so that the metrics and seeds of a row stay in their order.
    order = found.assign(place=found.method.map(style.rank)).sort_values(["place", "strength"], kind="stable").index
    return found.loc[order].reset_index(drop=True)


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    shown = table[table.metric.isin(list(PANELS))].astype({"seed": str})
    labels = [style.row_label(method, strength) for method, strength in zip(shown.method, shown.strength)]
    line = {"color": marks.GREY, "linewidth": 1.0, "linestyle": (0, (4, 2))}
    neither = marks.pooled_handle("neither preferred", **({"marker": ""} | line))
    figure, axes = marks.points_in_rows(shown.assign(group="", label=labels), PANELS, more=[neither])
    axes[1].axvline(UNDECIDED, zorder=0, **line)
    axes[1].set_xlim(right=max(axes[1].get_xlim()[1], 1.1 * UNDECIDED))
    return figure


def facts(table: pd.DataFrame, *, confidence: float = bootstrap.CONFIDENCE) -> dict[str, str]:
    """Phrases: model, pairs, seeds, interval; base: the unsteered model's two numbers; changes: of each other row;
    detectable: the smallest change of the share that is told from 0; controls: "yes" where any are drawn; instructed:
    "yes" where the model is asked to be fair."""
    table = table.astype({"seed": str})
    pooled = {
        (row["method"], row["strength"], row["metric"]): row for row in table[table.seed == "all"].to_dict("records")
    }
    others = list(dict.fromkeys((method, strength) for method, strength, _ in pooled if method != "base"))
    seeds = table[(table.seed != "all") & (table.strength != 0)].groupby(["method", "strength"])["seed"].nunique()
    widths = [pooled[*key, "share_change"]["high"] - pooled[*key, "share_change"]["low"] for key in others]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "pairs": selection.counted(table.n, "pair"),
        "seeds": selection.counted(seeds, "seed"),
        "interval": selection.interval(confidence, "pairs"),
        "base": " and ".join(f"{pooled['base', 0.0, panel]['value']:.3g}" for panel in PANELS),
        "changes": "; ".join(
            f"{style.row_label(*key)}: " + " and ".join(_said(pooled[*key, f"{panel}_change"]) for panel in PANELS)
            for key in others
        ),
        "detectable": f"{bootstrap.detectable(max(widths), confidence):.2g}" if any(widths) else "",
        "controls": "yes" if any(method.startswith(style.RANDOM) for method, _ in others) else "",
        "instructed": "yes" if any(method == "instructed" for method, _ in others) else "",
    }


def _said(row: dict) -> str:
    value, low, high = (signed(row[end]) for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
