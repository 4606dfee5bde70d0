"""What LatentQA's tests are about: tiny models with a chat template, and a table of dialogs with questions."""

import functools
import json
from pathlib import Path

import pandas as pd

from steerlab.activations import Row
from steerlab.latent_reads import reads
from steerlab.models import ModelHandle
from tests.laws.subjects import handle

ROOT = Path(__file__).parents[2]

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
SETTINGS = {"seed": 0, "updates": 4, "batch_rows": 3, "rank": 2, "alpha": 4.0, "held_out": 0.0, "read_layer": 1}


@functools.cache
def reader_model(family: str) -> ModelHandle:
    """A tiny model whose tokenizer has a chat template that ends each turn with the end of text."""
    folder = handle(family, seed=7).folder
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return ModelHandle(folder)


def dialog(*contents: str) -> list[dict[str, str]]:
    """Turns of user and assistant by turns, the user first."""
    return [{"role": ("user", "assistant")[place % 2], "content": each} for place, each in enumerate(contents)]


def table(hidden: int = 0) -> pd.DataFrame:
    """Six rows about five reads of different lengths."""
    said = ["red", "blue sky", "red", "green grass", "no", "yes yes"]
    rows = [
        {"id": f"id{i}", "turns": json.dumps(dialog(each, "Hm.")), "hidden": hidden, "question": "Hue?", "answer": each}
        for i, each in enumerate(said)
    ]
    return pd.DataFrame(rows)


def reads_of(model: ModelHandle, hidden: int = 0) -> list[Row]:
    return reads(model.info.tokenizer, table(hidden))[0]
