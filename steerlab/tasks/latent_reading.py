"""Latent reading: items that models read, each with questions about what they were told, one row a pair of the two.

Rows to learn from, rows to choose by and rows to report on are told apart in two ways. Some labels are never trained
on. Of the others, some texts (the item's last words of the user) are never trained on with any label. So what a decoder
says of a new text under a known label and of a label that it has never met can be reported apart.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.data.sources import REAL, SYNTHETIC, table
from steerlab.data.splits import row_id, share

log = logging.getLogger(__name__)

COLUMNS = [
    "id", "item", "corpus", "kind", "label", "split", "label_is_seen", "crossed", "turns", "hidden", "question",
    "answer", "data",
]  # fmt: skip
SPLITS = ("train", "dev", "test")
CROSSED = ("stimulus", "system")  # kinds that end with a stimulus; a completion goes with its own


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """The rows of all corpora with COLUMNS, by split and id.

    raw, doors: folder of raw files and door of each corpus. settings: {"corpora": [...]; "kinds": of items;
    "questions": of a label, the first ones of its list, None for all; "crossed": how many further items an item gives,
    its control before the stimuli of others; "shares": {"dev_labels", "test_labels", "dev_texts", "test_texts"}, of
    labels that are never trained on and of texts that are not trained on under the other labels; "rows": {split: n or
    None for all}, the first ones in hash order, in dev and test of seen labels and of the others alike, n of each that
    there is}.

    id (str): of item, question and answer; item (str): of kind, label and turns; label_is_seen (bool): train has rows
    of the label; crossed (bool): the stimulus is another item's; turns (str): JSON list of {"role", "content"}; hidden
    (int): leading turns that the masked setting hides; data: REAL, or SYNTHETIC for what comes through the sample door.
    Left out, and counted in the log: items whose label has no question, turns that stand under several labels, rows of
    a label that may be trained on of which none is. Raises ValueError for a kind that a corpus lacks, for more rows
    than there are, and where train would be empty.
    """
    corpora = {corpus: _read(corpus, doors[corpus], raw[corpus]) for corpus in settings["corpora"]}
    sides = _sides({label for _, asked in corpora.values() for label in asked.label}, settings["shares"])
    frames = [_of_corpus(corpus, doors[corpus], *read, settings) for corpus, read in corpora.items()]
    rows = pd.concat(frames, ignore_index=True).drop_duplicates("id")
    of_label = rows.label.map(sides)
    of_text = pd.Series([_side(_text(turns), settings["shares"]) for turns in rows.turns], rows.index)
    rows["split"] = of_text.where(of_label == "train", of_label)
    train = _first(rows[rows.split == "train"], settings["rows"]["train"], "train rows", "train")
    if train.empty:
        raise ValueError("latent_reading: no row falls to train; lower latent_reading.shares")
    rows["label_is_seen"] = rows.label.isin(set(train.label))
    untrained = (of_label == "train") & ~rows.label_is_seen
    log.info("%d rows are of labels of which none is trained on by chance, and left out", int(untrained.sum()))
    parts = [train.assign(label_is_seen=True)]
    for split in SPLITS[1:]:
        judging = rows[(rows.split == split) & ~untrained]
        for is_seen, name in ((True, "seen labels"), (False, "unseen labels")):
            group = judging[judging.label_is_seen == is_seen]
            if len(group):
                parts.append(_first(group, settings["rows"][split], f"{split} rows of {name}", split))
    return pd.concat(parts).sort_values(["split", "id"], ignore_index=True)[COLUMNS]


def _read(corpus: str, door: str, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The items of all files of a corpus, and its questions."""
    read = [loaders.FORMATS[file.format](folder / file.name) for file in table()[corpus].doors[door].files]
    items = pd.concat([frame for frame in read if "turns" in frame], ignore_index=True)
    return items, pd.concat([frame for frame in read if "turns" not in frame], ignore_index=True)


