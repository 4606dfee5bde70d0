"""KL divergence of steered models over continuations: against runs of one text at a time, and what changes nothing."""

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from scripts import measure_divergence
from steerlab import sites
from steerlab.analyses import divergence as analysis
from steerlab.analyses.steered import Steered
from steerlab.models import encode
from steerlab.sites import Site
from tests.laws.subjects import METHOD_FAMILIES, fitted, handle
from tests.unit.test_analyses_hpr import caa

PROMPTS = {"a": "The road was", "b": "Go", "c": "A kettle is a vessel for", "d": "Trains run twice"}
CONTINUATIONS = {"c": [5, 9, 13], "a": [7, 7, 20, 31, 2, 40, 11], "d": [3], "b": [50, 60, 70, 80, 90]}
RENDERED = {"instructed": {id: f"Please. {text} now" for id, text in PROMPTS.items()}}
INSIDE = Site("block_output", 1)
of_each_family = pytest.mark.parametrize("family", METHOD_FAMILIES)


def pushed(x: Tensor) -> Tensor:
    return x + torch.linspace(-3, 3, x.shape[-1])


@dataclasses.dataclass(frozen=True)
class Pushed:
    """A steer that pushes the states of one block; at strength 0 it attaches nothing."""

    scope: sites.Scope

    def attached(self, model, strength: float = 1.0):
        edits = {INSIDE: lambda x, where: x + strength * (pushed(x) - x)}
        return sites.edit(model, edits, scope=self.scope) if strength else nullcontext()


def found(family: str, *steered: Steered, tokens_a_batch: int = 60, **how) -> pd.DataFrame:
    prompts, new = PROMPTS, CONTINUATIONS
    return analysis.divergence(handle(family), steered, prompts, new, tokens_a_batch=tokens_a_batch, **how)


def ids_of(family: str, text: str) -> list[int]:
    return encode(handle(family).info.tokenizer, text)


def log_p(family: str, prompt: list[int], answer: list[int], attached=None) -> Tensor:
    """(tokens, vocab) float64: what is told of each token of the answer, by a bare forward pass over one text."""
    with attached or nullcontext(), torch.no_grad():
        logits = handle(family).load()(torch.tensor([prompt + answer])).logits[0]
    return logits.double().log_softmax(-1)[len(prompt) - 1 : -1]


def kl(base: Tensor, own: Tensor) -> float:
    return sum(float((p.exp() * (p - q)).sum()) for p, q in zip(base, own, strict=True))


def pushed_from(prompt: list[int], strength: float, family: str):
    """The push at the tokens from a prompt's last one on, which the test itself counts."""

    def edit(x: Tensor, where: sites.Where) -> Tensor:
        after = (torch.arange(x.shape[1]) >= len(prompt) - 1)[:, None]
        return torch.where(after, x + strength * (pushed(x) - x), x)

    return sites.edit(handle(family).load(), {INSIDE: edit}, scope="all")


# ---- the analysis ----


@of_each_family
@pytest.mark.parametrize("scope", ["all", "from_last_prompt_token"])
def test_the_divergence_is_that_of_runs_of_one_text_without_pads(family: str, scope: sites.Scope):
    rows = found(family, Steered("pushed", Pushed(scope), 0.7))
    assert list(rows.columns) == analysis.COLUMNS and sorted(rows.id) == sorted(PROMPTS)
    for row in rows.to_dict("records"):
        prompt, answer = ids_of(family, PROMPTS[row["id"]]), CONTINUATIONS[row["id"]]
        begins = [0] if scope == "all" else prompt  # of one token: it begins at the first one
        own = log_p(family, prompt, answer, pushed_from(begins, 0.7, family))
        by_hand = kl(log_p(family, prompt, answer), own)
        assert row["kl"] == pytest.approx(by_hand, rel=1e-5) and by_hand > 0.001
        assert row["tokens"] == len(answer)


@of_each_family
@pytest.mark.parametrize("method", ["caa", "lm_steer", "hpr", "iti", "slim", "cogsteer", "lora"])
def test_the_divergence_under_a_registered_steer_is_that_of_runs_of_one_text(family: str, method: str):
    model, steer = handle(family).load(), fitted(method, family)
    for row in found(family, Steered(method, steer, 1.0, 0)).to_dict("records"):
        prompt, answer = ids_of(family, PROMPTS[row["id"]]), CONTINUATIONS[row["id"]]
        one = torch.ones(1, len(prompt + answer), dtype=torch.int64)
        with sites.prompt(model, [len(prompt)], one):
            own = log_p(family, prompt, answer, steer.attached(model, 1.0))
        assert row["kl"] == pytest.approx(kl(log_p(family, prompt, answer), own), rel=1e-5, abs=1e-6)


