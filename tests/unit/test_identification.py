"""Candidates found in hidden states: the scripts, the scores, what is told and drawn of them, and the experiment."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.testing import assert_allclose

from scripts import answer_relations, identify_system_prompts
from steerlab import experiment, latent_reads
from steerlab.analyses import identification as analysis
from steerlab.decoder_prompts import Template
from steerlab.experiment import ConfigError
from steerlab.figures import captions, relations, style, system_prompts
from steerlab.methods.latentqa import Decoder, captured
from steerlab.metrics import identification as metrics
from steerlab.models import encode, in_chat
from tests.unit.latentqa_subjects import SETTINGS, reader_model
from tests.unit.latentqa_subjects import table as trained_on
from tests.workflow.project import ROOT

MODEL = "smollm2-135m-instruct"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
COMPUTE = {"device": "cpu", "dtype": "float32", "attention": "sdpa", "threads": 1, "versions": {}, "capture_code": "c"}
SPEC = COMPUTE | {"activations": {"batch_rows": 4, "shard_rows": 3}, "setting": "visible", "labels": None, "seed": 0}
SPEC |= {"beside": True, "batch_rows": 4, "max_new_tokens": 2}
WORDS = ("red", "blue", "green")


def facts() -> pd.DataFrame:
    """Two relations: subjects with three objects that repeat, and two whose objects are theirs alone."""
    given = [("hue", f"thing {i}", WORDS[i % 3]) for i in range(6)] + [("size", "hill", "big"), ("size", "pea", "wee")]
    rows = []
    for group, unit, answer in given:
        among = WORDS if group == "hue" else ("big", "tall", "wee")
        turns = [{"role": "user", "content": f"I saw the {unit}."}]
        asked = [{"role": "user", "content": f"What {group} has the {unit}?"}]
        about = {"id": unit, "group": group, "unit": unit, "turns": json.dumps(turns), "hidden": 0, "focus": unit}
        about |= {"question": f"What {group}?", "answer": answer, "candidates": json.dumps(among)}
        rows.append(about | {"in_words": json.dumps(asked), "data": "sample"})
    return pd.DataFrame(rows)


def prompts() -> pd.DataFrame:
    """An easy and a hard message for each word, and a word that no reader was trained on."""
    rows = []
    for word in (*WORDS, "black"):
        for variant, message in (("easy", "Hue?"), ("hard", "Hm?")):
            turns = [{"role": "system", "content": f"Be {word}."}, {"role": "user", "content": message}]
            about = {"id": f"{word} {variant}", "group": variant, "unit": word, "turns": json.dumps(turns), "hidden": 1}
            about |= {"message": message, "question": "Which?", "answer": word, "data": "synthetic sample"}
            rows.append(about | {"candidates": json.dumps(["black", *WORDS])})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reader, and what it and the model said of both tables."""
    folder, model = tmp_path_factory.mktemp("ran"), reader_model("llama")
    Decoder.fit(model, trained_on(), **SETTINGS).save(folder / "reader")
    facts().to_parquet(folder / "facts.parquet")
    prompts().to_parquet(folder / "prompts.parquet")
    learnt = pd.DataFrame({"label": [*WORDS, "black"], "split": ["train"] * 3 + ["dev"], "label_is_seen": True})
    learnt.assign(hidden=1).to_parquet(folder / "learnt.parquet")
    at = {"reader": folder / "reader", "model": model.folder, "store": folder / "store"}
    answer_relations.run(**at, table=folder / "facts.parquet", rows=folder / "relations.csv", spec=SPEC)
    of_prompts = {"table": folder / "prompts.parquet", "trained": folder / "learnt.parquet"}
    spec = SPEC | {"reply_tokens": 3}
    identify_system_prompts.run(**at, **of_prompts, rows=folder / "prompts.csv", spec=spec)
    return folder


@pytest.fixture(scope="module")
def said(ran: Path) -> pd.DataFrame:
    return pd.read_csv(ran / "relations.csv")


# ---- the analysis ----


