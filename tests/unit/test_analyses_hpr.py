"""Probes on test questions, and norms under steers: against numbers worked out another way, and what they refuse."""

import dataclasses
import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from scripts import evaluate_probes, measure_norms
from steerlab import activations, models, sites
from steerlab.activations import Row
from steerlab.analyses import norms, probes
from steerlab.figures import norm_consistency, probe_accuracy
from steerlab.methods import steer_files
from steerlab.methods.caa import CAA
from steerlab.methods.hpr import HPR
from steerlab.models import ModelHandle
from steerlab.sites import Site
from tests.laws.subjects import LAYERS, handle
from tests.workflow.project import ROOT

HIDDEN = 16


def record(steer: str = "steerlab.methods.hpr:HPR", model: ModelHandle | None = None, **fields) -> steer_files.Record:
    info = (model or handle("llama")).info
    known = {"data": "", "seed": 3, "config": {}, "sites": ()}
    return steer_files.Record(steer=steer, model=info.name, revision=info.revision, **known | fields)


# ---- probes ----


@dataclass(frozen=True)
class Shards:
    """States (layers, states, hidden) of rows with so many tokens each, in two shards."""

    states: Tensor
    lengths: tuple[int, ...]

    def layers(self, site: str) -> list[int | None]:
        return list(range(len(self.states)))

    def shards(self, site: Site) -> Iterator[tuple[np.ndarray, Tensor]]:
        rows = np.repeat(np.arange(len(self.lengths)), self.lengths)
        for part in (rows < 2, rows >= 2):
            yield rows[part], self.states[site.layer, torch.from_numpy(part)]


# Two questions; the first answers of both begin with a token that a true and a false answer share.
DATA = pd.DataFrame({"id": list("abcd"), "group": ["q1", "q1", "q2", "q2"], "label": [1.0, -1.0, 1.0, -1.0]})
ROWS = [Row((9, 1, 2), (1, 2)), Row((9, 1, 3), (1, 2)), Row((8, 4), (1,)), Row((8, 5, 6), (1, 2))]
# First coordinates of the states: a b c d d. Judged: a's and b's second, c, d's first.
STATES = [[-1.0, 1.0], [1.0, -1.0], [1.0], [1.0, -1.0]]


def hpr(probe: Tensor, **values: float) -> HPR:
    """An HPR at the first layer, with this probe (layers, hidden) and dev accuracies of layers."""
    candidates = [{"layer": layer, "value": value} for layer, value in enumerate(values.values())]
    candidates.sort(key=lambda each: -each["value"])
    selection = {"by": "balanced accuracy", "groups": 2, "candidates": candidates, "pick": 1}
    config = {"trained": list(range(len(probe)))}
    return HPR({"probe": probe}, record(config=config, selection=selection, sites=(Site("block_output", 0),)))


def measured(probe: Tensor, data: pd.DataFrame = DATA, **how) -> pd.DataFrame:
    first = torch.tensor([value for of_row in STATES for value in of_row])
    states = torch.stack([torch.stack([first, torch.zeros_like(first)], dim=1)] * 2)
    steer = hpr(probe, one=0.9, other=0.7)
    return probes.accuracies(steer, data, ROWS, Shards(states, tuple(map(len, STATES))), **how)


def test_the_accuracy_of_a_probe_is_balanced_and_of_the_tokens_at_which_answers_are_compared() -> None:
    table = measured(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert list(table.columns) == probes.COLUMNS == probe_accuracy.COLUMNS[1:]
    # True: a's second and c, both above 0. False: b's second below, d's first above.
    assert table.test_accuracy.tolist() == [0.75, 0.25]
    assert table.states.tolist() == [4, 4] and table.questions.tolist() == [2, 2]


def test_dev_accuracy_pick_and_seed_are_those_of_the_steers_record() -> None:
    table = measured(torch.eye(2))
    assert table.dev_accuracy.tolist() == [0.9, 0.7]
    assert table.picked.tolist() == [True, False] and set(table.seed) == {3}


def test_the_interval_draws_questions() -> None:
    table = measured(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), resamples=500)
    # q1 drawn twice: both of its states are taken for what they are; q2 twice: the true one alone.
    assert (table.low[0], table.high[0]) == (0.5, 1.0)


