"""The demo: what it finds among results, what it computes, and the page itself in a real Chromium."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from steerlab import cli, scores, sites
from steerlab.demo import found, markup
from steerlab.demo.continuations import TOP_P, Asked, Bench, Shown, Side, attached, pieces, poles, read
from steerlab.demo.turns import Turns
from steerlab.generations import Decoding, generate
from steerlab.methods.steer_files import SteerMismatch
from tests.browser import needs_chromium, opened, overflow
from tests.laws.subjects import fitted, handle
from tests.workflow.project import ROOT

MODEL, BARE = "tiny-llama", "tiny-gpt2"  # the second one has no steers
SAVED = {"lm_steer": "toxicity", "random_lm_steer": "toxicity", "caa": "toxicity", "cogsteer": "toxicity"}
SAVED |= {"hpr": "truthfulness", "lora": "truthfulness"}
SCORERS = [("steerlab.scores.profanity_check:ProfanityCheck", None)]
EVIL = """<script>window.hit = 1</script><img src=x onerror="window.hit = 1"> ${1 + 1} {{ 1 + 1 }} & "'"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with two models, a few steers of the first one, and a choice for LM-Steer."""
    top = tmp_path_factory.mktemp("demo") / "results"
    for family, name in (("llama", MODEL), ("gpt2", BARE)):
        shutil.copytree(handle(family).folder, top / "models" / name)
    for method, task in SAVED.items():
        fitted(method, "llama").save(top / f"steers/{MODEL}/{method}/{task}/0")
    choice = top / f"choices/{MODEL}/lm_steer/toxicity.json"
    choice.parent.mkdir(parents=True)
    choice.write_text(json.dumps({"pick": {"steps": 60, "strength": 0.4}}))
    return top


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with closing(Bench(SCORERS)) as opened_bench:
        yield opened_bench


def asked(results: Path, *steers: tuple[str, float], **how: Any) -> Asked:
    chosen = tuple((saved(results, method), strength) for method, strength in steers)
    return Asked(
        **{"model": results / "models" / MODEL, "prompt": "Hello", "steers": chosen, "max_new_tokens": 12} | how
    )


def saved(results: Path, method: str) -> found.Saved:
    return found.steer(results, MODEL, f"{method}/{SAVED[method]}/0")


def last(bench: Bench, request: Asked) -> Shown:
    return list(bench.compare(request))[-1]


def generated(request: Asked, *steers: tuple[str, float]) -> str:
    """What the project's own generation continues with."""
    body, tokenizer = handle("llama").load(), handle("llama").info.tokenizer
    decoding = Decoding(max_new_tokens=request.max_new_tokens, temperature=request.temperature, top_p=TOP_P)
    with attached(body, [(fitted(method, "llama"), strength) for method, strength in steers]):
        return generate(body, tokenizer, [(request.prompt, request.prompt)], decoding, request.seed).text.item()


# ---- what is found ----


def test_the_models_and_the_steers_of_one_are_found_in_the_order_of_the_tables(results: Path):
    assert found.model_names(results) == [MODEL, BARE]
    names = [each.name for each in found.steers(results, MODEL)]
    assert names == [
        "lm_steer/toxicity/0", "random_lm_steer/toxicity/0", "hpr/truthfulness/0", "cogsteer/toxicity/0",
        "caa/toxicity/0", "lora/truthfulness/0",
    ]  # fmt: skip
    assert saved(results, "lm_steer").label == "LM-Steer, toxicity, seed 0"
    assert not found.steers(results, BARE)


def test_a_steer_begins_at_what_was_picked_and_its_random_control_too(results: Path):
    assert saved(results, "lm_steer").offered == (-3.0, 3.0, 0.4)
    assert saved(results, "random_lm_steer").offered == (-3.0, 3.0, 0.4)
    assert saved(results, "lm_steer").steps == 60
    assert saved(results, "caa").offered == (-3.0, 3.0, 1.0)
    assert saved(results, "hpr").offered == (0.0, 3.0, 1.0)  # it accepts nothing below 0
    assert replace(saved(results, "caa"), strength=-5.0).offered == (-5.0, 5.0, -5.0)


