"""A paper's reported numbers and this run's, line by line: what both figures of replications share.

Scales, prompts, models and scorers differ between the two, so absolute numbers stand in the table with all of these
beside them, and the picture shows what can be compared: the change from the same side's unsteered (or other) row, in
percent, and shares that mean the same on both sides. What other groups got with the method stands in columns of its
own. Nothing fills a cell that was not run or not found.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, SymmetricalLogLocator

from steerlab import reference as papers
from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE
from steerlab.metrics.calibrated import CALIBRATED, RAW, SUFFIX

BOTH, OTHERS, NOT_COMPARABLE = "both", "others' and ours", "not comparable"
NOT_IN_PAPER, NOT_FOUND, NOT_RUN, NEITHER = "not in the paper", "paper's not found", "not run", "not found, not run"
STATUSES = (BOTH, OTHERS, NOT_COMPARABLE, NOT_IN_PAPER, NOT_FOUND, NOT_RUN, NEITHER)  # in the order of the table
CHANGE, SHARE = "change", "share"  # what of a line the picture compares
_SIDES = {"paper": "paper_change_percent", "third_party": "third_party_change_percent", "ours": "our_change_percent"}
_NUMBERS = ["paper", "third_party", "ours", "difference"]
_FURTHER = [
    *_SIDES.values(), "paper_spread", "ours_low", "ours_high", "our_change_percent_low", "our_change_percent_high",
    "ours_raw", "ours_calibrated",
]  # fmt: skip
COLUMNS = [
    "row", "of", "method", "section", "metric", "prompts", "status", *_NUMBERS,
    "grade", "paper_model", "our_model", "paper_scale", "our_scale", "paper_scorer", "our_scorer", *_FURTHER,
    "paper_setting", "our_setting", "compared", "differs", "paper_table", "paper_source", "data",
]  # fmt: skip

_LOOKS = {"paper": ("D", "#444444", "the paper"), "third_party": ("s", "#8A8A8A", "another group's run")}
_JOIN = "#B5B5B5"
_LINE = 0.21  # inches a line of the picture
_LOG_FROM = 300  # percent from which the picture's axis is logarithmic further out than 100
_LABELS = {CHANGE: "Change from {against} (%)", SHARE: "Share"}


# ---- the table ---------------------------------------------------------------------------------------------------


def line(
    *,
    of: str,
    method: str,
    section: str,
    name: str,
    paper: Mapping[str, object],
    ours: Mapping[str, object],
    differs: str = "",
) -> dict[str, object]:
    """One line of the table, with COLUMNS. of: the paper; method: the row's, by which it is coloured. paper: of
    `of_paper`, ours: of the same columns; {} for what there is none of. differs: why the two are not compared; then
    they stand beside each other without a difference."""
    found = dict.fromkeys(COLUMNS, "") | dict.fromkeys([*_NUMBERS, *_FURTHER], np.nan)
    found |= {"row": name, "of": of, "method": method, "section": section} | dict(ours) | dict(paper)
    found["status"] = status = _status(paper, ours, differs)
    if status in (BOTH, OTHERS):
        found["difference"] = found["ours"] - found["paper"]  # pyright: ignore[reportOperatorIssue]
        changes = [found[_SIDES["paper" if status == BOTH else "third_party"]], found[_SIDES["ours"]]]
        found["compared"] = "" if pd.isna(changes).any() else CHANGE
    if status == NOT_COMPARABLE:
        found |= {"differs": differs} | {name: np.nan for name in _FURTHER if name.startswith("our_change")}
    return {column: found[column] for column in COLUMNS}


def _status(paper: Mapping[str, object], ours: Mapping[str, object], differs: str) -> str:
    if not paper:
        return NOT_IN_PAPER
    if paper["paper_status"] == papers.NOT_FOUND:
        return NOT_FOUND if ours else NEITHER
    if not ours:
        return NOT_RUN
    if differs:
        return NOT_COMPARABLE
    return OTHERS if paper["grade"] == papers.THIRD_PARTY else BOTH


def of_paper(row: Mapping, base: float) -> dict[str, object]:
    """The columns of a row of the reference, in the metric's own units; base: the number that it is a change from.

    A third party's number stands in third_party and never in paper; what tells of it is told as of the paper's.
    """
    unit, side = papers.UNITS[row["unit"]], "third_party" if row["grade"] == papers.THIRD_PARTY else "paper"
    value = row["steer_value"]
    strength = f"{value:g} eps0" if np.isfinite(value) else ""
    return {
        "metric": row["metric"],
        "prompts": row["prompts"],
        side: row["value"] * unit,
        _SIDES[side]: percent(row["value"] - base, base),
        "paper_spread": row["spread"] * unit,
        "paper_status": row["status"],
        "grade": row["grade"],
        "paper_model": row["model"],
        "paper_scale": row["scale"],
        "paper_scorer": row["scorer"],
        "paper_setting": "; ".join(filter(None, [strength, row["setting"], row["note"]])),
        "paper_table": row["table"],
        "paper_source": row["source"],
    }


def percent(change: float, base: float) -> float:
    """A change in percent of a base; NaN where that is 0."""
    return 100 * change / base if base else np.nan


def table(lines: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The lines as one table with COLUMNS, what both have first; of a status in the order in which they come."""
    found = pd.DataFrame(list(lines), columns=COLUMNS)
    return found.sort_values("status", key=lambda status: status.map(STATUSES.index), kind="stable", ignore_index=True)


