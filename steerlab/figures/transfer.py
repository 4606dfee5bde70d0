"""A steer moved to another model: toxicity and perplexity of both models, unsteered and steered.

Above, the source model with the steer that was trained on it; below, the target model unsteered, with the transferred
steer, and with one trained on it directly where there is one. A row each, at every strength that the metrics hold.
"""

from collections.abc import Collection

import pandas as pd
from matplotlib.figure import Figure

from steerlab.figures import marks, selection, style
from steerlab.metrics.bootstrap import CONFIDENCE

FIGURE = "transfer"
PANELS = {"mean_toxicity": "Mean toxicity\n(score, 0 to 1)", "perplexity": "Perplexity\n(per token)"}
COLUMNS = ["group", "label", *selection.COLUMNS]


def table(
    metrics: pd.DataFrame,
    *,
    source: str,
    target: str,
    steer: str = "lm_steer",
    transferred: str = "transferred_lm_steer",
    split: str = "test",
    scorers: Collection[str] = (),
) -> pd.DataFrame:
    """The rows drawn, in their order: source (base, steer), target (base, transferred, trained directly).

    metrics: the project's metrics columns of both models; source, target: their names in the column model; steer,
    transferred: methods. Other models and methods are left out. scorers: the toxicity scorer to draw.
    Returns COLUMNS: group is the model with its part, label the row's name; metric is a key of PANELS.
    Raises ValueError where a part is missing (a steer trained on the target may be) or two scorers would be mixed.
    """
    if source == target:
        raise ValueError(f"figure {FIGURE}: source and target are both {source}; name two models")
    rows = selection.select(
        FIGURE, metrics[metrics.model.isin([source, target])], list(PANELS), split=split, scorers=scorers
    )
    rows = rows[rows.method.isin(["base", steer, transferred]) & ((rows.method == "base") | (rows.strength != 0))]
    rows = selection.on_the_same_texts(rows)
    parts = [  # model, method, name, whether it must be there
        (source, "base", style.label("base"), True),
        (source, steer, style.label(steer), True),
        (target, "base", style.label("base"), True),
        (target, transferred, "transferred", True),
        (target, steer, "trained on it", False),
    ]
    drawn = []
    for model, method, name, needed in parts:
        part = rows[(rows.model == model) & (rows.method == method)]
        if needed and not (part.seed == "all").any():
            raise ValueError(f"figure {FIGURE}: no rows of method {method} on model {model}; pass its metrics too")
        drawn.append(part.assign(name=name, order=len(drawn)))
    rows = pd.concat(drawn)
    rows = rows.assign(group=rows.model.map({source: f"{source} (source)", target: f"{target} (target)"}))
    return selection.named_rows(rows, PANELS)[COLUMNS]


def plot(table: pd.DataFrame) -> Figure:
    """table: what `table` returns."""
    figure, _ = marks.points_in_rows(table.astype({"seed": str}), PANELS, headings=True)
    return figure


def facts(table: pd.DataFrame, *, confidence: float = CONFIDENCE) -> dict[str, str]:
    """The shared phrases, and: source and target, the models; direct, empty without a steer trained on the target."""
    source, target = table.model.drop_duplicates()
    return selection.phrases(table, confidence=confidence) | {
        "source": source,
        "target": target,
        "direct": "trained on it" if table.label.str.startswith("trained on it").any() else "",
    }
