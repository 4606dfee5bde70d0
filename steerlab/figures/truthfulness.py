"""Truthfulness of each method on test questions: a row a method and strength, its random control below it.

A large point is the value over all seeds, the thin line through it its interval, the small points are the seeds. The
tick of a row is the unsteered model on that row's own questions, and the thick line the interval of the paired
difference from it, laid on the value: a row whose thick line misses its tick differs from the unsteered model. The
dotted line is the unsteered model's own row.
"""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.metrics import bootstrap
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "truthfulness"
CHOSEN_FROM = {"mc1": "MC1\n(share of questions)", "mc2": "MC2\n(probability)"}  # answers that are given
GENERATED = {  # the model's own answers beside the given ones
    "bleu_better": "BLEU\n(share nearer)",
    "rouge1_better": "ROUGE-1\n(share nearer)",
    "rougeL_better": "ROUGE-L\n(share nearer)",
}
JUDGED = {  # the model's own answers as a fine-tuned model sees them
    "truthful": "Truthful\n(share)",
    "informative": "Informative\n(share)",
    "truthful_and_informative": "Both\n(share)",
}
GROUPS = (CHOSEN_FROM, GENERATED, JUDGED)  # a row of panels each, where there are numbers
COLUMNS = [*selection.COLUMNS, "chosen"]
ELSEWHERE = {"nq_open": "NQ-Open", "trivia_qa": "TriviaQA"}  # asked under what was learnt on other questions
DEFAULT_STRENGTH = 1.0

_ROW = ["method", "steps", "strength"]
_PITCH, _BETWEEN_METHODS, _TO_SEEDS = 0.3, 0.25, 0.3  # inches a row; rows: the gap, from a value down to its seeds
_LABEL_LETTERS = 19  # in a line
_THIN, _THICK = 1.1, 4.0  # points


