"""Hidden system prompts: dialogs with a system prompt that a reader does not see, and candidates for what it says."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steerlab.data import loaders
from steerlab.data.sources import REAL, SYNTHETIC
from steerlab.data.splits import row_id, share
from steerlab.data.system_prompts import COLUMNS as TEXTS
from steerlab.data.system_prompts import VARIANTS
from steerlab.tasks.candidates import candidates

COLUMNS = [
    "id", "item", "corpus", "group", "unit", "turns", "hidden", "message", "question", "answer", "candidates", "data",
]  # fmt: skip


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """Two rows an item, its easy and its hard message, with COLUMNS, the easy ones first, then by item.

    raw, doors: folder of raw files and door of each corpus. settings: {"corpora": [...]; "items": of all, the first
    ones in hash order, None for all; "candidates": descriptions among which the right one is to be found, those of
    items of the same kind, None for all of them}.

    group: easy or hard; unit: the label; turns: JSON list of the system prompt and the user's message; hidden: the one
    turn that is not shown; message: the user's; question, answer: what a reader is asked, and the description;
    candidates: JSON list; data: REAL, or SYNTHETIC for the sample.
    Raises ValueError for more items than there are, and for a kind with a single description.
    """
    frames = [
        loaders.read(corpus, doors[corpus], raw[corpus])
        .drop_duplicates()
        .assign(corpus=corpus, data=SYNTHETIC if doors[corpus] == "sample" else REAL)
        for corpus in settings["corpora"]
    ]
    items, n = pd.concat(frames, ignore_index=True), settings["items"]
    if n is not None and n > len(items):
        raise ValueError(f"system_prompts: {n} items are asked for, there are {len(items)}; lower system_prompts.items")
    keys = [row_id("\0".join(texts)) for texts in zip(items.corpus, *(items[name] for name in TEXTS))]
    items = items.assign(item=keys, order=[share(key, "order") for key in keys])
    among = items.groupby(["corpus", "kind"])["description"].agg(set)
    rows = []
    for item in items.sort_values("order").head(n if n is not None else len(items)).to_dict("records"):
        others = among[item["corpus"], item["kind"]]
        found = json.dumps(
            candidates(item["description"], others, settings["candidates"], item["item"]), ensure_ascii=False
        )
        for variant in VARIANTS:
            said = (("system", item["system"]), ("user", item[variant]))
            turns = json.dumps([{"role": role, "content": text} for role, text in said], ensure_ascii=False)
            about = {"id": row_id(f"{item['item']}\0{variant}"), "group": variant, "unit": item["label"], "hidden": 1}
            about |= {"turns": turns, "message": item[variant], "answer": item["description"], "candidates": found}
            rows.append(item | about)
    return pd.DataFrame(rows)[COLUMNS].sort_values(["group", "item"], ignore_index=True)
