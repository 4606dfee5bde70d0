"""What a steer makes of texts: each token's evidence in colour, and beside it the steer values guessed from texts.

The steer is used as a reader here: nothing is generated. Evidence is a token's log-likelihood under the positive steer
value less that under the negative one.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from steerlab.figures import style, tokens

TEXTS = 6  # shown
COLOURS = LinearSegmentedColormap.from_list("evidence", ["#D55E00", "#F7F7F7", "#0072B2"])
_SIZE, _LINES = 7, 4  # points; lines of a text that are drawn
_LINE, _BETWEEN, _TOP = 0.165, 0.1, 0.05  # inches
_TEXT_WIDTH, _PANEL_WIDTH, _PANEL_HEIGHT = 3.2, 0.9, 1.9  # inches
_ABOVE, _BELOW = 0.42, 0.42  # inches: legend and axis around the panel
_SCALE = 0.42  # inches: height of the colours' scale with its words
_STRONGEST = 0.6  # share of full colour, so that black letters stay readable


def table(evidence: pd.DataFrame, guesses: pd.DataFrame) -> pd.DataFrame:
    """The tokens of the first TEXTS texts, and how often each steer value was guessed for each label.

    evidence: id, label, position, token, evidence, span, of steerlab.analyses.interpretation.marked_texts.
    guesses: id, label, guess, of any number of texts, those shown among them or not; perhaps model.
    Rows of part "text" have id, label, position, token, evidence, span and the text's guess, where there is one; rows
    of part "guess" have label, guess, texts (how many), share (of the label's texts).
    Raises ValueError if there is nothing to draw.
    """
    if not len(evidence) or not len(guesses):
        raise ValueError(
            "figure evidence: no texts or no guesses to draw; mark some texts and guess their values first"
        )
    drawn = evidence[evidence.id.isin(evidence.id.unique()[:TEXTS])]
    own = guesses.drop_duplicates("id").set_index("id").guess
    texts = drawn.assign(part="text", guess=drawn.id.map(own))
    counts = guesses.groupby(["label", "guess"]).size().rename("texts").reset_index()
    counts["share"] = counts.texts / counts.groupby("label").texts.transform("sum")
    both = pd.concat([texts, counts.assign(part="guess")], ignore_index=True)
    columns = ["part", "id", "label", "position", "token", "evidence", "span", "guess", "texts", "share"]
    if "model" in guesses:
        columns, both["model"] = [*columns, "model"], " and ".join(sorted(guesses.model.unique()))
    return both[columns]


def plot(table: pd.DataFrame) -> Figure:
    """table: as `table` gives it. A text that is longer than some lines is cut, with an ellipsis."""
    words, counts = table[table.part == "text"], table[table.part == "guess"]
    placed = [_flow(text) for _, text in words.groupby("id", sort=False)]
    tall = _TOP + sum((1 + text.line.max() + 1) * _LINE + _BETWEEN for text in placed)
    height = max(tall, _ABOVE + _PANEL_HEIGHT + _BELOW + _SCALE)
    # Colours reach their ends at the 95th percentile: one odd token must not make all others pale.
    scale = float(words.evidence.abs().quantile(0.95)) or 1.0
    with style.context():
        figure = Figure(figsize=(style.WIDTH, height))
        left = figure.add_axes((0, 0, 1, 1))
        left.set(xlim=(0, style.WIDTH), ylim=(height, 0))  # inches from the top left
        left.axis("off")
        y = _TOP
        for text in placed:
            _draw_text(left, text, y, scale)
            y += (1 + text.line.max() + 1) * _LINE + _BETWEEN
        x, y = style.WIDTH - _PANEL_WIDTH - 0.06, _ABOVE + _PANEL_HEIGHT
        _draw_scale(left, x, y + _BELOW, scale)
        right = figure.add_axes((x / style.WIDTH, 1 - y / height, _PANEL_WIDTH / style.WIDTH, _PANEL_HEIGHT / height))
        _draw_guesses(right, counts)
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """texts: how many are shown; guessed: how many were guessed; accuracy: a phrase a label; model, or nothing."""
    words, counts = table[table.part == "text"], table[table.part == "guess"]
    said = []
    for label, rows in counts[counts.label != 0].groupby("label"):
        right, none = (rows.share[where].sum() for where in (rows.guess * rows.label > 0, rows.guess == 0))
        said.append(f"{100 * right:.0f} % of the {rows.texts.sum():.0f} texts labelled {_signed(label)}")  # pyright: ignore
        said[-1] += f" ({100 * none:.0f} % were guessed at 0)" if none else ""
    return {
        "model": str(table.model.iloc[0]) if "model" in table else "",
        "texts": f"{words.id.nunique()}",
        "guessed": f"{counts.texts.sum():.0f}",
        "accuracy": " and ".join(said),
    }


def _flow(text: pd.DataFrame) -> pd.DataFrame:
    """The text's tokens with what is drawn of each (shown) and where: line (from 0), left and right in inches."""
    space = tokens.width("x x", _SIZE) - tokens.width("xx", _SIZE)
    line, x, rows = 0, 0.0, []
    for token in text.sort_values("position").itertuples():
        shown = tokens.shown(str(token.token))
        x += space if x and tokens.plain(str(token.token)).startswith(" ") else 0.0
        wide = tokens.width(shown, _SIZE) + 0.02
        if x + wide > _TEXT_WIDTH - 0.1:
            line, x = line + 1, 0.0
        if line == _LINES:
            rows[-1]["shown"] += " …"
            break
        rows.append({"Index": token.Index, "shown": shown, "line": line, "left": x, "right": x + wide})
        x += wide
    return text.join(pd.DataFrame(rows).set_index("Index"), how="inner")


def _draw_text(panel: Axes, text: pd.DataFrame, y: float, scale: float) -> None:
    guess = text.guess.iloc[0]
    said = f"label {_signed(text.label.iloc[0])}" + ("" if np.isnan(guess) else f", guessed {_signed(guess)}")
    panel.text(0, y + _LINE / 2, said, fontsize=6.5, color="#555555", va="center", parse_math=False)
    for token in text.itertuples():
        middle = y + (token.line + 1.5) * _LINE  # pyright: ignore
        if not np.isnan(token.evidence):  # pyright: ignore
            box = ((token.left, middle - 0.068), token.right - token.left, 0.136)  # pyright: ignore
            panel.add_patch(Rectangle(*box, facecolor=_colour(token.evidence / scale), edgecolor="none"))  # pyright: ignore
        panel.text(
            token.left + 0.01, middle + 0.005, token.shown, fontsize=_SIZE, va="center_baseline", parse_math=False  # pyright: ignore
        )  # fmt: skip
    for (_, line), rows in text[text.span > 0].groupby(["span", "line"]):
        below = y + (line + 1.5) * _LINE + 0.077  # pyright: ignore
        panel.plot([rows.left.min(), rows.right.max()], [below, below], color="black", linewidth=1.1)


def _draw_scale(panel: Axes, x: float, y: float, scale: float) -> None:
    steps, wide = 21, _PANEL_WIDTH / 21
    for step in range(steps):
        share = 2 * step / (steps - 1) - 1
        box = ((x + step * wide, y), wide * 1.05, 0.09)
        panel.add_patch(Rectangle(*box, facecolor=_colour(share), edgecolor="none"))
    panel.text(x - 0.03, y + 0.045, f"−{scale:.2g}", fontsize=6.5, ha="right", va="center")
    panel.text(x + _PANEL_WIDTH, y + 0.12, f"+{scale:.2g}", fontsize=6.5, ha="right", va="top")
    panel.text(x, y + 0.12, "Nats a token", fontsize=6.5, va="top")


def _draw_guesses(panel: Axes, counts: pd.DataFrame) -> None:
    labels = sorted(counts.label.unique())
    largest = max(abs(label) for label in labels) or 1.0
    for place, label in enumerate(labels):
        rows = counts[counts.label == label]
        thick = 0.8 / len(labels)
        panel.barh(
            rows.guess - 0.4 + (place + 0.5) * thick, rows.share, height=thick,
            color=to_hex(COLOURS(0.5 + 0.5 * label / largest)), edgecolor="#444444", linewidth=0.4,
            label=f"label {_signed(label)}, n = {rows.texts.sum():.0f}",
        )  # fmt: skip
    values = np.arange(min(-3, counts.guess.min()), max(3, counts.guess.max()) + 1)
    panel.set_yticks(values, [_signed(float(value)) for value in values], fontsize=7)
    panel.tick_params(axis="x", labelsize=7)
    panel.set_ylabel("Guessed steer value", fontsize=7.5, labelpad=1)
    panel.set_xlabel("Share of texts", fontsize=7.5)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.xaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
    panel.grid(axis="x")
    panel.legend(loc="lower right", bbox_to_anchor=(1.08, 1.0), fontsize=6.5, handlelength=1, borderpad=0)


def _colour(share: float) -> str:
    """share: evidence over the scale, -1 to 1; beyond, the ends."""
    return to_hex(COLOURS(0.5 + 0.5 * _STRONGEST * float(np.clip(share, -1, 1))))


def _signed(number: float) -> str:
    return "0" if number == 0 else f"{number:+g}".replace("-", "−")
