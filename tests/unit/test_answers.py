"""Scores of given answers: a cell against one plain forward an answer, steers that begin late, and the table."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from scripts import score_answers
from steerlab import sites
from steerlab.data import tables
from steerlab.metrics import multiple_choice
from steerlab.models import encode
from steerlab.scores import answers
from steerlab.tasks.rows import COLUMNS
from tests.laws.subjects import fitted, handle

PREAMBLE = "Q: Is it late?\nA: Yes.\n\n"
QUESTIONS = {"q1": "Who sat?", "q2": "What did the dog do then?", "q3": "Why?"}
OFFERED = {  # text -> (label, mc1)
    "q1": {"The cat.": (1, 1), "The dog sat on it.": (-1, -1), "A cat": (1, np.nan), "Nobody": (np.nan, -1)},
    "q2": {"It slept.": (1, 1), "It ran": (-1, -1)},
    "q3": {"I have no comment.": (1, 1), "Because": (-1, -1), "So it was": (-1, -1)},
}


def table() -> pd.DataFrame:
    rows = []
    for group, question in QUESTIONS.items():
        for rendering in ("plain", "instructed"):
            text = ("Be true. " if rendering == "instructed" else "") + PREAMBLE + f"Q: {question}\nA:"
            rows.append((group, group, "prompt", "test", rendering, np.nan, np.nan, text, len(text), len(text)))
        for number, (text, (label, mc1)) in enumerate(OFFERED[group].items()):
            rows.append((f"{group}a{number}", group, "answer", "test", "plain", label, mc1, text, 0, len(text)))
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture
def path(tmp_path):
    table().to_parquet(tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


SPEC = {
    "device": "cpu", "dtype": "float32", "attention": "sdpa", "split": "test", "rendering": "plain", "prompts": None,
    "seed": 0, "has_checkpoints": True, "tokens_a_batch": 200,
}  # fmt: skip


def of_cell(path, work, family="llama", method=None, settings=((0, 0.0),), **spec):
    steer = None
    if method:
        steer = work / "steer"
        fitted(method, family).save(steer)
    return answers.of_cell(handle(family).folder, path, steer, list(settings), SPEC | spec, work / "work")


def plainly(
    family: str, rendering: str = "plain", method: str | None = None, strength: float = 1.0
) -> dict[str, float]:
    """Answer's id -> its log-likelihood from a forward pass of its own, without a cache."""
    rows, model, tokenizer = table(), handle(family).load(), handle(family).info.tokenizer
    prompts = rows[(rows.role == "prompt") & (rows.rendering == rendering)].set_index("group").text
    found = {}
    for row in rows[rows.role == "answer"].itertuples():
        length, ids = len(encode(tokenizer, prompts[row.group])), encode(tokenizer, f"{prompts[row.group]} {row.text}")
        whole = torch.tensor([ids])
        with torch.no_grad(), sites.prompt(model, [length], torch.ones_like(whole)):
            if method:
                with fitted(method, family).attached(model, strength):
                    logits = model(whole, use_cache=False).logits[0]
            else:
                logits = model(whole, use_cache=False).logits[0]
        steps = logits.double().log_softmax(-1)
        found[row.id] = sum(steps[n - 1, ids[n]].item() for n in range(length, len(ids)))
    return found


def likelihoods(rows: pd.DataFrame) -> dict[str, float]:
    return dict(zip(rows.id, rows.log_likelihood))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("rendering", ["plain", "instructed"])
