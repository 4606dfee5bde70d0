"""The papers' reported numbers as data: one YAML file a paper, read as one row a number. No torch here.

What was found stands with its source, its table and a grade that says how far it can be trusted; what was not found
stays in the table without a value, so that nobody fills it from memory. Numbers that others got when they ran a
paper's method (grade T) stand beside the paper's own and never in their place.

A block may say under `ours` where this workbench's number for it stands: in which figure's table, in which of its rows
(`ours_of`). Nothing says so for what has no counterpart here.

Beside them lies the calibration of the scorers that ships, as its README says where from.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from steerlab.metrics.calibrated import SHIPPED

PAPERS = ("lm_steer", "hpr", "slim", "latentqa", "cogsteer")
GRADES = {
    "A": "the paper's own text, or its authors' repository, poster, figure or output file",
    "A-fig": "read off the authors' own figure, with an error of reading",
    "B": "copied by others who read the paper: reading notes, a review",
    "C": "a summary, an abstract or a homepage",
    "T": "another group's run of the method: never the paper's number",
}
THIRD_PARTY = "T"
NOT_FOUND = "not found"

METRICS = {  # every metric of the five files, with its name for readers
    "average_max_toxicity": "average max toxicity",
    "toxicity_probability": "toxicity probability",
    "mean_toxicity": "mean toxicity",
    "toxification_score": "toxification score",
    "detoxification_score": "detoxification score",
    "toxicity": "toxicity (metric not said)",
    "positive_share": "positive share",
    "accuracy": "accuracy",
    "perplexity": "perplexity",
    "corpus_perplexity": "perplexity of the corpus",
    "dist_1": "dist-1",
    "dist_2": "dist-2",
    "dist_3": "dist-3",
    "mc1": "MC1",
    "mc2": "MC2",
    "truthful_and_informative": "truthful and informative",
    "truthful": "truthful",
    "informative": "informative",
    "cross_entropy": "cross-entropy",
    "kl": "KL divergence",
    "win_rate": "win rate",
    "score": "score (metric not said)",
    "selected_layer": "selected layer",
    "tau": "votes needed (tau)",
    "f1": "F1 of the vote",
    "false_negative_rate": "misses of the vote",
    "false_positive_rate": "false alarms of the vote",
    "desired_after_map": "on the wished side after the map",
    "accuracy_country_curr": "accuracy, country and currency",
    "accuracy_food_country": "accuracy, dish and country",
    "accuracy_ath_position": "accuracy, athlete and position",
    "accuracy_ath_sport": "accuracy, athlete and sport",
    "accuracy_prod_company": "accuracy, product and company",
    "accuracy_star_const": "accuracy, star and constellation",
    "loglikelihood_difference": "|log-likelihood difference|",
    "stereotype_share": "stereotypes preferred",
    "mnli_m": "accuracy on MNLI, matched",
    "rte": "accuracy on RTE",
    "sst_2": "accuracy on SST-2",
    "average": "average over GLUE",
    "accuracy_gain": "gain in accuracy",
    "average_gain": "gain in the average over GLUE",
    "rte_gain": "gain on RTE",
    "toxification_gain": "gain in toxification",
    "detoxification_gain": "gain in detoxification",
    "trainable_parameters": "parameters learnt",
    "trainable_share": "share of parameters learnt",
    "decode_time_ratio": "decoding time over the unsteered model's",
    "seconds": "seconds",
    "compute_saved": "compute saved",
    "training_time_saved": "training time saved",
    "items": "items of data",
}
UNITS = {"": 1.0, "percent": 0.01, "points": 0.01, "million": 1e6}  # a printed number in the metric's own unit

COLUMNS = [
    "paper", "table", "source", "grade", "task", "model", "method", "setting", "prompts", "steer_value", "metric",
    "value", "spread", "error", "unit", "scale", "scorer", "status", "note", "against", "follows_from", "ours",
]  # fmt: skip
_TEXT = (
    "table", "source", "grade", "task", "model", "method", "setting", "prompts", "scale", "scorer", "note", "against",
    "follows_from",
)  # fmt: skip
_DESCRIBE = ("task", "model", "method", "setting", "prompts", "steer_value", "note")  # columns of a block's rows
_BLOCK = {*_TEXT, "steer_value", "error", "unit", "columns", "rows", "ours"}
_NAMED = ("model", "method", "setting", "prompts", "metric")  # what `ours` may say value by value
_OURS = {"figure", "where", *_NAMED, "counted", "scorer", "differs", "of_the_model"}


def read(paper: str, folder: Path | None = None) -> pd.DataFrame:
    """All numbers found for a paper (one of PAPERS), one row each, in the order of its file.

    Returns COLUMNS, text unless said otherwise and "" where there is nothing to say:
      paper, table (its number in the version that `source` is), source, grade (a key of GRADES);
      task ("toxicity", "sentiment", "cost", ...), model, method, setting (what else a reader must know to repeat it);
      prompts: "all" or a class of prompts; steer_value (float): LM-Steer's, in multiples of its eps0, else NaN;
      metric: a key of METRICS, the workbench's name where it has one; value (float) as printed, in `unit` (a key of
      UNITS), NaN where it was not found; spread (float): standard deviation over seeds, else NaN;
      error (float): of reading it off a figure, else NaN; scale: prompts x samples; scorer;
      status: "reported" or "not found"; note; against: the method of the same table that the others are compared with;
      follows_from: the table of which these numbers are differences, "" for numbers that were measured;
      ours: None, or how `ours_of` finds this workbench's number (an object, no text).
    folder: where <paper>.yaml lies, the package's own by default.
    Raises ValueError, one line, for an unknown paper, grade, metric, unit, source, key or column, a source that
    is empty, a value that is no number, or a number read off a figure without its error.
    """
    if paper not in PAPERS:
        raise ValueError(f"reference: no paper {paper!r}; choose one of {', '.join(PAPERS)}")
    file = (folder or Path(__file__).parent) / f"{paper}.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    rows = [row for block in document["numbers"] for row in _rows(block, document["sources"], file.name)]
    table = pd.DataFrame(rows, columns=COLUMNS).assign(paper=paper)
    numbers = ["steer_value", "value", "spread", "error"]
    return table.astype(dict.fromkeys(numbers, float) | dict.fromkeys(set(COLUMNS) - {*numbers, "ours"}, str))


def paper_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table as from `read`, the rows that are the paper's own: all but those of third parties."""
    return table[table.grade != THIRD_PARTY].reset_index(drop=True)


