"""Truthfulness: questions that a model is asked, their answers to choose from, and labelled answers to learn from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from steerlab.data import loaders, sources
from steerlab.data.harness_prompt import harness_prompt
from steerlab.data.questions import published_split
from steerlab.data.renderings import SLOT, choices_turn, question_prompt, render
from steerlab.data.splits import row_id, share
from steerlab.tasks import rows

INDEX = "hpr_split"  # the source of the published split
PREAMBLES = {"harness": harness_prompt, "none": question_prompt}


@dataclass(frozen=True)
class Question:
    """A question and its answers: (answer, label, mc1) as steerlab.data.questions has them."""

    text: str
    answers: tuple[tuple[str, float, float], ...]

    @property
    def id(self) -> str:
        """The id of its prompts, from the SHA-256 of the question."""
        return row_id(self.text)

    def answer_id(self, answer: str) -> str:
        """The id of one of its answers, from the SHA-256 of both."""
        return row_id(f"{self.text}\0{answer}")

    def labelled(self) -> dict[str, float]:
        """MC2's answers: answer -> +1.0 correct, -1.0 incorrect."""
        return {answer: label for answer, label, _ in self.answers if label == label}  # NaN: of MC1 alone


def make_table(raw: Mapping[str, Path], doors: Mapping[str, str], settings: Mapping) -> pd.DataFrame:
    """The task's table (columns: steerlab.tasks.rows.table), one row a rendered question or an answer.

    raw, doors: folder of raw files and door of one source of questions, and of hpr_split where that split is asked for.
    settings: {"prompts": {"dev": n or None for all, "test": n}, of which only the named splits are written;
    "questions": n to train on or None for all; "split": "seeded" (by "shares": {"train": share, "dev": share} and
    "split_seed"), "published", "halves" (by "halves": "hash" with "split_seed" or "order"; "swapped": whether the first
    half is tested on instead of the second; "validation": the share of the other half to choose by) or "test_only";
    "training": "question" or "choices"; "preamble": "harness" or "none"; "renderings": ["plain", ...]; "wording": the
    instruction of the rendering "instructed", which ends with its {text} slot}. "test_only" needs no "questions", no
    "training" and of the prompts "test" alone, and makes no rows to learn from.
    role "prompt": a question as it is asked, up to its answer. role "answer": an answer of an asked question, text
    alone, for MC1 and MC2. role "train": an answer of MC2 in the form it is learnt in, of a question to train on or
    an asked one, whose characters start..end are about; rendering "plain" after its question, "chat" after a list of
    all choices, of which it is a line. label, mc1: see steerlab.data.questions; NaN of a prompt.
    A question is wholly in one split, by its text and never by its place; the first n of a split are those by hash.
    Raises ValueError where a split holds fewer questions than asked for.
    """
    (asked,) = raw.keys() - {INDEX}
    questions = _questions(loaders.read(asked, doors[asked], raw[asked]))
    learns = settings["split"] != "test_only"
    split = _split(raw, doors, list(questions), settings)

    written: list[rows.Row] = []
    asked_for = ({"train": settings["questions"]} if learns else {}) | settings["prompts"]
    for name, n in asked_for.items():
        of_split = [text for text in questions if split.get(text) == name]
        key = "questions" if name == "train" else f"prompts.{name}"
        chosen = [questions[text] for text in rows.take("truthfulness", n, of_split, f"{name} questions", key)]
        if learns:
            written += (row for question in chosen for row in _training_rows(question, name, settings["training"]))
        if name != "train":
            written += (row for question in chosen for row in _asked_rows(question, name, settings))
    table = rows.table(written)
    apart = table.groupby("group")["split"].nunique().loc[lambda splits: splits > 1]
    if len(apart):
        raise ValueError(f"truthfulness: question {apart.index[0]} is in more than one split, which is a bug here")
    return table


def _questions(frame: pd.DataFrame) -> dict[str, Question]:
    """text -> question. Of a question that several files hold the first stays."""
    block = (frame["question"] != frame["question"].shift()).cumsum()
    kept = frame[block == block.groupby(frame["question"]).transform("min")]
    return {
        str(text): Question(str(text), tuple(zip(answers["answer"], answers["label"], answers["mc1"])))
        for text, answers in kept.groupby("question", sort=False)
    }


