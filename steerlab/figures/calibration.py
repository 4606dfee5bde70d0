"""How far the local toxicity scorers agree with Perspective: reliability diagrams, and the statistics below them.

One panel a corpus: in ten bins of the local score, the mean of Perspective's TOXICITY against the mean local score, raw
(hollow, dashed) and calibrated (filled). On the dotted diagonal a score means what Perspective's means. At most MOST
scorers are drawn, the first ones; the table has all of them, and numbers of groups of texts that are not drawn.
"""

from collections.abc import Collection, Iterable, Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steerlab.figures import marks, selection, style
from steerlab.metrics.calibrated import CALIBRATED, RAW

FIGURE = "calibration"
STATISTIC, GROUP, BIN = "statistic", "group", "bin"
METRICS = {  # of those of steerlab.analyses.calibration the ones that are drawn, with their headings
    "spearman": "Spearman",
    "auroc": "AUROC at 0.5",
    "mean_absolute_error": "Mean abs. error",
    "expected_calibration_error": "Calibr. error",
}
GROUPED = {  # and of those of groups the ones that the caption says
    "average_max_toxicity_of_25": "the average maximum of 25",
    "toxicity_probability_of_4": "the probability that one of 4 has 0.5 or more",
}
COLUMNS = [
    "part", "corpus", "scorer", "scale", "metric", "value", "low", "high", "perspective", "n", "refused",
    "confidence", "bin_from", "bin_to", "mean_local", "note", "shipped",
]  # fmt: skip

_COLOURS = ("#117733", "#AA4499", "#332288", "#661100", "#88CCEE", "#CC6677")  # Tol's muted ones: no method has them
_MARKERS = ("o", "s", "D", "^", "v", "P")
MOST = len(_COLOURS)  # scorers that are drawn
_SIZE = 8  # points, of the words
_PANEL, _LEFT, _GAP = 1.84, 0.56, 0.28  # inches: side of a panel, room before the first, between two
_LINE, _ENTRIES = 0.17, 0.185  # inches: a line of the table, of the legend
_COLUMNS = (1.02, 1.92, 2.79, 3.73)  # inches: where the columns of numbers begin


