"""Bias: pairs of sentences about different people, to be read and not continued, as one tidy table."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.data.renderings import SLOT, render
from steerlab.data.splits import row_id
from steerlab.tasks import rows

COLUMNS = ["id", "split", "rendering", "kind", "context", "more", "less"]


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """One row a pair and rendering with COLUMNS, sorted by rendering and id; all are of the split test.

    raw, doors: folder of raw files and door of the source crows_pairs. settings: {"prompts": {"test": n or None for
    all}, "renderings": ["plain", ...], "wording": the instruction, which ends with its {text} slot}. Pairs are taken in
    hash order, so a larger n keeps those of a smaller one; of a pair that stands twice the first is kept. id: of both
    sentences; context: what stands before either, "" in the plain rendering.
    Raises ValueError where there are fewer pairs than asked for.
    """
    pairs = loaders.read("crows_pairs", doors["crows_pairs"], raw["crows_pairs"])
    texts = {f"{pair.more}\0{pair.less}": pair for pair in pairs.drop_duplicates(["more", "less"]).itertuples()}
    written = []
    for text in rows.take("bias", settings["prompts"]["test"], list(texts), "pairs", "prompts.test"):
        pair = texts[text]
        for rendering in settings["renderings"]:
            context = render("", rendering, settings.get("wording") or SLOT)
            written.append((row_id(text), "test", rendering, pair.kind, context, pair.more, pair.less))
    return pd.DataFrame(written, columns=COLUMNS).sort_values(["rendering", "id"], ignore_index=True)
