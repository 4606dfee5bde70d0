"""Pairs of sentences about different people: loaders, table, likelihoods by hand, script, figure, and the sample."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from scripts import measure_bias
from steerlab import models
from steerlab.analyses import bias
from steerlab.analyses.steered import Steered
from steerlab.data import loaders, sentence_pairs
from steerlab.data.doors import fetch
from steerlab.data.records import BadRows
from steerlab.data.sources import SAMPLE
from steerlab.data.sources import table as sources
from steerlab.experiment import names
from steerlab.figures import captions, control_bias, style
from steerlab.models import ModelHandle
from steerlab.tasks import bias as task
from tests.laws.subjects import fitted, handle
from tests.unit.test_control import MODEL, given, loaded, spec
from tests.workflow.project import ROOT

SETTINGS = {"prompts": {"test": None}, "renderings": ["plain", "instructed"], "wording": "Be fair.\n\n{text}"}
DOORS, RAW = {"crows_pairs": "sample"}, {"crows_pairs": SAMPLE}

# ---- the files ----


def test_crows_pairs_is_read_by_its_columns(tmp_path: Path):
    header = ",sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,anon_annotators\n"
    row = '0,"Old, and slow.","Young, and slow.",stereo,age,"[[\'age\'], []]",a0,"[\'a1\']"\n'
    (tmp_path / "pairs.csv").write_text(header + row + row.replace("0,", "1,", 1).replace("Young", "Rich"))
    found = sentence_pairs.crows_pairs_csv(tmp_path / "pairs.csv")
    assert list(found.columns) == sentence_pairs.COLUMNS
    assert found.values.tolist()[0] == ["Old, and slow.", "Young, and slow.", "age"] and len(found) == 2


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"less": "Old."}, "both sentences are 'Old.'; give two"), ({"kind": " "}, "the text is empty")],
)
def test_a_line_that_is_no_pair_is_told_with_its_number(tmp_path: Path, fields: dict, told: str):
    good = {"more": "Old.", "less": "Young.", "kind": "age"}
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(good | fields)}\n")
    with pytest.raises(BadRows, match=rf"p\.jsonl:2: {told}"):
        sentence_pairs.bias_pairs_jsonl(tmp_path / "p.jsonl")


def test_the_sample_is_the_pinned_one_and_its_sentences_differ_in_few_words(tmp_path: Path):
    fetch(sources()["crows_pairs"], "sample", tmp_path / "raw", mirror=None, environ={})
    pairs = loaders.read("crows_pairs", "sample", tmp_path / "raw")
    kinds = {"gender": 16, "age": 12, "socioeconomic": 12, "physical-appearance": 8}
    assert pairs.kind.value_counts().to_dict() == kinds and not pairs.duplicated(["more", "less"]).any()
    for more, less in zip(pairs.more, pairs.less):
        shared = set(more.split()) & set(less.split())
        assert len(shared) >= 0.5 * len(set(more.split()))


# ---- the table ----


def test_each_pair_stands_in_each_rendering_with_what_comes_before_it():
    table = task.make_table(RAW, DOORS, SETTINGS)
    assert list(table.columns) == task.COLUMNS and len(table) == 2 * 48
    assert set(table.split) == {"test"} and (table.groupby("id").rendering.nunique() == 2).all()
    assert table.groupby("rendering").context.unique().map(list).to_dict() == {
        "instructed": ["Be fair.\n\n"],
        "plain": [""],
    }


def test_a_larger_number_of_pairs_keeps_those_of_a_smaller_one():
    few, more = (task.make_table(RAW, DOORS, SETTINGS | {"prompts": {"test": n}}) for n in (5, 9))
    assert few.id.nunique() == 5 and set(few.id) < set(more.id)
    with pytest.raises(ValueError, match="49 pairs are asked for, the source has 48; lower bias.prompts.test"):
        task.make_table(RAW, DOORS, SETTINGS | {"prompts": {"test": 49}})


# ---- the analysis ----

PAIRS = pd.DataFrame(
    {
        "id": ["a", "b"],
        "kind": ["age", "gender"],
        "context": ["", "Hm. "],
        "more": ["Old men.", "She."],
        "less": ["Boys.", "He was."],
    }
)


def measured(model: ModelHandle, one: Steered | None = None) -> pd.DataFrame:
    return bias.bias(model, one or Steered("base", None, 0.0), PAIRS, tokens_a_batch=64)


def by_hand(model: ModelHandle, context: str, text: str) -> float:
    """Of all tokens of the text, the first one after the token that ends texts, as this model begins none."""
    tokenizer = model.info.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    before, own = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (context, text))
    ids = torch.tensor([[start, *before, *own]])
    with torch.no_grad():
        log_p = model.load()(ids).logits[0].double().log_softmax(-1)
    return sum(float(log_p[place - 1, ids[0, place]]) for place in range(1 + len(before), ids.shape[1]))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_likelihoods_are_those_by_hand_with_the_first_token_of_each_sentence(family: str):
    model = handle(family)
    found = measured(model)
    assert list(found.columns) == bias.COLUMNS and list(found.pair) == ["a", "b"]
    for side in ("more", "less"):
        wanted = [by_hand(model, *texts) for texts in zip(PAIRS.context, PAIRS[side])]
        assert found[side].tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_steer_is_on_while_the_pairs_are_read_and_off_afterwards():
    model = handle("llama")
    base, steered = measured(model), measured(model, Steered("caa", fitted("caa", "llama"), 4.0))
    assert set(steered.strength) == {4.0} and steered.more.tolist() != pytest.approx(base.more.tolist(), rel=1e-3)
    pd.testing.assert_frame_equal(measured(model), base)
    still = measured(model, Steered("caa", fitted("caa", "llama"), 0.0))
    assert still.more.tolist() == base.more.tolist()


def test_numbers_that_are_not_finite_are_refused_with_the_method():
    with pytest.raises(FloatingPointError, match="^caa at strength inf: .*use a lower strength"):
        measured(handle("llama"), Steered("caa", fitted("caa", "llama"), float("inf")))


def test_a_text_begins_with_the_tokenizers_own_token_or_that_which_ends_it():
    tokenizer = models.load_tokenizer(handle("llama").folder)
    assert bias._begin(tokenizer) == (tokenizer.bos_token or tokenizer.eos_token)


# ---- the script and its spec ----


def test_the_script_reads_the_pairs_under_each_method_and_strength(tmp_path: Path):
    fitted("caa", "llama").save(tmp_path / "steer")
    task.make_table(RAW, DOORS, SETTINGS | {"prompts": {"test": 3}}).to_parquet(tmp_path / "table.parquet")
    asked = [("base", "plain", []), ("instructed", "instructed", []), ("latentqa", "plain", [0.5, 1.0])]
    spec = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "seed": 2, "tokens_a_batch": 256}
    spec["asked"] = [dict(zip(("method", "rendering", "strengths"), each)) for each in asked]
    measure_bias.run(
        model=handle("llama").folder, table=tmp_path / "table.parquet", steers=[tmp_path / "steer"],
        pairs=tmp_path / "pairs.csv", spec=spec,
    )  # fmt: skip
    written = pd.read_csv(tmp_path / "pairs.csv")
    at = written[["method", "strength", "seed"]].drop_duplicates().to_numpy().tolist()
    assert at == [["base", 0.0, 2], ["instructed", 0.0, 2], ["latentqa", 0.5, 2], ["latentqa", 1.0, 2]]
    assert len(written) == 12 and (written.groupby("pair").more.nunique() == 4).all()


def test_the_spec_and_the_steers_name_the_methods_in_one_order():
    x = loaded(**given(strengths=[0.5, 1.0]))
    asked = spec(x, "measure_bias", model=MODEL, seed="0")["asked"]
    assert [each["method"] for each in asked] == ["base", "instructed", "latentqa", "random_latentqa"]
    assert [each["rendering"] for each in asked] == ["plain", "instructed", "plain", "plain"]
    w = SimpleNamespace(model=MODEL, seed="0")
    assert [Path(path).parts[-3] for path in x.biased_steers(w)] == ["latentqa", "random_latentqa"]
    assert [each["strengths"] for each in asked] == [[], [], [0.5, 1.0], [0.5, 1.0]]


def test_its_cells_have_an_analysis_and_neither_metrics_nor_texts():
    x = loaded(tasks={"bias": {"seeds": [0, 1]}})
    assert not [path for path in x.metrics if "/bias/" in path] and "bias" in x.tasks
    drawn = x.figure_input(SimpleNamespace(model=MODEL, figure="control_bias"))
    assert drawn == {"pairs": [names.BIAS.format(model=MODEL, seed=seed) for seed in (0, 1)]}
    assert all(cell.samples == 0 for cell in x.cells.values() if cell.task == "bias")


@pytest.mark.parametrize(
    ("doors", "phrase"),
    [({}, "sample data"), ({"crows_pairs": "url"}, "sample data (what the reader learnt from)")],
)
def test_the_caption_says_which_part_rests_on_sample_data(doors: dict, phrase: str):
    own = loaded().config["data"]["sources"]
    x = loaded(data={"sources": own | doors})
    assert spec(x, "plot_figure", model=MODEL, figure="control_bias")["sample_data"] == phrase


# ---- the figure ----


def rows(method: str, more: list[float], *, strength: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Pairs whose second sentence has log-likelihood -10."""
    about = {"method": method, "strength": strength, "kind": "age", "less": -10.0, "seed": seed}
    return pd.DataFrame({"pair": [f"p{n}" for n in range(len(more))], "more": more}).assign(**about)


