"""Short cards: each source of data, model, scorer and paper that a page rests on, with its licence and citation."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from steerlab.data.sources import KINDS, SYNTHETIC


@dataclass(frozen=True)
class Card:
    """One card. facts: text by label, in order; mark: what stands beside the name; code: text to copy, BibTeX say."""

    name: str
    facts: Mapping[str, str]
    mark: str = ""
    code: str = ""


def sources(given: Iterable[Mapping[str, Any]], tables: Mapping[str, pd.DataFrame]) -> list[Card]:
    """A card a source. given: as steerlab.experiment.cards.data gives them; tables: of the tasks, by name."""
    return [_source(each, tables) for each in given]


def named(given: Iterable[Mapping[str, str]]) -> list[Card]:
    """A card a model or scorer: name, what and licence, and the door that these are told of, "" for none."""
    return [
        Card(each["name"], {label: of_door(each[key], each["door"]) for label, key in SAID.items()}) for each in given
    ]


SAID = {"What": "what", "Licence": "licence"}
ROLES = {"paper": "the paper", "baseline": "a baseline", "part": "what CogSteer is made of"}


def papers(given: Mapping[str, Mapping[str, str]]) -> list[Card]:
    """A card a paper. given: as steerlab.reference.papers gives them."""
    return [
        Card(
            each["name"],
            {
                "Title": each["title"],
                "Authors": each["authors"],
                "In": f"{each['where']}; arXiv {each['arxiv']}",
                "Code": f"github.com/{each['code']}",
                "Licence": f"of the code: {each['licence']}",
            },
            mark="" if each["role"] == "paper" else ROLES[each["role"]],
            code=each["bibtex"].strip(),
        )
        for each in given.values()
    ]


def of_door(text: str, door: str) -> str:
    """What a licence or citation says of a door: what stands before any "door:", and what follows its own.

    The whole text where nothing is left, as then none of its parts names the door.
    """
    lead, *parts = _DOORS.split(text)
    about = [(doors, said) for doors, said in zip(parts[::2], parts[1::2]) if door in doors.split(", ")]
    return (lead + " ".join(f"{doors}: {said}" if lead else said for doors, said in about)).strip(" ;") or text


_DOOR = f"(?:{'|'.join(KINDS)})"
_DOORS = re.compile(rf"(?:^|(?<=[;.] ))({_DOOR}(?:, {_DOOR})*): ")


def _source(given: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> Card:
    used = [(what, part) for what, part in given["used"]]
    synthetic = any(
        SYNTHETIC in set(rows["data"])
        for what, part in used
        if what in tables and "data" in (rows := _rows(tables[what], given["name"], part))
    )
    sample = "synthetic sample" if synthetic else "sample data" if given["door"] == "sample" else ""
    facts = {
        "What": of_door(given["citation"], given["door"]),
        "Licence": of_door(given["licence"], given["door"]),
        "Door": " ".join(filter(None, [given["door"], given["origin"]])),
        "Taken": _files(given["files"]),
        "Used": "; ".join(_use(what, part, given["name"], tables) for what, part in used),
    }
    return Card(given["name"], {label: text for label, text in facts.items() if text}, mark=sample)


def _files(files: Sequence[tuple[str, int | None]]) -> str:
    known = [size for _, size in files if size is not None]
    names = [PurePosixPath(name).name for name, _ in files]
    listed = names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} to {names[-1]}"
    return f"{listed} ({sum(known):,} bytes)" if len(known) == len(files) else listed


def _use(what: str, part: str, source: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """ "toxicity: 24 dev, 36 test prompts", or what it is for alone where no table tells."""
    title = what.replace("_", " ")
    if what not in tables or part == "split":
        return f"{title} (the split of its questions)" if part == "split" else title
    rows = _rows(tables[what], source, part)
    if "role" not in rows:
        return f"{title}: {_counted(rows, 'row')}"
    nouns = {
        "prompt": "question" if part == "questions" else "prompt",
        "answer": "given answer",
        "train": "labelled text",
    }
    told = [_counted(rows[rows.role == role], noun) for role, noun in nouns.items() if (rows.role == role).any()]
    return f"{title}: {'; '.join(told)}"


def _rows(table: pd.DataFrame, source: str, part: str) -> pd.DataFrame:
    """The rows of a task's table that come from a source: by its corpus, or by the part that the source fills."""
    if "corpus" in table:
        return table[table.corpus == source]
    if "role" not in table:
        return table
    if {part} & {"prompts", "training texts"}:
        # A single source fills the whole table of its task.
        return table[table.role == {"prompts": "prompt", "training texts": "train"}[part]]
    return table


def _counted(rows: pd.DataFrame, noun: str) -> str:
    """ "24 dev, 36 test prompts"; a text that stands in several renderings counts once."""
    rows = rows.drop_duplicates(["id", "split"]) if {"id", "split"} <= set(rows) else rows
    by_split = rows["split"].value_counts() if "split" in rows else pd.Series({"": len(rows)})
    counts = [f"{by_split[split]:,} {split}".strip() for split in ("train", "dev", "test", "") if split in by_split]
    return f"{', '.join(counts)} {noun}{'s' * (len(rows) != 1)}"