def test_every_fact_stands_under_each_condition_with_a_known_chance(said: pd.DataFrame):
    assert list(said.columns) == ["setting", *analysis.COLUMNS] and set(said.condition) == set(metrics.CONDITIONS)
    for condition in ("true", "none", "in_words"):
        rows = said[said.condition == condition]
        assert set(rows.id) == set(facts().id)
        assert_allclose(rows.chance, 1 / 3)
        assert rows.share.between(0, 1).all() and (rows.right == (rows.picked == answers(rows))).all()


def answers(rows: pd.DataFrame) -> pd.Series:
    return rows.id.map(facts().set_index("id").answer)


def test_a_candidates_score_is_the_readers_log_likelihood_of_it(ran: Path, said: pd.DataFrame):
    model, decoder, data = reader_model("llama"), Decoder.load(ran / "reader"), facts()
    for condition, how in (("true", {}), ("none", {"patch": False})):
        rows = said[said.condition == condition].set_index("id")
        scores = {}
        for word in WORDS:  # one at a time, without stored states
            losses = decoder.losses(model, data.assign(answer=word), **how).set_index("id")
            scores[word] = -losses.loss * losses.tokens
        share = np.exp(pd.DataFrame(scores)).pipe(lambda likely: likely.div(likely.sum(axis=1), axis=0))
        for id, answer in data[data.group == "hue"].set_index("id").answer.items():
            assert_allclose(rows.share[id], share.loc[id, answer], rtol=1e-4)


def test_shuffled_states_are_those_of_another_object_of_the_same_relation(ran: Path, said: pd.DataFrame):
    """Of a relation with two subjects, each is shown the other one's states."""
    model, decoder = reader_model("llama"), Decoder.load(ran / "reader")
    data = facts()[lambda rows: rows.group == "size"].reset_index(drop=True)
    scores = {}
    for word in ("big", "tall", "wee"):
        losses = decoder.losses(model, data.assign(answer=word), shown=[1, 0])
        scores[word] = -losses.loss * losses.tokens
    likely = np.exp(pd.DataFrame(scores))
    wanted = likely.div(likely.sum(axis=1), axis=0)
    found = said[said.condition == "shuffled"].set_index("id")
    assert_allclose(found.share[data.id], [wanted.big[0], wanted.wee[1]], rtol=1e-4)
    assert set(found.index) == set(facts().id)  # no object has more than half of a relation


@torch.no_grad()
def test_the_model_asked_in_words_is_scored_as_it_is(said: pd.DataFrame):
    model = reader_model("llama")
    tokenizer, loaded = model.info.tokenizer, model.load()
    closing = Template(tokenizer).closing
    rows = said[said.condition == "in_words"].set_index("id")
    for row in facts().iloc[[0, 7]].itertuples():
        ids, scores = encode(tokenizer, in_chat(tokenizer, json.loads(row.in_words))), []
        among = json.loads(row.candidates)
        for candidate in among:
            spoken = tokenizer(candidate, add_special_tokens=False)["input_ids"] + closing
            logits = loaded(torch.tensor([ids + spoken])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
            scores.append(float(logits[torch.arange(len(spoken)), spoken].sum()))
        likely = np.exp(np.array(scores) - max(scores))
        assert_allclose(rows.share[row.id], likely[among.index(row.answer)] / likely.sum(), rtol=1e-4)


def test_the_probe_is_asked_for_objects_that_another_subject_has(said: pd.DataFrame):
    rows = said[said.condition == "probe"]
    assert set(rows.group) == {"hue"} and set(rows.id) == {f"thing {i}" for i in range(6)}
    assert set(rows.picked) <= set(WORDS) and (rows.right == (rows.picked == answers(rows))).all()


def test_the_probe_never_learns_from_the_subject_it_is_asked_about():
    """States tell objects but for one subject's, which a probe that had seen them would know as well."""
    about = {"group": "g", "data": "d"}
    data = pd.DataFrame([{"id": f"i{i}", "unit": f"u{i}", "answer": WORDS[i % 2], **about} for i in range(8)])
    means = np.zeros((8, 10))
    means[np.arange(8), np.arange(8) % 2] = 1.0
    means[0] = [0, 1, *[0] * 6, 5, 5]  # as the others with the other object, and a mark of its own
    found = analysis.probed(data, means).set_index("id")
    assert found.loc["i0", "picked"] == WORDS[1] and found.right.drop("i0").eq(1).all()


def test_without_what_stands_beside_the_decoders_rows_are_the_same(ran: Path, said: pd.DataFrame, tmp_path: Path):
    at = {"reader": ran / "reader", "model": reader_model("llama").folder, "table": ran / "facts.parquet"}
    answer_relations.run(**at, rows=tmp_path / "rows.csv", spec=SPEC | {"beside": False}, store=ran / "store")
    wanted = said[said.condition.isin(metrics.READER)].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "rows.csv"), wanted)


