"""The rows of metrics tables that a figure draws, and the phrases that its caption says about them.

A figure asks for the metrics that it shows; it gets their rows with one scorer a metric, each row with the share of
texts that its value leaves out. What is missing or would be mixed is refused here, in the figure's name.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd

from steerlab.figures import style
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.calibrated import SUFFIX, label

CELL = ["model", "method", "task", "split", "prompts", "steps", "strength", "seed"]
COLUMNS = [
    *CELL, "metric", "value", "low", "high", "base", "difference", "difference_low", "difference_high",
    "n", "samples", "scorer", "data", "left_out",
]  # fmt: skip

_NEEDED = COLUMNS[:-1]
_LEAVE_OUT = {  # the shares of texts that a metric's value does not count; dropped is a share of those with a score
    "toxicity_refused": ("mean_toxicity", "average_max_toxicity", "toxicity_probability"),
    "sentiment_refused": ("mean_sentiment", "positive_share"),
    "perplexity_unscored": ("perplexity", "corpus_perplexity"),
    "perplexity_dropped": ("perplexity",),
}
_FAMILIES = {  # how a caption names the scorer of a metric
    "toxicity by": ("mean_toxicity", "average_max_toxicity", "toxicity_probability"),
    "sentiment by": ("mean_sentiment", "positive_share"),
    "perplexity under": ("perplexity", "corpus_perplexity", "corpus_perplexity_ratio"),
}


def select(
    figure: str,
    metrics: pd.DataFrame,
    names: Sequence[str],
    *,
    split: str,
    prompts: Collection[str] = ("all",),
    scorers: Collection[str] = (),
    one_task: bool = True,
) -> pd.DataFrame:
    """The rows of the named metrics, pooled and by seed, with a column left_out: the share of texts not counted.

    scorers decides where a metric comes from several: the rows of those named stay. A perplexity may come from another
    scorer for each model, because it may be each model's own.
    Raises ValueError where a column, a metric or the pooled rows are missing, a row stands twice, or two scorers or two
    tasks would share an axis.
    """
    absent = [column for column in _NEEDED if column not in metrics]
    if absent:
        raise ValueError(f"figure {figure}: the metrics lack the columns {absent}; compute the metrics again")
    table = metrics.astype({"seed": str})
    table = table[(table.split == split) & table.prompts.isin(list(prompts))].reset_index(drop=True)
    shown = table[table.metric.isin(list(names))]
    missing = [name for name in names if name not in set(shown[shown.seed == "all"].metric)]
    if missing:
        raise ValueError(f"figure {figure}: no pooled rows of {missing} on {split} prompts; compute the metrics first")
    if one_task and shown.task.nunique() > 1:
        raise ValueError(f"figure {figure}: got tasks {sorted(shown.task.unique())}; pass the metrics of one")
    shown = _one_scorer(figure, shown, scorers)
    twice = shown[shown.duplicated([*CELL, "metric"])]
    if len(twice):
        first = ", ".join(f"{name} {twice.iloc[0][name]}" for name in [*CELL, "metric"])
        raise ValueError(f"figure {figure}: the metrics hold {first} twice; pass each cell once")
    return shown.assign(left_out=_left_out(shown, table)).reset_index(drop=True)


def beside_base(
    figure: str,
    metrics: pd.DataFrame,
    methods: Collection[str],
    panels: Iterable[str],
    *,
    split: str,
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """`select` for base and the named methods of one model at strengths other than 0, base on the steers' own texts.

    Raises ValueError as `select` does, for several models, and where base or all methods are missing.
    """
    named = metrics[metrics.method.isin(["base", *methods])]
    rows = select(figure, named, list(panels), split=split, scorers=scorers)
    if rows.model.nunique() > 1:
        raise ValueError(f"figure {figure}: got models {sorted(rows.model.unique())}; pass the metrics of one")
    rows = on_the_same_texts(rows[(rows.method == "base") | (rows.strength != 0)])
    found = set(rows[rows.seed == "all"].method)
    if "base" not in found:
        raise ValueError(f"figure {figure}: no rows of method base; pass its metrics too")
    if not found & set(methods):
        raise ValueError(f"figure {figure}: no rows of {sorted(methods)} at a strength; pass their metrics")
    return rows


def steered(figure: str, table: pd.DataFrame, method: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows of base, rows of the steered method at strengths other than 0): method, or else the only one there is."""
    base = table[table.method == "base"]
    if not (base.seed == "all").any():
        raise ValueError(f"figure {figure}: no rows of method base; pass its metrics too")
    method = method or only_method(figure, table.method)
    rows = table[(table.method == method) & (table.strength != 0)]
    if not (rows.seed == "all").any():
        found = sorted(table.method.unique())
        raise ValueError(f"figure {figure}: no rows of method {method} at a strength; the metrics hold {found}")
    return base, rows