def test_lm_steer_and_hpr_read_and_no_other_nor_a_random_control(results: Path):
    assert {each.name.split("/")[0]: each.reads for each in found.steers(results, MODEL) if each.reads} == {
        "lm_steer": "evidence",
        "hpr": "probe",
    }


def test_what_is_missing_names_the_command_that_makes_it(results: Path, tmp_path: Path):
    with pytest.raises(found.NotFound, match="there is no folder .*none; make it with: make run"):
        found.model_names(tmp_path / "none")
    with pytest.raises(
        found.NotFound, match="no prepared model in .*; make the configuration's with: snakemake models"
    ):
        found.model_names(tmp_path)
    with pytest.raises(found.NotFound, match="only tiny-llama, tiny-gpt2; make it with: snakemake results/models/big"):
        found.model_folder(results, "big")
    with pytest.raises(found.NotFound, match="make it with: snakemake results/steers/tiny-llama/caa/toxicity/7"):
        found.steer(results, MODEL, "caa/toxicity/7")
    with pytest.raises(found.NotFound, match="there is no steer '../../secret'"):
        found.steer(results, MODEL, "../../secret")
    assert "make the configuration's with: snakemake steers" in found.no_steers(results, BARE)


def test_scorers_are_those_of_the_run_that_ask_no_network(tmp_path: Path):
    config = {"scores": {"toxicity": ["profanity_check", "perspective", "toxic_comment_classifier"], "classifiers": {}}}
    scorers, missing = found.local_scorers(config, tmp_path)
    assert scorers == SCORERS
    assert len(missing) == 1 and missing[0].endswith("snakemake results/scorers/toxic_comment_classifier")
    (tmp_path / "scorers/toxic_comment_classifier").mkdir(parents=True)
    (tmp_path / "scorers/toxic_comment_classifier/scorer.json").write_text("{}")
    scorers, missing = found.local_scorers(config, tmp_path)
    assert [folder for _, folder in scorers] == [None, tmp_path / "scorers/toxic_comment_classifier"] and not missing


# ---- what is computed ----


@pytest.mark.parametrize("steers", [(("caa", 2.0),), (("lm_steer", 3.0), ("caa", -1.0)), (("lora", 1.0), ("hpr", 2.0))])
def test_both_sides_are_the_continuations_of_our_generations(bench: Bench, results: Path, steers: tuple):
    request = asked(results, *steers, seed=3, max_new_tokens=24)
    shown = last(bench, request)
    assert shown.base.text == generated(request) != ""
    assert shown.steered.text == generated(request, *steers) != shown.base.text


def test_the_sides_grow_token_by_token_base_first(bench: Bench, results: Path):
    steps = list(bench.compare(asked(results, ("caa", 2.0), seed=3)))
    lengths = [(len(step.base.pieces), len(step.steered.pieces)) for step in steps]
    base, steered = lengths[-1]
    assert lengths[:-1] == [(n + 1, 0) for n in range(base)] + [(base, n + 1) for n in range(steered)]
    assert base > 3 and steered > 3 and steps[-2].toxicity is None


def test_strength_0_is_the_base(bench: Bench, results: Path):
    shown = last(bench, asked(results, ("lm_steer", 0.0), ("cogsteer", 0.0)))
    assert shown.base.text == shown.steered.text != ""


