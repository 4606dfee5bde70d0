"""What steers cost on ordinary text: against runs by hand, what seeds and batches change, and the texts themselves."""

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scripts import measure_ordinary_text
from steerlab import experiment, sites
from steerlab.analyses import ordinary_text
from steerlab.analyses.steered import Steered
from steerlab.data import loaders
from steerlab.data.doors import fetch
from steerlab.data.sources import SAMPLE, table
from steerlab.data.splits import row_id
from steerlab.figures import captions, style
from steerlab.figures import ordinary_text as figure
from steerlab.sites import Site
from tests.laws.subjects import handle
from tests.unit.test_analyses_hpr import at_picks, caa
from tests.workflow.project import ROOT

TOKENS = 12
TEXTS = ["The road was wet and empty.", "Cut the onions fine.", "A kettle is a vessel.", "Trains run twice an hour."]


@dataclass(frozen=True)
class Record:
    seed: int = 0


@dataclass(frozen=True)
class Edited:
    """A steer that edits one site as it is told, times its strength; at strength 0 it attaches nothing."""

    site: Site
    edit: object
    scope: sites.Scope = "from_last_prompt_token"
    record: Record = field(default_factory=Record)

    def attached(self, model, strength: float = 1.0):
        if strength == 0:
            return nullcontext()
        return sites.edit(model, {self.site: lambda x, where: self.edit(x, strength)}, scope=self.scope)


def moved(x: Tensor, strength: float) -> Tensor:
    return x + strength * torch.linspace(-3, 3, x.shape[-1])


def steer(scope: sites.Scope = "from_last_prompt_token") -> Edited:
    return Edited(Site("block_output", 1), moved, scope)


def found(*steered: Steered, texts=TEXTS, tokens: int = TOKENS, tokens_a_batch: int = 2 * TOKENS) -> pd.DataFrame:
    return ordinary_text.ordinary_text(handle("llama"), steered, texts, tokens=tokens, tokens_a_batch=tokens_a_batch)


def log_probabilities(text: str, attached=None) -> tuple[Tensor, Tensor]:
    """(tokens, vocab) float64 and the ids, of a bare forward pass over one text."""
    model = handle("llama")
    ids = torch.tensor(model.info.tokenizer(text)["input_ids"][:TOKENS])
    with attached or nullcontext(), torch.no_grad():
        return model.load()(ids[None]).logits[0].double().log_softmax(-1), ids


def cross_entropy(log_p: Tensor, ids: Tensor) -> float:
    return -sum(float(log_p[place, ids[place + 1]]) for place in range(TOKENS - 1)) / (TOKENS - 1)


# ---- the analysis ----


def test_both_measures_are_those_of_runs_by_hand_one_text_at_a_time() -> None:
    rows = found(Steered("hpr", steer(), 0.7))
    assert list(rows.columns) == ordinary_text.COLUMNS
    assert rows.text.tolist() == [row_id(text) for text in TEXTS] and set(rows.tokens) == {TOKENS}
    for text, row in zip(TEXTS, rows.to_dict("records")):
        base, ids = log_probabilities(text)
        own, _ = log_probabilities(text, steer("all").attached(handle("llama").load(), 0.7))
        assert row["base_ce"] == pytest.approx(cross_entropy(base, ids), rel=1e-5)
        assert row["ce"] == pytest.approx(cross_entropy(own, ids), rel=1e-5)
        assert row["kl"] == pytest.approx(float((base.exp() * (base - own)).sum(-1).mean()), rel=1e-4)
        assert row["kl"] > 0.01


def test_a_steer_that_begins_at_the_last_prompt_token_edits_every_token() -> None:
    inside = Site("block_output", 1)
    with steer().attached(handle("llama").load(), 1.0), sites.capture(handle("llama").load(), [inside]) as after:
        edited = ordinary_text._logits(handle("llama"), torch.arange(6)[None])
    with sites.capture(handle("llama").load(), [inside]) as before:
        plain = ordinary_text._logits(handle("llama"), torch.arange(6)[None])
    torch.testing.assert_close(after[inside], moved(before[inside], 1.0))
    assert (edited != plain).any(-1).all(), "also at position 0"
    pd.testing.assert_frame_equal(found(Steered("hpr", steer(), 1.0)), found(Steered("hpr", steer("all"), 1.0)))


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_strength_0_and_a_steer_that_changes_nothing_cost_exactly_nothing(strength: float) -> None:
    idle = Edited(Site("block_output", 1), moved if strength == 0 else lambda x, strength: x.clone())
    rows = found(Steered("hpr", idle, strength))
    assert rows.kl.eq(0).all() and (rows.ce == rows.base_ce).all()