def on_the_same_texts(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the unsteered model's values on the steers' own prompts, seeds and samples, where those are fewer.

    They stand as `base` in the steers' rows, without an interval. Where steers were asked for different texts, no one
    value holds, and the unsteered model's own rows stay.
    """
    keys = ["model", "task", "split", "prompts", "seed", "metric", "scorer"]
    is_base = rows.method == "base"
    steers = rows[~is_base].assign(base=rows.base.round(9)).groupby(keys)
    theirs = steers.agg(values=("base", "nunique"), value=("base", "first"), n=("n", "max"), samples=("samples", "max"))
    base = rows[is_base].set_index(keys)
    theirs = theirs.reindex(base.index)
    fewer = (theirs["values"] == 1) & ~np.isclose(theirs.value, base.value)
    if not fewer.any():
        return rows
    for column in ("value", "n", "samples"):
        base[column] = base[column].mask(fewer, theirs[column])
    for column in ("low", "high"):
        base[column] = base[column].mask(fewer)
    base = base[theirs["values"].notna()].reset_index()  # seeds that no steer has
    return pd.concat([base[rows.columns], rows[~is_base]], ignore_index=True)


def named_rows(rows: pd.DataFrame, panels: Iterable[str]) -> pd.DataFrame:
    """Rows in the order that a figure of one row a setting draws them, with their labels.

    rows: CELL and metric, with name (for readers) and order (of the names); panels: the metrics, left to right. Adds
    label: the name with its strength, and with its steps where the same name and strength has several.
    """
    several = rows.groupby(["model", "name", "strength"])["steps"].transform("nunique") > 1
    strength = rows.strength.map(lambda value: f", {value:g}".replace("-", "−") if value else "")
    steps = rows.steps.map(lambda value: f", {value:g} steps")
    rows = rows.assign(
        label=rows.name + strength + steps.where(several, ""),
        rank=rows.metric.map(list(panels).index),
        run=pd.to_numeric(rows.seed, errors="coerce"),
    )
    return rows.sort_values(["order", "strength", "steps", "rank", "run"], ignore_index=True)


def only_method(figure: str, methods: Iterable[str]) -> str:
    """The one method beside base. Raises ValueError where there are several, or none."""
    names = sorted(set(methods) - {"base"})
    if len(names) != 1:
        raise ValueError(f"figure {figure}: got methods {names} beside base; say which one to draw with `method`")
    return names[0]


def ratio_to_base(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a metric as multiples of the base's value on the same prompts: 1 exactly in the base's own rows.

    The interval is that of the paired difference, divided by the base's value, which it takes as known.
    """
    is_base = (rows.method == "base").to_numpy()
    differences = {name: rows[name] / rows.base for name in ("difference", "difference_low", "difference_high")}
    ends = {
        "value": rows.value / rows.base,
        "low": 1 + differences["difference_low"],
        "high": 1 + differences["difference_high"],
        "base": rows.base / rows.base,
    }
    ends = {name: end.mask(is_base, 1.0) for name, end in ends.items()}
    return rows.assign(metric=rows.metric + "_ratio", **ends, **differences)


def phrases(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """What every caption may say of a table with COLUMNS, each a phrase: the keys of the dictionary below.

    left_out, gaps, unpaired, same_texts and sample_data are empty where there is nothing to say.
    """
    table = table.astype({"seed": str})
    pooled, runs = table[table.seed == "all"], table[table.seed != "all"]
    return {
        "model": listed(sorted(pooled.model.unique())),
        "prompts": _prompts(pooled),
        "samples": counted(pooled.samples, "sample"),
        "seeds": counted(runs.groupby(["model", "method", "strength"])["seed"].nunique(), "seed"),
        "interval": interval(confidence, "prompts"),
        "scorers": scorers_named(pooled),
        "left_out": _left_out_named(pooled),
        "gaps": _gaps(pooled),
        "unpaired": _unpaired(pooled),
        "same_texts": _same_texts(pooled),
        "sample_data": _sample_data(pooled),
    }


def interval(confidence: float, over: str) -> str:
    """What a bar or band is, for captions: over prompts, texts, questions."""
    return f"{100 * confidence:g} % percentile bootstrap interval over {over}"


def scorers_named(rows: pd.DataFrame) -> str:
    """The scorers of the rows, each with what it measures. rows: metric, scorer."""
    found = {what: sorted(rows[rows.metric.isin(metrics)].scorer.unique()) for what, metrics in _FAMILIES.items()}
    return "; ".join(f"{what} {listed(_named(names))}" for what, names in found.items() if names)


def scorer_named(scorer: str) -> str:
    """A scorer's label as captions have it: what was done to its scores in brackets."""
    return f"{scorer.removesuffix(SUFFIX)} (calibrated)" if scorer.endswith(SUFFIX) else scorer


def short_names(scorers: Iterable[str]) -> dict[str, str]:
    """Scorers' labels (`name==version`) as a legend has them: the name without the owner of a repository.

    With the version where two would be called the same, and the whole label where they still are. A scorer and the same
    one calibrated count as one, ", calibrated" stays.
    """
    forms = {}
    for one in dict.fromkeys(scorer.removesuffix(SUFFIX) for scorer in scorers):
        name, _, version = one.partition("==")
        name = name.rpartition("/")[2]
        forms[one] = (name, f"{name} {version}", one)
    by_length = [list(names) for names in zip(*forms.values())]
    named = {
        one: next(name for name, others in zip(names, by_length) if others.count(name) == 1)
        for one, names in forms.items()
    }
    return named | {label(one): label(name) for one, name in named.items()}


def listed(words: Iterable[object]) -> str:
    """Words as English lists them: a, b and c."""
    parts = [str(word) for word in words]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def counted(numbers: Iterable[float], one: str) -> str:
    """A count, or the range of several, with its noun: 1 seed, 3 seeds, 2 to 3 seeds."""
    numbers = list(numbers)
    amount = _range(numbers) if numbers else "no"
    return f"{amount} {one}{'' if amount == '1' else 's'}"


def _named(scorers: Collection[str]) -> list[str]:
    """Labels as captions have them, a scorer whose scores stand raw and calibrated once."""
    both = {scorer for scorer in scorers if label(scorer) in scorers}
    own = [scorer for scorer in scorers if scorer.removesuffix(SUFFIX) not in both or scorer in both]
    return [f"{scorer} (raw and calibrated)" if scorer in both else scorer_named(scorer) for scorer in own]


def _one_scorer(figure: str, shown: pd.DataFrame, scorers: Collection[str]) -> pd.DataFrame:
    kept = []
    for metric, rows in shown.groupby("metric", sort=False):
        several = rows.scorer.isin(list(scorers))
        rows = rows[several] if several.any() else rows
        own = rows.groupby("model") if "perplexity" in str(metric) else [("", rows)]
        for _, part in own:
            if part.scorer.nunique() > 1:
                raise ValueError(
                    f"figure {figure}: {metric} comes from {sorted(part.scorer.unique())}, which share no axis; "
                    "name one with `scorers`"
                )
        kept.append(rows)
    return pd.concat(kept)


def _left_out(shown: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    counted_share = np.ones(len(shown))
    cells = pd.MultiIndex.from_frame(shown[[*CELL, "scorer"]])
    for reason, metrics in _LEAVE_OUT.items():
        shares = table[table.metric == reason].drop_duplicates([*CELL, "scorer"]).set_index([*CELL, "scorer"])["value"]
        share = shares.reindex(cells).fillna(0).to_numpy(dtype=float)
        counted_share *= np.where(shown.metric.isin(metrics), 1 - share, 1)
    return 1 - counted_share


def _prompts(pooled: pd.DataFrame) -> str:
    """Counts by split and class of prompts; a range where points rest on different numbers."""
    parts = []
    for split, rows in pooled.groupby("split"):
        classes = [
            _range(part.n) + ("" if name == "all" else f" {name}") for name, part in rows.groupby("prompts", sort=False)
        ]
        parts.append(f"{listed(classes)} {split}")
    single = (pooled.n == 1).all() and len(pooled[["split", "prompts"]].drop_duplicates()) == 1
    return f"{listed(parts)} prompt{'' if single else 's'}"


def _range(numbers: Iterable[float]) -> str:
    whole = sorted({int(number) for number in numbers})
    return f"{whole[0]}" if len(whole) == 1 else f"{whole[0]} to {whole[-1]}"


def _left_out_named(pooled: pd.DataFrame) -> str:
    largest = {
        what.split()[0]: pooled[pooled.metric.isin(metrics)].left_out.max() for what, metrics in _FAMILIES.items()
    }
    said = [f"{100 * share:.2g} % of a point's texts in {what}" for what, share in largest.items() if share > 0]
    return f"at most {listed(said)}" if said else ""


def _gaps(pooled: pd.DataFrame) -> str:
    empty = int(pooled.value.isna().sum())
    steered = pooled[pooled.method != "base"]
    bare = int((steered.value.notna() & (steered.low.isna() | steered.high.isna())).sum())
    said = []
    if empty:
        said.append(f"{counted([empty], 'value')} {'is' if empty == 1 else 'are'} missing, as no text counted")
    if bare:
        said.append(f"{counted([bare], 'value')} {'has' if bare == 1 else 'have'} no interval, from too few prompts")
    return "; ".join(said)


def _sample_data(pooled: pd.DataFrame) -> str:
    methods = list(dict.fromkeys(pooled[pooled.data == "sample"].method))
    if not methods:
        return ""
    others = set(pooled.method) - set(methods)
    if others == {"base"}:
        return "sample data (all steers)"
    return f"sample data ({listed(map(style.label, methods))})" if others else "sample data"


def _same_texts(pooled: pd.DataFrame) -> str:
    base = pooled[pooled.method == "base"]
    bare = (base.value.notna() & base.low.isna()).any()
    return "those on the steers' own prompts, seeds and samples, without an interval" if bare else ""


def _unpaired(pooled: pd.DataFrame) -> str:
    """By how much the unsteered model's own rows miss its values on the very texts that a steer was asked for."""
    keys = ["model", "task", "split", "prompts", "metric", "scorer"]
    base = pooled[pooled.method == "base"].drop_duplicates(keys).set_index(keys)["value"]
    steered = pooled[pooled.method != "base"]
    drawn = base.reindex(pd.MultiIndex.from_frame(steered[keys])).to_numpy(dtype=float)
    off = (np.abs(drawn - steered.base) > 1e-6 * np.abs(steered.base)).to_numpy()
    if not off.any():
        return ""
    largest = max((np.abs(drawn - steered.base) / np.abs(steered.base))[off])
    return f"on the texts of a steer's own prompts, seeds and samples it differs by up to {100 * largest:.2g} %"
