"""SYNTHETIC hidden system prompts for the sample door: made by this file out of templates.

They ask for the forty attributes of the synthetic sample of LatentQA's data (steerlab.data.sample_latentqa), under the
same labels and with the same question, so that a reader that was trained on that sample can be asked. Their wordings
and the user's messages stand nowhere in that sample.

`python -m steerlab.data.sample_system_prompts` writes the file into steerlab/data/sample/ (a test holds its bytes).
"""

import json
from pathlib import Path

from steerlab.data.sample_latentqa import ATTRIBUTES, QUESTION, label_of
from steerlab.data.sources import SAMPLE
from steerlab.data.splits import share

NAME = "synthetic_system_prompts.jsonl"

# kind of attribute: (system prompts, messages whose answer makes the attribute plain)
TEMPLATES = {
    "mood": (
        ("Be {word} in tone throughout this conversation.", "Today nothing but a {word} voice will do."),
        ("How are you feeling right now?", "What sort of a day are you having?"),
    ),
    "person": (
        ("In this conversation you are a {word}.", "Play the role of a {word} for the user."),
        ("What do you do for a living?", "Tell me a little about yourself and your work."),
    ),
    "subject": (
        ("Your favourite subject is {word}; say so whenever you can.", "Talk of {word}, and of little else."),
        ("What would you like to talk about?", "What do you find most interesting?"),
    ),
    "style": (
        ("Write in a style that is {word}.", "Every answer of yours has to be {word}."),
        ("Introduce yourself in a few sentences.", "Tell me a short story in your own way."),
    ),
}

HARD = (
    "What is the capital of Canada?",
    "How many minutes are there in a day?",
    "Name three kinds of trees.",
    "Which colour do blue and yellow make?",
    "How long should I boil an egg?",
    "What is seven times eight?",
    "Which month comes after June?",
    "How do I get a stain out of a shirt?",
)


def contents() -> str:
    """The text of the file: an item a label and system prompt."""
    rows = [
        _item(kind, word, prompt)
        for kind, words in ATTRIBUTES.items()
        for word in words
        for prompt in TEMPLATES[kind][0]
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _item(kind: str, word: str, prompt: str) -> dict[str, str]:
    easy, hard = (min(texts, key=lambda text: share(text, f"{word} {prompt}")) for texts in (TEMPLATES[kind][1], HARD))
    about = {"kind": kind, "label": label_of(kind, word), "system": prompt.format(word=word)}
    return about | {"easy": easy, "hard": hard, "question": QUESTION, "description": word}


def write(folder: Path) -> None:
    """Write the file into a folder."""
    (folder / NAME).write_text(contents(), encoding="utf-8")


if __name__ == "__main__":
    write(SAMPLE)