def test_a_shift_of_the_logits_has_the_divergence_of_its_closed_form() -> None:
    shift = torch.linspace(-1, 1, handle("llama").info.config.vocab_size)
    rows = found(Steered("lm_steer", Edited(Site("logits"), lambda x, strength: x + strength * shift), 2.0))
    for text, kl in zip(TEXTS, rows.kl):
        p = log_probabilities(text)[0].exp()
        d = 2 * shift.double()
        by_hand = (p @ d.exp()).log() - p @ d  # of softmax(z) from softmax(z + d)
        assert kl == pytest.approx(float(by_hand.mean()), rel=1e-5)


@given(st.integers(1, 60), st.floats(1e-6, 30))
def test_the_divergence_is_never_negative(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = (10 * torch.randn(5, 40, generator=generator)).log_softmax(-1)
    own = (base + size * torch.randn(5, 40, generator=generator)).log_softmax(-1)
    assert ordinary_text._divergence(base, own) >= 0


@pytest.mark.parametrize("tokens_a_batch", [1, 3 * TOKENS, 1000])
def test_batches_change_nothing(tokens_a_batch: int) -> None:
    steered = Steered("hpr", steer(), 1.0), Steered("caa", caa(), 1.0)
    whole = found(*steered, tokens_a_batch=4 * TOKENS)
    pd.testing.assert_frame_equal(found(*steered, tokens_a_batch=tokens_a_batch), whole, rtol=1e-4)


def test_the_unsteered_model_runs_once_a_batch_for_all_steers(monkeypatch) -> None:
    runs, run = [], ordinary_text._logits
    monkeypatch.setattr(ordinary_text, "_logits", lambda model, ids: (runs.append(len(ids)), run(model, ids))[1])
    rows = found(*(Steered(name, steer(), 1.0) for name in ("a", "b", "c")))
    assert runs == [2] * 8, "two batches of two texts, one run unsteered and three steered each"
    assert rows.groupby("text").base_ce.nunique().eq(1).all()


def test_short_texts_are_left_out_and_told(caplog) -> None:
    with caplog.at_level(logging.INFO):
        rows = found(Steered("hpr", steer(), 1.0), texts=["Short.", *TEXTS])
    assert rows.text.tolist() == [row_id(text) for text in TEXTS]
    assert "1 of 5 texts are left out, which have fewer than 12 tokens" in caplog.text
    with pytest.raises(ValueError, match="none of 4 texts has 99 tokens"):
        found(Steered("hpr", steer(), 1.0), tokens=99)


def test_numbers_that_are_not_finite_are_refused_with_the_method() -> None:
    broken = Edited(Site("block_output", 1), lambda x, strength: x * float("nan"))
    with pytest.raises(FloatingPointError, match="hpr at strength 2.*use a lower strength"):
        found(Steered("hpr", broken, 2.0))


def test_a_larger_number_of_texts_keeps_those_of_a_smaller_one_and_too_many_are_refused() -> None:
    texts = [*TEXTS, TEXTS[0]]
    assert ordinary_text.chosen(texts, 3)[:2] == ordinary_text.chosen(texts[::-1], 2)
    assert sorted(ordinary_text.chosen(texts, None)) == sorted(TEXTS)
    with pytest.raises(ValueError, match="5 texts are asked for, the source has 4; lower analyses.ordinary_text.texts"):
        ordinary_text.chosen(texts, 5)


# ---- the script and its spec ----


def test_the_script_reads_steers_picks_and_texts(tmp_path: Path) -> None:
    steers, choices = [tmp_path / "one", tmp_path / "two"], [tmp_path / "one.json", tmp_path / "two.json"]
    for folder, choice, strength in zip(steers, choices, (1.0, 0.5)):
        caa().save(folder)
        choice.write_text(json.dumps({"pick": {"steps": 0, "strength": strength}}))
    spec = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}
    spec |= {"methods": at_picks("caa", "random_caa"), "door": "sample", "texts": 3, "tokens": 64}
    spec |= {"tokens_a_batch": 128}
    out = tmp_path / "texts.csv"
    measure_ordinary_text.run(
        model=handle("llama").folder, source=SAMPLE, steers=steers, choices=choices, texts=out, spec=spec
    )
    written = pd.read_csv(out)
    assert written[["method", "strength", "seed"]].drop_duplicates().to_numpy().tolist() == [
        ["caa", 1.0, 3],
        ["random_caa", 0.5, 3],
    ]
    assert len(written) == 6 and (written.kl > 0).all()


def asked(**changes) -> experiment.Experiment:
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    return experiment.load({key: value | changes.get(key, {}) for key, value in default.items()})


