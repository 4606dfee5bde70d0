"""Making data in LatentQA's published schemas with a model that follows instructions: goals, controls, stimuli, QA.

Each step asks the model for JSON and checks it; what it says is the next step's material. Every prompt follows from the
answers before it, so a run that was stopped asks the same again, and whoever keeps the answers sends no request twice.
The wording of the prompts is this project's. Source of the steps: LatentQA's section on its data.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from steerlab.data.latentqa_files import KINDS
from steerlab.data.splits import row_id
from steerlab.store import write_json

log = logging.getLogger(__name__)

A_BATCH = 10  # goals that one request asks for
EMPTY_BATCHES = 5  # in a row without a new goal, after which the model has no more to say
SLUG_WORDS = 6
FILES = (*KINDS, "qa")

Ask = Callable[[Sequence[str], int], Mapping[str, str]]  # (prompts, attempt) -> what the model says to each
T = TypeVar("T")

# What goals are about, in turn, so that batches differ: (kind, theme)
THEMES = (
    ("goal", "the mood in which it writes"),
    ("persona", "trades and professions"),
    ("goal", "a figure of speech or a way of building sentences"),
    ("persona", "characters of a certain temper or habit"),
    ("goal", "a subject that it keeps bringing up"),
    ("persona", "people of another place or time"),
    ("goal", "how it reasons and explains"),
    ("persona", "people at a certain turn of their lives"),
    ("goal", "how it treats the user"),
)
GOALS = """Think of ways in which a writing assistant could be told to behave. The theme of this list: {theme}.
{what}
Give {n} of them, no two alike, harmless, each a phrase of at most twelve words.
This is list number {number} of a series, so choose less obvious ones as the number grows.
Answer with nothing but a JSON list of {n} strings."""
WHAT = {
    "goal": 'Each phrase finishes the sentence "The assistant should ...".',
    "persona": 'Each phrase finishes the sentence "The assistant should answer as ...".',
}
CONTROL = """An assistant is to behave like this: {goal}.
Write three short texts about it:
"control_user": what a user says to ask the assistant for this, one or two sentences;
"control_model": what the assistant replies to that, one sentence in which it agrees and already behaves so;
"system": the same request as a system prompt to the assistant, one or two sentences.
Answer with nothing but a JSON object that has these three keys with a string each."""
STIMULI = """An assistant was told this: {control}
Write {n} different things that a user might say next. They are short, and neither mention nor hint at
what the assistant was told. To each, write the assistant's reply of one to three sentences, in which it behaves
as it was told.
Answer with nothing but a JSON list of {n} objects that have the keys "stimulus_user" and "stimulus_model" with a
string each."""
QUESTIONS = """An assistant was told this: {control}
Write {n} questions about how this assistant is going to behave, each with its right answer in one or two
sentences. The questions do not give away what the assistant was told; the answers do. No two ask for the same.
Answer with nothing but a JSON list of {n} lists, each of two strings: the question, then the answer."""


@dataclass
class Made:
    """What was made: rows by file (see FILES), and one line for each thing that the model did not bring about."""

    rows: dict[str, Any] = field(default_factory=lambda: {name: {} if name == "qa" else [] for name in FILES})
    faults: list[str] = field(default_factory=list)


def generate(ask: Ask, goals: int, *, stimuli: int = 3, questions: int = 2, tries: int = 3) -> Made:
    """Data about so many goals: a control each, so many stimuli with and without a completion, so many questions.

    tries: how often a prompt is asked at most; a goal whose prompt brings nothing of the asked form is left out and
    told in `faults`. A larger number of goals keeps those of a smaller one.
    """
    made = Made()
    labels = _goals(ask, goals, tries, made)
    controls = _each(
        ask, {label: CONTROL.format(goal=goal) for label, goal in labels.items()}, _control, tries, "control", made
    )
    told = {label: control["system"] for label, control in controls.items()}
    said = _each(
        ask,
        {label: STIMULI.format(control=control, n=stimuli) for label, control in told.items()},
        lambda answer: _stimuli(answer, stimuli),
        tries,
        "stimuli",
        made,
    )
    pairs = _each(
        ask,
        {label: QUESTIONS.format(control=told[label], n=questions) for label in said},
        lambda answer: _pairs(answer, questions),
        tries,
        "questions",
        made,
    )
    for label, of_label in pairs.items():
        _add(made.rows, label, controls[label], said[label], of_label)
    return made


def write(made: Made, folder: Path) -> None:
    """Write the files <kind>.json and qa.json into a folder, each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in made.rows.items():
        write_json(folder / f"{name}.json", rows)


