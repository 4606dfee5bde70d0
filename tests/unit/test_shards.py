"""Shards: however many jobs a stage's batches are spread over, the file that is gathered has the bytes of one job."""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts import (
    capture_activations,
    generate_continuations,
    judge_answers,
    score_answers,
    score_perplexity,
    score_texts,
)
from steerlab import activations, experiment, generations, models, store
from steerlab.experiment import names, shards
from steerlab.experiment.scorers import CLASSIFIER
from steerlab.scores import answers, classifier, judge, perplexity
from steerlab.store import WHOLE, Share
from steerlab.tasks.rows import COLUMNS
from tests.laws.subjects import fitted, handle
from tests.unit.test_answers import table
from tests.unit.test_cells import CELL, judged_by
from tests.unit.test_classifier import WORDS, a_classifier, prepared

COMPUTE = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}
CELL_OF = COMPUTE | {"split": "test", "rendering": "plain", "prompts": None, "seed": 0, "has_checkpoints": False}
DECODING = {"samples": 2, "max_new_tokens": 3, "batch_rows": 4}
AT = {"steps": [0], "strengths": [0.5, 1.0]}
CAPTURED = {"site": "block_output", "positions": "last", "splits": ["train"], "threads": 1, "versions": {}}


def training_texts() -> pd.DataFrame:
    texts = [f"text {number}{' and more' * (number % 3)}" for number in range(7)]
    rows = [
        (f"t{n}", f"t{n}", "train", "train", "plain", 1.0, np.nan, text, 0, len(text)) for n, text in enumerate(texts)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def continuations(texts: list[str]) -> pd.DataFrame:
    ids = ("q1", "q2", "q3")
    rows = [(ids[n % 3], n // 3, 0, 1.0, text, [1]) for n, text in enumerate(texts)]
    return pd.DataFrame(rows, columns=["id", "sample", "steps", "strength", "text", "tokens"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the stages read: the model, a steer, tables, continuations and a classifier."""
    folder = tmp_path_factory.mktemp("files")
    pd.concat([table(), training_texts()]).to_parquet(folder / "table.parquet")
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, size=size)) for size in (3, 1, 2, 3, 5, 1, 2, 2, 1, 4, 3)]
    continuations([*texts, "", texts[0]]).to_parquet(folder / "continuations.parquet")
    fitted("caa", "llama").save(folder / "steer")
    prepared(a_classifier(folder / "saved"), folder / "classifier")
    named = ("table.parquet", "continuations.parquet", "steer", "classifier")
    return {"model": handle("llama").folder} | {name.partition(".")[0]: folder / name for name in named}


def capture(files: dict[str, Path], out: Path, work: Path, share: Share) -> None:
    spec = COMPUTE | CAPTURED | {"capture_code": "", "activations": {"batch_rows": 2, "shard_rows": 2}}
    given = {"model": files["model"], "table": files["table"]}
    capture_activations.run(**given, manifest=out, spec=spec, store=work, share=share)


def generate(files: dict[str, Path], out: Path, work: Path, share: Share) -> None:
    given = {"model": files["model"], "table": files["table"], "steer": [files["steer"]], "choice": []}
    spec = CELL_OF | AT | {"decoding": DECODING}
    generate_continuations.run(**given, continuations=out, spec=spec, work=work, share=share)


def answer(files: dict[str, Path], out: Path, work: Path, share: Share) -> None:
    given = {"model": files["model"], "table": files["table"], "steer": [files["steer"]], "choice": []}
    score_answers.run(**given, scores=out, spec=CELL_OF | AT | {"tokens_a_batch": 200}, work=work, share=share)


def score(script, more: dict, files: dict[str, Path], out: Path, work: Path, share: Share) -> None:
    spec = COMPUTE | {"split": "test", "seeds": [0], "tokens_a_batch": 200} | more
    given = {"model": files["model"], "table": files["table"], "continuations": [files["continuations"]]}
    script.run(**given, scores=out, spec=spec, work=work, share=share)


SCORERS = [
    {"scorer": "steerlab.scores.vader:Vader", "prepared": False},
    {"scorer": CLASSIFIER, "prepared": True, "settings": {"device": "cpu"}},
]


def classify(files: dict[str, Path], out: Path, work: Path, share: Share) -> None:
    spec = {"split": "test", "seeds": [0], "scorers": SCORERS}
    given = {"table": files["table"], "continuations": [files["continuations"]], "scorers": [files["classifier"]]}
    score_texts.run(**given, scores=out, spec=spec, work=work, share=share)


Stage = Callable[[dict[str, Path], Path, Path, Share], None]
# A stage, what computes its batches, and how many of them there are.
STAGES: dict[str, tuple[Stage, tuple[object, str], int]] = {
    "activations": (capture, (activations, "_states"), 4),
    "generations": (generate, (generations, "generate"), 4),
    "answers": (answer, (answers, "score"), 6),
    "perplexity": (partial(score, score_perplexity, {"unsteered": True}), (perplexity, "score"), 3),
    "judge": (partial(score, judge_answers, {"measure": "truthful"}), (judge, "score"), 3),
    "classifier": (classify, (classifier.Classifier, "score"), 4),
}


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "QUESTIONS_A_SLICE", 1)
    monkeypatch.setattr(judge, "QUESTIONS_A_SLICE", 1)
    monkeypatch.setattr(perplexity, "PROMPTS_A_SLICE", 1)
    monkeypatch.setattr(classifier, "TOKENS_A_BATCH", 8)
    monkeypatch.setattr(classifier, "TEXTS_A_SLICE", 3)


@pytest.mark.parametrize("number", [2, 3, 9])
@pytest.mark.parametrize("stage", STAGES)
def test_shards_compute_all_batches_once_and_gather_to_the_bytes_of_one_job(
    files, tmp_path, monkeypatch, small_slices, stage: str, number: int
):
    run, (where, name), batches = STAGES[stage]
    run(files, tmp_path / "whole", tmp_path / "work of one", WHOLE)
    computed, compute = [], getattr(where, name)
    monkeypatch.setattr(where, name, lambda *what, **how: computed.append(None) or compute(*what, **how))
    for share in reversed(range(number)):
        before = len(computed)
        run(files, tmp_path / f"{share}", tmp_path / "work", (share, number))
        assert len(computed) - before == len(range(share, batches, number))
    run(files, tmp_path / "gathered", tmp_path / "work", WHOLE)
    assert len(computed) == batches
    assert (tmp_path / "gathered").read_bytes() == (tmp_path / "whole").read_bytes()


def test_without_the_work_of_its_shards_the_job_that_gathers_computes_all(files, tmp_path, small_slices):
    generate(files, tmp_path / "0", tmp_path / "emptied", (0, 2))
    generate(files, tmp_path / "gathered", tmp_path / "work", WHOLE)
    generate(files, tmp_path / "whole", tmp_path / "another", WHOLE)
    assert (tmp_path / "gathered").read_bytes() == (tmp_path / "whole").read_bytes()


@given(batches=st.integers(0, 6), number=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_every_batch_is_in_one_share_of_any_number(batches: int, number: int):
    computed = []

    def compute(batch: int) -> pd.DataFrame:
        computed.append(batch)
        return pd.DataFrame({"batch": [batch]})

    def rows(share: Share) -> list[int]:
        names = [f"{batch}" for batch in range(batches)]
        how = {"desc": "test", "unit": "batch", "columns": ["batch"]}
        return store.resume(Path(folder), names, compute, share=share, **how)["batch"].tolist()

    with tempfile.TemporaryDirectory() as folder:
        found = [rows((share, number)) for share in range(number)]
        assert sorted(sum(found, [])) == sorted(computed) == list(range(batches)) == rows(WHOLE)
        assert max(map(len, found)) - min(map(len, found)) <= 1


@given(lengths=st.lists(st.integers(0, 9), max_size=30), tokens=st.sampled_from([0, 8, 20]), data=st.data())
@settings(max_examples=200, deadline=None)
def test_batches_of_texts_that_follow_each_other_are_the_batches_of_their_texts_alone(lengths, tokens, data):
    whole = list(models.batches(lengths, tokens))
    start = data.draw(st.integers(0, len(whole)))
    some = whole[start : start + data.draw(st.integers(1, 5))]
    places = sum(some, [])
    alone = models.batches([lengths[place] for place in places], tokens)
    assert [[places[place] for place in batch] for batch in alone] == some


class Wildcards(dict):
    """What Snakemake hands to a function of wildcards."""

    def __getattr__(self, name: str) -> str:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def waits_for(folder: Path, number: int, made: dict | None = None, spec: str = '{"leaf": 1}') -> list[str]:
    """What a file waits for that `number` shards are asked of; made: what its sidecar says."""
    if made is not None:
        (folder / "results/x.parquet.run.json").write_text(json.dumps({"spec": {"leaf": 1}} | made))
    return shards.of_file("results/x.parquet", number, lambda: spec)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_file_waits_for_as_many_shards_as_are_asked_for(here: Path):
    assert waits_for(here, 1) == []
    assert waits_for(here, 3) == [f"results/shards/{each}-of-3/x.parquet" for each in (1, 2, 3)]


def test_a_file_keeps_the_number_of_shards_that_it_was_made_with_until_its_spec_changes(here: Path):
    assert len(waits_for(here, 3, {"shards": 2})) == 2
    assert waits_for(here, 3, {}) == []  # made before there were shards
    assert len(waits_for(here, 1, {"shards": 2})) == 2
    assert len(waits_for(here, 3, {"shards": 2}, spec='{"leaf": 2}')) == 3


def test_a_damaged_sidecar_keeps_nothing(here: Path):
    (here / "results/x.parquet.run.json").write_text("{")
    assert len(waits_for(here, 3)) == 3


def test_scores_of_texts_are_scattered_only_where_a_classifier_runs():
    for scorer, number in (("profanity_check", 0), ("detoxify_original", 4)):
        x = experiment.load(judged_by(scorer).config | {"shards": {"activations": 2, "generations": 3, "scores": 4}})
        gathers = x.shards("score_texts", names.TEXT_SCORES)
        assert len(gathers(Wildcards(CELL)) if callable(gathers) else gathers) == number
        assert len(x.shards("score_perplexity", names.PERPLEXITY_SCORES)(Wildcards(CELL | {"judge": "base"}))) == 4
    assert len(x.shards("generate_continuations", names.GENERATIONS)(Wildcards(CELL | {"seed": "0"}))) == 3


def test_a_shard_waits_for_no_other_and_has_the_spec_of_the_whole():
    x = experiment.load(judged_by("profanity_check").config | {"shards": {"generations": 3}})
    whole = CELL | {"seed": "0"}
    shard = Wildcards(whole | {"shard": "1", "shards": "3"})
    assert x.shards("generate_continuations", names.GENERATIONS)(shard) == []
    specs = {x.spec("generate_continuations", each.items()) for each in (whole, shard)}
    assert len(specs) == 1
