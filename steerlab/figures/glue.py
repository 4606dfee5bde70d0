"""CogSteer's selective layers on GLUE: the dev metric layer by layer, the test metric of what is compared, its cost.

Above, a curve an intervention over the layers of the sweep, the middle third of the depth shaded, the picked layer
ringed. Below, large points are the test metric over all seeds with its interval, small points the seeds. At the bottom,
where it was measured: learnt parameters, seconds a training step, the largest memory.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab import layer_choices
from steerlab.data.glue import TASKS
from steerlab.figures import marks, selection, style
from steerlab.metrics import glue
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "glue"
COLUMNS = glue.COLUMNS
COSTS = {
    "parameters": "Parameters,\nthousands",
    "seconds": "Seconds\na training step",
    "peak_mib": "Peak memory,\nMiB",
}
METRICS = {"accuracy": "accuracy", "matthews": "Matthews correlation", "pearson": "Pearson correlation"}
INTERVENTIONS = {
    "head": ("head alone", "#666666"),
    "bottleneck": ("bottleneck", style.COLOURS["cogsteer"]),
    "prefix": ("prefix", "#332288"),
    "adaption_prompt": ("adaption prompt", "#117733"),
}
RULES = {
    "validation_middle": "the best on dev rows in the middle third of the depth",
    "validation": "the best on dev rows of all that were swept",
    "middle_peak": "the one in the middle third that goes best with reading times",
    "peak": "the one that goes best with reading times",
}

_LINE, _SWEEP, _COST = 0.22, 1.75, 0.85  # inches: a row of points, a sweep with its axes, those of the costs
_PALE = 0.5  # of a control: the share of its intervention's colour, the rest is white
_ORDER = {"none": 0, "picked": 1, "random": 2}


def table(
    comparisons: pd.DataFrame, *, costs: pd.DataFrame | None = None, model: str = "", rule: str = "validation_middle"
) -> pd.DataFrame:
    """The rows of all panels: COLUMNS, and rule. comparisons: as from steerlab.metrics.glue of any number of tasks;
    costs: as from steerlab.measure, which become rows of split "training" with the metrics COSTS.

    Raises ValueError where a task has no test rows, or one of a task stands twice.
    """
    rows = comparisons.astype({"seed": str}).assign(against=comparisons.against.fillna(""))
    for task, of_task in rows.groupby("task"):
        if not (of_task.split == "test").any():
            raise ValueError(f"figure {FIGURE}: task {task} has no test rows; compare its classifiers first")
    if rows.duplicated(["task", "split", "intervention", "layers", "layer", "seed", "against", "metric"]).any():
        raise ValueError(f"figure {FIGURE}: a classifier stands twice; pass each comparison once")
    parts = [rows]
    if costs is not None:
        long = costs.melt(["intervention", "layers", "steps", "low", "high"], list(COSTS), "metric", "value")
        timed = long.metric == "seconds"
        long = long.assign(low=long.low.where(timed), high=long.high.where(timed), n=long.steps)
        parts.append(long.assign(split="training", seed="all", against="", task=rows.task.iloc[0]))
    found = pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS).assign(model=model, rule=rule)
    return _typed(found)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The same types whether the rows were computed or read."""
    whole = dict.fromkeys(("layer", "n", "parameters", "blocks"), "Int64")
    return table.astype({"seed": str} | whole).assign(against=table.against.fillna(""))


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = _typed(table)
    swept, test = table[table.split == "dev"], table[(table.split == "test") & (table.against == "")]
    costs = table[table.split == "training"]
    tasks = list(dict.fromkeys(table.task))
    compared, columns = _compared(test), min(2, swept.task.nunique())
    lines = -(-swept.task.nunique() // columns) if columns else 0
    heights = [_SWEEP * lines] if lines else []
    heights += [0.75 + _LINE * (len(compared) + 1) * len(tasks)]
    heights += [_COST + _LINE * len(_compared(costs))] if len(costs) else []
    with style.context():
        figure = Figure(figsize=(style.WIDTH, 0.35 + sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if lines:
            panels = parts[0].subplots(lines, columns, squeeze=False).ravel()
            for panel, task in zip(panels, dict.fromkeys(swept.task)):
                _sweep(panel, swept[swept.task == task], test[test.task == task], task)
            for panel in panels[swept.task.nunique() :]:
                panel.set_visible(False)
        _tested(parts[1 if lines else 0].subplots(), test, compared)
        if len(costs):
            _costs(list(parts[-1].subplots(1, len(COSTS))), costs)
        shown = [name for name in INTERVENTIONS if name in set(swept.intervention)]
        named = [marks.pooled_handle(INTERVENTIONS[name][0], color=INTERVENTIONS[name][1]) for name in shown]
        marks.legend(figure, [*named, *_ring(shown), *marks.seed_handle(test)])
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Phrases: model, tasks, metrics, interventions, rule, picks, seeds, rows, interval; gains: of the picked layer on
    the others; costs: of the picked layer beside all, empty where they were not measured."""
    table = _typed(table)
    test = table[(table.split == "test") & (table.seed == "all")]
    own, gained = test[test.against == ""], test[test.against != ""]
    single = table[(table.split == "test") & (table.against == "")]
    seeds = [max(1, len(set(of.seed) - {"all"})) for _, of in single.groupby("task")]
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "tasks": selection.listed(TASKS[task].title for task in dict.fromkeys(own.task)),
        "metrics": selection.listed(METRICS[name] for name in dict.fromkeys(own.metric)),
        "interventions": selection.listed(_named(name) for name in dict.fromkeys(own.intervention) if name != "head"),
        "rule": RULES[table.rule.iloc[0]],
        "picks": "; ".join(_picked(row) for row in own[own.layers == "picked"].to_dict("records")),
        "seeds": selection.counted(seeds, "seed"),
        "rows": selection.listed(f"{n:,}" for n in dict.fromkeys(own.n)),
        "interval": selection.interval(confidence, "rows"),
        "gains": "; ".join(map(_gain, gained.to_dict("records"))),
        "costs": _cost_words(table[table.split == "training"]),
    }


# ---- panels ----


def _sweep(panel: Axes, swept: pd.DataFrame, test: pd.DataFrame, task: str) -> None:
    middle = layer_choices.middle_third(int(swept.blocks.iloc[0]))
    panel.axvspan(middle.start - 0.5, middle.stop - 0.5, color="#EEEEEE", zorder=0, linewidth=0)
    for name, rows in swept[swept.seed == "all"].groupby("intervention", sort=False):
        colour = INTERVENTIONS[str(name)][1]
        marks.curve(panel, rows, "layer", colour=colour)
        picked = test[(test.intervention == name) & (test.layers == "picked")].layer.dropna().unique()
        at = rows[rows.layer.isin(picked)]
        panel.plot(at.layer, at.value, "o", zorder=5, **_RING, color=colour)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.set_xlim(-0.7, int(swept.blocks.iloc[0]) - 0.3)
    panel.set_xlabel("Block")
    panel.set_ylabel("On dev rows")
    panel.set_title(TASKS[task].title, fontweight="bold", loc="left")
    panel.grid(axis="y")


_RING: dict = {"markersize": 10.0, "markerfacecolor": "none", "markeredgewidth": 1.4}


def _ring(shown: list[str]) -> list:
    return [marks.pooled_handle("picked layer", linestyle="none", **_RING)] if shown else []


def _tested(panel: Axes, test: pd.DataFrame, compared: list[tuple[str, str]]) -> None:
    y, ticks = -1.0, {}
    for task, rows in test.groupby("task", sort=False):
        y += 1.0
        written = panel.annotate(
            f"{TASKS[str(task)].title}: {METRICS[rows.metric.iloc[0]]}", (0, y), xycoords=panel.get_yaxis_transform(),
            xytext=(3, 0), textcoords="offset points", va="center", fontweight="bold", annotation_clip=False,
        )  # fmt: skip
        written.set_in_layout(False)
        for key in compared:
            y += 1.0
            here = rows[(rows.intervention == key[0]) & (rows.layers == key[1])]
            _points(panel, here, y, _colour(*key))
            ticks[y] = _label(*key)
    panel.set_yticks(list(ticks), list(ticks.values()))
    panel.set_ylim(y + 0.9, -0.6)
    panel.set_xlabel("On test rows: " + " or ".join(METRICS[name] for name in dict.fromkeys(test.metric)))
    _plain(panel)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _points(panel: Axes, rows: pd.DataFrame, y: float, colour: str) -> None:
    pooled, seeds = rows[rows.seed == "all"], rows[rows.seed != "all"]
    panel.hlines([y] * len(pooled), pooled.low, pooled.high, color=colour, linewidth=1.4, zorder=2)
    panel.plot(pooled.value, [y] * len(pooled), "o", color=colour, markersize=style.POOLED_SIZE, zorder=3)
    panel.plot(
        seeds.value, [y + 0.36] * len(seeds), "o", color=colour, alpha=0.6, markersize=style.SEED_SIZE,
        markeredgewidth=0, zorder=1,
    )  # fmt: skip


def _costs(panels: list[Axes], costs: pd.DataFrame) -> None:
    compared = _compared(costs)
    for panel, (metric, label) in zip(panels, COSTS.items(), strict=True):
        for y, key in enumerate(compared):
            of = costs[(costs.metric == metric) & (costs.intervention == key[0]) & (costs.layers == key[1])]
            _points(panel, of.assign(value=of.value / 1000) if metric == "parameters" else of, y, _colour(*key))
        panel.set_yticks(range(len(compared)), [_label(*key) for key in compared] if panel is panels[0] else [])
        panel.set_ylim(len(compared) - 0.4, -0.6)
        panel.set_xlabel(label)
        _plain(panel)
        right = panel.get_xlim()[1]
        panel.set_xlim(-0.06 * right, 1.06 * right)
        panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))


def _plain(panel: Axes) -> None:
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)


# ---- words ----


def _compared(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(intervention, layers) in the order of the figure."""
    keys = set(zip(rows.intervention, rows.layers))
    order = list(INTERVENTIONS)
    return sorted(keys, key=lambda key: (order.index(key[0]), _ORDER.get(key[1], 4 if key[1] == "all" else 3), key[1]))


def _named(intervention: str) -> str:
    return INTERVENTIONS[intervention][0]


def _label(intervention: str, layers: str) -> str:
    if layers == "none":
        return _named(intervention)
    named = {"picked": "picked layer", "random": "random layer", "all": "all layers"}
    return f"{_named(intervention)}, {named.get(layers, f'block {layers}')}"


def _colour(intervention: str, layers: str) -> str:
    own = INTERVENTIONS[intervention][1]
    if layers == "all":
        return "#000000"
    red, green, blue = (1 - _PALE * (1 - part) for part in to_rgb(own))
    return to_hex((red, green, blue)) if layers == "random" else own


def _picked(row: dict) -> str:
    where = "a block a seed" if pd.isna(row["layer"]) else f"block {row['layer']} of {row['blocks']} (from 0)"
    return f"{TASKS[row['task']].title}, {_named(row['intervention'])}: {where}"


def _gain(row: dict) -> str:
    other = {"random": "a random layer", "all": "all layers"}[row["against"]]
    told = f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{TASKS[row['task']].title}, {_named(row['intervention'])} against {other} {told}"


def _cost_words(costs: pd.DataFrame) -> str:
    said = []
    for intervention in dict.fromkeys(costs.intervention):
        of = costs[costs.intervention == intervention].pivot(index="layers", columns="metric", values="value")
        if {"picked", "all"} <= set(of.index):
            one, full = of.loc["picked"], of.loc["all"]
            said.append(
                f"the {_named(intervention)} in the picked layer has {_percent(one.parameters, full.parameters)} of "
                f"the parameters of that in all layers, a step takes {_percent(one.seconds, full.seconds)} of the "
                f"seconds, and the peak of memory is {_percent(one.peak_mib, full.peak_mib)}"
            )
    return "; ".join(said)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"
