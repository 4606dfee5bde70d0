"""Toxicity: prompts that a model continues, and civil and toxic comments to learn from, as one tidy table."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.tasks import rows


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """The task's table (columns: steerlab.tasks.rows.table), one row a rendered prompt or training comment.

    raw, doors: folder of raw files and door of the sources: comments, and one of prompts (rtp_prompts, or another whose
    prompts bear no class, as nontoxic_prompts).
    settings: {"prompts": {"dev": n, "test": n}, "comments": n a label or None for all, "renderings": ["plain", ...],
    "wording": the instruction of the rendering "instructed", which ends with its {text} slot}.
    label: +1.0 civil, -1.0 toxic, NaN prompt. Prompts and comments are taken in hash order, so a larger n keeps the
    rows of a smaller one; dev or test is decided by the plain text. No text stands in two splits, and no comment goes
    on from a prompt.
    LM-Steer splits Jigsaw otherwise: it draws as many civil comments as there are toxic ones, and of each class 2,000
    for dev, 2,000 for test and the rest for training, all at random. Here any comment may be trained on, as dev and
    test are prompts of another source, and the first n by hash are taken, the same n a class.
    Raises ValueError where a source holds fewer texts than asked for.
    """
    (asked,) = raw.keys() - {"comments"}
    prompts = rows.unambiguous(loaders.read(asked, doors[asked], raw[asked]), "prompts")
    comments = rows.unambiguous(loaders.read("comments", doors["comments"], raw["comments"]), "comments")
    comments = rows.without_prompts(comments, prompts)

    written = [*rows.prompt_rows("toxicity", "prompts", list(prompts), float("nan"), settings)]
    for label, kind in ((1.0, "civil comments"), (-1.0, "toxic comments")):
        texts = [text for text, of_text in comments.items() if of_text == label]
        written += rows.training_rows(rows.take("toxicity", settings["comments"], texts, kind, "comments"), comments)
    return rows.table(written)