@of_each_family
def test_of_a_method_that_changes_the_prompt_it_is_that_of_the_model_that_reads_its_rendering(family: str):
    rows = found(family, Steered("instructed", None, 0.0), rendered=RENDERED)
    for row in rows.to_dict("records"):
        answer = CONTINUATIONS[row["id"]]
        base = log_p(family, ids_of(family, PROMPTS[row["id"]]), answer)
        own = log_p(family, ids_of(family, RENDERED["instructed"][row["id"]]), answer)
        assert row["kl"] == pytest.approx(kl(base, own), rel=1e-5) and row["kl"] > 0.001


@of_each_family
def test_the_unsteered_model_and_a_steer_at_strength_0_are_at_no_distance(family: str):
    steered = Steered("caa", fitted("caa", family), 0.0), Steered("itself", None, 0.0)
    assert (found(family, *steered, rendered={"itself": PROMPTS}).kl == 0).all()


@of_each_family
def test_batches_change_no_divergence(family: str):
    steered = Steered("pushed", Pushed("from_last_prompt_token"), 0.7), Steered("instructed", None, 0.0)
    one, several, all_at_once = (
        found(family, *steered, rendered=RENDERED, tokens_a_batch=tokens).sort_values(["method", "id"])
        for tokens in (1, 60, 10_000)
    )
    for other in (several, all_at_once):
        pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True), rtol=1e-5)


def test_a_steer_is_the_same_beside_others_and_the_model_is_as_it_was_afterwards():
    model = handle("llama").load()
    before = log_p("llama", ids_of("llama", PROMPTS["a"]), CONTINUATIONS["a"])
    alone = found("llama", Steered("pushed", Pushed("all"), 0.5, 3))
    beside = found("llama", Steered("caa", fitted("caa", "llama"), 4.0), Steered("pushed", Pushed("all"), 0.5, 3))
    pd.testing.assert_frame_equal(beside[beside.method == "pushed"].reset_index(drop=True), alone)
    assert alone[["steps", "strength"]].drop_duplicates().to_numpy().tolist() == [[3, 0.5]]
    assert torch.equal(log_p("llama", ids_of("llama", PROMPTS["a"]), CONTINUATIONS["a"]), before)
    assert handle("llama").load() is model


def test_more_strength_is_further_away():
    rows = found("llama", *(Steered("pushed", Pushed("all"), strength) for strength in (0.1, 0.3, 1.0)))
    by_strength = rows.groupby("strength").kl.sum().to_list()
    assert by_strength == sorted(by_strength) and by_strength[0] > 0


def test_numbers_that_are_not_finite_are_refused_with_method_strength_and_prompt():
    with pytest.raises(FloatingPointError, match="^pushed at strength inf: .* on prompt .*; use a lower strength"):
        found("llama", Steered("pushed", Pushed("all"), float("inf")))


# ---- the script ----


def test_the_script_reads_steers_at_all_settings_prompts_and_first_continuations(tmp_path: Path):
    rows = [("prompt", split, rendering, id, f"{rendering} {text}", None) for id, text in PROMPTS.items()
            for split, rendering in (("test", "plain"), ("test", "instructed"), ("dev", "plain"))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["role", "split", "rendering", "id", "text", "label"])
    table.to_parquet(tmp_path / "toxicity.parquet")
    samples = [(id, sample, tokens[sample:]) for id, tokens in CONTINUATIONS.items() for sample in (1, 0)]
    pd.DataFrame(samples, columns=["id", "sample", "tokens"]).to_parquet(tmp_path / "0.parquet")
    caa().save(tmp_path / "caa")
    (tmp_path / "choice.json").write_text(json.dumps({"pick": {"steps": 0, "strength": 0.5}}))
    asked = {"method": "caa", "steps": ["pick"], "strengths": ["pick", 1.0], "chosen": True, "has_checkpoints": True}
    spec = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "tokens_a_batch": 50, "prompts": 3}
    spec |= {"methods": [asked], "renderings": {"instructed": "instructed"}}
    measure_divergence.run(
        model=handle("llama").folder,
        table=tmp_path / "toxicity.parquet",
        continuations=tmp_path / "0.parquet",
        steers=[tmp_path / "caa"],
        choices=[tmp_path / "choice.json"],
        divergence=tmp_path / "kl.csv",
        spec=spec,
    )
    written = pd.read_csv(tmp_path / "kl.csv")
    assert written[["method", "strength"]].drop_duplicates().to_numpy().tolist() == [
        ["instructed", 0.0], ["caa", 0.5], ["caa", 1.0],
    ]  # fmt: skip
    assert {*written.id} == {"a", "b", "c"}, "the first prompts of the table by id"
    told = written[written.method == "instructed"].set_index("id")
    assert told.tokens.to_dict() == {id: len(CONTINUATIONS[id]) for id in "abc"}, "of the first continuation"
    for id in "abc":
        base, own = (
            log_p("llama", ids_of("llama", f"{of} {PROMPTS[id]}"), CONTINUATIONS[id]) for of in ("plain", "instructed")
        )
        assert told.kl[id] == pytest.approx(kl(base, own), rel=1e-5)
