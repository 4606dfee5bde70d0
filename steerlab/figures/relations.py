"""Relation extraction: which object a reader finds in the states of a subject, by relation and over all of them."""

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import identification
from steerlab.metrics import bootstrap

FIGURE = "read_relations"
ALL = "all"
GROUPS = {
    "country_currency": "Country, currency",
    "food_country": "Dish, country",
    "athlete_position": "Athlete, position",
    "athlete_sport": "Athlete, sport",
    "product_company": "Product, company",
    "star_constellation": "Star, constellation",
    ALL: "All relations",
}


def table(
    reads: pd.DataFrame,
    *,
    model: str = "",
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
) -> pd.DataFrame:
    """identification.COLUMNS, a group a relation and ALL. reads: as from steerlab.analyses.identification."""
    both = pd.concat([reads, reads.assign(group=ALL)], ignore_index=True)
    return identification.table(both, model=model, resamples=resamples, confidence=confidence)


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns, also when read from its CSV."""
    return identification.plot(table, GROUPS, "contained", "Right object in\nown words, share")


def facts(table: pd.DataFrame, *, confidence: float = bootstrap.CONFIDENCE) -> dict[str, str]:
    """The phrases of identification.facts, shares and gaps over all relations."""
    found = identification.facts(table, GROUPS, "subjects", confidence)
    over_all = identification.facts(table, {ALL: GROUPS[ALL]}, "subjects", confidence)
    return found | {key: over_all[key] for key in ("said", "gaps")}
