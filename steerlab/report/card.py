"""Steer cards: one page a compared steer, of what it edits, what it does and costs, and what else it changes.

A card is Markdown with the front matter that model cards on a hub have, so that it doubles as the README of an exported
steer; the same text as HTML stands beside the report. Every number comes from a table of the run, what a steer edits
from its saved record, and examples are picked by a rule and not by hand. Texts of models stand in code fences that they
cannot close, words of files are escaped: nothing of a card's input becomes markup.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from steerlab.figures import style
from steerlab.metrics import multiple_choice
from steerlab.metrics.comparison import EQUAL, PICKED
from steerlab.report import numbers
from steerlab.report.markdown import FRONT, Cells, Table, as_markdown, environment, escaped, fenced
from steerlab.report.saved_steers import SITES, Saved, edits
from steerlab.report.tables import METRIC_LABELS

PERCENTILES = (10, 50, 90)  # of the prompts' changes, at which examples are shown


@dataclass(frozen=True)
class Measured:
    """What a run measured of a compared steer, as its tables have it.

    choice: what its strength was picked from, None where nothing is picked. comparisons: the rows of COLUMNS of
    steerlab.metrics.comparison with their labels, of all tasks. metrics: those of its cell; norms: as of
    steerlab.analyses.norms, empty where none were measured. values: method, steps, strength, seed, id, numerator and
    denominator of the task's metric, of this method and "base". prompts: text by id; continuations: method, steps,
    strength, seed, id, sample, text, empty where none were drawn. trained_on: the sentence on its texts.
    """

    choice: Mapping[str, Any] | None
    comparisons: pd.DataFrame
    metrics: pd.DataFrame
    norms: pd.DataFrame
    values: pd.DataFrame
    prompts: Mapping[str, str]
    continuations: pd.DataFrame
    trained_on: str


def of_run(about: Mapping[str, Any], steers: Mapping[int, Saved], measured: Measured) -> str:
    """The card of a method's steers on a task. about: the spec of the rule; steers: by seed, all of one method."""
    setting = _setting(about, measured.choice)
    first = next(iter(steers.values()))
    facts = [
        *_facts(steers),
        ("signal", _SIGNALS.get(about["signal"], str(about["signal"])) + _OURS * about["ours"]),
        ("trained on", measured.trained_on),
        ("strength", _strength(about, setting, measured.choice) if not first.parts else _strength_of_parts(setting)),
    ]
    title = named(Path(about["model"], about["method"], f"{about['task']}.md"))
    return _filled(
        title,
        front=_front(about["base_model"], first, [about["task"], about["model"]], [about["metric"], *_PRICES]),
        facts=Table(("", "this steer"), facts),
        sample=about["data"] == "sample",
        compared=_compared(about, measured, setting),
        beneath=_beneath(about, measured),
        side_effects=_side_effects(measured.metrics, setting),
        elsewhere=_elsewhere(about, measured.comparisons),
        metric=_named(about["metric"]),
        scorer=about["scorer"],
        examples=_examples(about, measured, setting),
        sources=Table(_SOURCE, [[each[name] for name in _SOURCE] for each in about["sources"]]),
        model=about["model"],
        strength=f"{setting[1]:g}",
    )


def of_record(steer: Saved) -> str:
    """The card of a steer of which nothing but its files is known."""
    record = steer.record
    return _filled(
        f"{style.label(record['method'])}, for {record['model']}",
        front=_front(record["model"], steer, [record["model"]], []),
        facts=Table(("", "this steer"), _facts({record["seed"]: steer})),
        model=record["model"],
        strength="1.0",
    )


def named(path: Path) -> str:
    """The title of the card at <model>/<method>/<task>.html."""
    return f"{style.label(path.parent.name)} on {path.stem}, for {path.parent.parent.name}"


def _filled(title: str, *, front: Mapping[str, Any], **parts: Any) -> str:
    known = dict.fromkeys(("compared", "side_effects", "elsewhere", "sources")) | {"sample": False, "examples": []}
    templates = environment(autoescape=False)
    templates.filters |= {"escaped": escaped, "fenced": fenced, "table": as_markdown}
    body = templates.get_template("card.md.j2").render(title=title, **known | parts)
    head = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    return f"{FRONT}{head}{FRONT}\n{body.strip()}\n"


