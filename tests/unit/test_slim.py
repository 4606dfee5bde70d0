"""SLIM against its formulas: the vote, the moved heads, what is chosen by what, and what is refused; see the laws."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from steerlab import activations, sites
from steerlab.data import tables
from steerlab.data.sources import SAMPLE
from steerlab.methods.slim import SLIM, _maps, _Rows
from steerlab.methods.slim_classifiers import Classifiers
from steerlab.sites import Site
from steerlab.tasks.truthfulness import make_table
from tests.laws.subjects import handle

ROWS, LAYERS, HEADS, SIZE = 96, 3, 4, 6  # of the tiny Llama
LABELS = np.array([1.0, -1.0, 1.0] * (ROWS // 3))
PLANTED = {1: 3.0, 2: 1.0}  # layer -> distance of the classes' means along the first axis of every head
SITE = Site("attention_heads", 1)


def rows_of(split_of: str = "train") -> pd.DataFrame:
    """Questions of three answers each, a fourth of them of the dev split."""
    text = [f"Q: number {i // 3}?\nA: answer {i % 3} of {i}" for i in range(ROWS)]
    return pd.DataFrame(
        {
            "id": [f"id{i}" for i in range(ROWS)],
            "group": [f"q{i // 3}" for i in range(ROWS)],
            "label": LABELS,
            "text": text,
            "start": [each.index("\nA:") + 3 for each in text],
            "split": ["dev" if i // 3 % 4 == 0 else "train" for i in range(ROWS)],
        }
    )


DATA = rows_of()
PLAIN = DATA[["id", "label", "text"]]


@dataclass(frozen=True)
class Shards:
    """States (layers, rows, heads, head size) in four shards, the last first."""

    states: Tensor

    def layers(self, site: str) -> list[int | None]:
        assert site == "attention_heads"
        return list(range(len(self.states)))

    def shards(self, site: Site) -> Iterator[tuple[np.ndarray, Tensor]]:
        for rows in reversed(np.array_split(np.arange(self.states.shape[1]), 4)):
            yield rows, self.states[site.layer or 0, rows]


def planted_states(seed: int = 0) -> Tensor:
    states = torch.randn(LAYERS, ROWS, HEADS, SIZE, generator=torch.Generator().manual_seed(seed))
    for layer, distance in PLANTED.items():
        states[layer, :, :, 0] -= torch.from_numpy(LABELS * distance / 2).float()[:, None]
    return states


STATES = planted_states()


def fit(states: Tensor = STATES, data: pd.DataFrame = DATA, **more: object) -> SLIM:
    settings = {"seed": 0, "epochs": 60, "learning_rate": 0.05, "kappa": [1.28]}
    return SLIM.fit(handle("llama"), data, Shards(states), **(settings | more))  # pyright: ignore


STEER = fit(data=PLAIN)


def by_hand(steer: SLIM, x: Tensor, strength: float = 1.0) -> Tensor:
    """One state (heads, size) after the steer's edit at its only layer, head by head."""
    own = {name: tensor[0].double() for name, tensor in steer.tensors.items()}
    votes = [float(own["weight"][h] @ x[h].double() + own["bias"][h]) > 0 for h in range(HEADS)]
    if sum(votes) < steer.record.config["thresholds"][0]:
        return x
    found = x.clone()
    for head in range(HEADS):
        if votes[head]:
            before = x[head].double()
            moved = own["matrix"][head] @ before + own["offset"][head]
            found[head] = (before + strength * (moved - before)).to(x.dtype)
    return found


def edited(steer: SLIM, states: Tensor, strength: float = 1.0) -> Tensor:
    """States (batch, seq, heads, size) after the steer's own edit."""
    model = handle("llama").load()
    edit = steer._edit(0, torch.tensor(strength), model)
    return edit(states, None)  # pyright: ignore


