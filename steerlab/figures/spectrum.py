"""How many directions a steer uses, and where the vocabulary lies along the first two.

Left: singular values and the energy, which is the explained variance of a PCA of the edits of uncorrelated states.
Right: the tokens along the first two right singular directions, those farthest out by name.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from steerlab.figures import style, tokens

POINTS = 2000  # tokens drawn besides the named ones
NAMED = 6  # tokens named at each end of each direction, where there is room
LEVELS = (0.5, 0.9)  # shares of the energy that are marked
_HEIGHT = 2.85  # inches
_MAP = (2.28, 0.45, 2.24, 2.18)  # inches: left, bottom, width, height
_SIZE = 6.5  # points


def table(spectrum: pd.DataFrame, coordinates: pd.DataFrame) -> pd.DataFrame:
    """Rows of part "spectrum" (method, index, singular_value, energy) and of part "token" (token_id, token, ...).

    spectrum: of steerlab.analyses.interpretation.spectrum, perhaps of several steers with a column method ("lm_steer"
    where there is none) and model; coordinates: of `coordinates` there, for one steer. Of the tokens those farthest out
    are kept (named: true) and evenly many of all others. Raises ValueError if there is nothing to draw.
    """
    if not len(spectrum) or not len(coordinates):
        raise ValueError("figure spectrum: no singular values or no tokens to draw; compute them first")
    named = set()
    for direction in ("direction_1", "direction_2"):
        order = coordinates.sort_values([direction, "token_id"]).token_id
        named |= {*order[:NAMED], *order[-NAMED:]}
    kept = coordinates.iloc[:: max(1, len(coordinates) // POINTS)]
    kept = pd.concat([kept, coordinates[coordinates.token_id.isin(named)]]).drop_duplicates("token_id")
    kept = kept.assign(named=kept.token_id.isin(named)).sort_values("token_id")
    values = spectrum if "method" in spectrum else spectrum.assign(method="lm_steer")
    both = pd.concat([values.assign(part="spectrum"), kept.assign(part="token")], ignore_index=True)
    columns = ["part", "method", "index", "singular_value", "energy", "token_id", "token", "direction_1", "direction_2"]
    return both[[*columns, "named", *(["model"] if "model" in both else [])]]


def plot(table: pd.DataFrame) -> Figure:
    """table: as `table` gives it."""
    values, words = table[table.part == "spectrum"], table[table.part == "token"]
    with style.context():
        figure = Figure(figsize=(style.WIDTH, _HEIGHT))
        above, below = (_panel(figure, 0.5, bottom, 1.2, 0.96) for bottom in (1.67, 0.45))
        for method in sorted(values.method.unique(), key=style.rank):
            rows = values[values.method == method].sort_values("index")
            look = {"color": style.colour(method), "label": style.label(method), "linewidth": 1.3}
            above.plot(rows["index"], rows.singular_value, **look)
            below.plot(rows["index"], rows.energy, **look)
            if len(rows) == 1:  # a line of one point is invisible
                above.plot(rows["index"], rows.singular_value, ".", color=style.colour(method))
                below.plot(rows["index"], rows.energy, ".", color=style.colour(method))
        _finish_spectrum(above, below, values)
        _draw_map(_panel(figure, *_MAP), words)
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """half, most: directions that hold 50 % and 90 % of the energy, of each steer; all; tokens; model, or nothing."""
    values, words = table[table.part == "spectrum"], table[table.part == "token"]

    def reached(level: float) -> str:
        said = []
        for method in sorted(values.method.unique(), key=style.rank):
            number = _reached(values[values.method == method], level)
            said.append(f"{number}" if values.method.nunique() == 1 else f"{number} ({style.label(method)})")
        return " and ".join(said)

    return {
        "model": " and ".join(sorted(table.model.dropna().unique())) if "model" in table else "",
        "half": reached(LEVELS[0]),
        "most": reached(LEVELS[1]),
        "all": f"{values['index'].max():.0f}",
        "tokens": f"{len(words):,}",
    }


def _reached(rows: pd.DataFrame, level: float) -> int:
    """Directions that together hold this share of the energy; the last one's share is 1 but for rounding."""
    return int(rows["index"][rows.energy >= min(level, rows.energy.max())].min())


def _finish_spectrum(above: Axes, below: Axes, values: pd.DataFrame) -> None:
    for panel in (above, below):
        panel.set_xscale("log")
        panel.set_xlim(0.9, max(2.0, values["index"].max() * 1.15))
        panel.xaxis.set_major_locator(LogLocator(10))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.tick_params(labelsize=7)
        panel.grid()
        panel.set_ylim(0, None)
    above.tick_params(labelbottom=False)
    above.set_title("Singular value", fontsize=8, loc="left", pad=3)
    below.set_title("Energy so far", fontsize=8, loc="left", pad=3)
    below.set_xlabel("Directions", fontsize=8, labelpad=1)
    below.set_ylim(0, 1.04)
    below.set_yticks([0, *LEVELS])
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for method, rows in values.groupby("method"):
        for level in LEVELS:
            where = _reached(rows, level)
            below.plot(where, level, "o", color=style.colour(str(method)), markersize=3.5)
    if values.method.nunique() > 1:
        above.legend(fontsize=6.5, loc="lower left", handlelength=1.2, borderpad=0)


def _draw_map(panel: Axes, words: pd.DataFrame) -> None:
    named = words.named.astype(bool)
    panel.plot(words.direction_1[~named], words.direction_2[~named], ".", color="#AAAAAA", markersize=1.5, alpha=0.7)
    panel.plot(words.direction_1[named], words.direction_2[named], ".", color=style.colour("lm_steer"), markersize=3)
    for set_limits, column in ((panel.set_xlim, "direction_1"), (panel.set_ylim, "direction_2")):
        low, high = words[column].min(), words[column].max()
        room = 0.16 * (high - low) or 1.0
        set_limits(low - room, high + room)
    _name(panel, words[named])
    panel.set_title("Tokens along the first two directions", fontsize=8, loc="left", pad=3)
    panel.set_xlabel("Direction 1", fontsize=8, labelpad=1)
    panel.set_ylabel("Direction 2", fontsize=8, labelpad=-1)
    panel.tick_params(labelsize=7)
    panel.grid()


def _name(panel: Axes, named: pd.DataFrame) -> None:
    """Write the tokens' names at their points, the farthest out first; a name that would cover another is left out."""
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    wide, high = _MAP[2:]
    x = (named.direction_1 - left) / (right - left) * wide  # inches
    y = (named.direction_2 - bottom) / (top - bottom) * high
    far = np.hypot(x - wide / 2, y - high / 2)
    taken: list[tuple[float, float, float, float]] = []
    for index in far.sort_values(ascending=False, kind="stable").index:
        text = tokens.shown(str(named.token[index]))
        box_wide, box_high = tokens.width(text, _SIZE), 0.1
        middle = min(max(x[index], box_wide / 2), wide - box_wide / 2)  # inside the panel
        for lower in (y[index] + 0.03, y[index] - 0.03 - box_high):
            box = (middle - box_wide / 2, lower, middle + box_wide / 2, lower + box_high)
            if not any(_overlap(box, other) for other in taken):
                taken.append(box)
                at = (left + middle / wide * (right - left), bottom + (lower + 0.02) / high * (top - bottom))
                panel.text(*at, text, fontsize=_SIZE, ha="center", va="baseline", parse_math=False)
                break


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    return figure.add_axes((left / style.WIDTH, bottom / _HEIGHT, width / style.WIDTH, height / _HEIGHT))
