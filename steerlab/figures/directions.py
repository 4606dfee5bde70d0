"""The words at the two ends of a steer's first directions in the space of output embeddings, as a drawn table.

A row is a right singular direction of the steer's matrix. Its two ends are told apart by a toxicity scorer, which reads
the words of each end as one text.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from steerlab.figures import style, tokens

ROWS = 9  # directions shown, as in the paper
ENDS = {"more toxic": "More toxic end", "other": "Other end"}
_SIZE, _LINES = 7, 3  # points; lines of words a row
_LINE, _BETWEEN, _HEADER = 0.128, 0.09, 0.38  # inches
_NUMBER, _SCORE, _GAP = 0.42, 0.33, 0.1  # inches: columns of direction and score, gap between columns
_WORDS = (style.WIDTH - _NUMBER - 2 * _SCORE - 2 * _GAP) / 2


def table(directions: pd.DataFrame) -> pd.DataFrame:
    """The first ROWS directions with all their words, and which end of each is the more toxic one.

    directions: of steerlab.analyses.interpretation.directions, with toxicity, the score in [0, 1] of each (direction,
    side)'s words (NaN: refused), and perhaps model and scorer. Adds end ("more toxic" | "other"); of equal scores
    "largest" is called the more toxic one. Raises ValueError if there is nothing to draw or a side has several scores.
    """
    rows = directions[directions.direction <= ROWS].copy()
    scores = rows.groupby(["direction", "side"])["toxicity"]
    if not len(rows) or (scores.nunique() > 1).any() or (rows.groupby("direction")["side"].nunique() != 2).any():
        raise ValueError("figure directions: need two sides with one toxicity each for a direction; score them first")
    one = scores.first().fillna(-1).unstack()
    toxic = pd.Series(np.where(one["smallest"] > one["largest"], "smallest", "largest"), index=one.index)
    rows["end"] = np.where(rows.side == rows.direction.map(toxic), *ENDS)
    names = [name for name in ("model", "scorer") if name in rows]
    rows = rows.sort_values(["direction", "end", "rank"], ignore_index=True)
    return rows[["direction", "singular_value", "end", "side", "toxicity", "rank", "token", *names]]


def plot(table: pd.DataFrame) -> Figure:
    """table: as `table` gives it. The words that fit are drawn, a word that two tokens share once."""
    directions = list(table.groupby("direction"))
    row = _LINES * _LINE + _BETWEEN
    height = _HEADER + row * len(directions)
    with style.context():
        figure = Figure(figsize=(style.WIDTH, height))
        panel = figure.add_axes((0, 0, 1, 1))
        panel.set(xlim=(0, style.WIDTH), ylim=(height, 0))  # inches from the top left
        panel.axis("off")
        _header(panel)
        for number, (direction, ends) in enumerate(directions):
            y = _HEADER + number * row
            panel.plot([0, style.WIDTH], [y, y], color="#DDDDDD", linewidth=0.6)
            _text(panel, 0, y + _BETWEEN / 2, f"{direction}", size=8)
            _text(panel, 0, y + _BETWEEN / 2 + _LINE, f"σ {ends.singular_value.iloc[0]:.3g}", colour="#555555")
            for end, words in ends.groupby("end"):
                _draw_end(panel, _left(str(end)), y + _BETWEEN / 2, words)
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """directions, words, largest and smallest singular values, toxicities; model and scorer, or nothing."""
    sides = table.drop_duplicates(["direction", "end"])
    means = sides.groupby("end")["toxicity"].mean()
    values = sides.singular_value
    return {
        "model": _names(table, "model"),
        "scorer": _names(table, "scorer"),
        "directions": f"{table.direction.nunique()}",
        "words": f"{table['rank'].max()}",
        "singular_values": f"{values.max():.3g} to {values.min():.3g}",
        "toxic_mean": f"{means['more toxic']:.2f}",
        "other_mean": f"{means['other']:.2f}",
    }


def _header(panel: Axes) -> None:
    _text(panel, 0, 0.04, "No.,\nsingular\nvalue σ", size=6, colour="#555555")
    for end, title in ENDS.items():
        _text(panel, _left(end) + _SCORE, 0.04, title, size=8.5, weight="bold")
        _text(panel, _left(end), 0.22, "score", size=6, colour="#555555")
        _text(panel, _left(end) + _SCORE, 0.22, "tokens, the outermost first", size=6, colour="#555555")


def _draw_end(panel: Axes, x: float, y: float, words: pd.DataFrame) -> None:
    score = words.toxicity.iloc[0]
    _text(panel, x, y, "–" if np.isnan(score) else f"{score:.2f}", size=_SIZE, weight="bold")
    length, bar = _SCORE - 0.09, y + _LINE + 0.01
    panel.add_patch(Rectangle((x, bar), length, 0.045, facecolor="#DDDDDD", edgecolor="none"))
    panel.add_patch(Rectangle((x, bar), length * np.nan_to_num(score), 0.045, facecolor="#333333", edgecolor="none"))
    drawn = dict.fromkeys(tokens.shown(str(token)) for token in words.sort_values("rank").token)
    for line, text in enumerate(tokens.wrapped(drawn, inches=_WORDS, size=_SIZE, lines=_LINES)):
        _text(panel, x + _SCORE, y + line * _LINE, text, size=_SIZE)


def _left(end: str) -> float:
    return _NUMBER + _GAP + list(ENDS).index(end) * (_SCORE + _WORDS + _GAP)


def _text(panel: Axes, x: float, y: float, text: str, *, size: float = 6.5, colour: str = "black", **look: str) -> None:
    panel.text(x, y, text, fontsize=size, color=colour, va="top", parse_math=False, **look)  # pyright: ignore


def _names(table: pd.DataFrame, column: str) -> str:
    return " and ".join(sorted(table[column].unique())) if column in table else ""