AT = [("model", "smollm2-135m-instruct"), ("task", "truthfulness"), ("seed", "0")]


def test_the_source_is_asked_for_where_the_figure_is_and_nowhere_else() -> None:
    assert asked().doors["ordinary_text"] == "sample"
    for run in ({"methods": ["base", "iti"], "variants": []}, {"tasks": ["toxicity", "sentiment"]}):
        variants = {"variants": []}
        assert "ordinary_text" not in asked(run=run | variants).doors


@pytest.mark.parametrize(
    "changes",
    [
        {"analyses": {"ordinary_text": {"texts": 5}}},
        {"analyses": {"ordinary_text": {"texts": 24, "tokens": 64}}},
        {"scores": {"perplexity": {"tokens_a_batch": 512}}},
        {"data": {"sources": {"ordinary_text": "hub"}}},
    ],
    ids=["texts", "tokens", "tokens_a_batch", "door"],
)
def test_the_spec_changes_with_what_changes_the_bytes(changes: dict) -> None:
    spec = asked().spec("measure_ordinary_text", AT)
    assert asked(**changes).spec("measure_ordinary_text", AT) != spec
    assert asked(metrics={"resamples": 20}).spec("measure_ordinary_text", AT) == spec


def test_the_spec_names_the_methods_with_a_steer_in_the_order_of_their_steers() -> None:
    x = asked()
    named = [one["method"] for one in json.loads(x.spec("measure_ordinary_text", AT))["methods"]]
    w = type("Wildcards", (), dict(AT))
    paths = x.measured_steers(w)["steers"]
    assert [Path(path).parts[-3] for path in paths] == named and "random_slim" in named
    assert "base" not in named and "instructed" not in named


@pytest.mark.parametrize(
    ("doors", "phrase"),
    [
        ({"truthfulqa": "sample", "ordinary_text": "sample"}, "sample data"),
        ({"truthfulqa": "hub", "ordinary_text": "sample"}, "sample data (the texts)"),
        ({"truthfulqa": "sample", "ordinary_text": "hub"}, "sample data (what the steers learnt from)"),
        ({"truthfulqa": "hub", "ordinary_text": "hub"}, ""),
    ],
)
def test_the_caption_says_which_part_rests_on_sample_data(doors: dict[str, str], phrase: str) -> None:
    x = asked(data={"sources": doors})
    spec = json.loads(x.spec("plot_figure", [("model", AT[0][1]), ("figure", "ordinary_text")]))
    assert spec["sample_data"] == phrase


# ---- the texts ----


def test_the_sample_texts_are_the_pinned_ones_and_as_long_as_they_should_be(tmp_path: Path) -> None:
    fetch(table()["ordinary_text"], "sample", tmp_path / "raw", mirror=None, environ={})
    texts = loaders.read("ordinary_text", "sample", tmp_path / "raw").text
    assert len(texts) == texts.nunique() == 24
    words = texts.str.split().str.len()
    assert words.min() >= 110 and words.max() <= 140
    assert texts.str.fullmatch(r"[A-Z][ -~]+[.]").all(), "plain letters, one paragraph"


def test_no_five_words_in_a_row_stand_in_two_sample_texts() -> None:
    seen: dict[tuple[str, ...], int] = {}
    for number, text in enumerate(loaders.read("ordinary_text", "sample", SAMPLE).text):
        words = text.lower().split()
        for start in range(len(words) - 4):
            assert seen.setdefault(tuple(words[start : start + 5]), number) == number, words[start : start + 5]


@pytest.mark.parametrize("preset", [None, "tiny"])
def test_the_sample_has_as_many_texts_as_are_asked_for(preset: str | None) -> None:
    config = yaml.safe_load((ROOT / (f"presets/{preset}.yaml" if preset else "config.yaml")).read_text())
    assert config["data"]["sources"]["ordinary_text"] == "sample"
    assert config["analyses"]["ordinary_text"]["texts"] <= 24


