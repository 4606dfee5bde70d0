"""ITI against its formulas, what it picks, what it edits and what it refuses; the laws are tested elsewhere."""

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from steerlab import sites
from steerlab.data.splits import fitted_and_judging
from steerlab.likelihood import log_likelihoods
from steerlab.methods.iti import ITI, fitted_probes
from steerlab.sites import Site
from tests.laws.subjects import fitted, handle

ROWS, LAYERS, HEADS, SIZE = 60, 3, 4, 6  # of the tiny Llama
PLANTED = {(0, 2): 3.0, (2, 1): 1.5}  # (layer, head) -> distance of the classes' means along the first axis
LABELS = np.array([1.0, -1.0] * (ROWS // 2))
DATA = pd.DataFrame({"id": [f"id{i}" for i in range(ROWS)], "label": LABELS})
EVERY_FAMILY = pytest.mark.parametrize("family", ["gpt2", "llama"])


@dataclass(frozen=True)
class Shards:
    """States (layers, rows, heads, head size) in four shards."""

    states: Tensor

    def layers(self, site: str) -> list[int | None]:
        return list(range(len(self.states)))

    def shards(self, site: Site) -> Iterator[tuple[np.ndarray, Tensor]]:
        assert site.name == "attention_heads" and site.layer is not None
        for rows in np.array_split(np.arange(self.states.shape[1]), 4):
            yield rows, self.states[site.layer, rows]


def planted_states(seed: int = 0) -> Tensor:
    states = 0.5 * torch.randn(LAYERS, ROWS, HEADS, SIZE, generator=torch.Generator().manual_seed(seed))
    for (layer, head), distance in PLANTED.items():
        states[layer, :, head, 0] += torch.from_numpy(LABELS * distance / 2).float()
    return states


STATES = planted_states()


def fit(states: Tensor = STATES, data: pd.DataFrame = DATA, **more: object) -> ITI:
    return ITI.fit(handle("llama"), data, Shards(states), **({"seed": 0} | more))  # pyright: ignore


def test_theta_is_the_unit_mean_shift_and_sigma_the_spread_along_it() -> None:
    steer = fit(heads=12)
    rows, _ = fitted_and_judging(DATA, 0, 0.2)
    assert 30 < len(rows) < ROWS
    for (layer, head), theta, sigma in zip(steer.picked, steer.theta, steer.sigma, strict=True):
        states, labels = STATES[layer, rows, head].double().numpy(), LABELS[rows]
        shift = states[labels == 1].mean(0) - states[labels == -1].mean(0)
        expected = shift / np.linalg.norm(shift)
        np.testing.assert_allclose(theta, expected, atol=1e-6)
        np.testing.assert_allclose(sigma, (states @ expected).std(), rtol=1e-5)


def test_the_probes_are_those_of_scikit_learn() -> None:
    states, labels = STATES[2].double(), torch.from_numpy(LABELS)
    weights, biases = fitted_probes(states, labels)
    for head in range(HEADS):
        theirs = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(states[:, head].numpy(), LABELS)
        np.testing.assert_allclose(weights[head], theirs.coef_[0], atol=1e-7)
        np.testing.assert_allclose(biases[head], theirs.intercept_[0], atol=1e-7)


def test_probes_of_separable_states_of_any_size_separate_them() -> None:
    labels = torch.from_numpy(LABELS)
    states = torch.randn(ROWS, HEADS, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states[:, :, 0] = labels[:, None] * (0.1 + states[:, :, 0].abs())
    for size in (1.0, 1e4):
        weights, biases = fitted_probes(size * states, labels)
        said = (size * states * weights).sum(2) + biases > 0
        assert (said == (labels > 0)[:, None]).double().mean() > 0.95


def test_the_direction_can_be_the_probes_weight() -> None:
    steer = fit(heads=2, direction="probe")
    rows, _ = fitted_and_judging(DATA, 0, 0.2)
    layer, head = steer.picked[0]
    weights, _ = fitted_probes(STATES[layer, rows].double(), torch.from_numpy(LABELS[rows]))
    torch.testing.assert_close(steer.theta[0].double(), weights[head] / weights[head].norm(), atol=1e-6, rtol=0)


def test_the_heads_that_tell_the_classes_apart_are_picked_the_best_first() -> None:
    steer = fit(heads=2)
    assert steer.picked == [(0, 2), (2, 1)]
    assert steer.sites == (Site("attention_heads", 0), Site("attention_heads", 2))
    selection = steer.record.selection
    assert selection is not None and selection["by"] == "balanced accuracy" and selection["pick"] == 2
    values = [each["value"] for each in selection["candidates"]]
    assert len(values) == LAYERS * HEADS and values == sorted(values, reverse=True)
    assert values[0] > 0.9


def test_a_heads_value_is_its_balanced_accuracy_on_the_rows_that_judge() -> None:
    data = DATA.assign(split=["dev" if i % 5 < 2 or i % 7 == 0 else "train" for i in range(ROWS)])
    steer = fit(data=data, heads=1)
    fitted_rows, judging = fitted_and_judging(data, 0, 0.2)
    assert steer.record.selection is not None
    assert steer.record.selection["groups"] == len(judging)
    for candidate in steer.record.selection["candidates"]:
        states = STATES[candidate["layer"], :, candidate["head"]].double().numpy()
        probe = LogisticRegression(solver="newton-cholesky", tol=1e-12).fit(states[fitted_rows], LABELS[fitted_rows])
        right = probe.predict(states[judging]) == LABELS[judging]
        recalls = [right[LABELS[judging] == sign].mean() for sign in (1, -1)]
        assert candidate["value"] == pytest.approx(np.mean(recalls))


def test_as_many_heads_are_picked_as_there_are() -> None:
    assert len(fit(heads=48).picked) == LAYERS * HEADS


@EVERY_FAMILY
def test_the_edit_adds_its_offset_to_the_picked_heads_from_the_last_prompt_token_on(family: str) -> None:
    model = handle(family).load()
    size = model.config.hidden_size // HEADS if family == "gpt2" else SIZE
    states = planted_states().repeat(1, 1, 1, 2)[..., :size]
    steer = ITI.fit(handle(family), DATA, Shards(states), seed=0, heads=1, alpha=4.0)
    ((layer, head),) = steer.picked
    site = Site("attention_heads", layer)
    ids = torch.tensor([[1, 2, 3, 4]])
    with sites.capture(model, [site]) as base, torch.no_grad():
        model(ids)
    with steer.attached(model, 0.5), sites.capture(model, [site]) as steered, torch.no_grad():
        model(ids)
    expected = torch.zeros(1, 4, HEADS, size)
    expected[0, -1, head] = 0.5 * 4.0 * steer.sigma[0] * steer.theta[0]
    torch.testing.assert_close(steered[site] - base[site], expected, atol=1e-5, rtol=1e-5)
    untouched = expected == 0
    assert torch.equal(steered[site][untouched], base[site][untouched])


@EVERY_FAMILY
def test_scoring_a_continuation_is_steered_at_every_one_of_its_tokens(family: str) -> None:
    model, steer = handle(family).load(), fitted("iti", family)
    ids, prompt = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]]), 3
    with torch.no_grad(), sites.prompt(model, [prompt], torch.ones_like(ids)):
        base = model(ids).logits
        with steer.attached(model):
            steered = model(ids).logits
    changed = (steered - base).abs().amax(-1)[0]
    assert not changed[: prompt - 1].any()
    assert (changed[prompt - 1 :] > 1e-3 * base.abs().max()).all()