def test_a_seed_gives_the_same_texts_and_another_one_others(bench: Bench, results: Path):
    texts = [last(bench, asked(results, ("caa", 2.0), seed=seed)).steered.text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_model_is_as_before_also_when_a_request_is_left_half_way(results: Path):
    with closing(Bench(SCORERS)) as bench:
        alone = last(bench, asked(results))
        left = bench.compare(asked(results, ("caa", 2.0), ("lora", 1.0), max_new_tokens=200))
        while not next(left).steered.pieces:
            pass
        left.close()
        assert last(bench, asked(results)).base == alone.base
        model: Any = bench._handle and bench._handle.load()
        assert not model._forward_hooks and not model._forward_pre_hooks and "generate" not in vars(model)


def test_two_requests_are_served_one_after_the_other(results: Path):
    with closing(Bench(SCORERS)) as bench:
        requests = [asked(results, ("caa", 2.0)), asked(results, ("lm_steer", -3.0), seed=5)]
        alone = [last(bench, request) for request in requests]
        seen: list[int] = []
        together: dict[int, Shown] = {}

        def take(number: int) -> None:
            for shown in bench.compare(requests[number]):
                seen.append(number)
                together[number] = shown
                time.sleep(0.01)

        threads = [threading.Thread(target=take, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(2):
        assert together[number].base == alone[number].base and together[number].steered == alone[number].steered


def test_turns_do_not_overlap_and_an_error_is_raised_where_it_is_taken():
    inside: list[int] = []

    def steps(number: int) -> Iterator[int]:
        for _ in range(5):
            inside.append(number)
            time.sleep(0.002)
            yield number

    def fails() -> Iterator[int]:
        yield 1
        raise ValueError("no further")

    with closing(Turns()) as turns:
        threads = [threading.Thread(target=lambda n=n: list(turns.take(lambda: steps(n)))) for n in range(3)]  # pyright: ignore
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(set(inside[start : start + 5])) for start in (0, 5, 10)] == [1, 1, 1]
        coming = turns.take(fails)  # pyright: ignore
        assert next(coming) == 1
        with pytest.raises(ValueError, match="no further"):
            next(coming)
        assert list(turns.take(lambda: steps(9))) == [9] * 5  # pyright: ignore


def test_two_that_do_not_go_together_are_named_with_what_the_library_says(bench: Bench, results: Path):
    with pytest.raises(ValueError, match="CogSteer, toxicity, seed 0 and CogSteer, .* do not go together: the cache"):
        last(bench, asked(results, ("cogsteer", 1.0), ("cogsteer", 1.0)))
    assert last(bench, asked(results)).base.text


def test_the_steer_of_another_model_and_a_strength_out_of_range_are_refused(bench: Bench, results: Path):
    with pytest.raises(SteerMismatch, match="tiny-llama.*tiny-gpt2"):
        last(bench, asked(results, ("caa", 1.0), model=results / "models" / BARE))
    with pytest.raises(ValueError, match="strength -1.0 is outside 0.0 to inf"):
        last(bench, asked(results, ("hpr", -1.0)))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"prompt": ""}, "the prompt has no tokens"),
        ({"prompt": "a" * 250}, "250 tokens of prompt and 12 new ones, and this model has room for 256"),
        ({"max_new_tokens": 0}, "give at least 1"),
        ({"temperature": -1.0}, "give at least 1 and 0"),
    ],
)
def test_what_cannot_be_continued_is_refused(bench: Bench, results: Path, how: dict, why: str):
    with pytest.raises(ValueError, match=why):
        last(bench, asked(results, **how))


def test_a_strength_at_which_nothing_is_finite_is_said(bench: Bench, results: Path):
    with pytest.raises(FloatingPointError, match="use a lower strength"):
        last(bench, asked(results, ("caa", 1e300)))


def test_pieces_make_up_the_text_and_a_character_comes_when_it_is_whole():
    tokenizer = handle("llama").info.tokenizer
    assert pieces(tokenizer, list("né".encode()), list("€!".encode())) == ("", "", "€", "!")
    assert pieces(tokenizer, list(b"a"), [0xE2]) == ("\N{REPLACEMENT CHARACTER}",)
    assert pieces(tokenizer, list("a\N{REPLACEMENT CHARACTER}".encode()), list(b"b")) == ("b",)
    assert pieces(tokenizer, list(b"a"), []) == ()


def test_evidence_is_the_log_likelihood_under_the_steer_less_that_under_its_opposite():
    model, steer = handle("llama"), fitted("lm_steer", "llama")
    prompt, new = list(b"Hello"), list(b", you")
    likelihoods = []
    for label in (5.0, -5.0):
        with torch.no_grad(), steer.attached_values(model.load(), [label, 0.0]):
            logits = model.load()(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1]
        likelihoods.append(logits.log_softmax(-1).gather(1, torch.tensor(new)[:, None])[:, 0])
    torch.testing.assert_close(read(model, steer, prompt, new), likelihoods[0] - likelihoods[1], rtol=1e-4, atol=1e-5)