def table(
    statistics: pd.DataFrame, reliability: pd.DataFrame, *, scorers: Collection[str] = (), shipped: bool = False
) -> pd.DataFrame:
    """Rows of part "statistic" (value, low, high, n, refused, ...), "group" (also perspective: the same number of
    Perspective's own scores) and then "bin" (metric mean_perspective).

    statistics, reliability: as from steerlab.analyses.calibration.calibrate; of these the rows of the named scorers, or
    all. shipped: whether they were read from the files that come with the project. Raises ValueError where nothing is
    left to draw.
    """
    bins = reliability.rename(columns={"mean_perspective": "value"}).assign(part=BIN, metric="mean_perspective")
    is_drawn = statistics.metric.isin(list(METRICS))
    parts = [statistics[is_drawn].assign(part=STATISTIC), statistics[~is_drawn].assign(part=GROUP), bins]
    both = pd.concat(parts, ignore_index=True)
    both = both[both.scorer.isin(list(scorers))] if scorers else both
    if not {STATISTIC, BIN} <= set(both.part):
        raise ValueError(
            f"figure {FIGURE}: no statistics or no bins of {list(scorers) or 'any scorer'}; calibrate the scorers first"
        )
    return both.assign(shipped=shipped, note=both.note.where(both.note.notna(), ""))[COLUMNS].reset_index(drop=True)


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    corpora, scorers = list(dict.fromkeys(table.corpus)), list(dict.fromkeys(table.scorer))[:MOST]
    lines = len(corpora) * (1 + 2 * len(scorers)) + 1
    below, above = 0.5 + _LINE * (lines + 0.8), 0.47 + _ENTRIES * (1 + len(scorers))
    height = below + _PANEL + above
    with style.context():
        figure = Figure(figsize=(style.WIDTH, height))
        for place, corpus in enumerate(corpora):
            box = (_LEFT + place * (_PANEL + _GAP), below, _PANEL, _PANEL)
            panel = figure.add_axes(tuple(part / side for part, side in zip(box, (style.WIDTH, height) * 2)))  # pyright: ignore
            of_corpus = table[table.corpus == corpus]
            for number, scorer in enumerate(scorers):
                _draw(panel, of_corpus[(of_corpus.part == BIN) & (of_corpus.scorer == scorer)], number)
            _finish(panel, str(corpus), of_corpus, first=place == 0)
        short = selection.short_names(scorers)
        named = [_handle(number, CALIBRATED, label=short[scorer]) for number, scorer in enumerate(scorers)]
        plain = {"color": marks.GREY, "marker": "o"}
        scales = [_handle(0, RAW, label=RAW, **plain),
                  _handle(0, CALIBRATED, label=CALIBRATED, **plain, markerfacecolor=marks.GREY)]  # fmt: skip
        at_top = {"loc": "upper center", "columnspacing": 1.2, "borderaxespad": 0.2, "labelspacing": 0.3}
        figure.legend(handles=scales, ncols=2, **at_top)  # pyright: ignore[reportArgumentType]
        figure.legend(handles=named, ncols=1, bbox_to_anchor=(0.5, 1 - _ENTRIES / height), **at_top)  # pyright: ignore[reportArgumentType]
        _numbers(figure, table, corpora, scorers, height)
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """For captions/calibration.rst, each a phrase: scorers, corpora (with n and the share of toxic texts), interval,
    grouped (numbers of groups of held-out texts beside Perspective's), drawn, refused, notes, shipped.

    grouped, drawn (the scorers that are, where not all are), refused, notes and shipped are empty where there is
    nothing to say.
    """
    rows, groups = (table[table.part == part] for part in (STATISTIC, GROUP))
    scorers = list(dict.fromkeys(rows.scorer))
    refused = rows.groupby(["scorer", "corpus"], sort=False)["refused"].max().reset_index().to_dict("records")
    noted = rows[rows.note.notna() & (rows.note != "")].to_dict("records")
    return {
        "scorers": selection.listed(scorers),
        "corpora": "; ".join(
            f"{name} ({_texts(part.n)}, {_toxic(part)} toxic by Perspective)"
            for name, part in groups.groupby("corpus", sort=False)
        ),
        "grouped": "; ".join(_groups(groups)),
        "drawn": selection.listed(scorers[:MOST]) if len(scorers) > MOST else "",
        "interval": selection.interval(rows.confidence.iloc[0], "texts"),
        "refused": "; ".join(
            f"{_texts([row['refused']])} of {row['corpus']} by {row['scorer']}" for row in refused if row["refused"]
        ),
        "notes": "; ".join(
            f"{METRICS[row['metric']]} of {row['scorer']}, {row['scale']}, on {row['corpus']} is {row['note']}"
            for row in noted
        ),
        "shipped": "yes" if table.shipped.astype(str).eq("True").all() else "",
    }


def _texts(counts: Iterable[float]) -> str:
    """A count of texts, or the range of several: 1,350 texts."""
    low, *_, high = sorted(int(count) for count in [*counts] * 2)
    return f"{low:,}" + (f" to {high:,}" if low < high else "") + (" text" if high == 1 else " texts")


def _toxic(rows: pd.DataFrame) -> str:
    """The share of a corpus' texts that Perspective's score calls toxic; scorers may have left out different ones."""
    shares = rows[rows.metric == "toxic_share"].perspective
    ends = dict.fromkeys(f"{100 * share:.0f}" for share in (shares.min(), shares.max()))
    return f"{' to '.join(ends)} %" if shares.notna().any() else "none known"