def _front(base_model: str, steer: Saved, tags: list[str], metrics: list[str]) -> dict[str, Any]:
    """What a hub reads; a steer's licence follows from those of its model and texts, which the card lists."""
    about = {
        "license": "other",
        "license_name": "that-of-the-model-and-the-training-texts",
        "base_model": base_model,
        "library_name": "steerlab",
        "tags": ["steering", steer.record["method"], *tags],
    }
    return about | ({"metrics": metrics} if metrics else {})


_PRICES = ("kl_divergence", "perplexity", "accuracy")
_SOURCE = ("source", "door", "licence")


# ---- what it is --------------------------------------------------------------------------------------------------


def _facts(steers: Mapping[int, Saved]) -> list[Cells]:
    first = next(iter(steers.values()))
    numbers_of = {seed: sum(map(prod, steer.shapes.values())) for seed, steer in steers.items()}
    return [
        ("method", f"{style.label(first.record['method'])} ({first.record['steer']})"),
        ("what it edits", _of_seeds({seed: edits(steer) for seed, steer in steers.items()})),
        ("saved numbers", _of_seeds({seed: f"{number:,}" for seed, number in numbers_of.items()})),
        ("seeds", ", ".join(map(str, steers))),
        ("model", first.record["model"]),
        ("model revision", _of_seeds({seed: steer.record["revision"] for seed, steer in steers.items()})),
        ("rows that it saw (SHA-256)", _of_seeds({seed: steer.record["data"] for seed, steer in steers.items()})),
    ]


def _of_seeds(told: Mapping[int, str]) -> str:
    """Said once where it is the same for all seeds."""
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"seed {seed}: {what}" for seed, what in told.items())


_SIGNALS = {
    None: "none of its own: its parts have learnt",
    "labelled_texts": "texts of a wished and an unwished class",
    "pairs": "pairs of a wished and an unwished answer",
    "qa_pairs": "questions about the model's states, with the answers that are wished",
}
_OURS = "; what it learns from here is this project's choice, as the method's paper has not this task"


def training_texts(rows: pd.DataFrame, steers: Iterable[Saved]) -> str:
    """How many texts a steer was trained on. rows: those that its fit was given, labelled texts or a control's rows."""
    if "label" not in rows:
        return f"{len(rows):,} questions about {rows.turns.nunique():,} dialogs"
    wished = int((rows.label > 0).sum())
    said = f"{len(rows):,} texts ({wished:,} wished, {int((rows.label < 0).sum()):,} unwished)"
    config = next(iter(steers)).record["config"]
    held_out, few = config.get("held_out"), config.get("texts")
    said += f", of them {few:,} at most to learn from" if few else ""
    return said + (f"; where a fit judges itself, a share of {held_out:g} is held out" if held_out else "")


# ---- its strength ------------------------------------------------------------------------------------------------


def _setting(about: Mapping[str, Any], choice: Mapping[str, Any] | None) -> tuple[int, float]:
    pick = (choice or {}).get("pick", {})
    own = about["setting"]
    steps, strength = (pick[key] if own[key] == "pick" else own[key] for key in ("steps", "strength"))
    return int(steps), float(strength)


def _strength(about: Mapping[str, Any], setting: tuple[int, float], choice: Mapping[str, Any] | None) -> str:
    steps, strength = setting
    said = f"{strength:g}" + (f" after {steps:,} training steps" if steps else "")
    if choice is None or "pick" not in about["setting"].values():
        return f"{said}; set in the configuration, as nothing is picked on {about['task']}"
    best = {"lower": "lowest", "raise": "highest"}[choice["goal"]]
    said += (
        f"; of {len(choice['candidates'])} candidates the one of {best} {_named(choice['objective'])} on dev prompts"
    )
    limit = choice.get("perplexity_limit")
    within = f", with a perplexity of at most {limit:g} times the unsteered model's where any has" if limit else ""
    return f"{said} (scorer: {choice['scorer']}){within}"


def _strength_of_parts(setting: tuple[int, float]) -> str:
    return f"{setting[1]:g} times each part's own, which is what was picked for it on dev prompts, where there are any"


# ---- what it does ------------------------------------------------------------------------------------------------


