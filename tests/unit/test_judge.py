"""Judges of generated answers: probabilities against a plain forward pass, what they read, and the cell."""

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from scripts import judge_answers
from steerlab.models import encode
from steerlab.scores import judge
from steerlab.tiny_models import byte_tokenizer, tiny_config
from tests.laws.subjects import handle
from tests.unit.test_answers import QUESTIONS, table

SPEC = {
    "device": "cpu", "dtype": "float32", "attention": "sdpa", "split": "test", "seeds": [0, 1],
    "measure": "informative", "tokens_a_batch": 300,
}  # fmt: skip


def generations(**more) -> pd.DataFrame:
    rows = {"id": ["q1", "q2", "q1"], "sample": [0, 0, 1], "steps": 0, "strength": 1.0}
    texts = [" A cat.\n\nQ: Who?", " It slept, as far as anyone knows", " A cat."]
    return pd.DataFrame(rows | {"text": texts} | more).assign(tokens=[[1]] * 3)


def probability(model, tokenizer, prompt: str) -> float:
    """P(" yes") / (P(" yes") + P(" no")), each word's tokens multiplied, a forward pass a word."""
    found = []
    for word in (" yes", " no"):
        ids, start = encode(tokenizer, prompt + word), len(encode(tokenizer, prompt))
        with torch.no_grad():
            steps = model(torch.tensor([ids]), use_cache=False).logits[0].double().softmax(-1)
        found.append(torch.stack([steps[n - 1, ids[n]] for n in range(start, len(ids))]).prod().item())
    return found[0] / sum(found)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tokens_a_batch", [1, 1000])
def test_a_score_is_the_probability_of_yes_against_no(family, tokens_a_batch):
    torch.manual_seed(0)
    model, tokenizer = AutoModelForCausalLM.from_config(tiny_config(family)).eval(), byte_tokenizer()
    prompts = [judge.judged_prompt("Who?", answer, "truthful") for answer in ("I", "Nobody knows that.", "")]
    found = judge.yes(model, tokenizer, prompts, tokens_a_batch=tokens_a_batch)
    assert found == pytest.approx([probability(model, tokenizer, prompt) for prompt in prompts], rel=1e-4)


def test_a_hand_made_judge_is_read_right(monkeypatch):
    # log P of " yes" and " no": -1 and -2, then hopeless on either side.
    nll = [(1.0, 1), (2.0, 1), (0.0, 1), (2000.0, 1), (2000.0, 1), (0.0, 1)]
    monkeypatch.setattr(judge, "log_likelihoods", lambda *how, **more: nll)
    assert judge.yes(None, None, ["a", "b", "c"], tokens_a_batch=1) == pytest.approx([0.7310585786300049, 1.0, 0.0])


def test_a_judge_reads_question_and_answer_as_it_was_tuned_to():
    assert judge.judged_prompt("Who?", "I.", "truthful") == "Q: Who?\nA: I.\nTrue:"
    assert judge.judged_prompt("Who?", "I.", "informative") == "Q: Who?\nA: I.\nHelpful:"


def test_the_question_of_a_prompt_is_its_last():
    assert judge.question_of("Q: One?\nA: Yes.\n\nQ: Is Q: 2 hard?\nA:") == "Is Q: 2 hard?"
    assert judge.question_of("Q: One?\nA:") == "One?"
    for other in ("Once upon a time", "Q: One?", "Q: One?\nA: Yes"):
        with pytest.raises(ValueError, match="does not end in"):
            judge.question_of(other)


def test_equal_answers_are_read_once_up_to_the_blank_line(monkeypatch):
    read = []
    monkeypatch.setattr(judge, "yes", lambda model, tokenizer, prompts, **how: read.extend(prompts) or [0.25, 0.75])
    rows = judge.score(handle("llama"), generations(), QUESTIONS, measure="truthful", tokens_a_batch=9)
    asked = f"Q: {QUESTIONS['q2']}\nA: It slept, as far as anyone knows\nTrue:"
    assert read == [f"Q: {QUESTIONS['q1']}\nA: A cat.\nTrue:", asked]
    assert rows.score.tolist() == [0.25, 0.75, 0.25]


def test_rows_name_measure_and_judge():
    rows = judge.score(handle("llama"), generations(), QUESTIONS, measure="truthful", tokens_a_batch=99)
    assert list(rows) == ["id", "sample", "steps", "strength", "quantity", "measure", "scorer", "score"]
    assert set(rows.measure) == {"truthful"} and set(rows.quantity) == {"truthfulness"}
    assert set(rows.scorer) == {f"{handle('llama').info.name}=={handle('llama').info.revision[:12]}"}


def test_the_script_judges_a_cell_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    table().to_parquet(tmp_path / "table.parquet")
    for seed in (0, 1):
        generations().to_parquet(tmp_path / f"{seed}.parquet")
    monkeypatch.setattr(judge, "QUESTIONS_A_SLICE", 1)

    def run() -> pd.DataFrame:
        judge_answers.run(
            model=handle("llama").folder,
            table=tmp_path / "table.parquet",
            continuations=[tmp_path / "0.parquet", tmp_path / "1.parquet"],
            scores=tmp_path / "scores.parquet",
            spec=SPEC,
            work=tmp_path / "work",
        )
        return pd.read_parquet(tmp_path / "scores.parquet")

    rows = run()
    assert rows[["seed", "id", "sample"]].values.tolist() == [
        [seed, name, sample] for seed in (0, 1) for name, sample in (("q1", 0), ("q1", 1), ("q2", 0))
    ]
    model, tokenizer = handle("llama").load(), handle("llama").info.tokenizer
    prompt = judge.judged_prompt(QUESTIONS["q1"], "A cat.", "informative")
    assert rows.score[0] == pytest.approx(probability(model, tokenizer, prompt), rel=1e-4)
    monkeypatch.setattr(judge, "score", None)
    pd.testing.assert_frame_equal(run(), rows)
