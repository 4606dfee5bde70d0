"""Sentiment: prompts of three classes that a model continues, and rated texts to learn from, as one tidy table."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.data.tables import CLASS_NAMES
from steerlab.tasks import rows

MIN_WORDS, MAX_WORDS = 3, 48  # shorter is no sentence; longer ones are rare and cost a batch its padding


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """The task's table (columns: steerlab.tasks.rows.table), one row a rendered prompt or training text.

    raw, doors: folder of raw files and door of the sources sentiment_prompts and sentiment_texts.
    settings: {"prompts": {"dev": n a class, "test": n a class}, of which only the named splits are written, "texts": n
    in all or None for all, "renderings": ["plain", ...], "wording": the instruction of the rendering "instructed",
    which ends with its {text} slot}.
    label: of a prompt its class, -1.0 negative, 0.0 neutral, +1.0 positive; of a text its rating, within -1 and 1.
    Texts have 3 to 48 words. Prompts and texts are taken in hash order, so a larger n keeps the rows of a smaller one;
    dev or test is decided by the plain text. Left out are texts under several labels or classes, and training texts
    that are prompts or go on from one: no text stands in two splits, and no prompt's sentence is trained on.
    Raises ValueError where a source holds fewer texts than asked for.
    """
    prompts = loaders.read("sentiment_prompts", doors["sentiment_prompts"], raw["sentiment_prompts"])
    classes = rows.unambiguous(prompts, "prompts")
    texts = rows.unambiguous(loaders.read("sentiment_texts", doors["sentiment_texts"], raw["sentiment_texts"]), "texts")
    texts = rows.without_prompts(texts, prompts["text"])
    fitting = [text for text in texts if MIN_WORDS <= len(text.split()) <= MAX_WORDS]

    written = [*rows.training_rows(rows.take("sentiment", settings["texts"], fitting, "texts", "texts"), texts)]
    for label, name in CLASS_NAMES.items():
        of_class = [text for text, of_text in classes.items() if of_text == label]
        written += rows.prompt_rows("sentiment", f"{name} prompts", of_class, label, settings)
    return rows.table(written)