def test_a_composition_reads_with_all_its_steers_at_their_weights():
    steer = fitted("composed_lm_steer", "llama")
    assert poles(steer) == ([5.0, 0.0, 2.5, 0.0], [-5.0, -0.0, -2.5, -0.0])


def test_the_probe_is_the_mean_cosine_of_a_tokens_states_and_the_probes_normals():
    model, steer = handle("llama"), fitted("hpr", "llama")
    prompt, new = list(b"Hello"), list(b", you")
    with torch.no_grad(), sites.capture(model.load(), steer.sites) as states:
        model.load()(torch.tensor([prompt + new]))
    expected = []
    for site in steer.sites:
        a, w = states[site][0, len(prompt) :], steer.tensors["probe"][site.layer]
        expected.append((a @ w) / (a.norm(dim=-1) * w.norm()))
    torch.testing.assert_close(read(model, steer, prompt, new), torch.stack(expected).mean(0))


def test_both_sides_are_read_and_scored_where_a_reader_is_chosen(bench: Bench, results: Path):
    for method in ("lm_steer", "hpr"):
        shown = last(bench, asked(results, ("caa", 2.0), seed=3, reader=saved(results, method)))
        for side in (shown.base, shown.steered):
            assert len(side.marks) == len(side.pieces) > 3 and np.isfinite(side.marks).all()
            assert bool(side.spans) == (method == "lm_steer")
        assert not last(bench, asked(results)).base.marks
    scorer = scores.load(*SCORERS[0])
    assert shown.toxicity is not None
    assert list(shown.toxicity.score) == list(scorer.score([shown.base.text, shown.steered.text]))
    assert list(shown.toxicity.scorer) == [scores.label(scorer)] * 2


# ---- as HTML ----


def test_no_text_becomes_markup():
    table = pd.DataFrame({"side": ["base", "steered"], "scorer": [EVIL] * 2, "score": [0.1, float("nan")]})
    side = Side((EVIL, "b"), (1.0, -1.0), ((0, 1),))
    reader = found.Saved("<script>/task/0", Path(), None, None, (0.0, 1.0), "evidence")
    for html in (markup.sides(EVIL, Shown(side, side, table), reader), markup.messages([EVIL]), markup.status(EVIL)):
        assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html


def test_marks_have_their_number_a_sign_in_colour_and_spans_an_underline():
    side = Side(("a", "b", "c"), (2.0, -1.0, 0.5), ((0, 1),))
    reader = found.Saved("lm_steer/toxicity/0", Path(), None, None, (0.0, 1.0), "evidence")
    html = markup.sides("p", Shown(side, side), reader)
    assert '<span class="for span" style="--strength:60%" title="+2">a</span>' in html
    assert '<span class="against" style="--strength:30%" title="−1">b</span>' in html
    assert (
        "civil +1.9" not in html and "civil +2" in html and "toxic −2" in html and "LM-Steer, toxicity, seed 0" in html
    )
    assert "legend" not in markup.sides("p", Shown(Side(("a",)), Side(("a",))))


# ---- the command ----