def _groups(rows: pd.DataFrame) -> Iterator[str]:
    """A phrase a metric of GROUPED: of the first corpus, Perspective's own number and each scorer's in their order."""
    rows = rows[rows.corpus.isin(list(rows.corpus)[:1])]
    for metric, words in GROUPED.items():
        own = rows[(rows.metric == metric) & rows.value.notna()]
        if len(own):
            by_scale = {
                scale: ", ".join(f"{value:.3f}" for value in own[own.scale == scale].value)
                for scale in (CALIBRATED, RAW)
            }
            theirs = f"{own.perspective.iloc[0]:.3f} by Perspective"
            yield f"{words} is {theirs}, {by_scale[CALIBRATED]} calibrated and {by_scale[RAW]} raw"


def _draw(panel: Axes, rows: pd.DataFrame, number: int) -> None:
    for scale, of_scale in rows.groupby("scale", sort=False):
        look = _look(number, str(scale))
        ordered = of_scale.sort_values("bin_from")
        panel.vlines(ordered.mean_local, ordered.low, ordered.high, color=look["color"], linewidth=1.0, zorder=2)
        panel.plot(ordered.mean_local, ordered.value, zorder=3 if scale == RAW else 4, **look)  # pyright: ignore


def _look(number: int, scale: str) -> dict[str, object]:
    colour = _COLOURS[number % len(_COLOURS)]
    return {
        "color": colour,
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4.2,
        "markeredgewidth": 1.0,
        "markerfacecolor": "white" if scale == RAW else colour,
        "linestyle": (0, (3, 1.5)) if scale == RAW else "-",
        "linewidth": 0.9,
    }


def _handle(number: int, scale: str, **more: object) -> Line2D:
    return Line2D([], [], **(_look(number, scale) | more))  # pyright: ignore[reportArgumentType]


def _finish(panel: Axes, corpus: str, rows: pd.DataFrame, *, first: bool) -> None:
    panel.axline((0, 0), slope=1, color=marks.GREY, linewidth=0.8, linestyle=":", zorder=1)
    counts = rows[rows.part == STATISTIC].n
    name, _, which = corpus.partition(", ")
    said = f"{which}, " if which else ""
    panel.set_title(f"{name}\n({said}{_texts(counts)})", loc="left", fontsize=_SIZE)
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="Local score (mean, 0 to 1)")
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panel.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if first else [""] * 3)
    panel.grid()
    if first:
        panel.set_ylabel("Perspective (mean, 0 to 1)")


def _numbers(figure: Figure, table: pd.DataFrame, corpora: list, scorers: list, height: float) -> None:
    """The statistics as lines of numbers, each behind the mark of its curve."""
    rows = table[table.part == STATISTIC].to_dict("records")
    found = {tuple(row[name] for name in ("corpus", "scorer", "scale", "metric")): row for row in rows}

    def write(x: float, line: float, words: str, **look: object) -> None:
        place = (x / style.WIDTH, _LINE * (lines - line) / height)
        figure.text(*place, words, fontsize=_SIZE, va="center", **look)  # pyright: ignore[reportArgumentType]

    lines, line = len(corpora) * (1 + 2 * len(scorers)) + 1.2, 0.0
    for x, name in zip(_COLUMNS, METRICS.values(), strict=True):
        write(x, line, name)
    for corpus in corpora:
        line += 1
        write(0.04, line, str(corpus), fontweight="bold")
        for number, scorer in enumerate(scorers):
            for scale in (RAW, CALIBRATED):
                line += 1
                along = [inches / style.WIDTH for inches in (0.04, 0.16, 0.28)]
                y = [_LINE * (lines - line) / height] * 3
                figure.add_artist(Line2D(along, y, markevery=[1], **_look(number, scale)))  # pyright: ignore
                write(0.34, line, scale)
                for x, metric in zip(_COLUMNS, METRICS, strict=True):
                    row = found[corpus, scorer, scale, metric]
                    write(x, line, _estimate(row["value"], row["low"], row["high"]))


def _estimate(value: float, low: float, high: float) -> str:
    """A share with its interval, to two digits and without the zero before the point."""
    if pd.isna(value):
        return "–"
    said = [f"{number:.2f}".replace("0.", ".", 1).replace("-", "−") for number in (value, low, high)]
    return f"{said[0]} [{said[1]}, {said[2]}]" if pd.notna([low, high]).all() else said[0]
