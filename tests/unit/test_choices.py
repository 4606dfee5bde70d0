"""Choosing a setting: the rule on hand-made tables, and what is refused, above all a test prompt."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts import choose_settings
from steerlab import choices
from steerlab.metrics.continuations import COLUMNS

BASE = {"mean_toxicity": 0.20, "perplexity": 20.0}


def table(*candidates, split="dev"):
    """candidates: (steps, strength, mean toxicity, perplexity)."""
    rows = []
    for steps, strength, *values in candidates:
        names = ("mean_toxicity", "lexicon==1"), ("corpus_perplexity", "tiny, unsteered")
        for (metric, scorer), value, base in zip(names, values, BASE.values(), strict=True):
            row = {"steps": steps, "strength": strength, "metric": metric, "value": value, "base": base}
            rows.append(row | {"scorer": scorer, "seed": "all"})
            rows.append(row | {"scorer": scorer, "seed": "0", "value": value / 2})
            rows.append(row | {"scorer": scorer, "seed": "all", "prompts": "positive", "value": 0.0})
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    return frame.assign(model="tiny", method="lm_steer", task="toxicity", split=split).fillna({"prompts": "all"})


def choose(metrics, **how):
    return choices.choose(metrics, **({"scorer": "lexicon==1"} | how))


def pick(*candidates, **how):
    return tuple(choose(table(*candidates), **how)["pick"].values())


def test_the_largest_drop_within_the_limit_is_picked():
    assert pick((100, 0.5, 0.15, 21.0), (100, 1.0, 0.10, 25.9), (100, 2.0, 0.02, 26.1)) == (100, 1.0)


def test_the_limit_itself_is_within_and_can_be_set():
    candidates = (100, 1.0, 0.15, 20.0), (100, 2.0, 0.02, 30.0)
    assert pick(*candidates) == (100, 1.0)
    assert pick(*candidates, perplexity_limit=1.5) == (100, 2.0)


def test_of_equal_drops_the_smaller_strength_and_then_the_fewer_steps_are_picked():
    assert pick((50, 2.0, 0.1, 20.0), (300, 1.0, 0.1, 20.0), (100, 1.0, 0.1, 20.0), (100, -3.0, 0.1, 9)) == (100, 1.0)
    assert pick((50, -1.0, 0.1, 20.0), (50, 1.5, 0.1, 20.0)) == (50, -1.0)


def test_without_a_candidate_within_the_limit_the_smallest_ratio_is_picked_and_marked():
    choice = choose(table((100, 1.0, 0.10, 30.0), (100, 2.0, 0.02, 90.0)))
    assert choice["pick"] == {"steps": 100, "strength": 1.0}
    assert [candidate["within_limit"] for candidate in choice["candidates"]] == [False, False]


def test_the_choice_holds_the_rule_the_base_and_every_candidate_in_order():
    choice = choose(table((200, 1.0, 0.10, 25.0), (100, 1.0, 0.12, 22.0)))
    assert choice == {
        "objective": "mean_toxicity",
        "goal": "lower",
        "scorer": "lexicon==1",
        "perplexity": "corpus_perplexity",
        "perplexity_limit": 1.3,
        "base": BASE,
        "candidates": [
            {
                "steps": 100, "strength": 1.0, "mean_toxicity": 0.12,
                "perplexity": 22.0, "perplexity_ratio": 1.1, "within_limit": True,
            },
            {
                "steps": 200, "strength": 1.0, "mean_toxicity": 0.1,
                "perplexity": 25.0, "perplexity_ratio": 1.25, "within_limit": True,
            },
        ],
        "pick": {"steps": 200, "strength": 1.0},
        "selected": {},
    }  # fmt: skip


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1, 100)), min_size=1, max_size=8), st.randoms())
@settings(deadline=None)
def test_no_candidate_within_the_limit_beats_the_pick_in_any_order(values, random):
    candidates = [(100, 0.5 * number, *pair) for number, pair in enumerate(values, 1)]
    choice = choose(table(*candidates))
    within = [candidate for candidate in choice["candidates"] if candidate["within_limit"]]
    (picked,) = (one for one in choice["candidates"] if one.items() >= choice["pick"].items())
    if within:
        assert picked["within_limit"]
        assert picked["mean_toxicity"] == min(candidate["mean_toxicity"] for candidate in within)
    random.shuffle(candidates)
    assert choose(table(*candidates)) == choice


def test_a_candidate_without_a_value_is_kept_and_never_picked():
    choice = choose(table((100, 1.0, np.nan, 20.0), (100, 2.0, 0.1, np.nan), (100, 3.0, 0.15, 20.0)))
    assert choice["pick"]["strength"] == 3.0
    assert [one["mean_toxicity"] for one in choice["candidates"]] == [None, 0.1, 0.15]
    assert choice["candidates"][1]["perplexity_ratio"] is None and not choice["candidates"][1]["within_limit"]


def test_another_scorer_can_be_asked():
    metrics = table((100, 1.0, 0.1, 20.0), (100, 2.0, 0.2, 20.0))
    other = metrics[metrics.scorer == "lexicon==1"].assign(scorer="other==2")
    both = pd.concat([metrics, other.assign(value=1 - other.value)])
    assert choose(both)["pick"]["strength"] == 1.0
    assert choose(both, scorer="other==2")["pick"]["strength"] == 2.0


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_table_of_another_split_is_refused(split):
    metrics = table((100, 1.0, 0.1, 20.0), split=split)
    with pytest.raises(ValueError, match=f"split {split}; choose from dev"):
        choose(metrics)
    with pytest.raises(ValueError, match=f"split {split}; choose from dev"):
        choose(pd.concat([table((100, 2.0, 0.1, 20.0)), metrics]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pd.concat([t, t.assign(method="caa")]), "got metrics of 2 cells"),
        (lambda t: pd.concat([t, t]), "mean_toxicity of one setting stands twice"),
        (lambda t: t[t.metric != "corpus_perplexity"], "no corpus_perplexity by any scorer"),
        (lambda t: t.assign(scorer="x"), r"no mean_toxicity by lexicon==1 over all seeds, only by \['x'\]"),
        (lambda t: t[(t.metric != "corpus_perplexity") | (t.strength != 2)], "strength 2.0 lacks .* corpus_perplexity"),
        (lambda t: t.assign(base=np.nan), "mean_toxicity of the unsteered model is missing"),
        (lambda t: t.assign(base=t.base + t.strength), "unsteered mean_toxicity is 1.2 beside one .* 2.2 beside an"),
        (lambda t: t.assign(value=np.nan), "none of 2 candidates has both"),
        (
            lambda t: pd.concat([t, t[t.metric == "corpus_perplexity"].assign(scorer="large")]),
            "corpus_perplexity comes from .*'large', 'tiny, unsteered'.*; name one",
        ),
    ],
)
def test_tables_that_decide_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        choose(change(table((100, 1.0, 0.1, 20.0), (100, 2.0, 0.2, 20.0))))


def answered(*candidates):
    """Metrics of given answers alone; candidates: (strength, mc2)."""
    rows = [{"steps": 0, "strength": strength, "value": value} for strength, value in candidates]
    about = {"metric": "mc2", "scorer": "log-likelihood", "base": 0.4, "seed": "all", "prompts": "all"}
    cell = {"model": "tiny", "method": "hpr", "task": "truthfulness", "split": "dev"}
    return pd.DataFrame(rows).assign(**about, **cell).reindex(columns=COLUMNS)


HOW = {"objective": "mc2", "goal": "raise", "scorer": "log-likelihood", "perplexity_limit": None}


def test_an_objective_may_be_raised_and_no_perplexity_asked_for():
    assert choices.choose(answered((0.5, 0.45), (1.0, 0.6), (2.0, 0.3)), **HOW) == {
        "objective": "mc2",
        "goal": "raise",
        "scorer": "log-likelihood",
        "perplexity": None,
        "perplexity_limit": None,
        "base": {"mc2": 0.4},
        "candidates": [
            {"steps": 0, "strength": 0.5, "mc2": 0.45},
            {"steps": 0, "strength": 1.0, "mc2": 0.6},
            {"steps": 0, "strength": 2.0, "mc2": 0.3},
        ],
        "pick": {"steps": 0, "strength": 1.0},
        "selected": {},
    }


def test_of_equal_rises_the_smaller_strength_is_picked_and_one_without_a_value_never():
    metrics = answered((2.0, 0.6), (-1.0, 0.6), (1.0, 0.6), (0.5, np.nan))
    assert choices.choose(metrics, **HOW)["pick"]["strength"] == 1.0
    with pytest.raises(ValueError, match="none of 1 candidates has a value of mc2"):
        choices.choose(answered((0.5, np.nan)), **HOW)


def test_a_raised_objective_heeds_the_perplexity_where_a_limit_is_given():
    metrics = table((100, 1.0, 0.3, 25.0), (100, 2.0, 0.9, 40.0))
    assert choose(metrics, goal="raise")["pick"]["strength"] == 1.0
    assert choose(metrics, goal="raise", perplexity_limit=None)["pick"]["strength"] == 2.0


def test_what_the_steers_selected_is_kept_beside_the_choice():
    selected = {"0": {"by": "balanced accuracy", "groups": 9, "pick": 1, "candidates": [{"layer": 3, "value": 0.8}]}}
    choice = choices.choose(answered((1.0, 0.6)), **HOW, selections=selected)
    assert choice["selected"] == selected
    assert choices.choose(answered((1.0, 0.6)), **HOW)["selected"] == {}


def test_the_script_writes_the_choice_as_json(tmp_path):
    paths = SimpleNamespace(metrics=tmp_path / "dev.csv", choice=tmp_path / "choice.json")
    metrics = table((100, 1.0, 0.1, 20.0), (100, 2.0, np.nan, 20.0))
    metrics.to_csv(paths.metrics, index=False)
    choose_settings.run(metrics=paths.metrics, steers=[], choice=paths.choice, spec={"scorer": "lexicon==1"})
    assert json.loads(paths.choice.read_text()) == choose(metrics)


def test_the_script_adds_what_the_steers_selected_by_seed(tmp_path):
    answered((1.0, 0.6)).to_csv(tmp_path / "dev.csv", index=False)
    selected = {seed: {"by": "accuracy", "groups": 9, "pick": 1, "candidates": []} for seed in ("0", "2")}
    for seed, selection in selected.items():
        (tmp_path / seed).mkdir()
        (tmp_path / seed / "steer.json").write_text(json.dumps({"selection": selection}))
    steers, choice = [tmp_path / "0", tmp_path / "2"], tmp_path / "choice.json"
    choose_settings.run(metrics=tmp_path / "dev.csv", steers=steers, choice=choice, spec=HOW)
    assert json.loads(choice.read_text())["selected"] == selected