def test_labels_that_a_reader_was_trained_on_are_told_apart(ran: Path):
    found = pd.read_csv(ran / "prompts.csv")
    seen = found.unit.isin(WORDS)
    assert set(found.group[seen]) == {"easy, seen labels", "hard, seen labels"}
    assert set(found.group[~seen]) == {"easy, unseen labels", "hard, unseen labels"}
    assert set(found.condition[seen]) == {"true", "shuffled", "none", "in_words"}
    assert "shuffled" not in set(found.condition[~seen])  # one unseen word alone is not shuffled
    assert_allclose(found.chance, 1 / 4)


def test_states_of_the_system_prompt_are_not_shown():
    model, data = reader_model("llama"), prompts()
    reads, _ = latent_reads.reads(model.info.tokenizer, data)
    for read, message in zip(reads, data.message, strict=True):
        shown = model.info.tokenizer.decode([read.ids[place] for place in read.selected])
        assert shown.startswith("[user]") and message in shown and "Be " not in shown


def test_the_model_that_is_asked_in_words_is_told_its_own_reply(tmp_path: Path):
    """The reply is made with the system prompt, and the question without it."""
    model, data = reader_model("llama"), prompts()
    told = [json.loads(turns) for turns in data.turns]
    replies = analysis.replied(model, told, batch_rows=3, max_new_tokens=3)
    one_by_one = [analysis.replied(model, [each], batch_rows=1, max_new_tokens=3)[0] for each in told]
    assert replies == one_by_one and len(set(replies)) > 1
    decoder = Decoder.fit(model, trained_on(), **SETTINGS)
    how = {"batch_rows": 4, "max_new_tokens": 2}
    states = {"folder": tmp_path, "batch_rows": 4, "shard_rows": 8, "read_layer": decoder.site.layer}
    part = (data, captured(model, data, **states))
    found = analysis.hidden_prompts(decoder, model, part, seed=0, beside=True, reply_tokens=3, **how)
    asked = [
        analysis.system_prompts.asked_in_words(message, reply, "Which?")
        for message, reply in zip(data.message, replies, strict=True)
    ]
    wanted = analysis.in_words(model, data, asked, **how)
    assert_allclose(found[found.condition == "in_words"].share, wanted.share)


@pytest.mark.parametrize(
    ("answer", "right", "exact", "contained"),
    [
        ("Yen.", "yen", 1, 1),
        ("It is the yen", "yen", 0, 1),
        ("yens", "yen", 0, 0),
        ("The Canis-Major!", "canis major", 0, 1),
        ("major canis", "canis major", 0, 0),
        ("", "yen", 0, 0),
        ("it will sound glad", "it will sound glad", np.nan, 1),
    ],
)
def test_an_answer_is_right_by_its_words(answer: str, right: str, exact: float, contained: float):
    found = analysis.said_right([answer], [right]).iloc[0]
    assert_allclose([found.exact, found.contained], [exact, contained])


def test_the_likeliest_candidate_is_picked():
    scores = [np.array([-2000.0, -2000.0 + np.log(3)]), np.array([-1.0, -9.0, -2.0])]
    found = analysis.picked(scores, [["a", "b"], ["a", "b", "c"]], ["a", "a"])
    assert_allclose(found.share, [0.25, 1 / (1 + np.exp(-8) + np.exp(-1))])
    assert list(found.picked) == ["b", "a"] and list(found.right) == [0, 1]
    assert_allclose(found.chance, [1 / 2, 1 / 3])


# ---- what is told ----

GROUPS = {relations: ("country_currency", "athlete_sport"), system_prompts: tuple(system_prompts.GROUPS)}