def _compared(about: Mapping[str, Any], measured: Measured, setting: tuple[int, float]) -> Table:
    """This steer and its random control, a line a number."""
    rows = measured.comparisons[measured.comparisons.task == about["task"]]
    names = [about["method"], *([about["control"]] if about["control"] else [])]
    columns = [_column(rows, measured.norms, name) for name in names]
    lines = [(line, *(column[line] for column in columns)) for line in columns[0]]
    return Table(("", "this steer", *(["its random control"] if about["control"] else [])), lines)


def _column(rows: pd.DataFrame, norms: pd.DataFrame, method: str) -> dict[str, str]:
    own, equal = (_one(rows, method, setting) for setting in (PICKED, EQUAL))
    level = rows[rows.setting == EQUAL].kl_level
    at = f" at equal KL ({numbers.digits(level.iloc[0])} nats a token)" if len(level) else " at equal KL"
    return {
        "strength": f"{own['strength']:g}" if own else "–",
        "effect": _estimate(own, "effect", signed=True),
        "rank": _rank(rows, own, PICKED),
        "p against the unsteered model (Holm)": numbers.digits(own["p_base"]) if own else "–",
        f"effect{at}": _estimate(equal, "effect", signed=True) if equal else "not reached",
        f"rank{at}": _rank(rows, equal, EQUAL),
        "size of the edit": _size(norms, method),
        "KL divergence from the unsteered model, nats a token": _estimate(own, "kl"),
        "perplexity over the unsteered model's": _estimate(own, "perplexity_ratio"),
        "accuracy on questions of another kind": _estimate(own, "accuracy"),
        "change of that accuracy": _estimate(own, "accuracy_change", signed=True),
        "seconds a token": _seconds(own),
        "training, seconds": numbers.digits(own["training_seconds"]) if own else "–",
    }


def _one(rows: pd.DataFrame, method: str, setting: str) -> Mapping[str, Any] | None:
    found = rows[(rows.method == method) & (rows.setting == setting)].to_dict("records")
    return {str(name): value for name, value in found[0].items()} if found else None


def _estimate(row: Mapping[str, Any] | None, name: str, *, signed: bool = False) -> str:
    if row is None or pd.isna(row[name]):
        return "not measured"
    shown = numbers.change if signed else numbers.estimate
    return " ".join(shown(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))))


def _rank(rows: pd.DataFrame, row: Mapping[str, Any] | None, setting: str) -> str:
    if row is None or pd.isna(row["rank"]):
        return "not ranked"
    ranked = rows[(rows.setting == setting) & rows["rank"].notna()]
    return f"{row['rank']:g} [{row['rank_low']:g}, {row['rank_high']:g}] of {len(ranked)}"


def _seconds(row: Mapping[str, Any] | None) -> str:
    if row is None or pd.isna(row["seconds_a_token"]):
        return "not measured"
    return f"{numbers.digits(row['seconds_a_token'])} (unsteered: {numbers.digits(row['base_seconds_a_token'])})"


def _size(norms: pd.DataFrame, method: str) -> str:
    """Mean size of the edit over that of the states, by site; of changed weights what they do to the last block."""
    own = norms[norms.method == method] if len(norms) else norms
    if own.empty:
        return "not measured"
    edited = own[own.kind == "edit"]
    if edited.empty:
        last = own.sort_values("layer").iloc[-1]
        ratio = " ".join(numbers.estimate(last["ratio"], last["low"], last["high"]))
        return f"no states are edited; the last block's output has {ratio} times its norm"
    of_sites = []
    for site, rows in edited.groupby("site", sort=False):
        over = f", mean over {len(rows)} layers" if len(rows) > 1 else ""
        size, share = numbers.digits(rows["size"].mean()), numbers.digits(rows["changed"].mean())
        of_sites.append(
            f"{size} of the size of the states at {SITES.get(str(site), site)}{over} ({share} of the tokens changed)"
        )
    return "; ".join(of_sites)


def _beneath(about: Mapping[str, Any], measured: Measured) -> str:
    rows = measured.comparisons
    own = _one(rows[rows.task == about["task"]], about["method"], PICKED)
    n = f"{own['n']:,} prompts" if own else "no prompts"
    sized = f"; sizes of edits on {measured.norms.prompts.max():,} dev prompts" if len(measured.norms) else ""
    judge = f"; perplexity by {own['judge']}" if own else ""
    return f"n = {n} that all methods were asked{judge}{sized}"


