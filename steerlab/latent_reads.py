"""Reads: dialogs as the target model reads them, and the places whose hidden states a decoder is shown.

A read is an `activations.Row`: the dialog in the target's chat template with the prompt for an answer, and in
`selected` what is shown. Spans are the characters of the template's rendering and the tokenizer's offsets, never a
table of tokens: the dialog's leading turns that are hidden, and all that the template puts before them, are left out,
and so is every special token and the first place, whose states (an attention sink) say nothing. Of a dialog with a
focus, some words of it, nothing but these is shown.

Source: LatentQA, section on masked activations. There the masked span reaches through the next turn's header and
lengths assume a begin-of-sequence token; here it ends where the hidden turns end, with or without such a token.
"""

import json
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

import pandas as pd
from jinja2 import TemplateError

from steerlab.activations import Row
from steerlab.data.splits import share
from steerlab.models import NO_CHAT, ModelError, Tokenizer, opens_with_bos

Turns = Sequence[Mapping[str, str]]


def read(tokenizer: Tokenizer, turns: Turns, hidden: int = 0, *, focus: str = "", official_code: bool = False) -> Row:
    """The read of a dialog, turns of {"role", "content"}, whose first `hidden` turns the decoder does not see.

    Shown are the tokens that begin after the hidden turns, or with none hidden at the first turn's content or later.
    focus: of these, only the tokens of its last occurrence in the contents. official_code: the first place is shown
    too, before the others.
    Raises ValueError where nothing is left to show, ModelError for a tokenizer without a (usable) chat template.
    """
    if not 0 <= hidden <= len(turns):
        raise ValueError(f"{hidden} turns are to be hidden, the dialog has {len(turns)}; hide none up to all")
    text, spans = _rendered(tokenizer, turns)
    begin = _end_of(tokenizer, turns[:hidden], text, spans) if hidden else spans[0][0]
    found = text.rfind(focus, begin, spans[-1][1]) if focus else begin
    if found < 0:
        raise ValueError(f"{focus!r} is not in what is shown of the dialog {text[:60]!r}; name words of it")
    until = found + len(focus) if focus else len(text)
    options = {"return_offsets_mapping": True, "add_special_tokens": not opens_with_bos(tokenizer, text)}
    tokens, special = tokenizer(text, **options), special_ids(tokenizer)
    shown = tuple(
        place
        for place, (token, (start, end)) in enumerate(zip(tokens["input_ids"], tokens["offset_mapping"], strict=True))
        # a token is of the focus also if it begins with the blank before it
        if place and begin <= start < until and end > max(start, found) and token not in special
    )
    if not shown:
        raise ValueError(f"nothing of the dialog {text[:60]!r} is shown to the decoder; hide fewer of its turns")
    return Row(tuple(tokens["input_ids"]), (0, *shown) if official_code else shown)


def reads(tokenizer: Tokenizer, data: pd.DataFrame, *, official_code: bool = False) -> tuple[list[Row], list[int]]:
    """The different reads of a table, in the order in which they come up, and the index of each row's.

    data: `turns`, JSON of a list of {"role", "content"}, `hidden`, int, and if there is one `focus`. Raises as `read`.
    """
    places: dict[tuple[str, int, str], int] = {}
    focus = data["focus"] if "focus" in data else [""] * len(data)
    keys = zip(data["turns"], data["hidden"].astype(int), focus, strict=True)
    which = [places.setdefault(key, len(places)) for key in keys]
    made = [
        read(tokenizer, json.loads(turns), hidden, focus=words, official_code=official_code)
        for turns, hidden, words in places
    ]
    return made, which


def of_setting(table: pd.DataFrame, setting: str, labels: float | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that readers are fitted on and chosen by, those of dev first, and the rows of test.

    setting: "masked" hides the turns that the table says, "visible" none. labels: share of the seen labels that are
    kept, the first by hash, so that a larger share keeps those of a smaller one; of the others no row is left, in no
    split. As dev rows come first, the states that are captured of all fitted rows are, in their order, those of dev
    rows as well.
    """
    data = table.assign(hidden=0) if setting == "visible" else table
    if labels is not None:
        seen = sorted(set(data["label"][data["label_is_seen"]]), key=lambda label: (share(label, "scaling"), label))
        kept = seen[: max(1, round(labels * len(seen)))]
        data = data[~data["label_is_seen"] | data["label"].isin(kept)]
    fitted, test = data[data["split"] != "test"], data[data["split"] == "test"]
    return fitted.sort_values("split", kind="stable", ignore_index=True), test.reset_index(drop=True)


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """Tokens that stand for no text: those that the tokenizer names and those that its vocabulary marks so."""
    marked = {token for token, about in tokenizer.added_tokens_decoder.items() if about.special}
    return marked | set(tokenizer.all_special_ids)


def parts(tokenizer: Tokenizer, turns: Turns, *, prompt: bool) -> list[str]:
    """What the chat template puts before each turn's content, and after the last: one more than there are turns.

    prompt: with the beginning of an answer after the last. The contents themselves do not matter.
    Raises ModelError for a tokenizer without a chat template, or one that moves or drops contents.
    """
    marks = [f"\ue000{place}\ue001" for place in range(len(turns))]  # private characters, in no template
    marked = [{"role": turn["role"], "content": mark} for turn, mark in zip(turns, marks)]
    found, rest = [], _render(tokenizer, marked, prompt)
    for mark in marks:
        before, seen, rest = rest.partition(mark)
        if not seen:
            raise ModelError("this model's chat template does not show every turn once and in order; use another model")
        found.append(before)
    return [*found, rest]


def _rendered(tokenizer: Tokenizer, turns: Turns) -> tuple[str, list[tuple[int, int]]]:
    """The dialog with the beginning of an answer, and the characters, from and to, of each turn's content in it."""
    before, *after = parts(tokenizer, turns, prompt=True)
    text, spans, start = _render(tokenizer, turns, prompt=True), [], len(before)
    for turn, following in zip(turns, after, strict=True):
        forms = (turn["content"], turn["content"].strip())  # many templates strip contents
        form = next((form for form in forms if text.startswith(form + following, start)), None)
        if form is None:
            raise ModelError(f"this model's chat template rewrites {turn['content'][:40]!r}; its place is not known")
        spans.append((start, start + len(form)))
        start += len(form + following)
    return text, spans


def _end_of(tokenizer: Tokenizer, turns: Turns, text: str, spans: Sequence[tuple[int, int]]) -> int:
    """The character of the rendering at which the first turns have ended, with what the template closes them by."""
    try:
        alone = _render(tokenizer, turns, prompt=False)
    except TemplateError:  # a template may refuse a dialog that ends there; its closing words are then shown
        alone = ""
    return max(spans[len(turns) - 1][1], len(commonprefix([alone, text])))


def _render(tokenizer: Tokenizer, turns: Turns, prompt: bool) -> str:
    if tokenizer.chat_template is None:
        raise ModelError(NO_CHAT)
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": prompt}
    return tokenizer.apply_chat_template([dict(turn) for turn in turns], **options)
