"""Relation extraction: texts that mention a subject, and the question for the object, which no text tells."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.data.relations import RELATIONS
from steerlab.data.sources import REAL
from steerlab.data.splits import row_id, share
from steerlab.tasks.candidates import candidates

COLUMNS = [
    "id", "corpus", "group", "unit", "turns", "hidden", "focus", "question", "answer", "candidates", "in_words", "data",
]  # fmt: skip
HAND_WRITTEN = "hand-written sample"


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """A row a fact and text that mentions its subject, with COLUMNS, relations in the order of the data, then by id.

    raw, doors: folder of raw files and door of each corpus. settings: {"corpora": [...]; "facts": of a relation, the
    first ones in hash order, None for all; "mentions": texts a fact; "candidates": objects among which the right one is
    to be found, None for all of the relation}.

    group: the relation; unit: the subject; turns: JSON list of the one turn with the text; focus: what of it is read,
    the subject; question, answer: what a reader is asked, and the object; candidates: JSON list; in_words: JSON list of
    turns, the question for a model that is asked in words; data: REAL, or HAND_WRITTEN for the sample.
    Raises ValueError for more facts or texts than there are, and for a relation with a single object.
    """
    frames = [_of_corpus(corpus, doors[corpus], raw[corpus], settings) for corpus in settings["corpora"]]
    rows = pd.concat(frames, ignore_index=True).drop_duplicates("id")
    order = rows.group.map(list(RELATIONS).index)
    return rows.assign(order=order).sort_values(["order", "id"], ignore_index=True)[COLUMNS]


def _of_corpus(corpus: str, door: str, folder: Path, settings: Mapping) -> pd.DataFrame:
    facts, rows = loaders.read(corpus, door, folder), []
    data = HAND_WRITTEN if door == "sample" else REAL
    for relation, of_relation in facts.groupby("relation", sort=False):
        wording = RELATIONS[str(relation)]
        n, texts, chosen = settings["facts"], settings["mentions"], of_relation.index
        if n is not None and n > len(of_relation):
            have = f"{corpus} has {len(of_relation)} of {relation}"
            raise ValueError(f"relations: {n} facts are asked for, {have}; lower relations.facts")
        if texts > len(wording.mentions):
            have = f"there are {len(wording.mentions)}"
            raise ValueError(f"relations: {texts} texts a fact are asked for, {have}; lower relations.mentions")
        if n is not None:
            order = of_relation.subject.map(lambda subject, key=relation: share(str(subject), f"fact {key}"))
            chosen = order.sort_values(kind="stable").index[:n]
        for subject, object_ in of_relation.loc[chosen, ["subject", "object"]].itertuples(index=False):
            among = candidates(object_, of_relation.object, settings["candidates"], f"{relation} {subject}")
            asked = [{"role": "user", "content": wording.in_words.format(subject=subject)}]
            for mention in wording.mentions[:texts]:
                turns = [{"role": "user", "content": mention.format(subject=subject)}]
                rows.append(
                    (
                        row_id("\0".join((corpus, str(relation), subject, mention))), corpus, relation, subject,
                        _json(turns), 0, subject, wording.about_states, object_, _json(among), _json(asked), data,
                    )
                )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _json(value: list) -> str:
    return json.dumps(value, ensure_ascii=False)
