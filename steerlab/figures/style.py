"""The one style of all figures: colours, sizes, and vector files whose bytes depend on the data alone.

Colours are Okabe and Ito's (readable with the common kinds of colour blindness) with their yellow, too pale for lines
on white, replaced by a wine red and a brown. The unsteered model and the prompt are black and grey, a method's random
control is a pale tint of its colour (LM-Steer's is grey, for a pale blue would be ITI's). Colour never stands alone: a
row names the method too, or a legend with a marker of its own, hollow for a control.
"""

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

WIDTH = 4.6  # inches: half a landscape page; on a telephone the 8-point labels are still 8 pixels high
POOLED_SIZE, SEED_SIZE = 5.5, 2.6  # diameters of markers, points

COLOURS = {  # in the order in which figures and tables list the methods
    "base": "#000000",
    "instructed": "#666666",
    "lm_steer": "#0072B2",
    "random_lm_steer": "#B5B5B5",
    "composed_lm_steer": "#191782",
    "transferred_lm_steer": "#9361FF",
    "hpr": "#D55E00",
    "slim": "#009E73",
    "latentqa": "#CC79A7",
    "cogsteer": "#E69F00",
    "iti": "#56B4E9",
    "caa": "#7A0019",
    "lora": "#805000",
    "composed": "#4400DD",
}
MARKERS = {  # where methods stand together in a panel and no row names them
    "base": "o",
    "instructed": "s",
    "lm_steer": "^",
    "composed_lm_steer": "<",
    "transferred_lm_steer": ">",
    "hpr": "v",
    "slim": "D",
    "latentqa": "P",
    "cogsteer": "X",
    "iti": "p",
    "caa": "*",
    "lora": "h",
    "composed": "8",
}
LABELS = {
    "base": "unsteered",
    "instructed": "instructed prompt",
    "lm_steer": "LM-Steer",
    "random_lm_steer": "random directions (LM-Steer)",
    "composed_lm_steer": "composed LM-Steers",
    "transferred_lm_steer": "transferred LM-Steer",
    "hpr": "HPR",
    "random_hpr": "random directions (HPR)",
    "slim": "SLIM",
    "random_slim": "random directions (SLIM)",
    "latentqa": "LatentQA",
    "random_latentqa": "random directions (LatentQA)",
    "cogsteer": "CogSteer",
    "random_cogsteer": "random directions (CogSteer)",
    "iti": "ITI",
    "random_iti": "random directions (ITI)",
    "caa": "CAA",
    "random_caa": "random directions (CAA)",
    "lora": "LoRA",
    "random_lora": "random directions (LoRA)",
    "composed": "several methods at once",
}
RANDOM, SHUFFLED = "random_", "shuffled_"  # open the names of a method's controls
AND = "_and_"  # stands between those of several methods at once
_TINT = 0.6  # of a control: the share of its method's colour, the rest is white
_SPARE_COLOURS = ("#332288", "#AA4499", "#117733", "#661100")  # of Tol's muted scheme

_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 9,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "path",  # looks the same where the font is missing; the page gives the words to screen readers
    "pdf.fonttype": 42,  # TrueType: letters that a reader can search and copy, and that publishers take
    "svg.hashsalt": "steerlab",  # ids inside the file then depend on its content alone
}


def colour(method: str) -> str:
    """The method's colour, the same in every figure; a method that is not in the table gets a spare one by its name."""
    if (steer := _controlled(method)) is not None:
        red, green, blue = (1 - _TINT * (1 - part) for part in to_rgb(COLOURS[steer]))
        return to_hex((red, green, blue)).upper()
    spare = _SPARE_COLOURS[hashlib.sha256(method.encode()).digest()[0] % len(_SPARE_COLOURS)]
    return COLOURS.get(_look(method), spare)


def marker(method: str) -> str:
    """The method's marker; its controls have the same, drawn hollow, and a method that is not in the table "d"."""
    return MARKERS.get(_look(method).removeprefix(RANDOM).removeprefix(SHUFFLED), "d")


def label(method: str) -> str:
    """The method's name for readers."""
    if parts := _parts(method):
        return " and ".join(LABELS[part] for part in parts)
    of = method.removeprefix(SHUFFLED)
    return LABELS.get(method, f"{LABELS[of]}, shuffled labels" if of in LABELS else method.replace("_", " "))


def row_label(method: str, strength: float) -> str:
    """The method's name with its strength; at strength 0 nothing is attached, and there is none."""
    return label(method) if strength == 0 else f"{label(method)}, {strength:g}"


def rank(method: str) -> int:
    """The method's place in figures and tables: a random control after its steer, methods not in the table last."""
    order = [name for known in COLOURS for name in (known, RANDOM + known, SHUFFLED + known)]
    name = _look(method)
    return order.index(name) if name in order else len(order)


def _look(method: str) -> str:
    """The method whose look it has: several methods at once look alike, whichever they are."""
    return "composed" if _parts(method) else method


def _parts(method: str) -> list[str]:
    """The methods that a name puts together, such as hpr_and_lm_steer; none of another name."""
    parts = method.split(AND)
    return parts if len(parts) > 1 and LABELS.keys() >= set(parts) else []


def _controlled(method: str) -> str | None:
    """The method of which this is a control, unless that is in the table itself."""
    steer = method.removeprefix(RANDOM).removeprefix(SHUFFLED)
    return steer if steer != method and steer in COLOURS and method not in COLOURS else None


@contextmanager
def context() -> Iterator[None]:
    """Within it figures are drawn in this style; matplotlib's own settings are as before afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()  # nothing of the user's matplotlibrc gets into a figure
        mpl.rcParams.update(_SETTINGS)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


def panels(columns: int, *, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of the standard width, height in inches, with panels row by row; those of a row share their lines."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, sharey="row", squeeze=False).flat)


def save(figure: Figure, path: Path, pdf: Path | None = None) -> None:
    """Write the figure as SVG, and with the same layout as PDF where a path for it is given.

    The same figure gives the same bytes, whenever and wherever it is drawn.
    """
    with context():
        metadata = {"Date": None, "Creator": None, "Format": "image/svg+xml", "Type": None}
        drawn = io.StringIO()
        FigureCanvasSVG(figure).print_svg(drawn, metadata=metadata)
        path.write_text(_named_as_printed(drawn.getvalue()), encoding="utf-8")
        if pdf is not None:
            _settle(figure)
            with pdf.open("wb") as file:
                FigureCanvasPdf(figure).print_pdf(file, metadata=dict.fromkeys(("CreationDate", "Creator", "Producer")))


def _settle(figure: Figure) -> None:
    """Fix the panels where the layout has put them, but for the last bits, which its solver leaves to chance: a PDF
    prints ten digits of each place, an SVG six."""
    figure.set_layout_engine("none")
    for panel in figure.axes:
        left, bottom, width, height = (round(float(edge), 9) for edge in panel.get_position(original=True).bounds)
        panel.set_position((left, bottom, width, height))


def _named_as_printed(svg: str) -> str:
    """Clips named by their six printed digits: matplotlib names them by all bits, of which the layout's solver leaves
    the last to chance."""
    for name, printed in _CLIP.findall(svg):
        svg = svg.replace(name, "p" + hashlib.sha256(printed.encode()).hexdigest()[:10])
    return svg


_CLIP = re.compile(r'<clipPath id="(\w+)">(.*?)</clipPath>', re.DOTALL)
