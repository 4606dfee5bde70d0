"""The model type for lm-evaluation-harness: its numbers are ours, whatever is steered and however it is batched."""

import functools
import gc
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from steerlab import harness, sites
from steerlab.data import tables
from steerlab.harness import SteerlabLM
from steerlab.likelihood import log_likelihoods
from steerlab.methods.steer_files import SteerMismatch
from steerlab.metrics import multiple_choice
from steerlab.scores import answers
from steerlab.sites import SCOPES, Site
from steerlab.tasks import rows
from tests.laws.subjects import _head, fitted, handle
from tests.workflow.project import ROOT

pytestmark = pytest.mark.usefixtures("no_network")
FAMILIES = ("gpt2", "llama")
PREAMBLE = "Q: What is a mile?\nA: A length."


def a_table(path: Path, questions: int = 20) -> Path:
    """A table of truthfulness: questions and answers of unlike lengths, MC1's among MC2's."""
    nan = float("nan")
    made: list[rows.Row] = []
    for n in range(questions):
        question = f"{'Why ' * (n % 3 + 1)}{n}?"
        for split in ("dev", "test"):
            text = f"{PREAMBLE}\n\nQ: {split} {question}\nA:"
            group = f"{split}-{n}"
            made.append((group, group, "prompt", split, "plain", nan, nan, text, len(text), len(text)))
            for place, (label, mc1) in enumerate([(1.0, 1.0), (1.0, nan), (-1.0, -1.0), (-1.0, -1.0), (-1.0, nan)]):
                answer = f"{'Nobody knows' if label > 0 else 'Magic'}{' indeed' * ((n + place) % 4)} {place}."
                made.append((f"{group}-{place}", group, "answer", split, "plain", label, mc1, answer, 0, len(answer)))
    rows.table(made).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_table(tmp_path_factory.mktemp("table") / "truthfulness.parquet")


