"""Eye movements of readers: one value a word of how long it was looked at, by corpus, as one row a word.

The published normalised form is one JSON object, {"sents": [sentence, ...], "eye_fs": [feature, ...]}: the FEATURES in
their order, each with one list a sentence of one value a word (words are what whitespace parts). Values are means over
readers, scaled by corpus; they go beyond 1 and slightly below 0, so nothing is asked of them but to be finite.
"""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.data.records import BadRows

log = logging.getLogger(__name__)

FEATURES = {  # in the order of the published files
    "gd": "gaze duration",
    "trt": "total reading time",
    "ffd": "first fixation",
    "sfd": "single fixation",
    "gpt": "go-past time",
}
COLUMNS = ["sentence", "place", "word", *FEATURES, "left_out"]


def reading_json(path: Path) -> pd.DataFrame:
    """The words of a corpus with COLUMNS, in reading order.

    sentence: its number in the file, from 0; place: of the word in its sentence, from 0; left_out: how many sentences
    of the file are not here, as a feature has not one value a word of theirs; the same in each row.
    Raises BadRows, in one line, for what is no such file.
    """
    sentences, features = _parts(path)
    rows, left_out = [], 0
    for number, sentence in enumerate(sentences):
        words, values = sentence.split(), [feature[number] for feature in features]
        if not words or any(len(of_words) != len(words) for of_words in values):
            left_out += 1
            continue
        for place, (word, *of_word) in enumerate(zip(words, *values, strict=True)):
            where = f"{path}: sentence {number}, word {place}"
            rows.append((number, place, word, *(_finite(value, where, name) for name, value in zip(FEATURES, of_word))))
    if not rows:
        raise BadRows(
            f"{path}: no sentence has one value a word in each feature; take the corpus in its published form"
        )
    log.info("%s: %d sentences, of which %d are left out", path.name, len(sentences), left_out)
    frame = pd.DataFrame(rows, columns=COLUMNS[:-1])
    return frame.assign(left_out=left_out).astype({"word": "str"} | dict.fromkeys(FEATURES, "float64"))


FORMATS = {"reading_json": reading_json}


def _parts(path: Path) -> tuple[list[str], list[Sequence[Sequence[Any]]]]:
    """The sentences and the features of a file, of the right numbers; nothing is said of their values yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise BadRows(f"{path}: no JSON ({error}); fetch it again") from error
    for key in ("sents", "eye_fs"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise BadRows(f"{path}: there is no list {key!r}; take the corpus in its published form")
    sentences, features = content["sents"], content["eye_fs"]
    if len(features) != len(FEATURES):
        raise BadRows(f"{path}: {len(features)} features, not the {len(FEATURES)} of {', '.join(FEATURES)}")
    for name, feature in zip(FEATURES, features):
        if not isinstance(feature, list) or len(feature) != len(sentences):
            raise BadRows(f"{path}: {name} has no list for each of the {len(sentences)} sentences")
        if wrong := [number for number, values in enumerate(feature) if not isinstance(values, list)]:
            raise BadRows(f"{path}: {name} of sentence {wrong[0]} is no list of values")
    if wrong := [number for number, sentence in enumerate(sentences) if not isinstance(sentence, str)]:
        raise BadRows(f"{path}: sentence {wrong[0]} is no string")
    return sentences, features


def _finite(value: object, where: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRows(f"{where}: {name} is {value}, not a finite number; correct it or take the sentence out")
    return float(value)