def _of_corpus(corpus: str, door: str, items: pd.DataFrame, asked: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """The pairs of item and question of one corpus, without split."""
    if lacking := [kind for kind in settings["kinds"] if kind not in set(items.kind)]:
        raise ValueError(
            f"latent_reading: {corpus} ({door}) has no items of kind {lacking[0]}; leave it out of latent_reading.kinds"
        )
    items = items[items.kind.isin(settings["kinds"])].assign(crossed=False)
    if settings["crossed"]:
        further = [row for kind in CROSSED for row in _crossed(corpus, items[items.kind == kind], settings["crossed"])]
        items = pd.concat([items, pd.DataFrame(further, columns=items.columns)], ignore_index=True)
    items = _unambiguous(corpus, items.drop_duplicates(["kind", "label", "turns"]), set(asked.label))
    asked = asked[asked.place < (settings["questions"] or len(asked))]
    items = items.assign(item=[_id(*key) for key in zip(items.kind, items.label, items.turns)])
    rows = items.merge(asked, on="label")
    ids = [_id(*key) for key in zip(rows.item, rows.question, rows.answer)]
    return rows.assign(id=ids, corpus=corpus, data=SYNTHETIC if door == "sample" else REAL)


def _unambiguous(corpus: str, items: pd.DataFrame, asked: set[str]) -> pd.DataFrame:
    """The items whose label has questions and whose turns stand under no other label."""
    with_questions = items[items.label.isin(asked)]
    kept = with_questions[with_questions.groupby("turns")["label"].transform("nunique") == 1]
    without_items = len(asked - set(items.label))
    log.info(
        "%s: %d items; left out: %d of labels without questions, %d whose turns have several labels; %d labels with "
        "questions have no item", corpus, len(kept), len(items) - len(with_questions), len(with_questions) - len(kept),
        without_items,
    )  # fmt: skip
    return kept


def _crossed(corpus: str, items: pd.DataFrame, n: int) -> Iterator[tuple]:
    """Further items of one kind: each control before the first n of the others' stimuli, in an order of its label's."""
    stimuli = sorted({_text(turns) for turns in items.turns})
    if len(items) and n >= len(stimuli):
        raise ValueError(
            f"latent_reading: {n} stimuli of other items are asked for, {corpus} has {len(stimuli) - 1}; "
            "lower latent_reading.crossed"
        )
    for kind, label, turns, hidden, _ in items.itertuples(index=False):
        own, before = _text(turns), json.loads(turns)[:-1]
        others = sorted(set(stimuli) - {own}, key=lambda text: (share(f"{label}\0{text}", "crossed"), text))
        for text in others[:n]:
            made = json.dumps([*before, {"role": "user", "content": text}], ensure_ascii=False)
            yield kind, label, made, hidden, True


def _text(turns: str) -> str:
    """The last words of the user: the stimulus, or the control where it stands alone."""
    return [turn["content"] for turn in json.loads(turns) if turn["role"] == "user"][-1]


def _sides(labels: set[str], shares: Mapping[str, float]) -> dict[str, str]:
    """The split of each label, "train" also where some of its texts judge: in hash order so many dev, so many test.

    Of few labels a share by chance could be none. All labels with questions count, so that kinds and limits move none.
    """
    dev = round(shares["dev_labels"] * len(labels))
    until = dev + round(shares["test_labels"] * len(labels))
    order = sorted(labels, key=lambda label: (share(label, "latent reading label"), label))
    return {label: "dev" if place < dev else "test" if place < until else "train" for place, label in enumerate(order)}


def _side(text: str, shares: Mapping[str, float]) -> str:
    """The split of a text under a label that may be trained on."""
    place, dev = share(text, "latent reading text"), shares["dev_texts"]
    return "dev" if place < dev else "test" if place < dev + shares["test_texts"] else "train"


def _first(rows: pd.DataFrame, n: int | None, what: str, split: str) -> pd.DataFrame:
    if n is not None and n > len(rows):
        raise ValueError(
            f"latent_reading: {n} {what} are asked for, there are {len(rows)}; lower latent_reading.rows.{split}"
        )
    order = rows.id.map(lambda id: share(str(id), "order"))
    return rows.loc[order.sort_values(kind="stable").index[:n]]


def _id(*parts: str) -> str:
    return row_id("\0".join(parts))