def test_answers_of_which_no_two_can_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="no two of 4 answers are a true and a false one"):
        measured(torch.eye(2), DATA.assign(label=1.0))


def test_a_steer_without_probes_is_refused() -> None:
    caa = CAA(torch.zeros(HIDDEN), record("steerlab.methods.caa:CAA"))
    with pytest.raises(ValueError, match="caa has no probes"):
        probes.accuracies(caa, DATA, ROWS, Shards(torch.zeros(1, 7, 2), tuple(map(len, STATES))))


def answers() -> pd.DataFrame:
    """A task's table: true and false answers to questions of all three splits, and dev prompts."""
    rows = []
    for number in range(12):
        split = ("train", "dev", "test")[number % 3]
        question = f"Q: number {number}?\nA:"
        for answer, label in ((f"yes, it is {number}", 1.0), (f"no, never {number}", -1.0)):
            text = f"{question} {answer}"
            fields = {"id": f"{number}{answer}", "role": "train", "label": label, "text": text}
            rows.append(fields | {"split": split, "group": str(number), "start": len(question), "end": len(text)})
        fields = {"id": str(number), "role": "prompt", "label": np.nan, "text": question, "split": split}
        rows.append(fields | {"group": str(number), "start": len(question), "end": len(question)})
    return pd.DataFrame(rows).assign(rendering="plain")


@pytest.fixture
def table(tmp_path):
    answers().to_parquet(tmp_path / "truthfulness.parquet")
    return tmp_path / "truthfulness.parquet"


COMPUTE = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}
CAPTURED = COMPUTE | {
    "site": "block_output", "positions": "answer", "threads": 1, "versions": {}, "capture_code": "",
    "activations": {"batch_rows": 4, "shard_rows": 8},
}  # fmt: skip


def test_on_the_rows_that_judged_the_script_finds_the_accuracy_that_the_fit_recorded(table, tmp_path) -> None:
    model = handle("llama")
    data = activations.training_rows(table)
    spec = CAPTURED | {"splits": ["train", "dev"]}
    captured = activations.of_training_texts(model.folder, table, spec, tmp_path / "store")
    HPR.fit(model, data, captured, seed=0, layers=2, epochs=2).save(tmp_path / "steer")
    spec = CAPTURED | {"splits": ["dev"], "resamples": 20, "confidence": 0.9}
    out = tmp_path / "accuracies.csv"
    evaluate_probes.run(
        model=model.folder, table=table, steer=tmp_path / "steer", accuracies=out, spec=spec, store=tmp_path / "store"
    )
    found = pd.read_csv(out)
    assert len(found) == LAYERS and found.picked.sum() == 2
    np.testing.assert_allclose(found.test_accuracy, found.dev_accuracy, atol=1e-6)
    assert (found.low <= found.test_accuracy).all() and (found.test_accuracy <= found.high).all()


# ---- norms ----

PROMPTS = [("a", "Q: is it so?\nA:"), ("b", "Q: why?\nA:"), ("c", "Q: how many of them are there now?\nA:")]


def caa(layer: int = 1, size: float = 5.0, **fields) -> CAA:
    vector = size * torch.nn.functional.normalize(
        torch.randn(HIDDEN, generator=torch.Generator().manual_seed(0)), dim=0
    )
    fields = {"config": {"multiplier": 1.0}, "sites": (Site("block_output", layer),)} | fields
    return CAA(vector, record("steerlab.methods.caa:CAA", **fields))


@dataclass(frozen=True)
class Edited:
    """A steer that edits as it is told."""

    sites: tuple[Site, ...]
    edit: object
    record: object = dataclasses.field(default_factory=record)

    def attached(self, model, strength: float = 1.0):
        return sites.edit(model, dict.fromkeys(self.sites, self.edit)) if self.sites else nullcontext()