def _add(rows: dict[str, Any], label: str, control: dict, said: Sequence[dict], pairs: list[list[str]]) -> None:
    named = {"label": label}
    asked = {"control_user": control["control_user"], "control_thought": "", "control_model": control["control_model"]}
    rows["control"].append({"control_user": control["control_user"]} | named)
    for one in said:
        stimulus = {"stimulus_user": one["stimulus_user"]}
        rows["system"].append({"system": control["system"]} | stimulus | named)
        rows["stimulus"].append(asked | stimulus | named)
        completed = stimulus | {"stimulus_thought": "", "stimulus_model": one["stimulus_model"]}
        rows["stimulus_completion"].append(asked | completed | named)
    rows["qa"][label] = pairs


def _goals(ask: Ask, n: int, tries: int, made: Made) -> dict[str, str]:
    """label -> goal, the first n different ones. Batches are asked for together, as many as are missing."""
    found: dict[str, str] = {}
    number, idle = 0, 0
    while len(found) < n and idle < EMPTY_BATCHES:
        batches = {}
        for place in range(number, number + -(-(n - len(found)) // A_BATCH)):
            kind, theme = THEMES[place % len(THEMES)]
            what = {"theme": theme, "what": WHAT[kind], "n": A_BATCH, "number": place // len(THEMES) + 1}
            batches[f"{kind} {place}"] = GOALS.format(**what)
        number += len(batches)
        before = len(found)
        for batch, goals in _each(ask, batches, _strings, tries, "goals", made).items():
            kind = batch.partition(" ")[0]
            found |= {label: goal for goal in goals if (label := _label(kind, goal)) not in found}
        idle = 0 if len(found) > before else idle + len(batches)
    if len(found) < n:
        made.faults.append(f"goals: the model gave {len(found)} different ones of {n}; ask for fewer")
    return dict(list(found.items())[:n])


def _label(kind: str, goal: str) -> str:
    """Readable, and another one for each goal that differs in more than letters' case and blanks."""
    words = re.findall(r"[a-z0-9]+", goal.lower())
    return "-".join([kind, *words[:SLUG_WORDS], row_id(" ".join(words))[:6]])


def _each(
    ask: Ask, prompts: Mapping[str, str], parse: Callable[[Any], T], tries: int, what: str, made: Made
) -> dict[str, T]:
    """What `parse` makes of the answer to each prompt, by the prompts' keys; bad answers are asked for again."""
    good: dict[str, T] = {}
    reasons: dict[str, str] = {}
    for attempt in range(tries):
        missing = {key: prompt for key, prompt in prompts.items() if key not in good}
        if not missing:
            break
        answers = ask(list(missing.values()), attempt)
        for key, prompt in missing.items():
            try:
                good[key] = parse(_json_of(answers[prompt]))
            except (ValueError, KeyError, TypeError) as error:
                reasons[key] = f"lacks {error}" if isinstance(error, KeyError) else str(error)
    failed = [key for key in prompts if key not in good]
    made.faults += [f"{what} of {key}: no usable answer in {tries} tries ({reasons[key]}); left out" for key in failed]
    log.info("%s: %d of %d", what, len(good), len(prompts))
    return {key: good[key] for key in prompts if key in good}


def _json_of(answer: str) -> Any:
    """The JSON of an answer, which may stand between the marks of a code block."""
    if fenced := re.search(r"```(?:json)?\s*\n(.*?)\n?```", answer, re.DOTALL):
        answer = fenced[1]
    try:
        return json.loads(answer)
    except json.JSONDecodeError:
        raise ValueError("no JSON" if answer.strip() else "no answer") from None


def _strings(answer: Any) -> list[str]:
    if not isinstance(answer, list) or not answer:
        raise ValueError("no list of phrases")
    return [_text(one).rstrip(".") for one in answer]


def _control(answer: Any) -> dict[str, str]:
    if not isinstance(answer, dict):
        raise ValueError("no object")
    return {key: _text(answer[key]) for key in ("control_user", "control_model", "system")}


def _stimuli(answer: Any, n: int) -> list[dict[str, str]]:
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise ValueError("no list of objects")
    found = [{key: _text(one[key]) for key in ("stimulus_user", "stimulus_model")} for one in answer]
    return _different(found, [one["stimulus_user"] for one in found], n, "stimuli")


def _pairs(answer: Any, n: int) -> list[list[str]]:
    if not isinstance(answer, list) or not all(isinstance(one, list) and len(one) == 2 for one in answer):
        raise ValueError("no list of pairs")
    found = [[_text(question), _text(reply)] for question, reply in answer]
    return _different(found, [question for question, _ in found], n, "questions")


def _different(found: list[T], texts: list[str], n: int, what: str) -> list[T]:
    if len(set(texts[:n])) < n:
        raise ValueError(f"{len(set(texts))} different {what}, not {n}")
    return found[:n]


def _text(value: Any) -> str:
    """A string with something in it that any file can hold, without blanks at its ends."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} in place of a text")
    value.encode()  # half a character is a UnicodeEncodeError, which is a ValueError
    return value.strip()
