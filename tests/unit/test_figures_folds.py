"""The figures of two folds and of questions asked alone: rows, picks, captions, and what is refused."""

import pandas as pd
import pytest

from steerlab.figures import captions, folds, style, truthfulness
from tests.unit.test_figures_hpr import CAPTIONS, choice, headline


def fold(task: str, gain: float, strength: float, n: int) -> tuple[pd.DataFrame, list[dict]]:
    """The headline of a fold whose HPR gains `gain` more, with the fold's pick."""
    metrics = headline(names=("mc1", "mc2"), n=n).assign(task=task)
    steered = metrics.method == "hpr"
    metrics.loc[steered, ["value", "low", "high", "difference", "difference_low", "difference_high"]] += gain
    metrics = metrics[~((metrics.method == "random_hpr") & (strength != 1.5))]
    return metrics, [choice("hpr", strength) | {"task": task}]


def both(strengths: tuple[float, float] = (1.5, 1.5)) -> pd.DataFrame:
    one, its = fold("truthfulness", 0.0, strengths[0], 100)
    other, theirs = fold("truthfulness_swapped", 0.1, strengths[1], 300)
    return folds.table(pd.concat([one, other]), its + theirs)


def caption(name: str, module, table: pd.DataFrame) -> str:
    text = captions.caption((CAPTIONS / f"{name}.rst").read_text(), {"sample_data": ""} | module.facts(table))
    return " ".join(text.split())


def test_a_row_stands_for_the_picks_of_both_folds_and_all_their_questions():
    rows = both()
    assert list(rows.columns) == folds.COLUMNS and (rows.n == 400).all()
    assert list(dict.fromkeys(rows.method)) == ["base", "hpr", "random_hpr", "lora"]
    hpr = rows[(rows.method == "hpr") & (rows.metric == "mc1") & (rows.seed == "all")].iloc[0]
    assert hpr.chosen and hpr.strength == 1.5 and hpr.difference == pytest.approx(0.06 + 0.75 * 0.1)


def test_folds_may_pick_other_strengths():
    one, its = fold("truthfulness", 0.0, 1.0, 100)
    other, theirs = fold("truthfulness_swapped", 0.0, 2.0, 300)
    metrics = pd.concat([one, other])
    rows = folds.table(metrics[metrics.method != "random_hpr"], its + theirs)
    hpr = rows[(rows.method == "hpr") & (rows.metric == "mc1") & (rows.seed == "all")].iloc[0]
    assert hpr.strength == 1.75 and hpr.difference == pytest.approx(0.25 * 0.03 + 0.75 * 0.01)


def test_one_fold_alone_is_refused():
    with pytest.raises(ValueError, match=r"figure folds: got the metrics of \['truthfulness'\]; pass those of both"):
        folds.table(*fold("truthfulness", 0.0, 1.5, 100))


def test_it_is_drawn_and_told_as_truthfulness_is(tmp_path):
    rows = both()
    rows.to_csv(tmp_path / "rows.csv", index=False)
    for name, table in {"own": rows, "read": pd.read_csv(tmp_path / "rows.csv")}.items():
        style.save(folds.plot(table), tmp_path / f"{name}.svg")
    assert (tmp_path / "own.svg").read_bytes() == (tmp_path / "read.svg").read_bytes()
    text = caption("folds", folds, rows)
    assert "n = 400 test questions" in text and "MC1 +0.135" in text and "{{" not in text


def test_questions_asked_alone_stand_at_the_picks_of_another_task_and_say_so():
    metrics = headline(names=("mc1", "mc2")).assign(task="nq_open")
    rows = truthfulness.table(metrics, [choice("hpr", 1.5)], learnt_on="truthfulness")
    assert set(rows[rows.method == "hpr"].strength) == {1.0, 1.5}
    assert "The questions are those of NQ-Open" in caption("truthfulness", truthfulness, rows)
    plain = truthfulness.table(headline(names=("mc1", "mc2")), [choice("hpr", 1.5)])
    assert "NQ-Open" not in caption("truthfulness", truthfulness, plain)