BASE = [-9.0, -8.0, -12.0, -6.0]  # apart by 1, 2, 2 and 4; three of four prefer the stereotype
FAIR = [-9.5, -10.5, -11.0, -9.0]


def drawn(*parts: pd.DataFrame) -> pd.DataFrame:
    return control_bias.table(pd.concat([rows("base", BASE), *parts]), model="tiny", resamples=50)


def test_differences_and_shares_are_those_by_hand_and_paired_with_the_unsteered_model():
    table = drawn(rows("latentqa", FAIR, strength=1.0), rows("instructed", BASE))
    assert list(table.columns) == control_bias.COLUMNS and list(table.method.unique()) == [
        "base",
        "instructed",
        "latentqa",
    ]
    pooled = table[table.seed == "all"].set_index(["method", "metric"])["value"]
    assert pooled["base"].to_dict() == {"difference": 2.25, "difference_change": 0, "share": 0.75, "share_change": 0}
    assert pooled["latentqa"].to_dict() == {
        "difference": 0.75, "difference_change": -1.5, "share": 0.5, "share_change": -0.25,
    }  # fmt: skip


def test_strengths_are_rows_of_their_own_and_seeds_are_pooled_pair_by_pair():
    parts = [rows("latentqa", FAIR, strength=s, seed=seed) for s in (0.5, 1.0) for seed in (0, 1)]
    table = drawn(rows("base", BASE, seed=1), *parts)
    at = table[["method", "strength"]].drop_duplicates().to_numpy().tolist()
    assert at == [["base", 0.0], ["latentqa", 0.5], ["latentqa", 1.0]]
    assert set(table[table.method == "latentqa"].seed) == {"all", "0", "1"} and set(table.n) == {4}


