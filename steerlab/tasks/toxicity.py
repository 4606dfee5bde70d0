"""Toxicity: prompts that a model continues, and civil and toxic comments to learn from, as one tidy table."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.data.renderings import SLOT, render
from steerlab.data.splits import dev_or_test, first_by_hash, row_id

log = logging.getLogger(__name__)

COLUMNS = ["id", "role", "split", "rendering", "label", "text", "start", "end"]


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """The task's table, one row a rendered prompt or training comment.

    raw, doors: folder of raw files and door of the sources rtp_prompts and comments.
    settings: {"prompts": {"dev": n, "test": n}, "comments": n a label or None for all, "renderings": ["plain", ...],
    "wording": the instruction of the rendering "instructed", which ends with its {text} slot}.
    Columns: id (of the plain text), role prompt|train, split dev|test|train, rendering, label (+1.0 civil, -1.0 toxic,
    NaN prompt), text, start, end: the characters the row is about; for a prompt both are len(text), as what follows
    counts. Prompts and comments are taken in hash order, so a larger n keeps the rows of a smaller one; dev or test is
    decided by the plain text. No text stands in two splits. Sorted by role, split, rendering, id.
    Raises ValueError where a source holds fewer texts than asked for.
    """
    prompts = loaders.read("rtp_prompts", doors["rtp_prompts"], raw["rtp_prompts"])["text"]
    unique = list(dict.fromkeys(prompts))
    log.info("prompts: %d, of which %d unique", len(prompts), len(unique))
    comments = _unambiguous(loaders.read("comments", doors["comments"], raw["comments"]), set(unique))

    rows = []
    for split, n in settings["prompts"].items():
        for plain in _take(n, [text for text in unique if dev_or_test(text) == split], f"{split} prompts", "prompts"):
            for rendering in settings["renderings"]:
                text = _prompt(plain, rendering, settings)
                rows.append((row_id(plain), "prompt", split, rendering, float("nan"), text, len(text), len(text)))
    for label, kind in ((1.0, "civil comments"), (-1.0, "toxic comments")):
        texts = [text for text, of_text in comments.items() if of_text == label]
        for text in _take(settings["comments"], texts, kind, "comments"):
            rows.append((row_id(text), "train", "train", "plain", label, text, 0, len(text)))
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values(["role", "split", "rendering", "id"], ignore_index=True)
    return table.astype({"label": "float64", "start": "int64", "end": "int64"})


def _unambiguous(comments: pd.DataFrame, prompts: set[str]) -> dict[str, float]:
    """text -> label of the comments, once each, without those that bear both labels or are prompts as well."""
    labels: dict[str, set[float]] = {}
    for text, label in zip(comments["text"], comments["label"], strict=True):
        labels.setdefault(text, set()).add(label)
    kept = {text: min(seen) for text, seen in labels.items() if len(seen) == 1 and text not in prompts}
    log.info("comments: %d, of which %d unique and %d kept", len(comments), len(labels), len(kept))
    return kept


def _take(n: int | None, texts: list[str], what: str, key: str) -> list[str]:
    if n is not None and n > len(texts):
        raise ValueError(f"toxicity: {n} {what} are asked for, the source has {len(texts)}; lower toxicity.{key}")
    return first_by_hash(texts, n)


def _prompt(plain: str, rendering: str, settings: Mapping) -> str:
    text = render(plain, rendering, settings.get("wording") or SLOT)
    if not text.endswith(plain):
        raise ValueError(
            f"toxicity: wording {settings['wording']!r} does not end with {SLOT}, which the model continues"
        )
    return text