def test_the_commands_errors_are_one_line(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, why in (
            (["--results", str(tmp_path / "none")], "make it with: make run"),
            (["--results", str(tmp_path)], "make the configuration's with: snakemake models"),
            (["--results", str(results), "--model", "big"], "make it with: snakemake results/models/big"),
            (["--results", str(results), "--device", "abacus"], "device 'abacus' cannot be used"),
            (["--results", str(results), "--port", port], f"port {port} cannot be used; choose another one"),
        ):
            with pytest.raises(SystemExit) as end:
                cli.main(["demo", *arguments])
            assert str(end.value.code).startswith("demo: ") and why in str(end.value.code)
            assert "\n" not in str(end.value.code)


def test_gradio_is_imported_by_the_page_alone():
    code = (
        "import sys, steerlab.cli, steerlab.demo.markup, steerlab.demo.continuations; sys.exit('gradio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_server_speaks_to_loopback_alone(results: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch):
    from steerlab.demo import page

    asked_of: set[str] = set()
    connect = socket.socket.connect
    look_up = socket.getaddrinfo

    def connecting(self: socket.socket, address: Any) -> None:
        asked_of.add(address[0] if isinstance(address, tuple) else "a file")
        connect(self, address)

    def looking_up(host: Any, *rest: Any, **more: Any) -> Any:
        asked_of.add(str(host))
        return look_up(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", connecting)
    monkeypatch.setattr(socket, "getaddrinfo", looking_up)
    built = page.build(results, bench, MODEL)
    with closing(built):
        address = page.serve(built, _free_port())
        with urllib.request.urlopen(address) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' ")
        time.sleep(1.0)
    assert asked_of <= {"127.0.0.1", "localhost"} and asked_of


# ---- in a browser ----


@pytest.fixture(scope="module")
def address(results: Path) -> Iterator[str]:
    """The command's page over the results, in a process of its own."""
    port = _free_port()
    command = [sys.executable, "-m", "steerlab", "demo", "--results", str(results), "--port", str(port)]
    # Of a run in the background Ctrl-C is ignored, and inherited so.
    heeds = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **heeds)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        said = next((line for line in lines if line.startswith("http") or "demo:" in line), "nothing")
        assert said == f"http://127.0.0.1:{port} (Ctrl-C ends)\n"
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()


def _free_port() -> int:
    with socket.socket() as found_one:
        found_one.bind(("127.0.0.1", 0))
        return found_one.getsockname()[1]


@contextmanager
def demo_page(address: str, **window: int) -> Iterator[Any]:
    """The page, ready; afterwards nothing was wrong with it and nobody but this server was asked."""
    with opened(**window) as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        page.get_by_role("button", name="Generate").wait_for()
        page.wait_for_function("document.querySelector('[aria-label=\"First steer\"]')?.value?.startsWith('LM-Steer')")
        yield page
        assert not page.errors
        assert len(requests) > 10 and all(url.startswith((address, "data:", "blob:")) for url in requests), requests


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()
    page.get_by_role("option").first.wait_for(state="detached")


def set_number(page: Any, label: str, value: float) -> None:
    box = page.get_by_label(label, exact=True)
    box.fill(f"{value:g}")
    box.blur()


def run_to_end(page: Any) -> list[str]:
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("the first after").wait_for(timeout=60_000)
    return continuations(page)


def continuations(page: Any) -> list[str]:
    """The texts of both sides without the prompt, as the page holds them."""
    whole = page.locator(".demo .text").all_text_contents()
    prompts = page.locator(".demo .prompt").all_text_contents()
    return [text.removeprefix(prompt) for text, prompt in zip(whole, prompts, strict=True)]


def printed(text: str) -> str:
    """Without the control characters, of which HTML changes some."""
    return "".join(letter for letter in text if letter.isprintable() and letter != "\N{REPLACEMENT CHARACTER}")


# How long both texts are, at every change of the page.
WATCHED = """() => {
    window.lengths = [];
    const long = (text) => text.textContent.length - text.querySelector(".prompt").textContent.length;
    const look = () => window.lengths.push([...document.querySelectorAll(".demo .text")].map(long));
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@needs_chromium
def test_a_page_shows_both_sides_as_they_come_then_colours_and_scores_them(address: str, results: Path):
    with demo_page(address) as page:
        choose(page, "First steer", "CAA, toxicity, seed 0")
        choose(page, "Colour the tokens by", "LM-Steer, toxicity, seed 0: evidence")
        page.get_by_label("Prompt", exact=True).fill("Hello")
        set_number(page, "Seed", 3)
        page.evaluate(WATCHED)
        shown = run_to_end(page)
        request = asked(results, seed=3, max_new_tokens=40)
        expected = [generated(request), generated(request, ("caa", 1.0))]
        assert [*map(printed, shown)] == [*map(printed, expected)]
        grown = page.evaluate("window.lengths")
        assert len({base for base, steered in grown if not steered}) > 3
        assert len({steered for base, steered in grown if base == grown[-1][0]}) > 3
        assert page.locator(".demo .sides .for").count() and page.locator(".demo .sides .against").count()
        assert "Evidence, in nats a token" in page.locator(".demo .legend").inner_text()
        assert page.locator(".demo tbody th").all_text_contents() == [scores.label(scores.load(*SCORERS[0]))]
        assert "snakemake results/scorers/toxic_comment_classifier" in page.locator(".demo .message").inner_text()


@needs_chromium
def test_two_steers_are_composed_and_two_that_do_not_go_together_are_told(address: str, results: Path):
    with demo_page(address) as page:
        page.get_by_label("Prompt", exact=True).fill("Hello")
        set_number(page, "number input for First strength", -2)
        choose(page, "Second steer", "CAA, toxicity, seed 0")
        request = asked(results, max_new_tokens=40)
        both = generated(request, ("lm_steer", -2.0), ("caa", 1.0))
        assert [*map(printed, run_to_end(page))] == [*map(printed, [generated(request), both])]
        for label in ("First steer", "Second steer"):
            choose(page, label, "CogSteer, toxicity, seed 0")
        page.get_by_role("button", name="Generate").click()
        page.get_by_text("do not go together: the cache").wait_for()


@needs_chromium
def test_a_model_without_steers_says_what_makes_them_and_is_continued_all_the_same(address: str):
    with demo_page(address) as page:
        choose(page, "Model", BARE)
        page.get_by_text("make the configuration's with: snakemake steers").wait_for()
        base, steered = run_to_end(page)
        assert base == steered != ""


@needs_chromium
def test_a_steer_that_is_gone_says_what_makes_it(address: str, results: Path):
    folder = results / f"steers/{MODEL}/lm_steer/toxicity/0"
    with demo_page(address) as page:
        folder.rename(results / "aside")
        try:
            page.get_by_role("button", name="Generate").click()
            page.get_by_text(f"make it with: snakemake results/steers/{MODEL}/lm_steer/toxicity/0").wait_for()
        finally:
            (results / "aside").rename(folder)


@needs_chromium
def test_a_prompt_stays_text_and_a_narrow_window_does_not_scroll_sideways(address: str):
    with demo_page(address, width=390, height=844) as page:
        assert overflow(page) == 0
        page.get_by_label("Prompt", exact=True).fill(EVIL)
        run_to_end(page)
        assert page.locator(".demo .prompt").all_text_contents() == [EVIL, EVIL]
        assert page.evaluate("window.hit") is None and not page.locator(".demo img, .demo script").count()
        assert overflow(page) == 0


class Slow(Bench):
    """Shows a token in a tenth of a second, and notes the requests that were left."""

    left: tuple[Asked, ...] = ()

    def compare(self, asked: Asked) -> Iterator[Shown]:
        try:
            for shown in super().compare(asked):
                time.sleep(0.1)
                yield shown
        except GeneratorExit:
            self.left += (asked,)
            raise


@needs_chromium
def test_a_run_can_be_stopped_and_another_one_begun(results: Path):
    from steerlab.demo import page as pages

    slow = Slow(SCORERS)
    built = pages.build(results, slow, MODEL)
    with closing(slow), closing(built), demo_page(pages.serve(built, _free_port())) as page:
        set_number(page, "number input for New tokens", 200)
        page.get_by_role("button", name="Generate").click()
        page.wait_for_function("document.querySelector('.demo .status').textContent.startsWith('unsteered: ')")
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("stopped", exact=True).wait_for()
        stopped = continuations(page)
        page.wait_for_timeout(1000)
        assert continuations(page) == stopped and len(slow.left) == 1
        set_number(page, "number input for New tokens", 5)
        assert all(run_to_end(page)) and len(slow.left) == 1


def test_files_are_not_served_nor_is_another_host_name_answered(address: str):
    for request, code in (
        (urllib.request.Request(f"{address}/gradio_api/file={ROOT / 'config.yaml'}"), 403),
        (urllib.request.Request(address, headers={"Host": "elsewhere.example"}), 400),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == code