# ---- the picture -------------------------------------------------------------------------------------------------


def plot(table: pd.DataFrame, *, against: str = "the\nunsteered model", short: Callable[[str], str] = str) -> Figure:
    """table: with COLUMNS, also when read from its CSV. A line for each row that is compared: the paper's mark, or
    others', and ours, joined. against: what changes are from; short: a row's name as it stands in the picture."""
    shown = drawn(table)
    kinds = [kind for kind in (CHANGE, SHARE) if (shown.compared == kind).any()] or [CHANGE]
    parts = [shown[shown.compared == kind] for kind in kinds]
    placed = [_places(part) for part in parts]
    heights = [1.15 + _LINE * max(y, 3) for _, _, y in placed]
    with style.context():
        figure = Figure(figsize=(style.WIDTH, sum(heights)), layout="constrained")
        panels = figure.subplots(len(kinds), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, kind, part, (places, titles, y) in zip(panels, kinds, parts, placed, strict=True):
            for place, (_, row) in zip(places, part.iterrows(), strict=True):
                _dumbbell(panel, row, place)
            _finish(panel, part, _LABELS[kind].format(against=against))
            panel.set_yticks([*titles.values(), *places], [*titles, *part.row.map(short)])
            for tick in panel.get_yticklabels()[: len(titles)]:
                tick.set_fontweight("bold")
            panel.set_ylim(max(y - 0.9, 1), -0.6)
        marks.legend(figure, _handles(table, shown))
    return figure


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that are compared, heading by heading (metric and class of prompts), each in the table's order; changes
    before shares, those of sentiment alone last. Adds heading, theirs, mine, low, high (what is drawn) and side."""
    rows = table[table.compared.isin([CHANGE, SHARE])].astype({"our_scorer": str})
    several = rows.prompts != "all"
    scale = rows.our_scorer.str.endswith(SUFFIX).map({True: f" ({CALIBRATED})", False: f" ({RAW})"})
    scale = scale.where(rows.ours_calibrated.notna(), "")
    heading = rows.metric.map(papers.METRICS) + (", " + rows.prompts + " prompts").where(several, "") + scale
    side = (rows.grade == papers.THIRD_PARTY).map({True: "third_party", False: "paper"})
    of_change, of_paper = rows.compared == CHANGE, side == "paper"

    def either(change: str, share: str) -> pd.Series:
        return rows[change].where(of_change, rows[share])

    theirs = {name: either(_SIDES[name], name) for name in ("paper", "third_party")}
    rows = rows.assign(
        heading=heading.astype(str), order=rows.metric.map(list(papers.METRICS).index),
        sentiment=rows.section == "sentiment", side=side, theirs=theirs["paper"].where(of_paper, theirs["third_party"]),
        mine=either("our_change_percent", "ours"), low=either("our_change_percent_low", "ours_low"),
        high=either("our_change_percent_high", "ours_high"),
    )  # fmt: skip
    rows = rows.sort_values(["compared", "sentiment", "order", "prompts"], kind="stable")
    return rows.sort_values("heading", key=lambda names: pd.factorize(names)[0], kind="stable", ignore_index=True)


def _places(shown: pd.DataFrame) -> tuple[list[float], dict[str, float], float]:
    """Each line's and each heading's place from the top, in lines; and how many lines there are."""
    places: list[float] = []
    titles: dict[str, float] = {}
    y = 0.0
    for heading, rows in shown.groupby("heading", sort=False):
        titles[str(heading)] = y
        places += [y + 1 + place for place in range(len(rows))]
        y += 1.4 + len(rows)
    return places, titles, y


def _dumbbell(panel: Axes, row: pd.Series, y: float) -> None:
    colour, (marker, grey, _) = style.colour(row.method), _LOOKS[row.side]
    look = {"color": grey, "markerfacecolor": "white", "markersize": style.POOLED_SIZE - 0.5, "zorder": 3}
    panel.plot([row.theirs, row.mine], [y, y], "-", color=_JOIN, linewidth=2.6, zorder=1)
    panel.plot([row.low, row.high], [y, y], "-", color=colour, linewidth=1.1, zorder=2)
    panel.plot(row.theirs, y, marker, **look)
    panel.plot(row.mine, y, "o", color=colour, markersize=style.POOLED_SIZE, zorder=4)


def _finish(panel: Axes, shown: pd.DataFrame, label: str) -> None:
    panel.set_xlabel(label)
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    if shown.empty:
        panel.set_xlim(-100, 100)
        panel.text(0, 0.5, "no number that both sides have", ha="center", fontsize=8, fontstyle="italic")
        return
    panel.margins(x=0.06)
    if (shown.compared == SHARE).all():
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panel.set_xlim(-0.06, 1.06)
        return
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    if shown[["theirs", "mine"]].abs().max().max() > _LOG_FROM:
        panel.set_xscale("symlog", linthresh=100)
        panel.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=100))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))


def _handles(table: pd.DataFrame, shown: pd.DataFrame) -> list[Line2D]:
    sides = [side for side in _LOOKS if side in set(shown.side)] or ["paper"]
    hollow = {"linestyle": "none", "markerfacecolor": "white"}
    theirs = [
        marks.pooled_handle(name, marker=marker, color=grey, **hollow)
        for marker, grey, name in (_LOOKS[side] for side in sides)
    ]
    methods = list(dict.fromkeys(shown.method)) or list(table.of[:1])
    colour = style.colour(methods[0]) if len(methods) == 1 else marks.GREY
    return [*theirs, marks.pooled_handle("this run, with its interval", linestyle="none", color=colour)]


# ---- the caption -------------------------------------------------------------------------------------------------


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """Phrases for any paper; models, scales and scorers are those of the rows drawn.

    drawn: pairs of changes, and same_direction of them; shares: pairs of shares; both, others, not_comparable, not_run,
    not_found, neither: counts of a status; grades: with their meaning; our_ and paper_ model, scale and scorer, empty
    where nothing is drawn; interval; sample_data, empty where there is none.
    """
    shown = drawn(table)
    changes = shown[shown.compared == CHANGE]
    same = np.sign(changes.theirs) == np.sign(changes.mine)
    counts = table.status.value_counts()
    named = {"both": BOTH, "others": OTHERS, "not_comparable": NOT_COMPARABLE}
    named |= {"not_run": NOT_RUN, "not_found": NOT_FOUND, "neither": NEITHER}
    return {
        "drawn": selection.counted([len(changes)], "pair"),
        "same_direction": str(int(same.sum())),
        "shares": selection.counted([len(shown) - len(changes)], "pair") if len(shown) > len(changes) else "",
        **{name: str(counts.get(status, 0)) for name, status in named.items()},
        "grades": "; ".join(f"{grade}, {why}" for grade, why in papers.GRADES.items() if grade in set(table.grade)),
        "interval": selection.interval(confidence, "prompts"),
        "sample_data": "sample data" if "sample" in set(table.data) else "",
    } | {name: phrase for side in ("our", "paper") for name, phrase in _sources(shown, side).items()}


def _sources(shown: pd.DataFrame, side: str) -> dict[str, str]:
    """The models, scales and scorers of one side of the rows drawn; scales of sentiment are called so."""
    known = shown[[f"{side}_model", f"{side}_scale", f"{side}_scorer"]].astype(object)
    known = known.fillna("").astype(str)  # from CSV: "" is NaN
    scales = known[f"{side}_scale"] + np.where(shown.sentiment & (known[f"{side}_scale"] != ""), " for sentiment", "")
    scorers = pd.DataFrame({"metric": shown.metric, "scorer": known[f"{side}_scorer"]})
    return {
        f"{side}_model": selection.listed(filter(None, dict.fromkeys(known[f"{side}_model"]))),
        f"{side}_scale": "; ".join(filter(None, dict.fromkeys(scales))),
        f"{side}_scorer": selection.scorers_named(scorers[scorers.scorer != ""]),
    }