def test_the_layer_with_the_least_risk_is_steered_where_there_are_no_questions() -> None:
    assert STEER.sites == (SITE,)
    by_layer = {each["layer"]: each["risk"] for each in (STEER.record.selection or {})["classifiers"]}
    assert min(by_layer, key=lambda layer: by_layer[layer]) == 1
    assert (STEER.record.selection or {})["by"] == "least risk"


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_a_batch_is_edited_as_each_state_alone(strength: float) -> None:
    states = STATES[1].view(8, 12, HEADS, SIZE)
    found = edited(STEER, states, strength)
    for row in range(8):
        for column in range(12):
            assert torch.allclose(found[row, column], by_hand(STEER, states[row, column], strength), atol=1e-5)


def test_below_the_threshold_and_where_a_head_did_not_vote_every_bit_stays() -> None:
    steer = dataclasses.replace(STEER, record=STEER.record.with_config(thresholds=[3]))
    states = STATES[1].view(8, 12, HEADS, SIZE)
    logits = (states * steer.tensors["weight"][0]).sum(-1) + steer.tensors["bias"][0]
    stays = (logits <= 0) | ((logits > 0).sum(-1, keepdim=True) < 3)
    found = edited(steer, states)
    assert stays.any() and not stays.all()
    assert torch.equal(found[stays], states[stays])
    assert not torch.isclose(found[~stays], states[~stays]).all(-1).any()


def test_what_no_head_votes_on_comes_back_itself() -> None:
    steer = dataclasses.replace(STEER, tensors={**STEER.tensors, "bias": torch.full((1, HEADS), -1e6)})
    states = STATES[1].view(8, 12, HEADS, SIZE)
    assert edited(steer, states) is states


def test_flagged_states_have_the_targets_moments_afterwards() -> None:
    """m and S of the fitted rows that a head flags become mu and T^2, whose mean is on the wished side by kappa."""
    steer = fit(data=PLAIN, held_out=0.0)
    states = STATES[1].double()
    for head in range(HEADS):
        weight, bias = steer.tensors["weight"][0, head].double(), steer.tensors["bias"][0, head].double()
        flagged = states[:, head][(STATES[1][:, head] @ weight.float() + bias.float()) > 0]
        moved = flagged @ steer.tensors["matrix"][0, head].double().T + steer.tensors["offset"][0, head].double()
        side = moved @ weight + bias
        assert float(side.mean() + 1.28 * side.std(correction=0)) == pytest.approx(0, abs=1e-3)


def test_layer_and_kappa_are_chosen_by_the_judging_questions() -> None:
    steer = fit(kappa=[0.5, 5.0], layer_sweep=2)
    selection = steer.record.selection or {}
    assert selection["by"] == "MC2 of the judging rows"
    assert selection["groups"] == 8
    assert len(selection["candidates"]) == 4
    values = [each["value"] for each in selection["candidates"]]
    assert values == sorted(values, reverse=True)
    best = selection["candidates"][0]
    assert steer.sites == (Site("attention_heads", best["layer"]),)
    assert steer.record.config["kappa"] == best["kappa"]


def test_alpha_is_a_level_of_risk() -> None:
    assert fit(data=PLAIN, kappa=None, alpha=[0.1]).record.config["kappa"] == pytest.approx(1.2815515655446004)
    assert fit(data=PLAIN, kappa=None).record.config["kappa"] == pytest.approx(1.2815515655446004)


def test_rows_that_judge_are_never_fitted_on() -> None:
    """Other states in the dev rows change what is chosen, and neither classifiers (of the last epoch) nor maps."""
    other = STATES.clone()
    dev = torch.tensor((DATA["split"] == "dev").tolist())
    other[:, dev] = planted_states(7)[:, dev]
    one, two = (fit(states, official_code=True, layer_sweep=1, held_out=0.0) for states in (STATES, other))
    for name in ("weight", "bias", "matrix", "offset"):
        assert torch.equal(one.tensors[name], two.tensors[name])


