"""What steers cost in time, and steers opened at their settings: what is measured of what, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scripts import measure_speed
from steerlab.analyses import speed as analysis
from steerlab.analyses.steered import Steered, opened
from steerlab.methods.steer_files import SteerMismatch
from tests.laws.subjects import fitted, handle
from tests.unit.test_analyses_hpr import caa
from tests.unit.test_lm_steer import fit

PROMPTS = [("a", "The road was"), ("b", "Go"), ("c", "A kettle is")]
HOW = {"tokens": 3, "turns": 2}


def asked(method: str, *, steps=(0,), strengths=(1.0,), chosen=False, has_checkpoints=True) -> dict:
    about = {"method": method, "steps": list(steps), "strengths": list(strengths)}
    return about | {"chosen": chosen, "has_checkpoints": has_checkpoints}


def picked(path: Path, steps: int, strength: float) -> Path:
    path.write_text(json.dumps({"pick": {"steps": steps, "strength": strength}}))
    return path


# ---- speed ----


def test_seconds_stand_beside_the_unsteered_models_and_those_of_training():
    steered = [Steered("instructed", None, 0.0), Steered("caa", fitted("caa", "llama"), 2.0, 4)]
    rendered = {"instructed": [(id, f"Please. {text}") for id, text in PROMPTS]}
    rows = analysis.speed(
        handle("llama"), steered, PROMPTS, rendered=rendered, trained_in={"caa": 7.5, "lora": 1.0}, **HOW
    )
    assert list(rows.columns) == analysis.COLUMNS
    assert rows[["method", "steps", "strength"]].to_numpy().tolist() == [["instructed", 0, 0.0], ["caa", 4, 2.0]]
    assert (rows.seconds_a_token / rows.base_seconds_a_token > 0).all() and np.isfinite(rows.seconds_a_token).all()
    assert rows.training_seconds.to_list()[1] == 7.5 and np.isnan(rows.training_seconds[0])


class Clock:
    """A clock that a steer, while it is on, sets forward."""

    def __init__(self, steps: list[float]) -> None:
        self.steps, self.now = iter(steps), 0.0

    def perf_counter(self) -> float:
        self.now += next(self.steps)
        return self.now


def test_the_fastest_turn_counts_a_token_of_a_row(monkeypatch: pytest.MonkeyPatch):
    # Between the two readings of a run: the one that warms up, then steered and unsteered turn by turn.
    runs = [100.0, 9.0, 3.0, 6.0, 5.0]
    monkeypatch.setattr(analysis, "time", Clock([part for seconds in runs for part in (1.0, seconds)]))
    (row,) = analysis.speed(handle("llama"), [Steered("caa", caa(), 1.0)], PROMPTS, **HOW).to_dict("records")
    assert row["seconds_a_token"] == pytest.approx(6.0 / 9) and row["base_seconds_a_token"] == pytest.approx(3.0 / 9)


def test_seconds_of_training_are_those_of_the_job_that_made_the_steer(tmp_path: Path):
    (tmp_path / "0.run.json").write_text(json.dumps({"seconds": 12.5}))
    assert analysis.seconds_of(tmp_path / "0") == 12.5
    assert np.isnan(analysis.seconds_of(tmp_path / "1")), "a folder that was copied has no such file"


def test_the_script_measures_each_steer_at_its_own_setting(tmp_path: Path):
    rows = [("prompt", "test", rendering, id, f"{rendering} {text}", None) for id, text in PROMPTS
            for rendering in ("plain", "instructed")]  # fmt: skip
    pd.DataFrame(rows, columns=["role", "split", "rendering", "id", "text", "label"]).to_parquet(tmp_path / "t.parquet")
    caa().save(tmp_path / "caa")
    (tmp_path / "caa.run.json").write_text(json.dumps({"seconds": 2.0}))
    spec = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "tokens": 2, "rows": 2, "turns": 1}
    caa().save(tmp_path / "both")  # stands for CAA with CAA: whose steers lie there is told by the spec
    (tmp_path / "both.run.json").write_text(json.dumps({"seconds": 0.5}))
    both = asked("both") | {"parts": ["caa", "caa"]}
    methods = [asked("caa", strengths=["pick"], chosen=True), both]
    spec |= {"methods": methods, "renderings": {"instructed": "instructed"}}
    measure_speed.run(
        model=handle("llama").folder,
        table=tmp_path / "t.parquet",
        steers=[tmp_path / "caa", tmp_path / "both"],
        choices=[picked(tmp_path / "choice.json", 0, 0.5)],
        speed=tmp_path / "speed.csv",
        spec=spec,
    )
    written = pd.read_csv(tmp_path / "speed.csv")
    assert written[["method", "strength"]].to_numpy().tolist() == [
        ["instructed", 0.0],
        ["caa", 0.5],
        ["both", 1.0],
    ]
    assert np.isnan(written.training_seconds[0]), "nothing is trained"
    assert written.training_seconds[1:].tolist() == [2.0, 4.5], "several at once have the seconds of all parts"


# ---- steers at their settings ----


def test_a_pick_stands_for_what_was_chosen_and_each_setting_is_opened_once(tmp_path: Path):
    for name in ("one", "two", "three"):
        caa().save(tmp_path / name)
    found = opened(
        handle("llama"),
        [
            asked("a", strengths=["pick", 1.0], chosen=True),
            asked("b", strengths=[-1.0, 2.0]),
            asked("c", steps=["pick"], strengths=["pick", 0.5], chosen=True),
        ],
        [tmp_path / name for name in ("one", "two", "three")],
        [picked(tmp_path / "a.json", 0, 0.25), picked(tmp_path / "c.json", 0, 0.5)],
    )
    settings = [(one.method, one.steps, one.strength) for one in found]
    assert settings == [("a", 0, 0.25), ("a", 0, 1.0), ("b", 0, -1.0), ("b", 0, 2.0), ("c", 0, 0.5)]
    assert found[0].steer is found[1].steer


def test_steps_are_those_of_checkpoints_which_a_derived_steer_has_none_of(tmp_path: Path):
    fit("llama", batch_texts=2, steps=(1, 5)).save(tmp_path / "lm_steer")
    many = opened(handle("llama"), [asked("lm_steer", steps=[5, 1])], [tmp_path / "lm_steer"], [])
    assert [(one.steps, one.steer.steps) for one in many] == [(5, 5), (1, 1)]
    caa().save(tmp_path / "derived")
    (one,) = opened(handle("llama"), [asked("random", steps=[500], has_checkpoints=False)], [tmp_path / "derived"], [])
    assert (one.steps, one.strength) == (500, 1.0)


def test_a_steer_of_another_model_is_refused_and_a_pick_without_a_choice(tmp_path: Path):
    caa().save(tmp_path / "caa")
    with pytest.raises(SteerMismatch):
        opened(handle("gpt2"), [asked("caa")], [tmp_path / "caa"], [])
    with pytest.raises(ValueError, match="no choice was made; choose the settings first"):
        opened(handle("llama"), [asked("caa", strengths=["pick"])], [tmp_path / "caa"], [])