@pytest.fixture(scope="module")
def tasks(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    harness.write_tasks(table, folder)
    return folder


@pytest.fixture(autouse=True)
def no_inquiry_about_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness asks pip and the processor for their versions, which takes seconds a call."""
    monkeypatch.setattr("torch.utils.collect_env.get_pretty_env_info", lambda: "")


@functools.cache
def steer(method: str, family: str) -> Path:
    folder = handle(family).folder.parent / method
    fitted(method, family).save(folder)
    return folder


def ours(model: Any, tokenizer: Any, table: Path) -> pd.DataFrame:
    """mc1 and mc2 of the test questions, by id, as this project measures them."""
    prompts = dict(tables.prompts(table, split="test", rendering="plain"))
    given = tables.answers(table, split="test")
    scored = answers.score(model, tokenizer, given, prompts, tokens_a_batch=512)
    return multiple_choice.by_question(scored.assign(seed=0, steps=0, strength=1.0), given).set_index("id")[
        ["mc1", "mc2"]
    ]


def theirs(results: dict) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: {sample["doc"]["id"]: sample["acc"] for sample in results["samples"][f"truthfulness_{name}"]}
            for name in ("mc1", "mc2")
        }
    )


def head_edits(scope: str) -> Callable[[Any], AbstractContextManager[None]]:
    """At a head, by the position and by whether it is the prompt's: a wrong prompt length shows."""
    return lambda model: sites.edit(model, {Site("attention_heads", 1): _head}, scope=scope)  # pyright: ignore


METHODS = ("caa", "lm_steer", "iti", "hpr", "lora")
WAYS = {
    "base": (None, lambda model: nullcontext()),
    **{method: (method, lambda model: nullcontext()) for method in METHODS},
    **{f"heads {scope}": (None, head_edits(scope)) for scope in SCOPES},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", WAYS)
def test_mc1_and_mc2_are_ours_whatever_the_batch(way: str, family: str, tasks: Path, table: Path):
    method, edited = WAYS[way]
    folder = str(steer(method, family)) if method else None
    model = handle(family).load()
    with fitted(method, family).attached(model) if method else nullcontext(), edited(model):
        expected = ours(model, handle(family).info.tokenizer, table)
    found = {}
    for batch_size in (1, 4):
        with closing(SteerlabLM(str(handle(family).folder), folder, batch_size=batch_size)) as lm, edited(lm.model):
            results = harness.evaluate(lm, harness.TASKS, folder=tasks)
        found[batch_size] = theirs(results)
        means = {name: results["results"][f"truthfulness_{name}"]["acc,none"] for name in ("mc1", "mc2")}
        assert means == pytest.approx(dict(expected.mean()), abs=1e-4)
    assert len(found[1]) == 20
    for each in found.values():
        pd.testing.assert_frame_equal(each.sort_index(), expected.sort_index(), atol=1e-4, rtol=0, check_names=False)


def log_likelihoods_of(lm: SteerlabLM, pairs: list[tuple[str, str]]) -> list[float]:
    encoded = [(pair, *lm._encode_pair(*pair)) for pair in pairs]
    return [value for value, _ in lm._loglikelihood_tokens(encoded, disable_tqdm=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_text_cut_at_two_places_is_scored_with_two_prompts(family: str):
    pairs = [("one two three", " four"), ("one two", " three four"), ("one two three fou", "r"), ("a", "b")]
    with closing(SteerlabLM(str(handle(family).folder), str(steer("caa", family)), 3.0, batch_size=8)) as lm:
        found = log_likelihoods_of(lm, pairs)
    model = handle(family).load()
    with fitted("caa", family).attached(model, 3.0):
        expected = [-nll for nll, _ in log_likelihoods(model, handle(family).info.tokenizer, pairs, tokens_a_batch=512)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_context_that_is_cut_off_keeps_its_last_prompt_token():
    arguments = str(handle("gpt2").folder), str(steer("caa", "gpt2"))
    with closing(SteerlabLM(*arguments, max_length=12, batch_size=2)) as lm:
        cut = log_likelihoods_of(lm, [("a long way of saying yes or no:", " yes"), ("short:", " no")])
    with closing(SteerlabLM(*arguments)) as lm:  # of 13 tokens, one of them predicted only, 9 are left to the context
        assert log_likelihoods_of(lm, [("es or no:", " yes"), ("short:", " no")]) == pytest.approx(cut, abs=1e-4)


def instances(prompts: list[str]) -> list[Any]:
    from lm_eval.api.instance import Instance

    arguments = {"until": ["\n\n\n"], "max_gen_toks": 12}
    return [Instance("generate_until", {}, (prompt, dict(arguments)), i) for i, prompt in enumerate(prompts)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_steer_changes_what_is_generated_alike_in_every_batch(family: str):
    prompts = ["Hello", "A longer prompt", "Q: Why?\nA:", "x"]
    texts = {}
    for name, folder, batch_size in (
        ("base", None, 4),
        ("steered", steer("caa", family), 4),
        ("alone", steer("caa", family), 1),
    ):
        with closing(SteerlabLM(str(handle(family).folder), folder and str(folder), 4.0, batch_size=batch_size)) as lm:
            texts[name] = lm.generate_until(instances(prompts), disable_tqdm=True)
    assert texts["base"] != texts["steered"] == texts["alone"]


@pytest.fixture
def logits() -> Iterator[Callable[[Any], torch.Tensor]]:
    def of(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.arange(20)[None]).logits

    yield of


@pytest.mark.parametrize("end", ["close", "forget"])
def test_the_steer_is_on_until_the_end_and_the_model_is_then_as_before(end: str, logits: Callable):
    base = logits(handle("llama").load())
    lm = SteerlabLM(str(handle("llama").folder), str(steer("lm_steer", "llama")))
    model: Any = lm.model
    assert not torch.equal(logits(model), base)
    if end == "close":
        lm.close()
        lm.close()
    else:
        del lm
        gc.collect()
    assert torch.equal(logits(model), base)
    assert not model._forward_hooks and not model._forward_pre_hooks and "generate" not in vars(model)


def test_what_cannot_be_used_is_refused_in_one_sentence(table: Path, tasks: Path):
    folder = str(handle("llama").folder)
    with pytest.raises(SteerMismatch, match="retrain it"):
        SteerlabLM(folder, str(steer("caa", "gpt2")))
    with pytest.raises(ValueError, match="outside"):
        SteerlabLM(folder, str(steer("caa", "llama")), float("nan"))
    with pytest.raises(ValueError, match="give the rows"):
        SteerlabLM(folder, batch_size="auto")
    with pytest.raises(ValueError, match="holds no steer"):
        SteerlabLM(folder, folder)
    with closing(SteerlabLM(folder, str(steer("caa", "llama")), math.inf)) as lm, pytest.raises(FloatingPointError):
        log_likelihoods_of(lm, [("a", "b")])
    with closing(SteerlabLM(folder)) as lm, pytest.raises(ValueError, match="knows no task 'nosuch'"):
        harness.evaluate(lm, ["nosuch"], folder=tasks)


def test_the_documents_are_the_tables_of_the_split(table: Path, tmp_path: Path):
    harness.write_tasks(table, tmp_path, split="dev", limit=3)
    documents = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert [document["id"] for document in documents] == ["dev-0", "dev-1", "dev-10"]
    assert documents[0]["prompt"] == f"{PREAMBLE}\n\nQ: dev Why 0?\nA:"
    assert documents[0]["mc1_targets"]["labels"] == [1, 0, 0] and documents[0]["mc2_targets"]["labels"] == [
        1,
        1,
        0,
        0,
        0,
    ]
    assert documents[0]["mc1_targets"]["choices"][0] == "Nobody knows 0."


def test_the_python_of_the_page_runs(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "results/data").mkdir(parents=True)
    shutil.copyfile(table, tmp_path / "results/data/truthfulness.parquet")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/evaluate-and-chat.md").read_text(), flags=re.M | re.S)
    exec(block, {})
    assert {path.name for path in (tmp_path / "own_tasks").glob("*.yaml")} == {f"{task}.yaml" for task in harness.TASKS}


def test_the_registered_type_is_made_from_the_harness_own_arguments():
    from lm_eval.api.registry import get_model

    line = f"pretrained={handle('llama').folder},steer={steer('caa', 'llama')},strength=0.5"
    with closing(get_model("steerlab").create_from_arg_string(line, {"batch_size": 2, "device": "cuda:0"})) as lm:
        assert lm.get_model_info()["steerlab"]["strength"] == 0.5 and lm.batch_size == 2


NO_NETWORK = """import socket


def cut(*_, **__):
    raise OSError("the network is cut")


socket.socket.connect = socket.getaddrinfo = cut
"""


def test_the_command_prints_the_harness_own_table_without_network(table: Path, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    arguments = ["--model", str(handle("llama").folder), "--table", str(table), "--limit", "4", "--batch-size", "4"]
    command = [sys.executable, "-m", "steerlab", "evaluate", *arguments]
    command += ["--steer", str(steer("caa", "llama")), "--strength", "2", "--output", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "|truthfulness_mc1|" in done.stdout.replace(" ", "") and "|truthfulness_mc2|" in done.stdout.replace(" ", "")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["n-samples"]["truthfulness_mc2"]["effective"] == 4
    assert written["config"]["steerlab"]["strength"] == 2.0 and "samples" not in written
