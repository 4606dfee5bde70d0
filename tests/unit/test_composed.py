"""Steers of several methods at once: what is attached, what is saved, and what a run makes them from."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from scripts import derive_steer
from steerlab import experiment, methods
from steerlab.experiment.registry import METHODS
from steerlab.export_command import export
from steerlab.methods.composed import Composed, composed
from steerlab.methods.protocol import Origin
from steerlab.report import card, saved_steers
from tests.laws.subjects import fitted, handle
from tests.unit.test_config import default, errors

FAMILY, MODEL, BOTH = "llama", "smollm2-135m-instruct", "hpr_and_lm_steer"
IDS = torch.tensor([[72, 101, 108, 108, 111]])
PICKS = {"caa": {"steps": 0, "strength": 0.5}, "lm_steer": {"steps": 0, "strength": -1.0}}


def made(*parts: str, picks: dict | None = None) -> Composed:
    steers = {part: fitted(part, FAMILY) for part in parts}
    origin = Origin(steers, handle(FAMILY), (), strength=1.0, seed=0, picks=PICKS if picks is None else picks)
    return composed(handle(FAMILY), origin, parts=parts)


def logits(*attached: tuple[str, float], steer: Composed | None = None, strength: float = 1.0) -> torch.Tensor:
    model = handle(FAMILY).load()
    if steer is not None:
        with steer.attached(model, strength):
            return model(IDS).logits
    if not attached:
        return model(IDS).logits
    (name, own), *others = attached
    with fitted(name, FAMILY).attached(model, own):
        return logits(*others)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_each_part_stands_at_the_strength_times_its_own_pick_or_1_in_the_order_of_the_parts(strength: float):
    by_hand = logits(*((name, strength * own) for name, own in (("caa", 0.5), ("lora", 1.0), ("lm_steer", -1.0))))
    assert torch.equal(logits(steer=made("caa", "lora", "lm_steer"), strength=strength), by_hand)
    assert not torch.equal(by_hand, logits(("caa", strength * 0.5)))


def test_parts_at_one_site_are_both_attached_and_the_site_is_named_once():
    steer = made("caa", "hpr", picks={})
    assert torch.equal(logits(steer=steer), logits(("caa", 1.0), ("hpr", 1.0)))
    assert len(set(steer.sites)) == len(steer.sites)


def test_a_part_is_loaded_at_the_steps_that_were_picked(tmp_path: Path):
    first, *_ = sorted(fitted("lm_steer", FAMILY).record.config["steps"])
    made("lm_steer", "caa", picks={"lm_steer": {"steps": first, "strength": 1.0}}).save(tmp_path)
    assert methods.load(tmp_path).parts["lm_steer"].steps == first


def test_a_strength_that_a_part_does_not_accept_is_refused_before_anything_is_attached():
    steer = made("caa", "lora", picks={"lora": {"steps": 0, "strength": -1.0}})
    model = handle(FAMILY).load()
    before = model(IDS).logits
    with pytest.raises(ValueError, match="strength -1.0 is outside 0.0 to inf"):
        steer.attached(model)
    assert torch.equal(model(IDS).logits, before)


# ---- in a run ----


def test_the_rule_makes_it_of_the_picked_steers_of_its_methods(tmp_path: Path):
    x, w = experiment.load(default()), {"model": MODEL, "method": BOTH, "task": "toxicity", "seed": "0"}
    spec, inputs = json.loads(x.spec("derive_steer", w.items())), x.subjects(SimpleNamespace(**w))
    assert spec["of"] == ["hpr", "lm_steer"] and spec["chosen"] == [True, True]
    for kind in ("steers", "choices"):
        assert [method for path in inputs[kind] for method in spec["of"] if f"/{method}/" in path] == spec["of"]
    on_sentiment = x.subjects(SimpleNamespace(**w | {"task": "sentiment"}))
    assert len(on_sentiment["steers"]) == 2 and not on_sentiment["choices"], "nothing is picked there"


def test_the_script_makes_it_at_what_the_choices_pick(tmp_path: Path):
    steps = fitted("lm_steer", FAMILY).record.config["steps"][-1]
    picks = {"caa": {"steps": 0, "strength": 0.5}, "lm_steer": {"steps": steps, "strength": -1.0}}
    for part, pick in picks.items():
        fitted(part, FAMILY).save(tmp_path / part)
        (tmp_path / f"{part}.json").write_text(json.dumps({"pick": pick}))
    prompt = {"id": "p0", "role": "prompt", "split": "dev", "rendering": "plain", "label": 1.0, "text": "once upon"}
    pd.DataFrame([prompt]).to_parquet(tmp_path / "table.parquet")
    derive_steer.run(
        model=handle(FAMILY).folder, source=handle(FAMILY).folder, table=tmp_path / "table.parquet",
        steers=[tmp_path / part for part in picks], choices=[tmp_path / f"{part}.json" for part in picks],
        steer=tmp_path / "steer",
        spec={
            "derive": METHODS["composed"].derive, "of": list(picks), "chosen": [True, True], "texts": 2, "seed": 0,
            "hyperparameters": {"parts": list(picks)}, "device": "cpu", "dtype": "float32", "attention": "sdpa",
        },
    )  # fmt: skip
    found = methods.load(tmp_path / "steer", handle(FAMILY))
    assert found.record.config["parts"] == picks
    assert torch.equal(logits(steer=found), logits(("caa", 0.5), ("lm_steer", -1.0)))


def test_the_comparison_has_it_as_a_method_that_no_paper_has():
    x = experiment.load(default())
    spec = json.loads(x.spec("compare_methods", {"model": MODEL, "task": "toxicity"}.items()))
    assert spec["cells"][BOTH] == {"steps": 0, "strength": 1.0, "seeds": [0]}
    assert BOTH in spec["ours"] and BOTH not in spec["controls"]


def test_the_speed_of_it_is_told_of_which_parts_it_is_made():
    x = experiment.load(default())
    asked = json.loads(x.spec("measure_speed", {"model": MODEL, "task": "toxicity"}.items()))["methods"]
    assert [one["parts"] for one in asked if one["method"] == BOTH] == [["hpr", "lm_steer"]]
    assert not [one for one in asked if one["method"] != BOTH and "parts" in one]


def test_the_code_of_its_parts_is_in_the_digests_of_what_runs_them(monkeypatch: pytest.MonkeyPatch):
    x = experiment.load(default())
    for rule in ("derive_steer", "generate_continuations"):
        named = x.code(rule, method=BOTH).split()
        assert {"steerlab.methods.hpr", "steerlab.methods.lm_steer", "steerlab.methods.composed"} <= set(named)
    assert {"steerlab.methods.hpr", "steerlab.methods.composed"} <= set(
        x.code("measure_divergence", methods=[BOTH]).split()
    )


def with_parts(**variant: object) -> list[str]:
    given = default()
    of = {"of": "composed", "tasks": ["toxicity"]} | variant
    run = given["run"] | {"variants": ["both"]}
    return errors(run=run, variants=given["variants"] | {"both": of})


@pytest.mark.parametrize(
    "variant,said",
    [
        ({}, "variants.both: composed needs parts, such as [hpr, lm_steer]"),
        (
            {"parts": ["hpr", "lm_steer"], "shuffled_labels": True},
            "variants.both: composed learns from no labels; leave",
        ),
        ({"parts": ["hpr"]}, "variants.both.parts: "),
        (
            {"parts": ["hpr", "lm_ster"]},
            "variants.both.parts: 'lm_ster' is no method that learns; did you mean 'lm_steer'?",
        ),
        ({"parts": ["hpr", "random_hpr"]}, "variants.both.parts: 'random_hpr' is no method that learns"),
    ],
)
def test_parts_that_cannot_be_had_are_refused(variant: dict, said: str):
    assert any(line.startswith(f"config: {said}") for line in with_parts(**variant))


def test_parts_that_a_task_is_not_asked_with_are_refused():
    given = default()
    tasks = given["tasks"] | {"toxicity": given["tasks"]["toxicity"] | {"beside": []}}
    run = given["run"] | {"variants": [BOTH]}
    line = f"variants.{BOTH}: it stands beside hpr, which is not in tasks.toxicity.methods; add it"
    assert f"config: {line}" in errors(run=run, tasks=tasks)
    assert errors(run={"methods": [*given["run"]["methods"], "composed"]}), "it is a variant's alone"


# ---- for readers ----


def test_its_card_tells_what_each_part_edits_and_an_export_takes_the_parts_along(tmp_path: Path):
    made("caa", "lora", picks={"caa": {"steps": 0, "strength": 0.5}}).save(tmp_path / "steer")
    found = saved_steers.saved(tmp_path / "steer")
    told = saved_steers.edits(found)
    assert told.startswith("adds 1 times a vector") and "(at strength 0.5); adds a change of rank" in told
    assert {name.partition("/")[0] for name in found.shapes} == {"caa", "lora"}
    assert told in card.of_record(found).replace("\\", "")
    export(tmp_path / "steer", tmp_path / "exported")
    assert torch.equal(
        logits(steer=methods.load(tmp_path / "exported")), logits(steer=methods.load(tmp_path / "steer"))
    )
    assert (tmp_path / "exported/README.md").is_file()


def test_its_card_names_no_signal_of_its_own():
    w = {"model": MODEL, "method": BOTH, "task": "toxicity"}
    spec = json.loads(experiment.load(default()).spec("write_card", w.items()))
    assert not spec["ours"] and card._SIGNALS[spec["signal"]].startswith("none of its own")