def _side_effects(metrics: pd.DataFrame, setting: tuple[int, float]) -> Table:
    steps, strength = setting
    here = metrics[(metrics.steps == steps) & np.isclose(metrics.strength, strength) & (metrics.prompts == "all")]
    rows = [
        (
            _named(row["metric"]),
            row["scorer"],
            " ".join(numbers.estimate(row["value"], row["low"], row["high"])),
            numbers.digits(row["base"]),
            " ".join(numbers.change(*(row[f"difference{end}"] for end in ("", "_low", "_high")))),
            f"{row['n']:,}",
        )
        for row in here[here.seed.astype(str) == "all"].to_dict("records")
    ]
    return Table(("metric", "scorer", "steered", "unsteered", "change", "n"), rows)


def _elsewhere(about: Mapping[str, Any], comparisons: pd.DataFrame) -> Table | None:
    """The method's steers on the other tasks, each at its own setting there."""
    rows = []
    for task, of_task in comparisons.groupby("task", sort=False):
        own = _one(of_task, about["method"], PICKED) if task != about["task"] else None
        if own:
            measured = [_estimate(own, name) for name in ("kl", "perplexity_ratio")]
            effect = f"{_estimate(own, 'effect', signed=True)} ({_named(own['metric'])})"
            rows.append((str(task), f"{own['strength']:g}", effect, _rank(of_task, own, PICKED), *measured))
    return Table(("task", "strength", "effect", "rank", "KL, nats a token", "perplexity ratio"), rows) if rows else None


def _named(metric: str) -> str:
    return METRIC_LABELS.get(metric, metric.upper() if metric in multiple_choice.METRICS else metric.replace("_", " "))


# ---- examples ----------------------------------------------------------------------------------------------------


def scores(values: pd.DataFrame, method: str, setting: tuple[int, float]) -> pd.DataFrame:
    """(prompts, ["base", "steered"]): each prompt's mean over samples and seeds, of the prompts that both were asked,
    in the order of their ids. values: as in `Measured`."""
    steps, strength = setting
    at = (values.method == method) & (values.steps == steps) & np.isclose(values.strength, strength)
    sides = {"base": values[values.method == "base"], "steered": values[at]}
    counted = {side: rows[rows.denominator > 0] for side, rows in sides.items()}
    means = {side: (rows.numerator / rows.denominator).groupby(rows.id).mean() for side, rows in counted.items()}
    return pd.DataFrame(means).dropna().sort_index()


def picked(changes: pd.Series) -> dict[str, list[int]]:
    """The prompts at PERCENTILES of their changes, with the percentiles that each stands at; ties go by the prompts'
    order in `changes`, and there is always one at a percentile: the nearest."""
    ordered = changes.sort_values(kind="stable").index
    found: dict[str, list[int]] = {}
    for percentile in PERCENTILES if len(ordered) else ():
        found.setdefault(str(ordered[int(percentile / 100 * (len(ordered) - 1) + 0.5)]), []).append(percentile)
    return found


def _examples(about: Mapping[str, Any], measured: Measured, setting: tuple[int, float]) -> list[dict[str, Any]]:
    """Prompts by the rule, with both continuations where there are any."""
    both, texts = scores(measured.values, about["method"], setting), _first_texts(measured, about, setting)
    both = both[both.index.isin(texts.index)] if len(texts) else both
    return [
        {
            "percentiles": " and ".join(f"{percentile}th" for percentile in percentiles),
            "id": id,
            "base": numbers.digits(float(both.base[id])),
            "steered": numbers.digits(float(both.steered[id])),
            "prompt": measured.prompts[id],
            "texts": {side: str(texts[side][id]) for side in texts},
        }
        for id, percentiles in picked(both.steered - both.base).items()
    ]


def _first_texts(measured: Measured, about: Mapping[str, Any], setting: tuple[int, float]) -> pd.DataFrame:
    """(prompts, ["unsteered", "steered"]): the first sample of the first seed of both."""
    rows = measured.continuations
    if rows.empty:
        return rows
    at = (rows.method == about["method"]) & (rows.steps == setting[0]) & np.isclose(rows.strength, setting[1])
    sides = {"unsteered": rows[rows.method == "base"], "steered": rows[at]}
    first = {
        side: of.sort_values(["seed", "sample"]).drop_duplicates("id").set_index("id").text
        for side, of in sides.items()
    }
    return pd.DataFrame(first).dropna()
