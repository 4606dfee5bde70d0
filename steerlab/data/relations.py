"""Facts of six relations for relation extraction: their files, texts that mention a subject, questions about it.

The six are those of the paper. A text names the subject and nothing that tells the object, so that a reader of the
subject's states must find it in them. Source: LatentQA, section on relation extraction; the wordings are this
project's.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from steerlab.data import records

COLUMNS = ["relation", "subject", "object"]


@dataclass(frozen=True)
class Wording:
    """mentions: texts with {subject}; about_states: what a reader is asked, which names no subject; in_words: what a
    model is asked in words, with {subject}."""

    mentions: tuple[str, ...]
    about_states: str
    in_words: str


RELATIONS = {
    "country_currency": Wording(
        ("My cousin moved to {subject} last spring.", "We watched a long film about {subject}."),
        "What is the name of the currency of this country?",
        "What is the name of the currency of {subject}? Answer with the name alone.",
    ),
    "food_country": Wording(
        ("Last night my neighbour brought us some {subject}.", "I have never learnt how to make {subject}."),
        "Which country does this dish come from?",
        "Which country does the dish {subject} come from? Answer with the country alone.",
    ),
    "athlete_position": Wording(
        ("There is a large picture of {subject} in the hall.", "I read an interview with {subject} on the train."),
        "Which position does this athlete play?",
        "Which position does the athlete {subject} play? Answer with the position alone.",
    ),
    "athlete_sport": Wording(
        ("There is a large picture of {subject} in the hall.", "I read an interview with {subject} on the train."),
        "Which sport does this athlete do?",
        "Which sport does the athlete {subject} do? Answer with the sport alone.",
    ),
    "product_company": Wording(
        ("She wrote a whole page about the {subject}.", "My uncle still talks of his first {subject}."),
        "Which company makes this product?",
        "Which company makes the product {subject}? Answer with the company alone.",
    ),
    "star_constellation": Wording(
        ("We looked for {subject} from the balcony.", "The poem is called {subject}, and it is short."),
        "Which constellation is this star in?",
        "Which constellation is the star {subject} in? Answer with the constellation alone.",
    ),
}


def relations_jsonl(path: Path) -> pd.DataFrame:
    """{"relation": one of RELATIONS, "subject": str, "object": str} a line, with COLUMNS, in the file's order.

    Raises BadRows with one line for each row that is not of this form, or whose subject the relation has had before.
    """
    seen: set[tuple[str, str]] = set()

    def row(line: str) -> tuple[str, str, str]:
        given = json.loads(line)
        relation, subject, object_ = (records.text(given[key]).strip() for key in COLUMNS)
        if relation not in RELATIONS:
            raise ValueError(f"the relation is {relation!r}, not one of {', '.join(RELATIONS)}")
        if (relation, subject) in seen:
            raise ValueError(f"{subject!r} has stood under {relation} before; keep one of them")
        seen.add((relation, subject))
        return relation, subject, object_

    return pd.DataFrame(records.parsed(path, records.lines(path), row), columns=COLUMNS).astype("str")


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {"relations_jsonl": relations_jsonl}
