"""Hidden system prompts: their files, and how a model is asked in words about one that it cannot see.

An item is a system prompt, a description of what it asks for, and two messages of a user: an easy one, whose answer
makes the prompt plain, and a hard one, which has nothing to do with it. Source: LatentQA, section on hidden system
prompts; there GPT-4 reads what the user and the assistant say, here the same model does.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from steerlab.data import records

COLUMNS = ["kind", "label", "system", "easy", "hard", "question", "description"]
VARIANTS = ("easy", "hard")
IN_WORDS = "Judge the assistant by its reply above, and answer with nothing else: {question}"


def system_prompts_jsonl(path: Path) -> pd.DataFrame:
    """One object with the texts of COLUMNS a line, in the file's order.

    kind: what descriptions are told apart from each other in; label: of the item in the data that readers are trained
    on, if it is there; question: what a reader is asked; description: its right answer. Raises BadRows.
    """

    def row(line: str) -> tuple[str, ...]:
        given = json.loads(line)
        return tuple(records.text(given[key]) for key in COLUMNS)

    return pd.DataFrame(records.parsed(path, records.lines(path), row), columns=COLUMNS).astype("str")


def asked_in_words(message: str, reply: str, question: str) -> list[dict[str, str]]:
    """The turns that a model judges: what the user and the assistant said, and the question."""
    return [
        {"role": "user", "content": message},
        {"role": "assistant", "content": reply},
        {"role": "user", "content": IN_WORDS.format(question=question)},
    ]


FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {"system_prompts_jsonl": system_prompts_jsonl}
