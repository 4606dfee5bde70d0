"""What readers say of hidden states: how far a row's own states help its answer, and what share of answers is right.

Left, the loss of the right answer with the row's own states minus that with another label's states and that with none;
right, the share of one-word answers that are exactly right, and of labels that a linear probe finds in the same states.
Large points are all seeds with their interval over labels, small points the seeds. Each setting has its own rows, and
its own scale of losses.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.metrics import bootstrap, latent_reading

FIGURE = "latent_reading"
COLUMNS = ["model", *latent_reading.COLUMNS]
SETTINGS = {"visible": "Control visible to the read", "masked": "Control masked"}
PANELS = (("true_minus_shuffled", "true_minus_none"), ("exact", "probe"))
LABELS = ("Loss with own states minus\nloss without, nats a token", "Share that is right")

_OWN, _PROBE = style.COLOURS["latentqa"], marks.GREY
_LOOKS = {  # of a quantity: colour, marker, face, name
    "true_minus_shuffled": (_OWN, "o", _OWN, "minus another label's states"),
    "true_minus_none": (_OWN, "s", "white", "minus no states"),
    "exact": (_OWN, "o", _OWN, "one-word answers (right)"),
    "probe": (_PROBE, "D", _PROBE, "linear probe (right)"),
}
_LINE, _STEP = 0.42, 0.36  # inches a row; and how far below its first mark the second one is, in rows
_BELOW = 0.17  # how far below a pooled mark its seeds are


def table(
    reads: pd.DataFrame,
    *,
    model: str = "",
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
) -> pd.DataFrame:
    """COLUMNS of test rows. reads: as from steerlab.analyses.latent_reading, of settings and seeds.

    Raises ValueError where there are no test rows.
    """
    test = reads[reads["split"] == "test"]
    if test.empty:
        raise ValueError(f"figure {FIGURE}: there are no test rows; raise latent_reading.shares or rows.test")
    found = latent_reading.table(test, resamples=resamples, confidence=confidence)
    return found.assign(model=model)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str})
    settings = [name for name in SETTINGS if name in set(table.setting)]
    parts = [part for part in latent_reading.PARTS.values() if part in set(table.part)]
    with style.context():
        figure, axes = style.panels(2, rows=len(settings), height=1.1 + len(settings) * (0.8 + _LINE * len(parts)))
        for setting, left, right in zip(settings, axes[::2], axes[1::2], strict=True):
            left.set_title(SETTINGS[setting], fontweight="bold", loc="left")
            for y, part in enumerate(parts):
                rows = table[(table.setting == setting) & (table.part == part)]
                for panel, quantities in zip((left, right), PANELS, strict=True):
                    for place, quantity in enumerate(quantities):
                        points(panel, rows[rows.quantity == quantity], y + place * _STEP, _look(quantity))
            left.set_yticks(
                [y + _STEP / 2 for y in range(len(parts))], [part.replace(" of ", "\nof ") for part in parts]
            )
            left.set_ylim(len(parts) - 0.1, -0.4)
            for panel, label in zip((left, right), LABELS, strict=True):
                dress(panel, label if setting == settings[-1] else "")
            right.set_xlim(-0.04, 1.04)
        drawn = [quantity for quantity in _LOOKS if quantity in set(table.quantity)]
        handles = [marks.pooled_handle(_LOOKS[each][3], **_look(each)) for each in drawn]
        chance = marks.pooled_handle("the probe's chance", linestyle="none", marker="|", markersize=10)
        marks.legend(figure, [*handles, *([chance] if "probe" in drawn else []), *marks.seed_handle(table)])
    return figure


def facts(table: pd.DataFrame, *, confidence: float = bootstrap.CONFIDENCE) -> dict[str, str]:
    """Phrases: model, settings, seeds, rows, interval; said: every difference, share and accuracy with its interval;
    chance: of the probe, "" without one; masked, visible: "yes" where there is such a setting."""
    pooled = table[table.seed.astype(str) == "all"]
    runs = table[(table.seed.astype(str) != "all") & (table.quantity == "true")]
    counts = pooled[pooled.quantity == "true"]
    chances = pooled[pooled.quantity == "probe"].chance.unique()
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "seeds": selection.counted(runs.groupby(["setting", "part"])["seed"].nunique(), "seed"),
        "rows": "; ".join(
            dict.fromkeys(f"{row.part}: {row.rows:,} rows of {row.labels} labels" for row in counts.itertuples())
        ),
        "interval": selection.interval(confidence, "labels"),
        "said": "; ".join(
            f"{SETTINGS[str(setting)]}, {part}: {_said(rows)}"
            for (setting, part), rows in pooled.groupby(["setting", "part"], sort=False)
        ),
        "chance": selection.listed(f"{chance:.3g}" for chance in chances),
        "masked": "yes" if "masked" in set(table.setting) else "",
        "visible": "yes" if "visible" in set(table.setting) else "",
    }


def _look(quantity: str) -> dict:
    colour, marker, face, _ = _LOOKS[quantity]
    return {"color": colour, "marker": marker, "markerfacecolor": face, "markeredgecolor": colour}


def points(panel: Axes, rows: pd.DataFrame, y: float, look: dict, *, below: float = _BELOW) -> None:
    """One quantity at a height: a large point over all seeds with its interval, small ones of the seeds, its chance.

    rows: seed (str), value, low, high, chance; look: color, marker, markerfacecolor, markeredgecolor; below: how far
    the small points are under the large one.
    """
    pooled, seeds, colour = rows[rows.seed == "all"], rows[rows.seed != "all"], look["color"]
    panel.hlines([y] * len(pooled), pooled.low, pooled.high, color=colour, linewidth=1.4, zorder=2)
    large = look | {"markersize": style.POOLED_SIZE, "linestyle": "none"}
    panel.plot(pooled.value, [y] * len(pooled), zorder=3, **large)
    panel.plot(
        seeds.value, [y + below] * len(seeds), "o", color=colour, alpha=0.6, markersize=style.SEED_SIZE,
        markeredgewidth=0, zorder=1,
    )  # fmt: skip
    chance = pooled.chance.dropna()
    panel.plot(chance, [y] * len(chance), "|", color=colour, markersize=10, zorder=1)


def dress(panel: Axes, label: str) -> None:
    """A horizontal axis with few ticks, a grid and a line at 0."""
    panel.set_xlabel(label)
    panel.grid(axis="x")
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


_WORDS = {
    "true": "loss {}",
    "true_minus_shuffled": "minus that with others' states {}",
    "true_minus_none": "minus that without states {}",
    "exact": "exactly right {}",
    "probe": "the probe {}",
}


def _said(rows: pd.DataFrame) -> str:
    by_quantity = {row["quantity"]: row for row in rows.to_dict("records")}
    return ", ".join(words.format(number(by_quantity[name])) for name, words in _WORDS.items() if name in by_quantity)


def number(row: dict) -> str:
    """A value and, where it has one, its interval. row: value, low, high."""
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if pd.notna(row["low"]) else ""
    return f"{row['value']:.3f}{interval}"