def rows(module=relations, *, settings=("visible", "masked"), seeds=(0, 1), units=4, n=2) -> pd.DataFrame:
    """Of four subjects, two rows each: own states find three, others' the first alone, words the first two."""
    found = []
    for group in GROUPS[module]:
        for unit in range(units):
            for row in range(n):
                about = (f"{group} {unit} {row}", group, f"unit {unit}", "sample")
                for place, setting in enumerate(settings):
                    for seed in seeds:
                        beside = place == 0 and seed == seeds[0]
                        right = {"true": unit < 3, "shuffled": unit < 1, "none": False}
                        right |= {"in_words": unit < 2, "probe": unit < 1} if beside else {}
                        for condition, is_right in right.items():
                            own = (
                                (float(unit == 0), float(unit < 2))
                                if condition in ("true", "in_words")
                                else (None,) * 2
                            )
                            chance = 0.5 if condition == "probe" else 0.25
                            found.append(
                                (setting, seed, *about, condition, float(is_right), 0.3, "x", "x", *own, chance)
                            )
    return pd.DataFrame(found, columns=["setting", *analysis.COLUMNS])


def number(table: pd.DataFrame, condition: str, quantity="identified", setting="masked", seed="all"):
    keys = (table.group == "athlete_sport") & (table.setting == setting) & (table.condition == condition)
    (found,) = table[keys & (table.quantity == quantity) & (table.seed == seed)].itertuples()
    return found


def test_shares_and_paired_differences_have_the_right_values():
    found = metrics.table(rows(), resamples=50)
    assert_allclose(number(found, "true").value, 3 / 4)
    assert_allclose(number(found, "shuffled").value, 1 / 4)
    assert_allclose(number(found, "true_minus_shuffled").value, 2 / 4)
    assert_allclose(number(found, "true_minus_none").value, 3 / 4)
    assert_allclose(number(found, "true_minus_in_words").value, 1 / 4)  # which stands beside another setting's reader
    assert_allclose(number(found, "true", "exact").value, 1 / 4)
    assert_allclose(number(found, "true", "contained", seed="1").value, 2 / 4)
    assert_allclose(number(found, "true").chance, 1 / 4)
    assert np.isnan(number(found, "true", "exact").chance)


def test_what_depends_on_no_reader_counts_once_and_has_no_seeds():
    found = metrics.table(rows(), resamples=50)
    words = number(found, "in_words", setting=metrics.MODEL_ALONE)
    assert (words.value, words.units, words.rows) == (0.5, 4, 8)
    assert number(found, "probe", setting=metrics.MODEL_ALONE).chance == 0.5
    assert set(found[found.setting == metrics.MODEL_ALONE].seed) == {"all"}


def test_intervals_draw_subjects_with_all_their_rows():
    few, many = (number(metrics.table(rows(n=n), resamples=400), "true") for n in (1, 9))
    assert (few.units, few.rows, many.rows) == (4, 4, 36)
    assert_allclose([few.low, few.high], [many.low, many.high])
    assert 0 <= few.low < few.value < few.high <= 1


def test_over_all_relations_every_row_counts():
    found = relations.table(rows(), model="tiny", resamples=50)
    keys = (found.group == relations.ALL) & (found.setting == "masked") & (found.seed == "all")
    (told,) = found[keys & (found.condition == "true") & (found.quantity == "identified")].itertuples()
    assert (told.rows, told.units) == (16, 4) and told.value == 0.75


TABLES = {module: module.table(rows(module), model="tiny", resamples=50) for module in GROUPS}


@pytest.mark.parametrize("module", GROUPS)
def test_the_same_table_gives_the_same_bytes_and_words_also_from_its_csv(module, tmp_path: Path):
    shown = TABLES[module]
    shown.to_csv(tmp_path / "table.csv", index=False)
    read = pd.read_csv(tmp_path / "table.csv")
    drawn = []
    for place, given in enumerate((shown, read)):
        style.save(module.plot(given), tmp_path / f"{place}.svg")
        drawn.append((tmp_path / f"{place}.svg").read_bytes())
    assert drawn[0] == drawn[1] and module.facts(shown) == module.facts(read)


