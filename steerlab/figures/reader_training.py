"""How readers are trained: the loss of each update, and the loss on dev rows where it was looked at.

One panel a setting; a line a seed, points for dev rows.
"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steerlab.figures import marks, selection, style
from steerlab.figures.latent_reading import SETTINGS

FIGURE = "reader_training"
COLUMNS = ["model", "setting", "seed", "step", "loss", "learning_rate", "held_out_loss"]


def table(training: pd.DataFrame, *, model: str = "") -> pd.DataFrame:
    """COLUMNS. training: the training.csv of readers, with their setting and seed.

    Raises ValueError where an update of a reader stands twice.
    """
    if training.duplicated(["setting", "seed", "step"]).any():
        raise ValueError(f"figure {FIGURE}: an update stands twice; pass each reader once")
    return training.assign(model=model)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    settings = [name for name in SETTINGS if name in set(table.setting)]
    colour = style.COLOURS["latentqa"]
    with style.context():
        figure, axes = style.panels(len(settings), height=2.6)
        for panel, setting in zip(axes, settings, strict=True):
            for _, rows in table[table.setting == setting].groupby("seed"):
                looked = rows[rows.held_out_loss.notna()]
                panel.plot(rows.step, rows.loss, color=colour, linewidth=0.9, alpha=0.7)
                panel.plot(looked.step, looked.held_out_loss, "o:", color="black", markersize=3.5, linewidth=0.8)
            panel.set_title(SETTINGS[setting], fontweight="bold", loc="left")
            panel.set_xlabel("Update")
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            panel.grid(axis="y")
            panel.set_ylim(bottom=0)
        axes[0].set_ylabel("Answer's loss, nats a token")
        own = marks.pooled_handle("a batch of training rows", color=colour, marker="")
        dev = marks.pooled_handle("dev rows", color="black", linestyle=":", markersize=3.5)
        marks.legend(figure, [own, *([dev] if table.held_out_loss.notna().any() else [])])
    return figure


def facts(table: pd.DataFrame) -> dict[str, str]:
    """Phrases: model, seeds, updates; lowest: of each setting the lowest loss on dev rows, the mean over its seeds, and
    where it was, "" where none was looked at."""
    looked = table[table.held_out_loss.notna()]
    said = []
    for setting, rows in looked.groupby("setting", sort=False):
        best = rows.loc[rows.groupby("seed")["held_out_loss"].idxmin()]
        steps = selection.counted(best.step, "update")
        said.append(f"{SETTINGS[str(setting)]} {best.held_out_loss.mean():.3f} after {steps}")
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "seeds": selection.counted(table.groupby("setting")["seed"].nunique(), "seed"),
        "updates": selection.counted(table.groupby(["setting", "seed"])["step"].max(), "update"),
        "lowest": "; ".join(said),
    }