def test_pages_of_a_parquet_are_read_and_blank_ones_left_out(tmp_path: Path) -> None:
    def written(*texts: object) -> Path:
        pyarrow.parquet.write_table(pa.table({"text": list(texts), "other": list(texts)}), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    frame = loaders.texts_parquet(written("One\n\npage.", " \n", "Another."))
    assert frame.text.tolist() == ["One\n\npage.", "Another."] and frame.label.isna().all()
    with pytest.raises(loaders.BadRows, match=r"t\.parquet:2: the text is None, not a string"):
        loaders.texts_parquet(written("One.", None))


# ---- the figure ----

BASE_CE = np.array([3.0, 3.5, 2.5, 4.0])


def measured(method: str = "slim", change: float = 0.1, *, seeds=(0, 1), strength: float = 1.0) -> pd.DataFrame:
    """Texts that cost `change` more in the first seed, and 0.02 more in each further one; half of that is the KL."""
    rows = []
    for number, seed in enumerate(seeds):
        for text, base in enumerate(BASE_CE):
            own = change + 0.02 * number + 0.01 * text
            rows.append((method, seed, strength, f"t{text}", 128, base + own, base, own / 2))
    return pd.DataFrame(rows, columns=ordinary_text.COLUMNS)


def drawn(*methods: pd.DataFrame, **how) -> pd.DataFrame:
    return figure.table(pd.concat(methods or [measured(), measured("random_slim", 0.3)]), model="tiny", **how)


def test_the_unsteered_model_stands_first_and_controls_after_their_methods() -> None:
    rows = drawn(measured("random_slim"), measured("iti"), measured("slim"), measured("caa"))
    assert list(rows.columns) == figure.COLUMNS
    assert list(rows.method.unique()) == ["base", "slim", "random_slim", "iti", "caa"]
    base = rows[rows.method == "base"].set_index("metric")
    assert list(base.seed) == ["all"] * 3 and base.value["ce"] == BASE_CE.mean()
    assert base.value["ce_change"] == base.value["kl"] == 0


def test_texts_are_pooled_over_seeds_before_they_are_drawn_again() -> None:
    rows = drawn(measured()).query("method == 'slim'").set_index(["metric", "seed"])
    change = rows.loc["ce_change"]
    assert change.value.to_dict() == pytest.approx({"all": 0.125, "0": 0.115, "1": 0.135})
    # A text's mean over seeds moves by 0.01 from text to text: no interval is wider than all four of them.
    assert 0.11 <= change.low["all"] < 0.125 < change.high["all"] <= 0.14
    assert rows.loc["kl"].value["all"] == pytest.approx(0.0625) and set(rows.n) == {len(BASE_CE)}
    assert rows.loc["ce"].value["all"] == pytest.approx(BASE_CE.mean() + 0.125)


def test_a_difference_is_paired_so_that_texts_that_differ_do_not_widen_it() -> None:
    rows = drawn(measured()).query("method == 'slim' and seed == 'all'").set_index("metric")
    widths = rows.high - rows.low
    assert widths["ce_change"] < 0.1 * widths["ce"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (measured().head(0), "no texts were read"),
        (pd.concat([measured(), measured(strength=2.0)]), "slim has several strengths"),
        (pd.concat([measured(), measured()]), "a text of slim stands twice"),
        (measured().iloc[:-1], "the seeds of slim have different texts"),
    ],
)
def test_tables_that_cannot_be_pooled_are_refused(rows: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figure.table(rows)


def test_points_and_intervals_stand_at_the_values_of_the_table(tmp_path: Path) -> None:
    rows = drawn()
    drawing = figure.plot(rows)
    for panel, metric in zip(drawing.axes, figure.PANELS, strict=True):
        points = {round(float(x), 9) for line in panel.lines if line.get_marker() == "o" for x in line.get_xdata()}
        assert points == {round(value, 9) for value in rows[rows.metric == metric].value}
        assert any(list(line.get_xdata()) == [0, 0] for line in panel.lines), "a line at 0"
        assert panel.get_xlabel()
    labels = [tick.get_text() for tick in drawing.axes[0].get_yticklabels()]
    assert labels == ["unsteered", "SLIM, 1", "random directions (SLIM), 1"]
    rows.to_csv(tmp_path / "table.csv", index=False)
    for name, table_ in (("a", rows), ("b", pd.read_csv(tmp_path / "table.csv"))):
        style.save(figure.plot(table_), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_caption_says_what_was_measured_on_how_much() -> None:
    facts = {"sample_data": "sample data (the texts)"} | figure.facts(drawn())
    text = " ".join(captions.caption((ROOT / "captions/ordinary_text.rst").read_text(), facts).split())
    assert "first 128 tokens of 4 texts" in text and "over 2 seeds" in text and not set("{}") & set(text)
    assert "95 % percentile bootstrap interval over texts" in text and "whose own is 3.250 [" in text
    assert "SLIM, 1: +0.125 [" in text and "rests on sample data (the texts)" in text and "random control" in text
    alone = figure.facts(drawn(measured(seeds=[0])))
    assert (
        alone["seeds"] == "1 seed"
        and not alone["controls"]
        and "−" in figure.facts(drawn(measured("iti", -0.2)))["changes"]
    )
