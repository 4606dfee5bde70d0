"""Facts and hidden system prompts: their files, the samples, the tables with candidates, and what is read of a text."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab import latent_reads
from steerlab.data import loaders, sample_latentqa, sample_system_prompts
from steerlab.data.records import BadRows
from steerlab.data.relations import RELATIONS, relations_jsonl
from steerlab.data.sources import SAMPLE
from steerlab.data.system_prompts import COLUMNS, asked_in_words, system_prompts_jsonl
from steerlab.tasks import relations, system_prompts
from steerlab.tasks.candidates import candidates
from tests.unit.latentqa_subjects import reader_model

FACTS = relations_jsonl(SAMPLE / "relations.jsonl")
PROMPTS = system_prompts_jsonl(SAMPLE / sample_system_prompts.NAME)
OF_RELATIONS = {"corpora": ["relations"], "facts": None, "mentions": 2, "candidates": 6}
OF_PROMPTS = {"corpora": ["system_prompts"], "items": None, "candidates": 6}


def of_facts(**changes: object) -> pd.DataFrame:
    return relations.make_table({"relations": SAMPLE}, {"relations": "sample"}, OF_RELATIONS | changes)


@pytest.fixture(scope="module")
def prompts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder as the sample door leaves it."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "system_prompts.jsonl").write_text(sample_system_prompts.contents())
    return folder


def of_prompts(folder: Path, door: str = "sample", **changes: object) -> pd.DataFrame:
    return system_prompts.make_table({"system_prompts": folder}, {"system_prompts": door}, OF_PROMPTS | changes)


# ---- files and samples ----


def test_the_sample_has_twenty_facts_of_each_of_the_papers_relations_and_objects_that_repeat():
    assert FACTS.relation.value_counts().to_dict() == dict.fromkeys(RELATIONS, 20)
    for _, facts in FACTS.groupby("relation"):
        assert facts.object.nunique() >= 6 and (facts.object.value_counts() > 1).sum() >= 2


def test_no_text_about_a_subject_tells_its_object_and_each_has_the_subject_once():
    for row in of_facts().itertuples():
        (turn,) = json.loads(row.turns)
        assert turn["content"].count(row.focus) == 1 and row.focus == row.unit
        assert row.answer.casefold() not in turn["content"].casefold()
        assert row.answer.casefold() not in row.in_words.casefold() and row.unit in row.in_words
        assert row.unit not in row.question


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"relation": "country_money", "subject": "Japan", "object": "yen"}], "1: the relation is 'country_money'"),
        ([{"relation": "country_currency", "subject": "Japan"}], "1: lacks 'object'"),
        ([{"relation": "country_currency", "subject": " ", "object": "yen"}], "1: the text is empty"),
        (
            [{"relation": "country_currency", "subject": "Japan", "object": each} for each in ("yen", "won")],
            "2: 'Japan' has stood under country_currency before",
        ),
    ],
)
def test_a_fact_of_another_form_is_refused_with_its_line(tmp_path: Path, lines: list[dict], said: str):
    path = tmp_path / "relations.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadRows, match=said):
        relations_jsonl(path)


def test_the_sample_of_system_prompts_is_what_its_module_makes():
    assert (SAMPLE / sample_system_prompts.NAME).read_text(encoding="utf-8") == sample_system_prompts.contents()
    assert len(PROMPTS) == 80 and list(PROMPTS.columns) == COLUMNS


def test_the_system_prompts_have_the_labels_that_readers_are_trained_on_and_none_of_their_texts():
    of_readers = loaders.FORMATS["latentqa_system"](SAMPLE / "synthetic_latentqa_system.json")
    trained = {turn["content"] for turns in of_readers.turns for turn in json.loads(turns)}
    assert set(PROMPTS.label) == set(of_readers.label)
    assert not trained & {*PROMPTS.system, *PROMPTS.easy, *PROMPTS.hard}
    assert set(PROMPTS.question) == {sample_latentqa.QUESTION}


def test_no_message_says_the_word_that_its_system_prompt_says():
    for row in PROMPTS.itertuples():
        assert row.description in row.system
        assert row.description not in f"{row.easy} {row.hard}".casefold()


def test_a_system_prompt_that_lacks_a_text_is_refused(tmp_path: Path):
    path = tmp_path / "system_prompts.jsonl"
    path.write_text(json.dumps(dict.fromkeys(COLUMNS, "text") | {"hard": ""}) + "\n")
    with pytest.raises(BadRows, match="1: the text is empty"):
        system_prompts_jsonl(path)


# ---- tables ----


@given(st.sets(st.text("abc", min_size=1, max_size=2), min_size=2), st.integers(2, 12), st.integers(0, 3))
def test_candidates_hold_the_right_one_once_and_more_of_them_keep_fewer(texts: set[str], n: int, key: int):
    right = min(texts)
    found = candidates(right, texts, n, str(key))
    assert found.count(right) == 1 and len(found) == len(set(found)) == min(n, len(texts)) and set(found) <= texts
    assert set(found) <= set(candidates(right, texts, n + 1, str(key)))
    assert candidates(right, texts, None, str(key)) == sorted(texts)


def test_an_only_answer_has_no_candidates():
    with pytest.raises(ValueError, match="'yen' is the only answer there is"):
        candidates("yen", ["yen", "yen"], 3, "Japan")


def test_a_fact_has_a_row_a_text_and_candidates_of_its_own_relation():
    found = of_facts()
    assert list(found.columns) == relations.COLUMNS and len(found) == 2 * len(FACTS) and found.id.is_unique
    objects = FACTS.groupby("relation")["object"].agg(set)
    for row in found.itertuples():
        among = json.loads(row.candidates)
        assert len(among) == 6 and row.answer in among and set(among) <= objects[row.group]
    assert set(found.data) == {"hand-written sample"} and set(found.hidden) == {0}
    every = of_facts(candidates=None)
    assert every.candidates.map(lambda of: len(json.loads(of))).tolist() == every.group.map(objects.map(len)).tolist()


def test_fewer_facts_are_among_more_of_them():
    few, more = (of_facts(facts=n, mentions=1) for n in (3, 7))
    assert few.groupby("group").size().to_dict() == dict.fromkeys(RELATIONS, 3)
    assert set(few.id) <= set(more.id) and list(few.group.unique()) == list(RELATIONS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"facts": 21}, "lower relations.facts"), ({"mentions": 3}, "lower relations.mentions")],
)
def test_more_facts_or_texts_than_there_are_are_refused(changes: dict, said: str):
    with pytest.raises(ValueError, match=said):
        of_facts(**changes)


def test_an_item_has_an_easy_and_a_hard_row_that_differ_in_the_message_alone(prompts_folder: Path):
    found = of_prompts(prompts_folder, candidates=None)
    assert list(found.columns) == system_prompts.COLUMNS and len(found) == 160 and found.id.is_unique
    easy, hard = (found[found.group == variant].set_index("item") for variant in ("easy", "hard"))
    same = ["corpus", "unit", "hidden", "question", "answer", "candidates", "data"]
    assert easy[same].equals(hard.loc[easy.index, same]) and set(found.hidden) == {1}
    for row in found.itertuples():
        first, second = json.loads(row.turns)
        assert first["role"] == "system" and second == {"role": "user", "content": row.message}
        assert len(json.loads(row.candidates)) == 10  # the words of its kind
    assert set(of_prompts(prompts_folder, items=5).item) <= set(of_prompts(prompts_folder, items=9).item)
    assert set(of_prompts(prompts_folder, door="mirror").data) == {"real"}
    with pytest.raises(ValueError, match="lower system_prompts.items"):
        of_prompts(prompts_folder, items=81)


def test_asked_in_words_nothing_of_the_system_prompt_is_said():
    turns = asked_in_words("Hi.", "Aye.", "Who?")
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == "Aye." and turns[2]["content"].endswith("Who?")


# ---- what is read ----


def test_of_a_text_with_a_focus_its_tokens_alone_are_read():
    tokenizer = reader_model("llama").info.tokenizer
    turns = [{"role": "user", "content": "A user said: the user Rigel, I say."}]
    for focus in ("Rigel", "user", "said"):
        found = latent_reads.read(tokenizer, turns, focus=focus)
        assert tokenizer.decode([found.ids[place] for place in found.selected]) == focus
    last = latent_reads.read(tokenizer, turns, focus="user").selected[0]
    assert tokenizer.decode(found.ids[: last + 4]).endswith("the user")  # and not the role in the header
    assert latent_reads.read(tokenizer, turns, focus="Rigel", official_code=True).selected[0] == 0
    with pytest.raises(ValueError, match="'Vega' is not in what is shown"):
        latent_reads.read(tokenizer, turns, focus="Vega")


def test_a_focus_is_not_sought_in_hidden_turns():
    tokenizer = reader_model("llama").info.tokenizer
    turns = [{"role": "system", "content": "Rigel"}, {"role": "user", "content": "Vega"}]
    with pytest.raises(ValueError, match="'Rigel' is not in what is shown"):
        latent_reads.read(tokenizer, turns, 1, focus="Rigel")


def test_two_foci_of_one_text_are_two_reads():
    turns = json.dumps([{"role": "user", "content": "Rigel and Vega"}])
    data = pd.DataFrame({"turns": [turns] * 3, "hidden": 0, "focus": ["Rigel", "Vega", "Rigel"]})
    found, which = latent_reads.reads(reader_model("llama").info.tokenizer, data)
    assert which == [0, 1, 0] and [len(row.selected) for row in found] == [5, 4]
