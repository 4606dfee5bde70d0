"""Which of some candidates a reader finds in a model's states: objects of relations, descriptions of system prompts.

Each candidate is scored as the answer to the row's question, and the likeliest is picked, so that chance is known: with
the row's own states, with those of a row with another answer, with none. Beside it stand the decoder's own words, the
model itself, asked in words, and for relations a linear probe.

Source: LatentQA, sections on relation extraction and on hidden system prompts; there GPT-4 is what is asked in words.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steerlab.analyses import latent_reading
from steerlab.data import system_prompts
from steerlab.decoder_prompts import Template
from steerlab.language_modelling import Text, text_losses
from steerlab.methods.latentqa import Decoder
from steerlab.methods.protocol import Activations
from steerlab.models import ModelHandle, encode, in_chat
from steerlab.patching import greedy

ABOUT = ["id", "group", "unit", "data"]
COLUMNS = ["seed", *ABOUT, "condition", "right", "share", "picked", "answer", "exact", "contained", "chance"]
EXACT_WORDS = 3  # of a right answer at most, where an answer is asked to be just that

Dialog = Sequence[dict[str, str]]
Part = tuple[pd.DataFrame, Activations]  # rows of a table with candidates, and the states of their reads


def relations(
    reader: Decoder, model: ModelHandle, part: Part, *, seed: int, beside: bool, batch_rows: int, max_new_tokens: int
) -> pd.DataFrame:
    """What is found of the objects of relations, COLUMNS: a row a row of the data and condition.

    part: the table of steerlab.tasks.relations, and states. condition: "true", "shuffled" (states of another subject of
    the relation with another object, drawn by the seed; left out where one object has more than half of the rows) or
    "none": right (1 or 0), whether the right candidate is picked; share: its probability among the candidates; chance.
    With the true states also the decoder's own answer: exact, whether it is the right one (NaN for long ones), and
    contained, whether the right one stands in it.
    beside: with what depends on no reader: "in_words", the same of the model itself that is asked about the subject by
    name, and "probe", the object that a linear probe says, which was fitted on the relation's other subjects; of
    objects that another subject has as well, with one over the number of these as its chance.
    """
    how = {"batch_rows": batch_rows, "max_new_tokens": max_new_tokens}
    found = by_states(reader, model, *part, seed=seed, **how)
    if beside:
        data, official = part[0], reader.record.config["official_code"]
        dialogs = [json.loads(turns) for turns in data["in_words"]]
        items = data.assign(item=data["id"])
        means, _ = latent_reading.item_means(model, items, part[1], reader.site, official)
        found = pd.concat([found, in_words(model, data, dialogs, **how), probed(data, means)])
    return found.assign(seed=seed).reindex(columns=COLUMNS)


def hidden_prompts(
    reader: Decoder,
    model: ModelHandle,
    part: Part,
    *,
    seed: int,
    beside: bool,
    batch_rows: int,
    max_new_tokens: int,
    reply_tokens: int,
) -> pd.DataFrame:
    """What is found of hidden system prompts, as in `relations`; part: the table of steerlab.tasks.system_prompts.

    beside: with "in_words", the model itself that is asked about what the user said and what it replied, in at most
    reply_tokens tokens and with the system prompt; it does not see the prompt any more.
    """
    data, how = part[0], {"batch_rows": batch_rows, "max_new_tokens": max_new_tokens}
    found = by_states(reader, model, *part, seed=seed, **how)
    if beside:
        told = [json.loads(turns) for turns in data["turns"]]
        replies = replied(model, told, batch_rows=batch_rows, max_new_tokens=reply_tokens)
        asked = zip(data["message"], replies, data["question"], strict=True)
        found = pd.concat(
            [found, in_words(model, data, [system_prompts.asked_in_words(*each) for each in asked], **how)]
        )
    return found.assign(seed=seed).reindex(columns=COLUMNS)


def with_parts(data: pd.DataFrame, fitted: pd.DataFrame) -> pd.DataFrame:
    """The table of system prompts with groups that tell apart which labels were trained on: "easy, seen labels".

    fitted: the rows that the reader was fitted on and chosen by, with `label` and `split`.
    """
    seen = data["unit"].isin(set(fitted["label"][fitted["split"] == "train"]))
    return data.assign(group=data["group"] + np.where(seen, ", seen labels", ", unseen labels"))


def by_states(
    reader: Decoder,
    model: ModelHandle,
    data: pd.DataFrame,
    states: Activations,
    *,
    seed: int,
    batch_rows: int,
    max_new_tokens: int,
) -> pd.DataFrame:
    """The conditions "true", "shuffled" and "none" of `relations`."""
    others = np.array(latent_reading.shuffled(data["answer"], data["group"], seed))
    places = range(len(data))
    said = latent_reading.answers(
        reader, model, data, states, places, batch_rows=batch_rows, max_new_tokens=max_new_tokens
    )
    conditions = {"true": {}, "shuffled": {"shown": others}, "none": {"patch": False}}
    found = []
    for condition, how in conditions.items():
        scores = _by_decoder(reader, model, data, states, batch_rows, **how)
        rows = _about(data, condition).join(picked(scores, _candidates(data), data["answer"].tolist()))
        found.append(rows.join(said_right(said, data["answer"].tolist())) if condition == "true" else rows)
    found[1] = found[1][others != np.arange(len(data))]
    return pd.concat(found)


def in_words(
    model: ModelHandle, data: pd.DataFrame, dialogs: Sequence[Dialog], *, batch_rows: int, max_new_tokens: int
) -> pd.DataFrame:
    """The condition "in_words" of `relations`: the model as it is, asked by these dialogs, a row of the data each."""
    tokenizer, loaded = model.info.tokenizer, model.load()
    head: Any = loaded.get_output_embeddings()
    closing = Template(tokenizer).closing  # an answer ends here as a decoder's does
    asked = [encode(tokenizer, in_chat(tokenizer, dialog)) for dialog in dialogs]
    texts = []
    for ids, of_row in zip(asked, _candidates(data), strict=True):
        for candidate in of_row:
            spoken = tokenizer(candidate, add_special_tokens=False)["input_ids"] + closing
            texts.append(Text(ids + spoken, list(range(len(ids), len(ids) + len(spoken)))))
    found = np.zeros(len(texts))
    for batch in _batches([len(text.ids) for text in texts], batch_rows):
        given = [texts[place] for place in batch]
        tokens = [len(text.asked) for text in given]
        found[batch] = -text_losses(loaded, head.weight, given).double().numpy() * tokens
    scores = _of_rows(found, data)
    said = replied(model, dialogs, batch_rows=batch_rows, max_new_tokens=max_new_tokens)
    right = data["answer"].tolist()
    return _about(data, "in_words").join(picked(scores, _candidates(data), right)).join(said_right(said, right))


def replied(model: ModelHandle, dialogs: Sequence[Dialog], *, batch_rows: int, max_new_tokens: int) -> list[str]:
    """What the model as it is says next in each dialog, its likeliest token at every step."""
    tokenizer, loaded = model.info.tokenizer, model.load()
    end = Template(tokenizer).closing[-1]
    texts = [Text(encode(tokenizer, in_chat(tokenizer, dialog)), []) for dialog in dialogs]
    found = [""] * len(texts)
    for batch in _batches([len(text.ids) for text in texts], batch_rows):
        said = greedy(loaded, tokenizer, [texts[place] for place in batch], end, max_new_tokens=max_new_tokens)
        for place, answer in zip(batch, said, strict=True):
            found[place] = answer.strip()
    return found


def probed(data: pd.DataFrame, means: np.ndarray) -> pd.DataFrame:
    """The condition "probe" of `relations`: each subject's object by a probe that was fitted on the other subjects.

    means: (rows, hidden), the mean over the shown places of each row's states.
    """
    found = []
    for _, of_group in data.reset_index(drop=True).groupby("group", sort=False):
        subjects = of_group.groupby("answer")["unit"].transform("nunique")
        rows = of_group[subjects > 1]  # else no other subject has this object
        if rows["answer"].nunique() < 2:
            continue
        for unit, asked in rows.groupby("unit", sort=False):
            others = rows[rows["unit"] != unit]
            said = latent_reading.linear_probe().fit(means[others.index], others["answer"]).predict(means[asked.index])
            right = (said == asked["answer"]).astype(float)
            about = asked[ABOUT].assign(condition="probe", right=right, picked=said)
            found.append(about.assign(chance=1 / rows["answer"].nunique()))
    return pd.concat(found) if found else pd.DataFrame(columns=COLUMNS)


def picked(scores: Sequence[np.ndarray], candidates: Sequence[Sequence[str]], right: Sequence[str]) -> pd.DataFrame:
    """Which candidate is likeliest in each row: share (of the right one), picked, right (1 or 0), chance.

    scores: log-likelihoods in nats, a row's (candidates,) each.
    """
    rows = []
    for of_row, among, answer in zip(scores, candidates, right, strict=True):
        likely = np.exp(of_row - of_row.max())
        best = among[int(of_row.argmax())]
        share = float(likely[list(among).index(answer)] / likely.sum())
        rows.append((share, best, float(best == answer), 1 / len(among)))
    return pd.DataFrame(rows, columns=["share", "picked", "right", "chance"])


def said_right(said: Sequence[str], right: Sequence[str]) -> pd.DataFrame:
    """Of each answer: answer, exact, contained (1 or 0; exact is NaN where the right one has more than EXACT_WORDS).

    Words count, in any case and with any punctuation.
    """
    rows = []
    for answer, wished in zip(said, right, strict=True):
        spoken, words = _words(answer), _words(wished)
        places = range(len(spoken) - len(words) + 1)
        contained = any(spoken[place : place + len(words)] == words for place in places)
        exact = float(spoken == words) if len(words) <= EXACT_WORDS else np.nan
        rows.append((answer, exact, float(contained)))
    return pd.DataFrame(rows, columns=["answer", "exact", "contained"])


def _by_decoder(
    reader: Decoder,
    model: ModelHandle,
    data: pd.DataFrame,
    states: Activations,
    batch_rows: int,
    *,
    shown: Sequence[int] | np.ndarray | None = None,
    patch: bool = True,
) -> list[np.ndarray]:
    """The log-likelihoods of each row's candidates. shown: for each row, the row whose states the decoder is shown."""
    counts = [len(of_row) for of_row in _candidates(data)]
    row = np.repeat(np.arange(len(data)), counts)
    # Repeated rows bring no new read, so the states of the data's reads are those of these rows' as well.
    asked = data.iloc[row].assign(answer=[each for of_row in _candidates(data) for each in of_row])
    first = np.cumsum([0, *counts[:-1]])
    others = None if shown is None else first[np.asarray(shown)[row]].tolist()
    losses = reader.losses(model, asked, states, shown=others, patch=patch, batch_rows=batch_rows)
    return _of_rows(-(losses["loss"] * losses["tokens"]).to_numpy(), data)


def _of_rows(scores: np.ndarray, data: pd.DataFrame) -> list[np.ndarray]:
    """The scores of all candidates, one after the other, a row's each."""
    return np.split(scores, np.cumsum([len(of_row) for of_row in _candidates(data)])[:-1])


def _candidates(data: pd.DataFrame) -> list[list[str]]:
    return [json.loads(of_row) for of_row in data["candidates"]]


def _about(data: pd.DataFrame, condition: str) -> pd.DataFrame:
    return data[ABOUT].reset_index(drop=True).assign(condition=condition)


def _batches(lengths: Sequence[int], batch_rows: int) -> Iterator[list[int]]:
    """Places of texts of like length, so many at once."""
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    for start in range(0, len(order), batch_rows):
        yield order[start : start + batch_rows]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