def reversed_states(x: Tensor, where) -> Tensor:
    return x.flip(-1)


def one(steer, method: str = "caa", strength: float = 1.0) -> norms.Steered:
    return norms.Steered(method, steer, strength)


def found(*steered: norms.Steered, prompts=PROMPTS, **how) -> pd.DataFrame:
    return norms.norms(handle("llama"), steered, prompts, resamples=50, **how)


def test_an_edit_that_keeps_norms_has_the_ratio_one_and_the_stream_behind_it_another() -> None:
    table = found(one(Edited((Site("block_output", 1),), reversed_states), "hpr"))
    assert list(table.columns) == norms.COLUMNS == norm_consistency.COLUMNS[1:-1]
    edit, stream = (table[table.kind == kind].set_index("layer") for kind in (norms.EDIT, norms.STREAM))
    assert list(edit.index) == [1] and list(stream.index) == list(range(LAYERS))
    assert edit.ratio[1] == pytest.approx(1, abs=1e-12) and edit.deviation[1] < 1e-6 and edit.changed[1] == 1
    assert stream.ratio[0] == 1 and stream.changed[0] == 0
    assert stream.ratio[2] != 1 and stream.changed[2] == 1


@pytest.fixture
def written(monkeypatch) -> str:
    """What the model writes after every prompt, in place of what it would."""
    text = " so it is"
    monkeypatch.setattr(norms, "generate", lambda *args, **how: pd.DataFrame({"id": list("abc"), "text": text}))
    return text


def states_by_hand(prompt: str, written: str, layer: int) -> Tensor:
    """Of the unsteered model at the last token of the prompt and all after it, (tokens, hidden)."""
    model, site = handle("llama"), Site("block_output", layer)
    ids = [model.info.tokenizer(text)["input_ids"] for text in (prompt, prompt + written)]
    with sites.capture(model.load(), [site]) as states, torch.no_grad():
        model.load()(torch.tensor([ids[1]]))
    return states[site][0, len(ids[0]) - 1 :]


def test_a_vector_that_is_added_moves_norms_as_runs_by_hand_say(written) -> None:
    steer = caa(layer=1)
    table = found(one(steer, strength=2.0))
    states = [states_by_hand(prompt, written, 1) for _, prompt in PROMPTS]
    before, after = (torch.cat([(x + change).norm(dim=1) for x in states]) for change in (0, 2 * steer.vector))
    edit = table[table.kind == norms.EDIT].iloc[0]
    assert (edit.tokens, edit.prompts) == (len(before), len(PROMPTS))
    assert edit.base_norm == pytest.approx(float(before.mean()), rel=1e-5)
    assert edit.norm == pytest.approx(float(after.mean()), rel=1e-5)
    assert edit.ratio == pytest.approx(float(after.mean() / before.mean()), rel=1e-5)
    assert edit.deviation == pytest.approx(float((after / before - 1).abs().mean()), rel=1e-4)
    assert edit["size"] == pytest.approx(float(2 * steer.vector.norm() / before.mean()), rel=1e-5)
    assert edit.changed == 1, "CAA begins at the last prompt token too"
    (stream,) = table[(table.kind == norms.STREAM) & (table.layer == 1)].to_dict("records")
    assert stream["ratio"] == pytest.approx(edit.ratio), "the block's own output"


def test_the_model_itself_writes_what_follows_the_prompt() -> None:
    few, more = (found(one(caa()), new_tokens=tokens).tokens.iloc[0] for tokens in (1, 6))
    assert len(PROMPTS) < few < more <= 7 * len(PROMPTS) * 3  # a token may become several bytes


def test_of_attention_heads_only_those_that_are_changed_count() -> None:
    def first_doubled(x: Tensor, where) -> Tensor:
        return torch.cat([2 * x[..., :1, :], x[..., 1:, :]], dim=-2)

    table = found(one(Edited((Site("attention_heads", 0),), first_doubled), "iti"))
    assert table[table.kind == norms.EDIT].ratio.tolist() == pytest.approx([2.0])