def _split(
    raw: Mapping[str, Path], doors: Mapping[str, str], questions: Sequence[str], settings: Mapping
) -> dict[str, str]:
    """question -> split."""
    match settings["split"]:
        case "published":
            return _published(raw, doors, questions)
        case "halves":
            return _halves(questions, settings)
        case "test_only":
            return dict.fromkeys(questions, "test")
    return _seeded(questions, settings)


def _halves(questions: Sequence[str], settings: Mapping) -> dict[str, str]:
    """question -> split: one half of the questions is tested on, the other is learnt from and chosen by."""
    salt = f"truthfulness halves {settings['split_seed']}"
    ordered = (
        list(questions)
        if settings["halves"] == "order"
        else sorted(questions, key=lambda question: (share(question, salt), question))
    )
    middle = (len(ordered) + 1) // 2  # as the official code's np.array_split
    tested = set(ordered[:middle] if settings.get("swapped") else ordered[middle:])

    def split(question: str) -> str:
        if question in tested:
            return "test"
        return "dev" if share(question, f"{salt} validation") < settings["validation"] else "train"

    return {question: split(question) for question in questions}


def _seeded(questions: Iterable[str], settings: Mapping) -> dict[str, str]:
    """question -> split, which the question's text and the seed alone decide."""
    train, dev = settings["shares"]["train"], settings["shares"]["dev"]
    if min(train, dev) < 0 or train + dev > 1:
        raise ValueError(
            f"truthfulness.shares: train {train} and dev {dev} are no shares; give two that sum to 1 at most"
        )

    def split(question: str) -> str:
        place = share(question, f"truthfulness {settings['split_seed']}")
        return "train" if place < train else "dev" if place < train + dev else "test"

    return {question: split(question) for question in questions}


def _published(raw: Mapping[str, Path], doors: Mapping[str, str], questions: Sequence[str]) -> dict[str, str]:
    if INDEX not in raw:
        raise ValueError(f"truthfulness.split: the published split needs the source {INDEX}; add it or take seeded")
    (file,) = sources.table()[INDEX].doors[doors[INDEX]].files
    return published_split(raw[INDEX] / file.name, questions)


def _training_rows(question: Question, split: str, training: str) -> Iterator[rows.Row]:
    """The labelled answers of a question, in the form they are learnt in."""
    forms = {"question": _after_the_question, "choices": _as_choices}
    if training not in forms:
        raise ValueError(f"truthfulness.training: no form {training!r}; choose question or choices")
    rendering = "chat" if training == "choices" else "plain"
    for answer, before, after in forms[training](question):
        label, start, end = question.labelled()[answer], len(before), len(before) + len(after)
        name = question.answer_id(answer)
        yield (name, question.id, "train", split, rendering, label, rows.NO_MC1, before + after, start, end)


def _after_the_question(question: Question) -> Iterator[tuple[str, str, str]]:
    for answer in question.labelled():
        yield answer, f"{question_prompt(question.text)} ", answer


def _as_choices(question: Question) -> Iterator[tuple[str, str, str]]:
    """Choices are shuffled by hash, so that a letter tells nothing; HPR shuffles them anew in each run."""
    order = sorted(question.labelled(), key=lambda answer: (share(f"{question.text}\0{answer}", "choices"), answer))
    turn, lines = choices_turn(question.text, order)
    for answer, line in zip(order, lines):
        yield answer, turn, line


def _asked_rows(question: Question, split: str, settings: Mapping) -> Iterator[rows.Row]:
    """The question in each rendering, and all its answers."""
    if settings["preamble"] not in PREAMBLES:
        raise ValueError(f"truthfulness.preamble: no {settings['preamble']!r}; choose {' or '.join(PREAMBLES)}")
    plain = PREAMBLES[settings["preamble"]](question.text)
    for rendering in settings["renderings"]:
        text = render(plain, rendering, settings.get("wording") or SLOT)
        if not text.endswith(plain):
            raise ValueError(f"truthfulness: wording {settings['wording']!r} does not end with {SLOT}, the question")
        end = len(text)
        yield (question.id, question.id, "prompt", split, rendering, float("nan"), rows.NO_MC1, text, end, end)
    for answer, label, mc1 in question.answers:
        name = question.answer_id(answer)
        yield (name, question.id, "answer", split, "plain", label, mc1, answer, 0, len(answer))