def third_party_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table as from `read`, what other groups got with the paper's method."""
    return table[table.grade == THIRD_PARTY].reset_index(drop=True)


def papers() -> dict[str, dict[str, str]]:
    """The papers of the methods that are run here, by key: name, role ("paper", "baseline" or "part"), title, authors,
    where, arxiv, code, licence (of the code), bibtex."""
    return yaml.safe_load((Path(__file__).parent / "papers.yaml").read_text(encoding="utf-8"))


def calibration(statistics: Path | None = None, reliability: Path | None = None) -> dict[str, pd.DataFrame]:
    """{"statistics", "reliability"} of a calibration from their CSV, or else as they ship.

    Columns: COLUMNS and BINS of steerlab.analyses.calibration; a note is "" where there is nothing to say.
    """
    found = pd.read_csv(statistics or SHIPPED / "calibration.csv", dtype={"note": "str"})
    return {
        "statistics": found.assign(note=found["note"].fillna("")),
        "reliability": pd.read_csv(reliability or SHIPPED / "reliability.csv"),
    }


def _rows(block: Mapping, sources: Mapping[str, str], file: str) -> Iterator[dict[str, object]]:
    """The rows of one block: what it says of all its numbers, joined with what each of its rows says."""
    where = f"reference {file}, {block.get('table', 'a block without a table')!r}"
    _check(block, sources, where)
    described = [column for column in block["columns"] if column in _DESCRIBE]
    shared: dict[str, object] = {key: block.get(key, "") for key in _TEXT} | {"prompts": block.get("prompts", "all")}
    shared |= {"source": sources[block["source"]], "steer_value": block.get("steer_value", math.nan)}
    for line in block["rows"]:
        if len(line) != len(block["columns"]):
            raise ValueError(f"{where}: row {line} has {len(line)} cells for {len(block['columns'])} columns")
        cells = dict(zip(block["columns"], line))
        own = {key: cells.pop(key) for key in described}
        if own.get("steer_value", 0) is None:
            own["steer_value"] = math.nan
        for metric, cell in cells.items():
            if cell is None:  # the table has no such number
                continue
            value, spread, status = _number(cell, f"{where}: {metric} of {list(own.values())}")
            measured = {"metric": metric, "value": value, "spread": spread, "status": status}
            if metric not in METRICS:
                raise ValueError(f"{where}: unknown metric {metric!r}; add it to METRICS or correct its name")
            of_metric = {key: _of_metric(block.get(key, ""), metric) for key in ("unit", "scorer")}
            if of_metric["unit"] not in UNITS:
                raise ValueError(f"{where}: unknown unit {of_metric['unit']!r}; choose one of {', '.join(UNITS)}")
            row = shared | own | measured | of_metric | {"error": block.get("error", math.nan)}
            yield row | {"ours": ours_of(row, block["ours"]) if "ours" in block else None}