def table(
    metrics: pd.DataFrame, choices: Sequence[Mapping] = (), *, scorers: Collection[str] = (), learnt_on: str = ""
) -> pd.DataFrame:
    """The rows drawn: each method at its pick, and at strength 1 where that is another; controls at the pick alone.

    metrics: the columns of steerlab.metrics.continuations, test split; MC1 and MC2 must be there, numbers of generated
    answers may be. choices: dictionaries with model, method, task and pick (steps, strength); a method without one is
    shown as it is. scorers: whose numbers to draw where a metric comes from several. learnt_on: the task of the
    choices, where it is another than that of the metrics.
    Returns COLUMNS, base first, methods in the style's order, steps and strengths up.
    Raises ValueError where MC1 or MC2 has no row over all seeds, or two tasks or scorers would be mixed.
    """
    there = set(metrics[(metrics.split == "test") & (metrics.seed.astype(str) == "all")].metric)
    names = [name for group in GROUPS for name in group if group is CHOSEN_FROM or name in there]
    rows = selection.select(FIGURE, metrics, names, split="test", scorers=scorers)
    picks = {(one["model"], one["method"], one["task"]): one["pick"] for one in choices if one["pick"]}
    # One at a time, because a model's settings are its own.
    tasks = rows.assign(task=learnt_on or rows.task)
    seen = [_seen(row, picks) for row in tasks[["model", "task", *_ROW]].to_dict("records")]
    rows = rows.assign(
        chosen=[state == "chosen" for state in seen],
        place=rows.method.map(style.rank),
        rank=rows.metric.map(names.index),
        run=pd.to_numeric(rows.seed, errors="coerce"),
    )[[state != "" for state in seen]]
    return rows.sort_values(["place", *_ROW, "rank", "run"], ignore_index=True)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str})
    groups = [group for group in GROUPS if table.metric.isin(list(group)).any()]
    shown = [table[table.metric.isin(list(group))] for group in groups]
    places = [_places(rows) for rows in shown]
    heights = [0.62 + _PITCH * (max(at.values()) + 1.2) for at in places]
    with style.context():
        figure = Figure(figsize=(style.WIDTH, 0.5 + sum(heights)), layout="constrained")
        grid = figure.add_gridspec(len(groups), 6, height_ratios=heights)  # 6: of two panels and of three
        for line, (group, rows, at) in enumerate(zip(groups, shown, places, strict=True)):
            there = [metric for metric in group if (rows.metric == metric).any()]
            wide = 6 // len(there)
            for column, metric in enumerate(there):
                panel = figure.add_subplot(grid[line, wide * column : wide * (column + 1)])
                _draw(panel, rows[rows.metric == metric], at)
                panel.xaxis.set_major_locator(MaxNLocator(wide, steps=[1, 2, 5, 10]))
                _finish(panel, group[metric], at, _labels(rows) if column == 0 else {})
        marks.legend(figure, _handles(table))
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases of questions instead of prompts, and these, each empty where there is nothing to say.

    elsewhere: the questions' source where steers and strengths are of another one.
    controls: "yes" where any are drawn; generated, judged: who compared or judged generated answers, answered: to how
    many questions; chosen: what the chosen rows do to MC1 and MC2; detectable: the smallest difference from the
    unsteered model that is found with bootstrap.POWER; by_chance: how many thick lines would miss their tick where no
    method did anything.
    """
    table = table.astype({"seed": str})
    pooled = table[table.seed == "all"]
    given = table.metric.isin(list(CHOSEN_FROM))
    thick = int(pooled[pooled.metric.isin(list(CHOSEN_FROM))].difference_low.notna().sum())
    return of_questions(table[given], confidence) | {
        "elsewhere": selection.listed(ELSEWHERE[task] for task in table.task.unique() if task in ELSEWHERE),
        "answered": selection.phrases(table[~given])["prompts"].replace("prompt", "question") if (~given).any() else "",
        "controls": "yes" if table.method.str.startswith(style.RANDOM).any() else "",
        "generated": _by(pooled, GENERATED),
        "judged": _by(pooled, JUDGED),
        "chosen": "; ".join(changes(pooled[pooled.chosen], CHOSEN_FROM)),
        "detectable": detectable(pooled, CHOSEN_FROM, confidence),
        "by_chance": f"{(1 - confidence) * thick:.2g} of {thick}" if thick else "",
    }


# Shared with the ablations ------------------------------------------------------------------------------------------


def of_questions(table: pd.DataFrame, confidence: float) -> dict[str, str]:
    """The phrases of every caption, of questions instead of prompts."""
    said = selection.phrases(table, confidence=confidence)
    return {name.replace("prompt", "question"): phrase.replace("prompt", "question") for name, phrase in said.items()}


def changes(pooled: pd.DataFrame, panels: Mapping[str, str], names: str = "") -> Iterable[str]:
    """What each row changes, a phrase a row: its name, then each metric's paired difference with its interval.

    names: the column with the rows' names; by default their method with its strength.
    """
    for key, rows in pooled[pooled.metric.isin(list(panels))].groupby([*([names] if names else []), *_ROW], sort=False):
        of = rows.set_index("metric")
        said = [
            f"{_short(panels[metric])} {signed(of.difference[metric])} "
            f"[{signed(of.difference_low[metric])}, {signed(of.difference_high[metric])}]"
            for metric in panels
            if metric in of.index and pd.notna(of.difference[metric])
        ]
        if said:
            yield f"{key[0] if names else style.row_label(key[0], key[-1])}: {', '.join(said)}"  # pyright: ignore


def detectable(pooled: pd.DataFrame, panels: Mapping[str, str], confidence: float) -> str:
    """Smallest difference from the base that is found with bootstrap.POWER, by metric, from its widest interval."""
    found = []
    for metric, label in panels.items():
        rows = pooled[pooled.metric == metric]
        width = (rows.difference_high - rows.difference_low).max()
        if width > 0:
            found.append(f"{bootstrap.detectable(width, confidence):.2g} in {_short(label)}")
    return selection.listed(found)


def signed(value: float) -> str:
    """A difference with its sign, to three decimals."""
    return f"{value:+.3f}".replace("-", "−")


# Rows ---------------------------------------------------------------------------------------------------------------


def _seen(row: Mapping, picks: Mapping[tuple, Mapping]) -> str:
    """ "chosen", "shown", or "" for a setting that is left out."""
    control = row["method"].startswith(style.RANDOM)
    pick = picks.get((row["model"], row["method"].removeprefix(style.RANDOM), row["task"]))
    if pick is None:
        return "shown"
    if control:
        return "shown" if row["strength"] == pick["strength"] else ""
    if row["steps"] != pick["steps"]:
        return ""
    if row["strength"] == pick["strength"]:
        return "chosen"
    return "shown" if row["strength"] == DEFAULT_STRENGTH else ""


def _rows(shown: pd.DataFrame) -> Iterable[tuple[str, int, float]]:
    return shown[_ROW].drop_duplicates().itertuples(index=False, name=None)  # pyright: ignore[reportReturnType]


def _labels(shown: pd.DataFrame) -> dict[tuple, str]:
    chosen = set(_rows(shown[shown.chosen]))
    several = shown.groupby("method")["steps"].nunique() > 1
    labels = {}
    for row in _rows(shown):
        method, steps, strength = row
        name = style.row_label(method, strength) + (f", {steps:g} steps" if several[method] else "")
        labels[row] = textwrap.fill(name + (" (chosen)" if row in chosen else ""), _LABEL_LETTERS)
    return labels


def _places(shown: pd.DataFrame) -> dict[tuple, float]:
    """Each row's place from the top, in rows; a gap stands between methods, none before a random control."""
    places, last, y = {}, "", -1.0
    for row in _rows(shown):
        method = row[0].removeprefix(style.RANDOM)
        y += 1.0 if last in ("", method) else 1.0 + _BETWEEN_METHODS
        places[row], last = y, method
    return places


