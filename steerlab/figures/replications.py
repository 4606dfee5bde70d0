"""The reported numbers of HPR, SLIM, LatentQA or CogSteer and this run's, side by side: a table, and a picture.

Ours are taken from the tables behind the run's other figures, where the reference says that they stand (`ours` in
steerlab/reference/<paper>.yaml). LM-Steer's, whose rows are matched by strength, have a module of their own.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import selection, side_by_side, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "replications"
AGAINST = {"hpr": "the unsteered model", "slim": "the unsteered model", "cogsteer": "adapters in all layers"}
AGAINST |= {"latentqa": "the unsteered model,\nor the linear probe"}
RATES = ("false_negative_rate", "false_positive_rate", "desired_after_map")  # they mean the same on any scale
METHODS = {  # the reference's, beside those that figures know
    "all_layers": "all layers",
    "last_layer": "the last layer",
    "linear_probe": "linear probe",
    "patchscope": "Patchscope",
    "repe": "RepE",
    "sft": "SFT",
    "dpo": "DPO",
    "slim_cross_entropy_probes": "SLIM, cross-entropy",
}
NOT_COMPARED = "data"  # the task of numbers that say what a paper used

_APART = ("seed", "split", "against", "method", "metric")  # columns that a row's name, or another column, says


def table(tables: Mapping[str, pd.DataFrame], reference: pd.DataFrame, *, paper: str, model: str = "") -> pd.DataFrame:
    """Every number of the paper that was measured, with ours beside it; those that both have come first.

    tables: figure -> the table behind it, as it was written, of the figures that this run has. reference: as from
    steerlab.reference.read(paper), third parties' numbers too. model: ours. Where the reference has our model, only its
    rows have ours beside them; else all do, and the columns of models say so.

    Returns side_by_side.COLUMNS. Changes are from the row that the reference names as `against`, on each side; where
    there is none, rates are compared as they are. What the reference says to differ is not compared.
    Raises ValueError where the reference names a column that a table lacks, or several rows with different numbers.
    """
    rows = reference[(reference.follows_from == "") & (reference.task != NOT_COMPARED)]
    return side_by_side.table(_lines(rows, tables, paper, model))


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    own = style.label(table.of.iloc[0])
    short = {name: name.removeprefix(f"{own}, ") for name in table.row}  # all rows have the method
    return side_by_side.plot(table, against=AGAINST[table.of.iloc[0]], short=short.__getitem__)


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The phrases of side_by_side.facts but sample_data, and: paper, its method's name; against, what changes are from;
    changes: pairs of them; differs: why rows are not comparable; each of the last two may be empty."""
    paper = table.of.iloc[0]
    apart = table[table.status == side_by_side.NOT_COMPARABLE]
    found = side_by_side.facts(table, confidence=confidence)
    del found["sample_data"]  # the rows of some figures do not know it
    return found | {
        "paper": style.label(paper),
        "against": AGAINST[paper].replace("\n", " "),
        "changes": found["drawn"] if (table.compared == side_by_side.CHANGE).any() else "",
        "differs": "; ".join(dict.fromkeys(apart.differs)),
    }


# ---- one line a number -------------------------------------------------------------------------------------------


def _lines(
    rows: pd.DataFrame, tables: Mapping[str, pd.DataFrame], paper: str, model: str
) -> Iterator[dict[str, object]]:
    for number in rows.to_dict("records"):
        block = rows[(rows.table == number["table"]) & (rows.grade == number["grade"])]
        same = block[(block.metric == number["metric"]) & (block.model == number["model"])]
        against = same[(same.method == number["against"]) & (number["method"] != number["against"])]
        base = against.to_dict("records")[0] if len(against) else None
        elsewhere = model in set(block.model) and number["model"] != model
        ours = {} if elsewhere else _of_ours(number, base, tables, model)
        method = number["method"] if number["method"] in style.COLOURS else paper
        found = side_by_side.line(
            of=paper, method=method, section=number["task"], name=_name(number, block), ours=ours,
            paper=side_by_side.of_paper(number, _in_units(base)), differs=_differs(number, model),
        )  # fmt: skip
        if found["status"] in (side_by_side.BOTH, side_by_side.OTHERS) and number["metric"] in RATES:
            found["compared"] = side_by_side.SHARE
        yield found


def _in_units(base: Mapping | None) -> float:
    """The number that a paper's row is a change from, in that row's own unit, which is that of its block."""
    return base["value"] if base else np.nan


def _name(number: Mapping, block: pd.DataFrame) -> str:
    """What tells the number from the others of its table: the method; of several tasks, settings or models its own."""
    method = METHODS.get(number["method"], style.label(number["method"]))
    several = [number[name] for name in ("task", "setting", "model") if block[name].nunique() > 1]
    return ", ".join(filter(None, [method if number["method"] else "", *several])) or number["table"]