@EVERY_FAMILY
def test_the_log_likelihoods_of_answers_move_each_by_its_own(family: str) -> None:
    model, tokenizer, steer = handle(family).load(), handle(family).info.tokenizer, fitted("iti", family)
    pairs = [("Q: Are you?\nA:", answer) for answer in (" Yes, I am.", " No.", " x")]
    base = log_likelihoods(model, tokenizer, pairs, tokens_a_batch=128)
    with steer.attached(model):
        steered = log_likelihoods(model, tokenizer, pairs, tokens_a_batch=128)
    moved = [after - before for (after, _), (before, _) in zip(steered, base)]
    assert min(map(abs, moved)) > 1e-3
    assert len({round(each, 4) for each in moved}) == len(moved)


def test_a_saved_steer_knows_its_heads(tmp_path: Path) -> None:
    steer = fit(heads=2)
    steer.save(tmp_path)
    loaded = ITI.load(tmp_path)
    assert loaded.picked == steer.picked and loaded.record == steer.record
    assert torch.equal(loaded.theta, steer.theta) and torch.equal(loaded.sigma, steer.sigma)


def test_random_directions_keep_heads_and_sizes() -> None:
    steer = fit(heads=5)
    control = steer.with_random_directions(torch.Generator().manual_seed(0))
    assert control.picked == steer.picked and control.record.config["random"]
    for site, offset in steer.offsets(HEADS).items():
        torch.testing.assert_close(control.offsets(HEADS)[site].norm(dim=1), offset.norm(dim=1))
    assert (control.theta * steer.theta).sum(1).abs().min() < 0.9


def test_a_head_of_constant_states_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    states = STATES.clone()
    states[0, :, 2] = 0.1
    states[1, :, 0] = 0
    with caplog.at_level(logging.WARNING):
        steer = fit(states, heads=12)
    assert len(steer.picked) == 10 and not {(0, 2), (1, 0)} & set(steer.picked)
    assert "layer 0, head 2 is constant" in caplog.text and "layer 1, head 0 is constant" in caplog.text
    assert steer.theta.isfinite().all() and (steer.sigma > 0).all()
    with pytest.raises(ValueError, match="every head's states are constant"):
        fit(torch.ones_like(STATES))


def test_the_fitted_rows_judge_where_the_others_are_of_one_class(caplog: pytest.LogCaptureFixture) -> None:
    data = DATA.assign(split=["dev" if i in (0, 2, 4) else "train" for i in range(ROWS)])
    with caplog.at_level(logging.WARNING):
        steer = fit(data=data, held_out=0.0)
    assert "the 3 rows that judge are not of both classes" in caplog.text
    assert steer.record.selection is not None
    assert steer.record.selection["by"] == "balanced accuracy on the fitted rows"
    assert steer.record.selection["groups"] == ROWS - 3


def test_states_that_are_not_finite_are_refused_naming_layer_and_example() -> None:
    states = STATES.clone()
    states[1, 7, 3, 2] = torch.nan
    with pytest.raises(ValueError, match="layer 1, of example id7"):
        fit(states)


def test_a_class_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="got 60 wished and 0 unwished"):
        fit(data=DATA.assign(label=1.0), held_out=0.0)


@pytest.mark.parametrize("wrong", [{"heads": 0}, {"direction": "random"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="ITI got heads"):
        fit(**wrong)


def test_the_python_of_the_page_on_baselines_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(handle("llama").folder, tmp_path / "results/models/smollm2-135m-instruct")
    fit(heads=5).save(tmp_path / "results/steers/smollm2-135m-instruct/iti/truthfulness/0")
    page = (Path(__file__).parents[2] / "docs/baselines.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    heads, base, steered = capsys.readouterr().out.splitlines()
    assert heads.count("layer") == 3
    assert base.startswith("0.0 [(") and steered.startswith("1.0 [(") and base[4:] != steered[4:]