def test_a_steer_without_sites_has_rows_of_the_stream_alone() -> None:
    table = found(one(Edited((), None), "lora"))
    assert set(table.kind) == {norms.STREAM} and table.ratio.eq(1).all() and table["size"].isna().all()


def test_an_edit_of_what_the_head_reads_counts_at_every_token_as_one_of_a_layer_does() -> None:
    def doubled(x: Tensor, where) -> Tensor:
        return 2 * x

    table = found(one(Edited((Site("lm_head_input"), Site("block_output", 0)), doubled), "lm_steer"))
    edits = table[table.kind == norms.EDIT]
    assert edits.site.tolist() == ["lm_head_input", "block_output"] and edits.layer.isna().tolist() == [True, False]
    assert edits["size"].tolist() == pytest.approx([1.0, 1.0]) and edits.tokens.nunique() == 1
    assert norm_consistency.table(table).layer.notna().all()


def test_batches_of_prompts_change_nothing(monkeypatch) -> None:
    whole = found(one(caa()))
    monkeypatch.setattr(norms, "_BATCH_TEXTS", 2)
    pd.testing.assert_frame_equal(found(one(caa())), whole, rtol=1e-4)


def test_the_model_is_as_it_was_afterwards() -> None:
    model = handle("llama").load()
    ids = torch.arange(6)[None]
    with torch.no_grad():
        before = model(ids).logits
        found(one(caa()))
        assert torch.equal(model(ids).logits, before)


def at_picks(*methods: str) -> list[dict]:
    """What an analysis is told of steers that are at their picks."""
    about = {"steps": ["pick"], "strengths": ["pick"], "chosen": True, "has_checkpoints": False}
    return [{"method": method} | about for method in methods]


def test_the_script_reads_steers_and_picks_in_the_order_of_their_names(table, tmp_path) -> None:
    steers, choices = [tmp_path / "one", tmp_path / "two"], [tmp_path / "one.json", tmp_path / "two.json"]
    for folder, choice, strength in zip(steers, choices, (1.0, 0.5)):
        caa().save(folder)
        choice.write_text(json.dumps({"pick": {"steps": 0, "strength": strength}}))
    spec = COMPUTE | {"methods": at_picks("caa", "random_caa"), "resamples": 20, "confidence": 0.95}
    out = tmp_path / "norms.csv"
    measure_norms.run(model=handle("llama").folder, table=table, steers=steers, choices=choices, norms=out, spec=spec)
    written = pd.read_csv(out)
    assert written.drop_duplicates("method")[["method", "strength"]].to_numpy().tolist() == [
        ["caa", 1.0],
        ["random_caa", 0.5],
    ]
    assert set(written.prompts) == {4}, "the dev prompts"


# ---- the page ----


def test_the_python_of_the_page_on_hpr_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "smollm2-135m-instruct"
    models.prepare(
        {"kind": "random", "family": "llama", "layers": 2, "seed": 0}, tmp_path / f"results/models/{name}", name=name
    )
    model = ModelHandle(tmp_path / f"results/models/{name}")
    rows = answers().query("role == 'train' and split != 'test'").reset_index(drop=True)
    tokens = activations.select(model.info.tokenizer, list(rows.text), "answer", list(rows.start))
    where = {"folder": tmp_path / ".store", "batch_rows": 4, "shard_rows": 8}
    states = activations.capture(model, tokens, "block_output", **where)
    HPR.fit(model, rows, states, seed=0, layers=2, epochs=1).save(
        tmp_path / f"results/steers/{name}/hpr/truthfulness/0"
    )

    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/hpr.md").read_text(), flags=re.M | re.S)
    assert len(blocks) == 4
    page: dict = {}
    for block in blocks:
        exec(block, page)
    assert len(page["steered"]) == len(page["at_one_layer"]) == 1
    torch.testing.assert_close(page["half_way"].norm(dim=1), page["states"].norm(dim=1))
    assert page["judged"].questions.eq(2).all() and len(page["judged"]) == 2
    assert (page["kept"] < 1e-5).all() and len(page["kept"]) == 1