def ours_of(row: Mapping, said: Mapping) -> dict[str, Any] | None:
    """Where this workbench's number for a row of the reference stands, as the block's `ours` says; None for nowhere.

    said: figure, whose table; where, {its column: the value there, or a list of values of which the first that is there
    is taken}; under model, method, setting, prompts and metric, {the row's value: more such columns}: a row that has
    none of these values has no number of ours. Beside columns these may hold `value`, the column of the number
    ("value" by default), and `over`, columns of the row by which it is divided, and `saved`, for 1 less that ratio.
    counted: the column of how many, with their noun; scorer: where the table names none; differs: why the two cannot be
    compared; of_the_model: metrics that compare on the same model alone.
    Returns figure, rows (columns), value, over, saved, counted, scorer, differs, same_model.
    """
    columns = dict(said.get("where", {}))
    for name in _NAMED:
        if name in said:
            if row[name] not in said[name]:
                return None
            columns |= said[name][row[name]]
    return {
        "figure": said["figure"],
        "value": columns.pop("value", "value"),
        "over": columns.pop("over", {}),
        "saved": columns.pop("saved", False),
        "rows": columns,
        "counted": said.get("counted", {}),
        "scorer": said.get("scorer", ""),
        "differs": said.get("differs", ""),
        "same_model": row["metric"] in said.get("of_the_model", ()),
    }


def _check(block: Mapping, sources: Mapping[str, str], where: str) -> None:
    unknown = set(block) - _BLOCK
    if unknown:
        raise ValueError(f"{where}: unknown key {sorted(unknown)}; known are {sorted(_BLOCK)}")
    lacking = {"table", "source", "grade", "columns", "rows"} - set(block)
    if lacking:
        raise ValueError(f"{where}: {sorted(lacking)} is missing; say it")
    if block["grade"] not in GRADES:
        raise ValueError(f"{where}: unknown grade {block['grade']!r}; choose one of {', '.join(GRADES)}")
    if block["source"] not in sources:
        raise ValueError(f"{where}: unknown source {block['source']!r}; list it under sources")
    if not str(sources[block["source"]]).strip():
        raise ValueError(f"{where}: source {block['source']!r} is empty; say what was read")
    ours = block.get("ours", {"figure": ""})
    if unknown := {*ours} - _OURS or {"figure"} - {*ours}:
        raise ValueError(f"{where}: ours has or lacks {sorted(unknown)}; its keys are {sorted(_OURS)}")
    if (block["grade"] == "A-fig") != isinstance(block.get("error"), int | float):
        raise ValueError(
            f"{where}: grade {block['grade']} and error {block.get('error')!r}; A-fig, and only it, has one"
        )


def _number(cell: Any, where: str) -> tuple[float, float, str]:
    """(value, spread, status) of a cell: a number, [number, standard deviation] or "not found"."""
    if cell == NOT_FOUND:
        return math.nan, math.nan, NOT_FOUND
    numbers = cell if isinstance(cell, list) else [cell]
    if len(numbers) > 2 or not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"{where} is {cell!r}; write a number, [number, standard deviation] or {NOT_FOUND!r}")
    return float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else math.nan, "reported"


def _of_metric(said: object, metric: str) -> object:
    """What a block says of one metric, where it says it metric by metric."""
    return said.get(metric, "") if isinstance(said, Mapping) else said
