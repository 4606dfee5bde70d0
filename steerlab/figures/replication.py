"""LM-Steer's reported numbers and this run's, side by side: a table of all of them, a picture of what both have.

The shape of both is steerlab.figures.side_by_side; here stands which of our rows is which of the paper's.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steerlab import reference as papers
from steerlab.figures import selection, side_by_side
from steerlab.figures.side_by_side import of_paper, percent
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.calibrated import CALIBRATED, RAW, SUFFIX, label

FIGURE = "replication"
METHOD, TRANSFERRED, FEW = "lm_steer", "transferred_lm_steer", "lm_steer_30"  # as the reference has them
DEFAULT = 5  # the paper's steer value, in multiples of its eps0, that strength 1 stands for
METRICS = (  # what is compared
    "average_max_toxicity", "toxicity_probability", "positive_share", "perplexity", "dist_1", "dist_2", "dist_3",
)  # fmt: skip
OF_TOXICITY = ("average_max_toxicity", "toxicity_probability")
PERSPECTIVE = "perspective=="  # begins the label of the service itself
RAW_ABOVE = 10  # continuations a prompt; see `closer`
_NEEDED = [
    "model", "method", "task", "split", "prompts", "steps", "strength", "seed", "metric",
    "value", "low", "high", "base", "difference_low", "difference_high", "n", "samples", "scorer", "data",
]  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One line of the comparison before it is split by metric: what the paper has for it, and what this run has.

    paper, paper_base: rows of the reference; ours: rows of the metrics; all may be empty.
    """

    section: str
    name: str
    paper: pd.DataFrame
    paper_base: pd.DataFrame
    ours: pd.DataFrame
    our_model: str