def test_several_layers_get_weights_between_0_and_1() -> None:
    steer = fit(layers=2)
    by_risk = sorted((each["risk"], each["layer"]) for each in (steer.record.selection or {})["classifiers"])
    assert steer.sites == tuple(Site("attention_heads", layer) for layer in sorted(layer for _, layer in by_risk[:2]))
    assert [each["layers"] for each in (steer.record.selection or {})["candidates"]] == [
        sorted(layer for _, layer in by_risk[:2])
    ]
    assert steer.tensors["blend"].shape == (2,)
    assert fit(layers=9).tensors["blend"].shape == (LAYERS,)
    assert ((steer.tensors["blend"] >= 0) & (steer.tensors["blend"] <= 1)).all()


def test_a_head_that_flags_one_row_stays_as_it_is() -> None:
    """Its only unwished state stands apart; the other heads have theirs as planted."""
    states = STATES.clone()
    states[1, :, 2] = torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(3)) * 0.1
    labels = torch.from_numpy(LABELS)
    classifiers = Classifiers(torch.eye(SIZE)[:1].repeat(HEADS, 1), torch.full((HEADS,), 0.0))
    states[1, :, 2, 0] = torch.where(torch.arange(ROWS) == int((labels < 0).nonzero()[0]), 1.0, -1.0)
    rows = _Rows.of(Shards(states), PLAIN, 0, 0.0)
    matrix, offset = _maps(rows, 1, classifiers, [1.28])[1.28]
    assert torch.equal(matrix[2], torch.eye(SIZE, dtype=torch.float64)) and not offset[2].any()
    assert all(offset[head].any() for head in (0, 1, 3))


def test_a_map_of_few_rows_that_carries_others_far_away_is_told(caplog: pytest.LogCaptureFixture) -> None:
    fit(data=PLAIN, held_out=0.0)
    assert "stretches states" not in caplog.text
    few = PLAIN.iloc[:9]
    SLIM.fit(handle("llama"), few, Shards(STATES[:, :9]), seed=0, epochs=20, held_out=0.0)
    assert re.search(
        r"the map of \d rows of size 6 stretches states up to \d+ times; fit it on more texts", caplog.text
    )


def test_a_candidate_that_breaks_the_model_is_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mc2(steer: SLIM | None, model: object, questions: object) -> float:
        if steer and steer.record.config["kappa"] == 5.0:
            raise FloatingPointError("not finite")
        return 0.5

    monkeypatch.setattr("steerlab.methods.slim._mc2", mc2)
    steer = fit(kappa=[0.5, 5.0], layer_sweep=1)
    assert [each["kappa"] for each in (steer.record.selection or {})["candidates"]] == [0.5]
    assert "with kappa 5 is out" in caplog.text
    with pytest.raises(FloatingPointError, match="no candidate leaves"):
        fit(kappa=[5.0], layer_sweep=1)


def test_where_the_judging_rows_lack_a_class_the_fitted_ones_judge_and_that_is_said() -> None:
    one_sided = DATA.assign(label=np.where(DATA["split"] == "dev", 1.0, DATA["label"]))
    selection = fit(data=one_sided, layer_sweep=1).record.selection or {}
    assert selection["by"] == "MC2 of the fitted rows"


def test_a_constant_head_stays_as_it_is() -> None:
    states = STATES.clone()
    states[1, :, 2] = 0.0  # constant: says nothing
    steer = fit(states, data=PLAIN)
    assert steer.sites == (SITE,)
    assert torch.equal(steer.tensors["matrix"][0, 2], torch.eye(SIZE))
    assert torch.equal(steer.tensors["offset"][0, 2], torch.zeros(SIZE))
    assert float(steer.tensors["bias"][0, 2]) == -1.0


