"""Sentiment and perplexity of continuations against strength, one line a class of prompts.

The paper's four settings are positive control (strength > 0) of neutral and of negative prompts, and negative control
(strength < 0) of neutral and of positive ones: their points are filled, all others open. Strength 0 is the unsteered
model.
"""

from collections.abc import Collection

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "sentiment"
PANELS = {
    "positive_share": "Positive texts\n(share, 0 to 1)",
    "mean_sentiment": "Mean sentiment\n(score, −1 to 1)",
    "perplexity": "Perplexity\n(per token)",
}
SETTINGS = {  # (sign of the strength, class of prompts) in the order of the paper's tables
    (1, "neutral"): "positive control of neutral prompts",
    (1, "negative"): "positive control of negative prompts",
    (-1, "neutral"): "negative control of neutral prompts",
    (-1, "positive"): "negative control of positive prompts",
}
COLUMNS = ["setting", *selection.COLUMNS]

_CLASSES = {  # colour and marker of each class of prompts; no method has these colours
    "positive": ("#117733", "^"),
    "neutral": ("#7F7F7F", "o"),
    "negative": ("#AA4499", "v"),
}
_LINES = ("-", "--", ":", "-.")  # of the numbers of training steps, where there are several


def table(metrics: pd.DataFrame, *, method: str | None = None, scorers: Collection[str] = ()) -> pd.DataFrame:
    """The points: rows of one model's method (the only one beside base, unless named) and base, by class of prompts.

    metrics: the project's metrics columns, task sentiment, split test, prompts positive, neutral and negative.
    scorers: the sentiment scorer to draw where there are several.
    Returns COLUMNS: setting is a value of SETTINGS or "" for points that the paper's tables do not have.
    Raises ValueError where base or the method is missing, or two models or scorers would be mixed.
    """
    rows = selection.select(
        FIGURE, metrics[metrics.task == "sentiment"], list(PANELS), split="test", prompts=list(_CLASSES),
        scorers=scorers,
    )  # fmt: skip
    if rows.model.nunique() > 1:
        raise ValueError(f"figure {FIGURE}: got models {sorted(rows.model.unique())}; pass the metrics of one")
    drawn = pd.concat(selection.steered(FIGURE, rows, method), ignore_index=True)
    signs = (drawn.strength > 0).astype(int) - (drawn.strength < 0).astype(int)
    drawn = drawn.assign(
        setting=[SETTINGS.get(key, "") for key in zip(signs, drawn.prompts, strict=True)],
        order=drawn.prompts.map(list(_CLASSES).index),
        rank=drawn.metric.map(list(PANELS).index),
        run=pd.to_numeric(drawn.seed, errors="coerce"),
    )
    return drawn.sort_values(["order", "strength", "steps", "rank", "run"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns."""
    table = table.astype({"seed": str}).fillna({"setting": ""})
    steps = sorted(table[table.method != "base"].steps.unique())
    with style.context():
        figure, axes = marks.stacked(len(PANELS), height=5.6)
        for panel, (metric, label) in zip(axes, PANELS.items(), strict=True):
            shown = table[table.metric == metric]
            for (prompts, count), rows in shown[shown.method != "base"].groupby(["prompts", "steps"]):
                start = shown[(shown.method == "base") & (shown.prompts == prompts)]
                rows = pd.concat([start, rows]).sort_values("strength")
                colour, marker = _CLASSES[str(prompts)]
                filled = (rows[rows.seed == "all"].setting != "").to_numpy()
                line = _LINES[steps.index(count) % len(_LINES)]
                marks.curve(panel, rows, "strength", colour=colour, marker=marker, linestyle=line, filled=filled)
            panel.set_ylabel(label)
            panel.grid(axis="y")
            panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)
            _scale(panel, metric, shown)
        axes[-1].xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes[-1].set_xlabel("Strength s (0: unsteered; negative: towards negative)")
        _legend(figure, table, steps)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: method; effects, the change of the positive share at strength 1 in each setting."""
    table = table.astype({"seed": str}).fillna({"setting": ""})
    steered = table[table.method != "base"]
    return selection.phrases(table, confidence=confidence) | {
        "method": style.label(steered.method.iloc[0]),
        "effects": _effects(table),
    }


def _scale(panel: Axes, metric: str, shown: pd.DataFrame) -> None:
    if metric == "perplexity":
        marks.log_where_wide(panel, shown)
    elif metric == "positive_share":
        panel.set_ylim(-0.02, 1.02)
    else:
        panel.axhline(0, color="#888888", linewidth=0.8, zorder=0)


def _legend(figure: Figure, table: pd.DataFrame, steps: list) -> None:
    handles = [
        marks.pooled_handle(f"{prompts} prompts", color=colour, marker=marker)
        for prompts, (colour, marker) in _CLASSES.items()
        if prompts in set(table.prompts)
    ]
    handles.append(marks.pooled_handle("the paper's four settings", linestyle="none"))
    handles.append(marks.pooled_handle("others", linestyle="none", markerfacecolor="white", markeredgewidth=1.2))
    handles += marks.seed_handle(table)
    if len(steps) > 1:
        handles += [
            marks.pooled_handle(f"{count:g} steps", marker="", linestyle=line) for count, line in zip(steps, _LINES)
        ]
    marks.legend(figure, handles)


def _effects(table: pd.DataFrame) -> str:
    shares = table[(table.metric == "positive_share") & (table.seed == "all")]
    base = shares[shares.method == "base"].set_index("prompts")["value"]
    default = shares[(shares.strength.abs() == 1) & (shares.setting != "")]
    default = default.drop_duplicates("setting").set_index("setting")
    return selection.listed(
        f"{setting} {base[default.prompts[setting]]:.2f} to {default.value[setting]:.2f}"
        for setting in SETTINGS.values()
        if setting in default.index and default.prompts[setting] in base.index
    )
