"""Readers of more and fewer training labels, of other ranks, of other models: how far states help on held-out rows.

Above, the loss of the right answer with the row's own states minus that with another label's; below, the share of
one-word answers that are exactly right; each against the number of labels that were trained on. A line a model and
rank.
"""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.figures.latent_reading import SETTINGS, number
from steerlab.metrics import bootstrap, latent_reading, reader_scaling

FIGURE = "scale_decoder"
COLUMNS = reader_scaling.COLUMNS
ROWS = {
    "true_minus_shuffled": "Loss minus that with others'\nstates, nats a token",
    "exact": "One-word answers,\nshare right",
}


def table(
    reads: pd.DataFrame, *, resamples: int = bootstrap.RESAMPLES, confidence: float = bootstrap.CONFIDENCE
) -> pd.DataFrame:
    """COLUMNS. reads: as `reader_scaling.table` takes them. Raises ValueError where there are no test rows."""
    found = reader_scaling.table(reads, resamples=resamples, confidence=confidence)
    if found.empty:
        raise ValueError(f"figure {FIGURE}: there are no test rows; raise latent_reading.shares or rows.test")
    return found


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    table = table.astype({"seed": str})
    parts = [part for part in latent_reading.PARTS.values() if part in set(table.part)]
    series = list(table[["model", "rank"]].drop_duplicates().itertuples(index=False, name=None))
    with style.context():
        figure = Figure(figsize=(style.WIDTH, 4.2 + 0.2 * len(series)), layout="constrained")
        panels = figure.subplots(len(ROWS), len(parts), sharex=True, sharey="row", squeeze=False)
        for of_quantity, (quantity, label) in zip(panels, ROWS.items(), strict=True):
            for panel, part in zip(of_quantity, parts, strict=True):
                for place, (model, rank) in enumerate(series):
                    of = (table.model == model) & (table["rank"] == rank) & (table.part == part)
                    rows = table[of & (table.quantity == quantity)]
                    marks.curve(panel, rows, "trained_labels", **_look(place, len(series)))
                panel.grid(axis="y")
                panel.axhline(0, color="#888888", linewidth=0.8, zorder=0)
            of_quantity[0].set_ylabel(label)
        for place, part in enumerate(parts):
            panels[0][place].set_title(part.replace(" of ", "\nof "), fontweight="bold", loc="left")
            panels[-1][place].set_xlabel("Labels trained on")
        counts = sorted(table.trained_labels.unique())
        marks.log_ticks_at(panels[0][0], counts, [f"{count:g}" for count in counts])
        names = [f"{model}, rank {rank}" for model, rank in series]
        looks = [_look(place, len(series)) for place in range(len(series))]
        handles = [
            marks.pooled_handle(name, color=look["colour"], marker=look["marker"]) for name, look in zip(names, looks)
        ]
        marks.legend(figure, [*handles, *marks.seed_handle(table)])
    return figure


def facts(table: pd.DataFrame, *, confidence: float = bootstrap.CONFIDENCE) -> dict[str, str]:
    """Phrases: models, setting, seeds, labels and rows that were trained on, rows that are told, interval; said: every
    reader's difference with its interval."""
    table = table.astype({"seed": str})
    pooled = table[(table.seed == "all") & (table.quantity == "true_minus_shuffled")]
    runs = table[(table.seed != "all") & (table.quantity == "true")]
    sizes = table.drop_duplicates(reader_scaling.READER).sort_values("trained_labels")
    told = pooled.drop_duplicates("part")
    said = [
        f"{row['model']}, rank {row['rank']}, {row['trained_labels']} labels, {row['part']}: {number(row)}"
        for row in pooled.to_dict("records")
    ]
    return {
        "models": selection.listed(table.model.unique()),
        "setting": selection.listed(SETTINGS[name].lower() for name in table.setting.unique()),
        "seeds": selection.counted(runs.groupby([*reader_scaling.READER, "part"])["seed"].nunique(), "seed"),
        "trained": selection.listed(
            dict.fromkeys(f"{row.trained_labels} labels ({row.trained_rows:,} rows)" for row in sizes.itertuples())
        ),
        "rows": "; ".join(f"{row.part}: {row.rows:,} rows of {row.labels} labels" for row in told.itertuples()),
        "interval": selection.interval(confidence, "labels"),
        "said": "; ".join(said),
    }


def _look(place: int, places: int) -> dict:
    colour = marks.shade(style.COLOURS["latentqa"], place, places)
    return {"colour": colour, "marker": marks.MARKERS[place % len(marks.MARKERS)]}