def _draw(panel: Axes, rows: pd.DataFrame, places: Mapping[tuple, float]) -> None:
    pooled, seeds = rows[rows.seed == "all"], rows[rows.seed != "all"]
    for value in pooled[pooled.method == "base"].value:
        panel.axvline(value, color="black", linewidth=0.8, linestyle=":", zorder=0)
    for line in pooled.to_dict("records"):
        y, colour = places[line["method"], line["steps"], line["strength"]], style.colour(line["method"])
        ends = (line["base"] + line["difference_low"], line["base"] + line["difference_high"])
        panel.hlines([y], *ends, color=colour, linewidth=_THICK, alpha=0.55, zorder=2)
        panel.hlines([y], line["low"], line["high"], color=colour, linewidth=_THIN, zorder=3)
        panel.plot([line["base"]], [y], "|", color="black", markersize=10, markeredgewidth=1.1, zorder=4)
        panel.plot(
            [line["value"]], [y], "o", color=colour, markersize=style.POOLED_SIZE, zorder=5,
            markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip
    # Below the line, not on it: the interval is of the pooled value, not of the seeds.
    for row, of_row in seeds.groupby(_ROW):
        y = places[row] + _TO_SEEDS  # pyright: ignore[reportArgumentType]
        panel.plot(
            of_row.value, [y] * len(of_row), "o", color=style.colour(of_row.method.iloc[0]), alpha=0.6, zorder=1,
            markersize=style.SEED_SIZE, markeredgewidth=0,
        )  # fmt: skip


def _finish(panel: Axes, label: str, places: Mapping[tuple, float], labels: Mapping[tuple, str]) -> None:
    panel.set_xlabel(label)
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.set_yticks(list(places.values()), [labels.get(row, "") for row in places])
    panel.tick_params(axis="y", labelsize=8)
    panel.set_ylim(max(places.values()) + 0.6, -0.6)
    panel.margins(x=0.08)


def _handles(table: pd.DataFrame) -> list:
    """The legend's entries: of what is drawn alone."""
    handles = [marks.pooled_handle("all seeds, with interval", linewidth=_THIN)]
    if table.difference_low.notna().any():
        none = {"marker": "none"}
        handles.append(marks.pooled_handle("interval of the difference", linewidth=_THICK, alpha=0.55, **none))
        tick = {"marker": "|", "markersize": 9, "markeredgewidth": 1.1, "linestyle": "none", "color": "black"}
        handles.append(marks.pooled_handle("unsteered, same questions", **tick))
    return handles + marks.seed_handle(table)


# Words --------------------------------------------------------------------------------------------------------------


def _by(pooled: pd.DataFrame, panels: Mapping[str, str]) -> str:
    """The measures of these panels that are drawn, each with its scorer."""
    shown = pooled[pooled.metric.isin(list(panels))].drop_duplicates(["metric", "scorer"])
    names: dict[str, list[str]] = {}
    for metric, scorer in shown[["metric", "scorer"]].itertuples(index=False):
        names.setdefault(scorer, []).append(_short(panels[metric]))
    return "; ".join(f"{selection.listed(found)} by {scorer}" for scorer, found in names.items())


def _short(label: str) -> str:
    return label.partition("\n")[0]