def _differs(number: Mapping, model: str) -> str:
    said = number["ours"]
    if not said:
        return ""
    return said["differs"] or ("of another model" if said["same_model"] and number["model"] != model else "")


# ---- ours --------------------------------------------------------------------------------------------------------


def _of_ours(number: Mapping, base: Mapping | None, tables: Mapping[str, pd.DataFrame], model: str) -> dict:
    """The columns of our number, with its change from that of the paper's base row; {} where we have none."""
    said = number["ours"]
    rows = _rows(said, tables)
    if rows.empty:
        return {}
    row, value = rows.iloc[0], float(rows[said["value"]].iloc[0])
    ends = {end: float(row.get(end, np.nan)) for end in ("low", "high")}
    if said["over"]:
        whole = _rows(said | {"rows": said["rows"] | said["over"]}, tables)
        value = value / float(whole[said["value"]].iloc[0]) if len(whole) else np.nan
        value, ends = 1 - value if said["saved"] else value, dict.fromkeys(ends, np.nan)
    return {
        "metric": number["metric"],
        "prompts": number["prompts"],
        "ours": value,
        **{f"ours_{end}": at for end, at in ends.items()},
        **_change(row, value, ends, _rows(base["ours"], tables) if base else rows.iloc[:0]),
        "our_model": model,
        "our_scale": _scale(said, row, tables),
        "our_scorer": row.get("scorer", "") or said["scorer"],
        "our_setting": _setting(said, row),
        "data": row.get("data", ""),
    }


def _rows(said: Mapping | None, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of a figure's table that the reference names; of a list of values the first that is there."""
    if not said or said["figure"] not in tables:
        return pd.DataFrame()
    rows = tables[said["figure"]]
    lacking = sorted({*said["rows"], said["value"]} - set(rows.columns))
    if lacking:
        raise ValueError(f"figure {FIGURE}: the table of {said['figure']} has no {lacking}; correct the reference")
    for column, wanted in said["rows"].items():
        choices = [rows[_is(rows[column], value)] for value in (wanted if isinstance(wanted, list) else [wanted])]
        rows = next((part for part in choices if len(part)), rows.iloc[:0])
    rows = rows[rows[said["value"]].notna()]
    if rows[said["value"]].nunique() > 1:
        raise ValueError(
            f"figure {FIGURE}: {len(rows)} rows of {said['figure']} are {said['rows']}; name one in the reference"
        )
    return rows


def _is(column: pd.Series, wanted: object) -> pd.Series:
    if isinstance(wanted, float):
        return pd.Series(np.isclose(pd.to_numeric(column, errors="coerce"), wanted), index=column.index)
    return column.fillna("").astype(str) == str(wanted)


def _change(row: pd.Series, value: float, ends: Mapping[str, float], base: pd.DataFrame) -> dict[str, float]:
    """The change in percent from the base's value, which is taken as known; its interval is that of the paired
    difference from the unsteered model where the base is that, and the table has it."""
    if base.empty:
        return {}
    of_base = float(base["value"].iloc[0])
    paired = base.iloc[0].get("method") == "base" and pd.notna(row.get("difference_low", np.nan))
    if paired:
        of_base, value, ends = row["base"], row["value"], {end: row["base"] + row[f"difference_{end}"] for end in ends}
    changes = {"": value} | {f"_{end}": at for end, at in ends.items()}
    return {f"our_change_percent{end}": side_by_side.percent(at - of_base, of_base) for end, at in changes.items()}


def _scale(said: Mapping, row: pd.Series, tables: Mapping[str, pd.DataFrame]) -> str:
    """How many of what, samples of each, and seeds: those of the same rows but for the seed."""
    parts = [f"{row[column]:,.0f} {noun}" for column, noun in said["counted"].items()]
    if pd.notna(row.get("samples", np.nan)):
        parts.append(f"{row['samples']:g}")
    whole = tables[said["figure"]]
    if said["rows"].get("seed") == "all":
        for column, wanted in said["rows"].items():
            if column != "seed":
                whole = whole[_is(whole[column], row[column] if isinstance(wanted, list) else wanted)]
        seeds = whole[whole["seed"].astype(str) != "all"]["seed"].nunique()
        parts += [selection.counted([seeds], "seed")] if seeds else []
    return " x ".join(parts)


def _setting(said: Mapping, row: pd.Series) -> str:
    """What tells our row from the others of its table, and the table."""
    named = [f"{column} {row[column]}" for column in said["rows"] if column not in _APART]
    return "; ".join([f"figure {said['figure']}", *named])