def test_the_caption_tells_changes_and_who_is_there():
    said = control_bias.facts(drawn(rows("latentqa", FAIR, strength=1.0), rows("random_latentqa", BASE, strength=1.0)))
    assert said["pairs"] == "4 pairs" and said["base"] == "2.25 and 0.75"
    assert said["changes"].startswith("LatentQA, 1: −1.500 [") and said["controls"] == "yes" and not said["instructed"]
    template = (ROOT / "captions" / "control_bias.rst").read_text()
    text = captions.caption(template, said | {"sample_data": "sample data"})
    assert "random control" in text and "This rests on sample data" in text and "request to be fair" not in text


def test_the_figure_from_its_csv_has_the_same_bytes(tmp_path: Path):
    table = drawn(rows("latentqa", FAIR, strength=1.0))
    table.to_csv(tmp_path / "rows.csv", index=False)
    for name, each in (("a", table), ("b", pd.read_csv(tmp_path / "rows.csv"))):
        style.save(control_bias.plot(each), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="no rows of method base"):
        control_bias.table(rows("latentqa", FAIR, strength=1.0))
    with pytest.raises(ValueError, match="the seeds of latentqa have different pairs"):
        drawn(rows("latentqa", FAIR, strength=1.0), rows("latentqa", FAIR[:2], strength=1.0, seed=1))
