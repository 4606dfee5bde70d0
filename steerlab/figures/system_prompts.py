"""Hidden system prompts: which description a reader finds in the states of the user's message, easy or hard."""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import identification
from steerlab.metrics import bootstrap

FIGURE = "read_system_prompts"
GROUPS = {
    f"{variant}, {part} labels": f"{variant.capitalize()} message,\n{part} labels"
    for part in ("seen", "unseen")
    for variant in ("easy", "hard")
}


def table(
    reads: pd.DataFrame,
    *,
    model: str = "",
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
) -> pd.DataFrame:
    """identification.COLUMNS, a group a variant and kind of label. reads: as from steerlab.analyses.identification."""
    return identification.table(reads, model=model, resamples=resamples, confidence=confidence)


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    return identification.plot(table, GROUPS, "exact", "Right description in\nown words, share")


def facts(table: pd.DataFrame, *, confidence: float = bootstrap.CONFIDENCE) -> dict[str, str]:
    """The phrases of identification.facts."""
    named = {group: name.replace("\n", " ").lower() for group, name in GROUPS.items()}
    return identification.facts(table, named, "labels", confidence)
