"""What steers do to a model's reasoning: the unsteered and the steered model's answers to multiple-choice questions.

lm-evaluation-harness asks and scores, by its own task arc_easy over the questions given here (steerlab.harness): a
choice is read as a continuation of its question, and the model answers with the likeliest (acc) or the likeliest by
letter (acc_norm). Nothing is pooled here, so that a steered model stands beside the unsteered one question by question.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from steerlab import harness
from steerlab.analyses.steered import Steered
from steerlab.data.splits import first_by_hash, row_id
from steerlab.models import ModelHandle
from steerlab.progress import progress

COLUMNS = ["method", "seed", "strength", "question", "choices", "acc", "base_acc", "acc_norm", "base_acc_norm"]


def chosen(questions: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """The first n questions in hash order, all where n is None, each once: id, question, choices, answer.

    questions: question, choices, answer (steerlab.data.choice_questions). id: of the question with its choices.
    Raises ValueError where there are fewer.
    """
    texts = ["\n".join([question, *choices]) for question, choices in zip(questions.question, questions.choices)]
    there = questions.assign(id=[row_id(text) for text in texts], text=texts).drop_duplicates("id").set_index("text")
    if n is not None and n > len(there):
        raise ValueError(
            f"reasoning: {n} questions are asked for, the source has {len(there)}; lower analyses.reasoning.questions "
            "or name another door in data.sources.reasoning"
        )
    kept = there.loc[first_by_hash(list(there.index), n)]
    return kept.reset_index(drop=True)[["id", "question", "choices", "answer"]]


def reasoning(
    model: ModelHandle, steered: Sequence[Steered], questions: pd.DataFrame, *, batch_rows: int
) -> pd.DataFrame:
    """One row a steer and question, with COLUMNS, in the order of both.

    questions: as from `chosen`. question: its id; choices: how many it has; acc, acc_norm: 1 for a right answer of the
    steered model, else 0; base_acc, base_acc_norm: of the unsteered one, which answers once for all steers.
    batch_rows: of a forward pass, a row a question and choice.
    Raises FloatingPointError for a steered model whose numbers are not finite.
    """
    how = {"device": model.device, "dtype": model.dtype, "attention": model.attention, "batch_size": batch_rows}
    about = {"question": questions.id, "choices": questions.choices.map(len)}
    with (
        TemporaryDirectory() as folder,
        closing(harness.SteerlabLM(str(model.folder), **how)) as lm,
    ):
        task = harness.write_choice_task(questions, Path(folder))
        base = _answers(lm, task, questions)
        tables = []
        for one in progress(steered, total=len(steered), desc="reasoning", unit="steer"):
            with one.steer.attached(lm.model, one.strength):
                own = _answers(lm, task, questions, one)
            of_steer = {"method": one.method, "seed": one.steer.record.seed, "strength": one.strength}
            beside = [pd.DataFrame(about).assign(**of_steer), own, base.add_prefix("base_")]
            tables.append(pd.concat(beside, axis=1)[COLUMNS])
    return pd.concat(tables, ignore_index=True)


def _answers(lm: harness.SteerlabLM, task: Path, questions: pd.DataFrame, of: Steered | None = None) -> pd.DataFrame:
    """acc and acc_norm of the model as it stands, in the order of the questions."""
    try:
        found = pd.DataFrame(harness.samples(lm, task))
    except FloatingPointError as error:
        raise FloatingPointError(f"{of.method} at strength {of.strength:g}: {error}" if of else str(error)) from error
    by_id = found.assign(id=[document["id"] for document in found.doc]).set_index("id")
    return by_id.loc[questions.id, ["acc", "acc_norm"]].reset_index(drop=True)
