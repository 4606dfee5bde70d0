"""What LatentQA's control learns from: read prompts, each with a question about the assistant and the wished answer.

The table is tidy, a row a read prompt and pair, with COLUMNS and, where each block has pairs of its own, `layer`.
"""

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from steerlab.data.splits import by_seed, row_id, share

COLUMNS = ["id", "turns", "hidden", "question", "answer"]

Pair = tuple[str, str]


def crossed(dialogs: Sequence[Sequence[Mapping[str, str]]], pairs: Sequence[Pair], *, nudge: str = "") -> pd.DataFrame:
    """Every dialog with every pair, in their order, with COLUMNS.

    dialogs: turns of {"role", "content"}; where the last is the assistant's, it is the reply that `dialogs_to_learn`
    may leave out. pairs: (question, wished answer). nudge: words put before the user's last ones.
    """
    rows = []
    for dialog in dialogs:
        turns = _written(_nudged(dialog, nudge))
        rows += [(row_id("\0".join([turns, *pair])), turns, 0, *pair) for pair in pairs]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"hidden": "int64"})


def crossed_per_layer(
    dialogs: Sequence[Sequence[Mapping[str, str]]], pairs: Sequence[Sequence[Pair]], *, nudge: str = ""
) -> pd.DataFrame:
    """As `crossed`, for a list of pairs for each block, from the first block on, with `layer`."""
    parts = [crossed(dialogs, own, nudge=nudge).assign(layer=layer) for layer, own in enumerate(pairs)]
    found = pd.concat(parts, ignore_index=True)
    return found.assign(id=[row_id(f"{layer}\0{id}") for layer, id in zip(found["layer"], found["id"])])


def dialogs_to_learn(
    data: pd.DataFrame, *, seed: int, samples: int | None, with_replies: bool, train_percent: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that are learnt from and those that judge, each with or without the assistant's reply at its end.

    samples: so many dialogs, drawn by the seed, None for all. with_replies: a dialog that ends with a reply is read
    with it as well as without. train_percent: about so many percent of the dialogs are learnt from, drawn by the seed.
    Raises ValueError where none is left to learn from.
    """
    if not 0 < train_percent <= 100:
        raise ValueError(f"train_percent is {train_percent}; give more than 0, at most 100")
    given = [json.loads(turns) for turns in data["turns"]]
    dialogs = [turns[:-1] if turns[-1]["role"] == "assistant" else turns for turns in given]
    found = data.assign(turns=[_written(turns) for turns in given], dialog=[_written(turns) for turns in dialogs])
    drawn = sorted(set(found["dialog"]), key=lambda dialog: (share(dialog, f"sample {seed}"), dialog))[:samples]
    learnt, judging = by_seed(drawn, seed, 1 - train_percent / 100)
    if not learnt:
        raise ValueError(f"none of {len(drawn)} dialogs is learnt from; give more samples or raise train_percent")
    without = found.assign(turns=found["dialog"]).drop_duplicates([name for name in found if name != "id"])
    replied = found[found["turns"] != found["dialog"]] if with_replies else found[:0]
    both = pd.concat([without, replied]).sort_index(kind="stable")
    parts = [both[both["dialog"].isin(some)].drop(columns="dialog") for some in (learnt, judging)]
    return parts[0].reset_index(drop=True), parts[1].reset_index(drop=True)


def _written(turns: Sequence[Mapping[str, str]]) -> str:
    return json.dumps(turns, ensure_ascii=False)


def _nudged(dialog: Sequence[Mapping[str, str]], nudge: str) -> list[dict[str, str]]:
    turns = [dict(turn) for turn in dialog]
    asked = [turn for turn in turns if turn["role"] == "user"]
    if nudge and asked:
        asked[-1]["content"] = f"{nudge} {asked[-1]['content']}"
    return turns