def test_a_cell_holds_the_likelihood_of_every_answer_after_its_questions_prompt(path, tmp_path, family, rendering):
    rows = of_cell(path, tmp_path, family, rendering=rendering)
    assert list(rows) == answers.COLUMNS
    assert list(rows.id) == sorted(rows.id) and list(rows.group) == sorted(rows.group)
    assert likelihoods(rows) == pytest.approx(plainly(family, rendering), rel=1e-5)
    tokens = {f"{group}a{n}": len(f" {text}") for group, offered in OFFERED.items() for n, text in enumerate(offered)}
    assert dict(zip(rows.id, rows.tokens)) == tokens


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["caa", "lm_steer"])
def test_a_steered_cell_equals_one_answer_at_a_time_without_a_cache(path, tmp_path, family, method):
    rows = of_cell(path, tmp_path, family, method, settings=[(0, 1.0)])
    assert likelihoods(rows) == pytest.approx(plainly(family, method=method), rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_edit_that_begins_at_the_last_prompt_token_moves_every_answer_and_mc2(path, tmp_path, family):
    rows = of_cell(path, tmp_path, family, "caa", settings=[(0, 0.0), (0, 4.0)])
    base, steered = (rows[rows.strength == strength].set_index("id").log_likelihood for strength in (0.0, 4.0))
    # The last position of a text predicts nothing: an edit of that one alone would leave all of them as they are.
    assert (abs(steered - base) > 1e-3 * abs(base)).all()
    values = multiple_choice.by_question(rows.assign(seed=0), tables.answers(path, split="test"))
    before, after = (values[(values.strength == s) & (values.id == "q2")].mc2.item() for s in (0.0, 4.0))
    assert after != pytest.approx(before, rel=0.1)


def test_a_steer_of_strength_zero_gives_the_numbers_of_no_steer(path, tmp_path):
    base = of_cell(path, tmp_path / "base")
    pd.testing.assert_frame_equal(of_cell(path, tmp_path / "caa", method="caa"), base)


@pytest.mark.parametrize("tokens_a_batch", [1, 60, 10_000])
def test_neither_batches_nor_company_move_a_likelihood(path, tmp_path, tokens_a_batch, monkeypatch):
    whole = likelihoods(of_cell(path, tmp_path / "whole", method="caa", settings=[(0, 1.0)]))
    monkeypatch.setattr(answers, "QUESTIONS_A_SLICE", 1)
    alone = of_cell(path, tmp_path / "alone", method="caa", settings=[(0, 1.0)], tokens_a_batch=tokens_a_batch)
    assert likelihoods(alone) == pytest.approx(whole, rel=1e-5)


def test_the_order_of_the_table_moves_no_bit(path, tmp_path):
    table().iloc[::-1].to_parquet(tmp_path / "reversed.parquet")
    reversed_ = of_cell(tmp_path / "reversed.parquet", tmp_path / "reversed")
    pd.testing.assert_frame_equal(reversed_, of_cell(path, tmp_path / "whole"))


def test_only_the_first_questions_are_asked_where_so_many_are_wanted(path, tmp_path):
    assert set(of_cell(path, tmp_path, prompts=2).group) == {"q1", "q2"}


def test_settings_stand_one_below_the_other_and_finished_shards_are_read_again(path, tmp_path, monkeypatch):
    rows = of_cell(path, tmp_path, method="caa", settings=[(0, 1.0), (0, 0.5)])
    assert list(rows.strength.unique()) == [0.5, 1.0] and len(rows) == 2 * 9
    monkeypatch.setattr(answers, "score", None)
    pd.testing.assert_frame_equal(of_cell(path, tmp_path, method="caa", settings=[(0, 1.0), (0, 0.5)]), rows)


def test_answers_of_a_split_come_by_question(path):
    found = tables.answers(path, split="test")
    assert list(found) == ["group", "id", "label", "mc1", "text"]
    assert found.groupby("group").text.agg(list).to_dict() == {name: list(offered) for name, offered in OFFERED.items()}
    assert tables.answers(path, split="dev").empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[(t.group != "q2") | (t.role == "prompt")], "question q2 has no answers to choose from"),
        (lambda t: t[(t.group != "q3") | (t.label != 1)], "question q3 has 0 correct answers by label"),
        (lambda t: t.assign(mc1=t.mc1.where(t.id != "q1a0")), "question q1 has 0 correct answers by mc1"),
        (lambda t: t.assign(mc1=t.mc1.where(t.id != "q2a1", 1)), "question q2 has 2 correct answers by mc1"),
    ],
)
def test_a_question_that_cannot_be_answered_is_named(tmp_path, change, message):
    change(table()).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=message):
        of_cell(tmp_path / "table.parquet", tmp_path)


@pytest.mark.parametrize("choice", [[], ["choice.json"]])
def test_the_script_scores_the_settings_of_its_spec_or_the_pick(path, tmp_path, choice):
    fitted("caa", "llama").save(tmp_path / "steer")
    (tmp_path / "choice.json").write_text(json.dumps({"pick": {"steps": 0, "strength": 2.0}}))
    score_answers.run(
        model=handle("llama").folder,
        table=path,
        steer=[tmp_path / "steer"],
        choice=[tmp_path / name for name in choice],
        scores=tmp_path / "scores.parquet",
        spec=SPEC | {"steps": [0], "strengths": ["pick"] if choice else [1.0]},
        work=tmp_path / "work",
    )
    rows = pd.read_parquet(tmp_path / "scores.parquet")
    assert set(rows.strength) == ({2.0} if choice else {1.0})
    expected = plainly("llama", method="caa", strength=2.0 if choice else 1.0)
    assert likelihoods(rows) == pytest.approx(expected, rel=1e-5)
