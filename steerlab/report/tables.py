"""The table that stands below a figure: metrics as methods by metrics, any other CSV as it is, rounded.

A table of metrics has its numbers with their n, interval and difference from the unsteered model in one cell. In any
other, columns that say the same in every row are said once, above it.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from steerlab.figures import style
from steerlab.reference import METRICS
from steerlab.report import numbers

MOST_ROWS = 40
METRIC_LABELS = {
    "mean_toxicity": "mean toxicity",
    "average_max_toxicity": "average max toxicity",
    "toxicity_probability": "toxicity probability",
    "toxicity_refused": "share of texts refused",
    "mean_sentiment": "mean sentiment",
    "positive_share": "share of positive texts",
    "sentiment_refused": "share of texts refused",
    "perplexity": "perplexity, mean over texts",
    "corpus_perplexity": "perplexity of the corpus",
    "perplexity_ratio": "perplexity over the unsteered model's",
    "perplexity_dropped": "share of texts ≥ 10,000, dropped",
    "perplexity_unscored": "share of texts without a token to score",
    "dist_1": "dist-1",
    "dist_2": "dist-2",
    "dist_3": "dist-3",
}

_METRIC_NAMES = METRICS | METRIC_LABELS
_METRICS = {"method", "split", "strength", "seed", "metric", "value", "low", "high", "n", "samples", "scorer", "data"}
_ROW = ["task", "split", "prompts", "model", "method", "steps", "strength"]  # what names a row, where it is there
_ORDER = ["task", "split", "prompts", "model", "rank", "method", "steps", "strength"]
_LONG = 28  # letters from which a cell of text may take several lines


def shown(csv: pd.DataFrame) -> list[dict[str, Any]]:
    """The tables of a figure's CSV, for the template: those of metrics by scorer, or else the one plain table."""
    if set(csv.columns) >= _METRICS:
        pooled = csv[(csv.seed.astype(str) == "all") & csv.metric.isin(list(METRIC_LABELS))]
        names = [*_names(csv), "metric", "scorer"]
        # Rows that differ in something else than what names them would fall into one cell.
        if len(pooled) and not pooled.duplicated(names).any():
            return _of_metrics(csv, pooled)
    return [_plain(csv)]


# ---- metrics -----------------------------------------------------------------------------------------------------


def _of_metrics(table: pd.DataFrame, pooled: pd.DataFrame) -> list[dict[str, Any]]:
    """One table a scorer: rows are named by _ROW, columns are its metrics, pooled over seeds."""
    names = _names(table)
    # Split by split and class by class, so that every method stands beside the unsteered model on the same prompts.
    pooled = pooled.assign(rank=pooled.method.map(style.rank))
    pooled = pooled.sort_values([name for name in _ORDER if name in pooled], kind="stable")
    seeds = table[table.seed.astype(str) != "all"].groupby(names)["seed"].nunique().to_dict()
    several = {name for name in ("task", "model", "steps") if name in names and _kinds(pooled, name) > 1}
    tables = []
    for scorer, scored in pooled.groupby("scorer", sort=False):
        columns = [metric for metric in METRIC_LABELS if metric in set(scored.metric)]
        rows = [
            _row(dict(zip(names, key)), group, columns, several, seeds.get(key, 0))
            for key, group in scored.groupby(names, sort=False)
        ]
        differences = any(cell and cell["difference"] for row in rows for cell in row["cells"])
        caption = f"Scorer: {scorer}. Value over all seeds with its bootstrap interval over n prompts."
        if differences:
            caption += " Change: the paired difference from the unsteered model on the same prompts, with its interval."
        labels = [METRIC_LABELS[metric] for metric in columns]
        tables.append({"plain": False, "caption": caption, "columns": labels, "rows": rows, "sample": False})
    return tables