def test_fewer_samples_than_dimensions_are_told_and_finite(caplog: pytest.LogCaptureFixture) -> None:
    few = PLAIN.iloc[:9]
    steer = SLIM.fit(handle("llama"), few, Shards(STATES[:, :9]), seed=0, epochs=20, held_out=0.0)
    assert "covariance is singular" in caplog.text
    assert all(torch.isfinite(tensor).all() for tensor in steer.tensors.values())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"kappa": [1.0], "alpha": [0.1]}, "give one of the two"),
        ({"kappa": [0.0]}, "give kappas above 0"),
        ({"kappa": None, "alpha": [0.6]}, "alphas between 0 and 0.5"),
        ({"kappa": [1.0, 2.0], "data": PLAIN}, "several kappas to choose from and no judging row"),
        ({"data": PLAIN.assign(label=1.0)}, f"needs texts of both classes, got {ROWS} wished and 0 unwished"),
    ],
)
def test_what_cannot_be_fitted_is_refused(more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(**({"held_out": 0.0} | more))


def test_a_state_that_is_not_finite_is_named() -> None:
    states = STATES.clone()
    states[2, 5, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="attention_heads, layer 2, of example id5 are not finite"):
        fit(states)


def test_the_control_moves_as_far_in_other_directions() -> None:
    control = STEER.with_random_directions(torch.Generator().manual_seed(0))
    states = STATES[1].view(8, 12, HEADS, SIZE)
    own, other = edited(STEER, states) - states, edited(control, states) - states
    assert torch.allclose(own.norm(dim=-1), other.norm(dim=-1), atol=1e-4)
    assert not torch.allclose(own, other, atol=1e-2)
    twice = edited(control.scaled(2.0), states) - states
    assert torch.allclose(twice, 2 * other, atol=1e-4)


def test_what_is_before_the_last_prompt_token_is_left_alone() -> None:
    model = handle("llama").load()
    ids = torch.arange(5, 17)[None]
    steer = dataclasses.replace(STEER, tensors={**STEER.tensors, "bias": torch.full((1, HEADS), 1e6)})
    with sites.capture_around(model, steer.sites, steer.attached(model)) as (before, after), torch.no_grad():
        model(ids)
    assert torch.equal(before[SITE][:, :-1], after[SITE][:, :-1])
    assert not torch.equal(before[SITE][:, -1], after[SITE][:, -1])


def test_shuffled_labels_of_the_test_split_change_nothing(tmp_path: Path) -> None:
    """Classifiers, threshold, layer, kappa, maps, weights, and what strengths are chosen by, are the same bits."""
    settings = {
        "prompts": {"dev": 6, "test": 20}, "questions": 12, "split": "halves", "halves": "hash", "split_seed": 0,
        "validation": 0.3, "training": "question", "preamble": "none", "renderings": ["plain"], "wording": "{text}",
    }  # fmt: skip
    own = make_table({"truthfulqa": SAMPLE}, {"truthfulqa": "sample"}, settings)
    of_test = (own["split"] == "test") & own["label"].notna()
    shuffled = own.copy()
    for column in ("label", "mc1"):
        shuffled.loc[of_test, column] = own.loc[of_test, column].sample(frac=1, random_state=0).to_numpy()
    assert not shuffled.loc[of_test, "label"].equals(own.loc[of_test, "label"])

    found, asked = [], []
    for name, table in {"own": own, "shuffled": shuffled}.items():
        table.to_parquet(path := tmp_path / f"{name}.parquet")
        model, tokenizer = handle("llama"), handle("llama").info.tokenizer
        data = activations.labelled_texts(tokenizer, path)
        rows = activations.select(tokenizer, list(data["text"]), "last", list(data["start"]))
        folder = tmp_path / name
        captured = activations.capture(model, rows, "attention_heads", folder=folder, batch_rows=8, shard_rows=32)
        chosen = {"kappa": [0.5, 5.0], "layer_sweep": 2, "epochs": 20}
        found.append(SLIM.fit(model, data, captured, seed=0, **chosen))
        found.append(SLIM.fit(model, data, captured, seed=0, **chosen | {"layers": 2}))
        asked.append(tables.answers(path, split="dev"))
    for one, other in zip(found[:2], found[2:], strict=True):
        assert one.record.selection == other.record.selection and one.record.config == other.record.config
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert asked[0].equals(asked[1])
