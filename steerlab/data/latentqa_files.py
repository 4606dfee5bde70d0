"""Loaders of LatentQA's published files: items (who is told what, and says what), questions with answers, and controls.

A control tells the assistant how to behave; a stimulus is what the user says next. Each file of items holds one kind:
`control` (the control alone), `stimulus` (control, the assistant's reply, stimulus), `stimulus_completion` (the reply
to the stimulus as well) and `system` (the control as system prompt, stimulus). What the assistant thought before a
reply is in the files and is left out here. Source: LatentQA's published data; the keys of each file are those of KINDS.
"""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab.data import records

# Of each kind: its turns in order, each (role, key of the file).
KINDS = {
    "control": (("user", "control_user"),),
    "stimulus": (("user", "control_user"), ("assistant", "control_model"), ("user", "stimulus_user")),
    "stimulus_completion": (
        ("user", "control_user"),
        ("assistant", "control_model"),
        ("user", "stimulus_user"),
        ("assistant", "stimulus_model"),
    ),
    "system": (("system", "system"), ("user", "stimulus_user")),
}
# Leading turns that the masked setting hides from the decoder: the one that holds the control, in each kind.
HIDDEN = 1
ITEM_COLUMNS = ["kind", "label", "turns", "hidden"]
QA_COLUMNS = ["label", "place", "question", "answer"]
CONTROL_COLUMNS = ["wish", "question", "answer"]

Pair = tuple[str, str]


def items(path: Path, kind: str) -> pd.DataFrame:
    """The items of one kind with ITEM_COLUMNS, in the file's order.

    label (str): the key of the item's questions; turns: JSON list of {"role", "content"}, as a chat template takes it,
    with the texts exactly as published; hidden (int): how many leading turns are hidden in the masked setting.
    Raises BadRows with one line for each row that lacks a key, or has an empty text or one that is no Unicode.
    """

    def row(fields: object) -> tuple[str, str, str, int]:
        if not isinstance(fields, dict):
            raise ValueError(f"the item is {fields!r}, not an object with the keys of {kind}")
        turns = [{"role": role, "content": _text(fields[key], key)} for role, key in KINDS[kind]]
        return kind, _label(fields["label"]), json.dumps(turns, ensure_ascii=False), HIDDEN

    given = _loaded(path)
    if not isinstance(given, list):
        raise records.BadRows(f"{path}:1: holds no list of items; take a file of kind {kind}")
    rows = records.parsed(path, enumerate(given, start=1), row)
    return pd.DataFrame(rows, columns=ITEM_COLUMNS).astype({"hidden": "int64"})


def questions(path: Path) -> pd.DataFrame:
    """qa.json, {label: [[question, answer], ...]}, with QA_COLUMNS, in the file's order; place: in the label's list.

    Raises BadRows with one line for each label that stands twice, has no pairs, or a pair that is not two texts.
    """
    pairs = _labelled_pairs(path)
    rows = [(label, place, *pair) for label, of_label in pairs.items() for place, pair in enumerate(of_label)]
    return pd.DataFrame(rows, columns=QA_COLUMNS).astype({"place": "int64"})


def read_control(path: Path) -> tuple[str, list[Pair]]:
    """The wish of a control file, {wish: [[question, answer], ...]}, and its pairs in their order.

    Raises BadRows for a file of no wish or of several, and for bad pairs, one line each.
    """
    wishes = _labelled_pairs(path)
    if len(wishes) != 1:
        raise records.BadRows(f"{path}:1: holds {len(wishes)} wishes, not one; give each a file of its own")
    return next(iter(wishes.items()))


def control_qa(path: Path) -> pd.DataFrame:
    """`read_control` with CONTROL_COLUMNS, a row a pair."""
    wish, pairs = read_control(path)
    return pd.DataFrame([(wish, *pair) for pair in pairs], columns=CONTROL_COLUMNS)


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {f"latentqa_{kind}": partial(items, kind=kind) for kind in KINDS}
FORMATS |= {"latentqa_qa": questions, "control_qa": control_qa}


def _labelled_pairs(path: Path) -> dict[str, list[Pair]]:
    labels: list[str] = []  # as they stand in the file: a dict would forget all but the last of equal ones

    def object_of(members: list[tuple[str, Any]]) -> dict[str, Any]:
        labels.extend(label for label, _ in members)
        return dict(members)

    given = _loaded(path, object_of)
    if not isinstance(given, dict):
        raise records.BadRows(f"{path}:1: holds no object of label and pairs; take a file of questions and answers")
    counts = Counter(labels)

    def row(member: tuple[str, Any]) -> tuple[str, list[Pair]]:
        label, pairs = member
        if counts[label] > 1:
            raise ValueError(f"{label!r} stands {counts[label]} times; keep one of them")
        if not isinstance(pairs, list) or not pairs:
            raise ValueError(f"{label!r} has no list of questions and answers")
        return _label(label), [_pair(pair, label) for pair in pairs]

    return dict(records.parsed(path, enumerate(given.items(), start=1), row))


def _pair(pair: object, label: str) -> Pair:
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError(f"{label!r} has {pair!r} in place of [question, answer]")
    return _text(pair[0], f"a question of {label!r}"), _text(pair[1], f"an answer of {label!r}")


def _label(value: object) -> str:
    label = _text(value, "label")
    if label != label.strip():
        raise ValueError(f"the label {label!r} has blanks at an end, so it would meet no other; cut them")
    return label


def _text(value: object, what: str) -> str:
    """The value, if it is a string with something in it that can be encoded: a lone surrogate cannot."""
    try:
        text = records.text(value)
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what}: {error.object[error.start]!r} is half a character; correct it") from None
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return text


def _loaded(path: Path, object_of: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=object_of)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise records.BadRows(f"{path}:{getattr(error, 'lineno', 1)}: no JSON ({error}); fetch it again") from None