def _row(
    named: Mapping[str, Any], group: pd.DataFrame, columns: list[str], several: set[str], seeds: int
) -> dict[str, Any]:
    """One line: its name, the prompts and seeds behind it, and a cell a metric."""
    name = [style.row_label(str(named["method"]), float(named["strength"])).replace(", -", ", −")]
    if "steps" in several and named["steps"] > 0:
        name.append(f"{named['steps']:,.0f} steps")
    name += [str(named[what]) for what in ("model", "task") if what in several]
    prompts = "" if named.get("prompts", "all") == "all" else f"{named['prompts']} "
    behind = [f"{prompts}{named['split']} prompts", *([_count(seeds, "seed")] if seeds else [])]
    behind.append(_count(int(group.samples.iloc[0]), "sample"))
    if "chosen" in group and group.chosen.astype(str).eq("True").any():
        behind.append("chosen on dev prompts")
    cells = {str(row["metric"]): row for row in group.to_dict("records")}
    return {
        "name": ", ".join(name),
        "of": ", ".join(behind),
        "sample": "sample" in set(group.data),
        "cells": [_cell(cells[metric]) if metric in cells else None for metric in columns],
    }


def _cell(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    value, interval = numbers.estimate(row["value"], row["low"], row["high"])
    ends = [row.get(f"difference{end}", float("nan")) for end in ("", "_low", "_high")]
    difference = None if pd.isna(ends[0]) else dict(zip(("value", "interval"), numbers.change(*ends)))
    return {"value": value, "interval": interval, "n": f"{row['n']:,.0f}", "difference": difference}


def _names(table: pd.DataFrame) -> list[str]:
    return [name for name in _ROW if name in table]


def _kinds(pooled: pd.DataFrame, name: str) -> int:
    """How many values a column has; steps count only where a method has any."""
    return pooled[pooled[name] != 0][name].nunique() if name == "steps" else pooled[name].nunique()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# ---- any other table ---------------------------------------------------------------------------------------------


def _plain(table: pd.DataFrame) -> dict[str, Any]:
    """At most MOST_ROWS rows; columns without a value are left out, those with one value in all rows said once."""
    table = table.drop(columns=[column for column in table.columns[1:] if table[column].isna().all()])
    constant = [column for column in table.columns[1:] if len(table) > 1 and table[column].nunique(dropna=False) == 1]
    columns = [column for column in table.columns if column not in constant]
    texts = {column: _texts(table[column]) for column in table.columns}
    said = [f"{_words(column)} {texts[column][0]}" for column in constant]
    left = len(table) - MOST_ROWS
    return {
        "plain": True,
        "caption": f"In every row: {'; '.join(said)}." if said else f"{_count(len(table), 'row')}.",
        "columns": [
            {"label": _words(column), "look": _look(table[column], texts[column][:MOST_ROWS])} for column in columns
        ],
        "rows": list(zip(*(texts[column][:MOST_ROWS] for column in columns))),
        "more": f"and {left:,} more in the CSV" if left > 0 else "",
        "sample": "data" in table and "sample" in set(table["data"]),
    }


def _texts(column: pd.Series) -> list[str]:
    """A column's cells: counts exactly, other numbers to three digits, methods and metrics by their names."""
    if pd.api.types.is_bool_dtype(column):
        return ["yes" if value else "no" for value in column]
    if pd.api.types.is_numeric_dtype(column):
        finite = column[column.abs() < float("inf")]
        whole = bool((finite == finite.round()).all())
        exact = finite.index if whole else ()
        return [
            f"{value:.0f}".replace("-", "−") if index in exact else numbers.digits(float(value))
            for index, value in zip(column.index, column)
        ]
    named = {"metric": lambda name: _METRIC_NAMES.get(name, name), "method": style.label}.get(str(column.name), str)
    return ["–" if pd.isna(value) else str(named(value)) for value in column]


def _look(column: pd.Series, texts: list[str]) -> str:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "number"
    return "long" if max(map(len, texts), default=0) > _LONG else "text"


def _words(column: Hashable) -> str:
    return str(column).replace("_", " ")
