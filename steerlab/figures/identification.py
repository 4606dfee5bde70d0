"""What figures of candidates found in hidden states share: the table, the drawing, the phrases.

Left, the share of rows whose right candidate is picked, with its chance; right, the share of answers in the reader's,
or the model's, own words that are right. Large points are all seeds with their interval, small points the seeds; each
setting of the readers has its own rows.
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.figures.latent_reading import SETTINGS, dress, number, points
from steerlab.metrics import identification as metrics

COLUMNS = ["model", *metrics.COLUMNS]

_OWN = style.COLOURS["latentqa"]
_LOOKS = {  # of a condition: colour, marker, face, name
    "true": (_OWN, "o", _OWN, "decoder, the row's own states"),
    "shuffled": (_OWN, "o", "white", "decoder, another row's states"),
    "none": (_OWN, "s", "white", "decoder, no states"),
    "in_words": (style.COLOURS["base"], "^", style.COLOURS["base"], "the model, asked in words"),
    "probe": (marks.GREY, "D", marks.GREY, "linear probe"),
}
_LINE, _STEP = 0.62, 0.18  # inches a group; and from one of its marks to the next, in groups


def table(reads: pd.DataFrame, *, model: str, resamples: int, confidence: float) -> pd.DataFrame:
    """COLUMNS. reads: as from steerlab.analyses.identification, of settings and seeds."""
    return metrics.table(reads, resamples=resamples, confidence=confidence).assign(model=model)[COLUMNS]


def plot(table: pd.DataFrame, groups: Mapping[str, str], said: str, label: str) -> Figure:
    """groups: of the table, in order, with their names; said: the quantity of the right panel; label: its axis."""
    table = table.astype({"seed": str})
    settings = [name for name in SETTINGS if name in set(table.setting)]
    shown = [group for group in groups if group in set(table.group)]
    with style.context():
        figure, axes = style.panels(2, height=1.3 + _LINE * len(settings) * (len(shown) + 0.6))
        y, ticks = -0.6, {}
        for setting in settings:
            written = axes[0].annotate(
                f"Reader: {SETTINGS[setting].lower()}", (0, y), xycoords=axes[0].get_yaxis_transform(), xytext=(3, 0),
                textcoords="offset points", va="center", fontweight="bold", annotation_clip=False,
            )  # fmt: skip
            written.set_in_layout(False)
            y += 0.35
            for group in shown:
                ticks[y + 2 * _STEP] = groups[group]
                rows = table[(table.group == group) & table.setting.isin([setting, metrics.MODEL_ALONE])]
                for panel, quantity in zip(axes, ("identified", said), strict=True):
                    for place, condition in enumerate(_LOOKS):
                        of = rows[(rows.quantity == quantity) & (rows.condition == condition)]
                        points(panel, of, y + place * _STEP, _look(condition), below=_STEP / 2)
                y += 1.0
            y += 0.25
        axes[0].set_yticks(list(ticks), list(ticks.values()))
        axes[0].set_ylim(y - 0.2, -0.9)
        axes[0].set_zorder(1)  # so that a heading may run on over the next panel
        axes[0].patch.set_visible(False)
        for panel, name in zip(axes, ("Right candidate picked,\nshare", label), strict=True):
            dress(panel, name)
            panel.set_xlim(-0.04, 1.04)
        drawn = [condition for condition in _LOOKS if condition in set(table.condition)]
        handles = [marks.pooled_handle(_LOOKS[each][3], **_look(each)) for each in drawn]
        chance = marks.pooled_handle("chance", linestyle="none", marker="|", markersize=10)
        marks.legend(figure, [*handles, chance, *marks.seed_handle(table)])
    return figure


def facts(table: pd.DataFrame, groups: Mapping[str, str], units: str, confidence: float) -> dict[str, str]:
    """Phrases: model, seeds, rows, interval, chance; said: of each setting and group every share with its interval;
    gaps: of each, the reader's share minus that with others' states and minus that of the model asked in words."""
    table = table.astype({"seed": str})
    pooled = table[(table.seed == "all") & (table.quantity == "identified")]
    runs = table[(table.seed != "all") & (table.condition == "true")]
    chances = pooled[pooled.condition == "true"].chance
    parts = [
        (SETTINGS[setting], name, pooled[(pooled.group == group) & pooled.setting.isin([setting, metrics.MODEL_ALONE])])
        for setting in SETTINGS
        for group, name in groups.items()
        if ((pooled.group == group) & (pooled.setting == setting)).any()
    ]
    of_rows = pooled[pooled.condition == "true"].drop_duplicates("group")
    return {
        "model": selection.listed(table.model.dropna().unique()),
        "seeds": selection.counted(runs.groupby(["setting", "group"])["seed"].nunique(), "seed"),
        "rows": "; ".join(
            f"{groups[str(row.group)]}: {row.rows:,} rows of {row.units} {units}"
            for row in of_rows.itertuples()
            if row.group in groups
        ),
        "interval": selection.interval(confidence, units),
        "chance": selection.listed(dict.fromkeys(f"{chance:.3g}" for chance in chances.dropna())),
        "said": "; ".join(f"{setting}, {name}: {_said(rows, _SHARES)}" for setting, name, rows in parts),
        "gaps": "; ".join(f"{setting}, {name}: {_said(rows, _GAPS)}" for setting, name, rows in parts),
        "probe": "yes" if "probe" in set(table.condition) else "",
    }


_SHARES = {
    "true": "own states {}",
    "shuffled": "others' states {}",
    "none": "no states {}",
    "in_words": "the model in words {}",
    "probe": "the probe {}",
}
_GAPS = {"true_minus_shuffled": "minus others' states {}", "true_minus_in_words": "minus the model in words {}"}


def _look(condition: str) -> dict:
    colour, marker, face, _ = _LOOKS[condition]
    return {"color": colour, "marker": marker, "markerfacecolor": face, "markeredgecolor": colour}


def _said(rows: pd.DataFrame, wordings: Mapping[str, str]) -> str:
    by_condition = {row["condition"]: row for row in rows.to_dict("records")}
    return ", ".join(words.format(number(by_condition[key])) for key, words in wordings.items() if key in by_condition)