@pytest.mark.parametrize("module", GROUPS)
def test_points_stand_at_the_values_of_the_table(module):
    shown = TABLES[module]
    left, right = module.plot(shown).axes
    said = "contained" if module is relations else "exact"
    for panel, quantity in ((left, "identified"), (right, said)):
        drawn = [x for line in panel.lines if line.get_markersize() == style.POOLED_SIZE for x in line.get_xdata()]
        told = shown[(shown.seed == "all") & (shown.quantity == quantity) & shown.condition.isin(metrics.CONDITIONS)]
        alone = told[told.setting == metrics.MODEL_ALONE]  # which stands in the rows of both settings
        assert_allclose(sorted(drawn), sorted([*told.value, *alone.value]))


def caption(module, shown: pd.DataFrame, sample_data: str) -> str:
    template = (ROOT / "captions" / f"{module.__name__.rpartition('.')[2]}.rst").read_text()
    return " ".join(captions.caption(template, {"sample_data": sample_data} | module.facts(shown)).split())


def test_the_captions_tell_numbers_chance_and_sample_data():
    text = caption(relations, TABLES[relations], "sample data (the facts)")
    assert "chance, 0.25" in text and "own states 0.750 [" in text and "minus others' states 0.500 [" in text
    assert "rests on sample data (the facts)" in text and "Diamonds" in text and "2 seeds" in text
    assert "Country, currency: 8 rows of 4 subjects" in text
    text = caption(system_prompts, TABLES[system_prompts], "")
    assert "Control masked, easy message, seen labels: own states 0.750" in text and "rests on" not in text
    assert "nan" not in text and "Diamonds" not in text


# ---- the experiment ----


def loaded(**sections) -> experiment.Experiment:
    return experiment.load(DEFAULT | sections)


ASKED = {"relations": {"corpora": ["relations"]}, "system_prompts": {"corpora": ["system_prompts"]}}


def test_by_default_nobody_is_asked_and_each_corpus_brings_its_figure():
    assert loaded().figures(named="read_relations") == [] == loaded().figures(named="read_system_prompts")
    x = loaded(**ASKED)
    for name in ASKED:
        assert x.figures(named=f"read_{name}") == [f"results/figures/{MODEL}/read_{name}.svg"]
        assert x.figures(named=f"read_{name}")[0] in x.figures("latentqa") and name in x.tasks
        assert x.doors[name] == "sample"


def test_every_reader_is_asked_and_the_first_brings_what_depends_on_none():
    x = loaded(**ASKED, latentqa={"settings": ["masked", "visible"], "seeds": [3, 0]})
    for rule, table in (("answer_relations", "relations"), ("identify_system_prompts", "system_prompts")):
        beside = {}
        for setting in ("masked", "visible"):
            for seed in ("3", "0"):
                at = [("model", MODEL), ("setting", setting), ("seed", seed)]
                beside[setting, seed] = json.loads(x.spec(rule, at))["beside"]
                file = f"results/analyses/{MODEL}/{table}/{setting}/{seed}.csv"
                assert file in experiment.figures.inputs(x.config, x.cells, MODEL, f"read_{table}")["reads"]
        assert [key for key, is_first in beside.items() if is_first] == [("masked", "3")]


def test_the_captions_are_told_which_part_is_sample_data():
    told = {}
    for name in ASKED:
        spec = loaded(**ASKED).spec("plot_figure", [("model", MODEL), ("figure", f"read_{name}")])
        told[name] = json.loads(spec)["sample_data"]
    trained = "what the readers were trained on"
    assert told["relations"] == f"sample data (the facts and {trained})"
    assert told["system_prompts"] == f"sample data (the system prompts and {trained})"


@pytest.mark.parametrize("key", ["relations.corpora", "system_prompts.corpora", "latentqa.scaling"])
def test_without_readers_nobody_can_be_asked(key: str):
    section, leaf = key.split(".")
    given = {"corpora": [section], "scaling": [{"labels": 0.5}]}[leaf]
    with pytest.raises(ConfigError, match=f"{key}: it is asked of LatentQA's readers, and none is trained"):
        loaded(latent_reading={"corpora": []}, **{section: {leaf: given}})


def test_a_corpus_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="relations.corpora: no corpus of relations 'latentqa'"):
        loaded(relations={"corpora": ["latentqa"]})