def table(
    metrics: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    choices: Sequence[Mapping] = (),
    parameters: pd.DataFrame | None = None,
    model: str | None = None,
    transferred: Collection[str] = (),
    few: Collection[str] = (),
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """Every number of the paper that this project has a rule for, with ours beside it; those that both have come first.

    metrics: the project's metrics columns; rows of split "test", seed "all" count. reference: as from
    steerlab.reference.read("lm_steer"); third parties' numbers are left out. choices: the choices' JSON objects with
    model, method and task, which name the pick. parameters: model, method, learnable, model_parameters, and
    decode_time_ratio where it was measured. model: ours to set beside the paper's GPT2-large; by default that one
    itself if it was run, else the first with an LM-Steer in the metrics. transferred, few: our
    names of what was transferred and of what learnt from 30 texts. scorers: which to use where several scored; they go
    before the choices' own. Where a scorer's numbers stand raw and calibrated, `closer` says which is compared.

    Returns side_by_side.COLUMNS: paper and ours in the metric's units (shares, not percent), NaN where there is none,
    see status; ours_raw and ours_calibrated, the same number on both scales where there are two, of which `ours` is one
    (our_scorer says which); paper_spread, standard deviation over training seeds; ours_low to ours_high, the bootstrap
    interval; *_change_percent, of the unsteered model's value, NaN for that model itself and where its value is 0;
    difference = ours - paper; data, "real" or "sample", of ours.
    Raises ValueError where a column is missing or several scorers leave open which one is meant.
    """
    absent = [column for column in _NEEDED if column not in metrics]
    if absent:
        raise ValueError(f"figure {FIGURE}: the metrics lack the columns {absent}; compute the metrics again")
    paper = papers.paper_rows(reference)
    ours = _pooled(metrics, [*scorers, *(choice["scorer"] for choice in choices if "scorer" in choice)])
    model = model or _headline(ours)
    rows = [
        *_detoxification(paper, ours, model, choices),
        *_sentiment(paper, ours, model, choices),
        *_transfer(paper, ours, transferred),
        *_sizes(paper, ours, choices),
        *_few_texts(paper, ours, model, choices, few),
        *_costs(paper, parameters, model),
    ]
    return side_by_side.table(line for row in rows for line in _lines(row))


def closer(metric: str, samples: float) -> str:
    """The scale, RAW or CALIBRATED, on which a local scorer comes closer to Perspective's number of this metric.

    samples: continuations a prompt. A mean is right on average only calibrated. Calibrated maxima and shares of prompts
    above a limit come out too low, but of few texts still closer than raw ones; the raw maximum of 25 texts is as close
    as the calibrated one or closer. Measured on random groups of 4 and of 25 texts (steerlab.analyses.calibration).
    """
    return RAW if metric == "average_max_toxicity" and samples > RAW_ABOVE else CALIBRATED


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns. A line for each row where both sides have a change: paper's mark, ours, joined."""
    return side_by_side.plot(table, short=_short)


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """What the caption may say: the phrases of side_by_side.facts, and these, each of which may be empty.

    compared: the metrics that we have on both scales, with the one on which they are compared; raw: those of them that
    are raw; uncalibrated: our toxicity scorers that are neither calibrated nor Perspective.
    """
    return side_by_side.facts(table, confidence=confidence) | _scales(table)


def _scales(table: pd.DataFrame) -> dict[str, str]:
    """Which metrics of toxicity are on which scale."""
    ours = table[table.metric.isin(OF_TOXICITY) & table.ours.notna()]
    ours = ours.astype({"our_scorer": str})
    ours = ours.assign(calibrated=ours.our_scorer.str.endswith(SUFFIX))
    both = ours[ours.ours_calibrated.notna()]
    alone = ours[ours.ours_calibrated.isna() & ~ours.calibrated & ~ours.our_scorer.str.startswith(PERSPECTIVE)]

    def named(rows: pd.DataFrame) -> str:
        return selection.listed(papers.METRICS[metric] for metric in METRICS if metric in set(rows.metric))

    scales = {CALIBRATED: named(both[both.calibrated]), RAW: named(both[~both.calibrated])}
    return {
        "compared": " and ".join(f"{words} {scale}" for scale, words in scales.items() if words),
        "raw": scales[RAW],
        "uncalibrated": selection.listed(dict.fromkeys(alone.our_scorer)),
    }


# ---- what this run has -------------------------------------------------------------------------------------------


def _pooled(metrics: pd.DataFrame, scorers: Sequence[str]) -> pd.DataFrame:
    """Rows of the test prompts over all seeds, one scorer a metric and model, with the number of seeds."""
    table = metrics.astype({"seed": str})
    table = table[(table.split == "test") & table.metric.isin(list(METRICS))]
    cell = ["model", "method", "task", "prompts", "steps", "strength", "metric", "scorer"]
    runs = table[table.seed != "all"].groupby(cell)["seed"].nunique().rename("seeds").reset_index()
    pooled = table[table.seed == "all"].merge(runs, on=cell, how="left")
    samples = pooled.groupby("metric")["samples"].max()  # one scale a metric, so that its lines can be compared
    asked = [scorer.removesuffix(SUFFIX) for scorer in scorers]
    kept = [pooled.iloc[:0].assign(**dict.fromkeys((RAW, CALIBRATED), np.nan))]
    for (model, metric), rows in pooled.groupby(["model", "metric"], sort=False):
        known = list(dict.fromkeys(rows.scorer.str.removesuffix(SUFFIX)))
        named = [name for name in dict.fromkeys(asked) if name in known]
        if len(known) > 1 and not named:
            raise ValueError(f"figure {FIGURE}: {metric} on {model} comes from {known}; name one with `scorers`")
        raw = (named or known)[0]
        by_scale = {scale: rows[rows.scorer == name] for scale, name in ((RAW, raw), (CALIBRATED, label(raw)))}
        there = [scale for scale, own in by_scale.items() if len(own)]
        compared = by_scale[closer(str(metric), samples[str(metric)]) if len(there) > 1 else there[0]]
        places = pd.MultiIndex.from_frame(compared[cell[:-1]])
        values = {
            scale: own.set_index(cell[:-1])["value"].reindex(places).to_numpy(dtype=float) if len(there) > 1 else np.nan
            for scale, own in by_scale.items()
        }
        kept.append(compared.assign(**values))
    return pd.concat(kept).sort_index().reset_index(drop=True)  # models as the metrics name them


def _headline(ours: pd.DataFrame) -> str:
    models = list(dict.fromkeys(ours[ours.method == METHOD].model)) or list(dict.fromkeys(ours.model))
    return "gpt2-large" if "gpt2-large" in models else models[0] if models else ""


def _setting(
    ours: pd.DataFrame, model: str, method: str, task: str, strength: float = 0.0, steps: float | None = None
) -> pd.DataFrame:
    """The rows of one cell at one strength; of several numbers of training steps the one asked for, else the most."""
    cell = (ours.model == model) & (ours.method == method) & (ours.task == task) & np.isclose(ours.strength, strength)
    rows = ours[cell]
    wanted = steps if steps in set(rows.steps) else rows.steps.max()
    return rows[rows.steps == wanted]


def _pick(choices: Sequence[Mapping], model: str, method: str, task: str) -> tuple[float, float] | None:
    """(strength, steps) of the choice for a cell, if there is one."""
    for choice in choices:
        if (choice.get("model"), choice.get("method"), choice.get("task")) == (model, method, task):
            return float(choice["pick"]["strength"]), float(choice["pick"]["steps"])
    return None


# ---- what is set side by side ------------------------------------------------------------------------------------


def _detoxification(paper: pd.DataFrame, ours: pd.DataFrame, model: str, choices: Sequence[Mapping]) -> Iterator[_Row]:
    """Table 1 (unsteered; LM-Steer at the pick and at strength 1, the paper's 5 eps0) and the strengths of table 5."""
    first = paper[paper.table == "Table 1"]
    unsteered, steered = first[first.method == "base"], first[first.method == METHOD]
    none = paper.iloc[:0]
    yield _Row("detoxification", "unsteered", unsteered, none, _setting(ours, model, "base", "toxicity"), model)
    pick = _pick(choices, model, METHOD, "toxicity")
    steps = pick[1] if pick else None
    if pick and pick[0] != 1:
        found = _setting(ours, model, METHOD, "toxicity", *pick)
        yield _Row("detoxification", f"LM-Steer, our pick ({pick[0]:g})", steered, unsteered, found, model)
    strengths = paper[(paper.table == "Table 5") & (paper.steer_value != DEFAULT)]  # that one is table 1's
    name = "LM-Steer, 1 (our pick)" if pick and pick[0] == 1 else "LM-Steer, 1"
    found = _setting(ours, model, METHOD, "toxicity", 1.0, steps)
    yield _Row("detoxification", name, steered, unsteered, found, model)
    for value, rows in strengths.groupby("steer_value"):
        strength = float(str(value)) / DEFAULT
        found = _setting(ours, model, METHOD, "toxicity", strength, steps)
        yield _Row("strength", f"LM-Steer, {strength:g}", rows, unsteered, found, model)


def _sentiment(paper: pd.DataFrame, ours: pd.DataFrame, model: str, choices: Sequence[Mapping]) -> Iterator[_Row]:
    """Table 2: unsteered, and steered to each side at strength 1 and at the pick's."""
    second = paper[(paper.table == "Table 2") & paper.method.isin(["base", METHOD])]
    unsteered, none = second[second.method == "base"], paper.iloc[:0]
    yield _Row("sentiment", "unsteered", unsteered, none, _setting(ours, model, "base", "sentiment"), model)
    pick = _pick(choices, model, METHOD, "sentiment")
    sizes = [1.0] if pick is None else list(dict.fromkeys([abs(pick[0]), 1.0]))
    for side, sign in (("positive", 1), ("negative", -1)):
        reported = second[second.setting == f"target {side}"]
        for size in sizes:
            found = _setting(ours, model, METHOD, "sentiment", sign * size, pick[1] if pick else None)
            yield _Row("sentiment", f"LM-Steer to {side}, {size:g}", reported, unsteered, found, model)


def _transfer(paper: pd.DataFrame, ours: pd.DataFrame, transferred: Collection[str]) -> Iterator[_Row]:
    """The paper's targets (its text before its figure) with ours on the same model; then our other targets."""
    toxicity = paper[(paper.task == "toxicity") & (paper.metric == "average_max_toxicity")]
    figure = toxicity[toxicity.table == "figure of transfer"]
    moved = toxicity[toxicity.method == TRANSFERRED].drop_duplicates("model")
    ran = ours[ours.method.isin(list(transferred)) & (ours.task == "toxicity")]
    for model, reported in moved.groupby("model", sort=False):
        base = figure[(figure.method == "base") & (figure.model == model)]
        found = ran[ran.model == model]
        yield _Row("transfer", f"transferred to {model}", reported, base, _strongest(found), str(model))
    for (model, strength), found in ran[~ran.model.isin(list(moved.model))].groupby(["model", "strength"], sort=False):
        name = f"transferred to {model}, {strength:g}"
        yield _Row("transfer", name, paper.iloc[:0], paper.iloc[:0], _strongest(found), str(model))


def _sizes(paper: pd.DataFrame, ours: pd.DataFrame, choices: Sequence[Mapping]) -> Iterator[_Row]:
    """The paper's sweep over models, with ours on the same models; then our other models."""
    sweep = paper[paper.setting == "size sweep"]
    ran = list(dict.fromkeys(ours[(ours.method == METHOD) & (ours.task == "toxicity")].model))

    def found(model: str) -> tuple[str, pd.DataFrame]:
        strength, steps = _pick(choices, model, METHOD, "toxicity") or (1.0, None)
        return f"{model}, {strength:g}", _setting(ours, model, METHOD, "toxicity", strength, steps)

    for model, reported in sweep.groupby("model", sort=False):
        name, rows = found(str(model))
        yield _Row("size", name if len(rows) else str(model), reported, paper.iloc[:0], rows, str(model))
    for model in ran:
        name, rows = found(model)
        if model not in set(sweep.model):
            yield _Row("size", name, paper.iloc[:0], paper.iloc[:0], rows, model)


def _few_texts(
    paper: pd.DataFrame, ours: pd.DataFrame, model: str, choices: Sequence[Mapping], few: Collection[str]
) -> Iterator[_Row]:
    """The paper's 30 texts, with ours at the pick of all texts, which is where it is run."""
    strength, steps = _pick(choices, model, METHOD, "toxicity") or (1.0, None)
    unsteered = paper[(paper.table == "Table 1") & (paper.method == "base")]
    found = pd.concat([ours.iloc[:0], *(_setting(ours, model, name, "toxicity", strength, steps) for name in few)])
    yield _Row("data", f"30 texts, {strength:g}", paper[paper.method == FEW], unsteered, found, model)


def _costs(paper: pd.DataFrame, parameters: pd.DataFrame | None, model: str) -> Iterator[_Row]:
    """Parameters learnt, their share of the model, decoding's time over the unsteered model's."""
    cost = paper[(paper.task == "cost") & (paper.method == METHOD) & (paper.grade == "A")]
    found = pd.DataFrame(columns=["metric", "prompts", "value"])
    if parameters is not None:
        for row in parameters[(parameters.model == model) & (parameters.method == METHOD)].to_dict("records"):
            counts = {
                "trainable_parameters": row["learnable"],
                "trainable_share": row["learnable"] / row["model_parameters"],
                "decode_time_ratio": row.get("decode_time_ratio", np.nan),
            }
            found = pd.DataFrame([{"metric": name, "prompts": "all", "value": value} for name, value in counts.items()])
            found = found[found.value.notna()]
    for source, reported in cost.groupby("table", sort=False):
        yield _Row("cost", f"LM-Steer ({source})", reported, paper.iloc[:0], found, model)


def _strongest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one cell the rows of one setting: strength 1 where it was run, else the largest; the most steps."""
    if rows.empty:
        return rows
    strength = 1.0 if (rows.strength == 1).any() else rows.strength.max()
    rows = rows[rows.strength == strength]
    return rows[rows.steps == rows.steps.max()]


# ---- one line a metric -------------------------------------------------------------------------------------------


def _lines(row: _Row) -> Iterator[dict[str, object]]:
    """The row's lines: the paper's metrics with ours, or where the paper has none, ours alone."""
    for reported in row.paper.to_dict("records"):
        same = (row.ours.metric == reported["metric"]) & (row.ours.prompts == reported["prompts"])
        base = row.paper_base[
            (row.paper_base.metric == reported["metric"]) & (row.paper_base.prompts == reported["prompts"])
        ]
        ours = row.ours[same].to_dict("records")
        paper = of_paper(reported, base.value.iloc[0] if len(base) else np.nan)
        yield _line(row, paper, _of_ours(ours[0], row.our_model) if ours else {})
    if row.paper.empty:
        for ours in row.ours[row.ours.metric == "average_max_toxicity"].to_dict("records"):
            yield _line(row, {}, _of_ours(ours, row.our_model))


def _line(row: _Row, paper: Mapping[str, object], ours: Mapping[str, object]) -> dict[str, object]:
    return side_by_side.line(of=METHOD, method=METHOD, section=row.section, name=row.name, paper=paper, ours=ours)


def _of_ours(row: Mapping, model: str) -> dict[str, object]:
    line: dict[str, object] = {
        "metric": row["metric"],
        "prompts": row["prompts"],
        "ours": row["value"],
        "ours_raw": row.get(RAW, np.nan),
        "ours_calibrated": row.get(CALIBRATED, np.nan),
        "our_model": model,
    }
    if "method" not in row:  # a count of parameters, which has no texts
        return line
    seeds = "" if pd.isna(row["seeds"]) else f" x {selection.counted([row['seeds']], 'seed')}"
    if row["method"] != "base":
        changes = {"": row["value"] - row["base"], "_low": row["difference_low"], "_high": row["difference_high"]}
        line |= {f"our_change_percent{end}": percent(change, row["base"]) for end, change in changes.items()}
    return line | {
        "ours_low": row["low"],
        "ours_high": row["high"],
        "our_scale": f"{row['n']:,} x {row['samples']}{seeds}",
        "our_scorer": row["scorer"],
        "data": row["data"],
    }


def _short(name: str) -> str:
    """A row's name without the method that all rows have; the number left over alone is a strength."""
    left = name.removeprefix("LM-Steer").lstrip(", ")
    return f"strength {left}" if left[:1].isdigit() and "texts" not in left else left
