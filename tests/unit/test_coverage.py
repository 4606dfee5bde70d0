"""How many flagged states SLIM's maps bring to the wished side: counted by hand, and as asked of a Gaussian."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from steerlab.analyses.coverage import COLUMNS, Part, coverage
from tests.unit.test_slim import HEADS, PLAIN, STATES, STEER, Shards, fit

ALL = range(len(PLAIN))


def parts(**places: range) -> dict[str, Part]:
    return {name: Part(PLAIN, Shards(STATES), each) for name, each in places.items()}


def test_it_counts_the_flagged_states_that_the_map_brings_over() -> None:
    table = coverage(STEER, parts(fitted=ALL), resamples=20)
    assert list(table.columns) == COLUMNS
    own = {name: tensor[0].double() for name, tensor in STEER.tensors.items()}
    flagged = right = 0
    for head in range(HEADS):
        here = STATES[1][:, head].double()
        chosen = here[here @ own["weight"][head] + own["bias"][head] > 0]
        moved = chosen @ own["matrix"][head].T + own["offset"][head]
        over = moved @ own["weight"][head] + own["bias"][head] <= 0
        row = table[table["head"] == str(head)].iloc[0]
        assert (row.states, row.wished) == (len(chosen), pytest.approx(float(over.double().mean())))
        flagged, right = flagged + len(chosen), right + int(over.sum())
    pooled = table[table["head"] == "all"].iloc[0]
    assert (pooled.states, pooled.wished) == (flagged, pytest.approx(right / flagged))
    assert (table.low <= table.wished).all() and (table.wished <= table.high).all()


def test_a_larger_kappa_aims_at_more_and_gets_it() -> None:
    small, large = (coverage(fit(data=PLAIN, kappa=[kappa]), parts(fitted=ALL), resamples=5) for kappa in (0.5, 3.0))
    pooled = [table[table["head"] == "all"].iloc[0] for table in (small, large)]
    assert pooled[0].aimed == pytest.approx(0.6914624612740131)
    assert pooled[0].wished < pooled[1].wished


def test_each_part_counts_its_own_rows() -> None:
    table = coverage(STEER, parts(fitted=range(0, 48), held_out=range(48, 96)), resamples=5)
    both = coverage(STEER, parts(fitted=ALL), resamples=5)
    pooled = table[table["head"] == "all"]
    assert pooled.part.tolist() == ["fitted", "held_out"]
    assert pooled.states.sum() == both[both["head"] == "all"].states.sum()


def test_a_head_that_flags_nothing_has_no_share() -> None:
    steer = dataclasses.replace(STEER, tensors={**STEER.tensors, "bias": torch.full((1, HEADS), -1e6)})
    table = coverage(steer, parts(fitted=ALL), resamples=5)
    assert table.wished.isna().all() and (table.states == 0).all()


def test_a_steer_without_maps_is_refused() -> None:
    steer = dataclasses.replace(STEER, tensors={"weight": STEER.tensors["weight"]})
    with pytest.raises(ValueError, match="a steer of slim has no maps of states; give SLIM's"):
        coverage(steer, {})


def test_questions_are_drawn_and_not_rows() -> None:
    grouped = PLAIN.assign(group=np.arange(len(PLAIN)) // 48)
    table = coverage(STEER, {"fitted": Part(pd.DataFrame(grouped), Shards(STATES), ALL)}, resamples=5)
    assert (table.questions <= 2).all()
