"""Making data in LatentQA's schemas: what is written, what a stop and a kill leave, and what is told in one line."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from steerlab import cli
from steerlab.data import latentqa_generation as generation
from steerlab.data.latentqa_files import items, questions
from steerlab.scores import network
from steerlab.scores.cache import FILE, ScoreCache, text_digest
from steerlab.scores.chat_completions import KEY, request

ROOT = Path(__file__).parents[2]


def written_by_a_model(prompt: str) -> str:
    """What a willing model says to a prompt of each step: all of it follows from the prompt."""
    n = int(found[1]) if (found := re.search(r"JSON list of (\d+)", prompt)) else 0
    if "Think of ways" in prompt:
        theme = re.search(r"this list: (.*)\.", prompt)[1]
        number = re.search(r"list number (\d+)", prompt)[1]
        return json.dumps([f"{theme} {number} in way {place}" for place in range(n)])
    if '"control_user"' in prompt:
        goal = re.search(r"behave like this: (.*)\.", prompt)[1]
        return json.dumps({"control_user": f"Do {goal}!", "control_model": "I do é.", "system": f"You do {goal}."})
    if '"stimulus_user"' in prompt:
        said = [{"stimulus_user": f"Say {place}.", "stimulus_model": f"I say {place}."} for place in range(n)]
        return f"Gladly:\n```json\n{json.dumps(said)}\n```"
    return json.dumps([[f"Why {place}?", f"So {place}."] for place in range(n)])


class Endpoint(ThreadingHTTPServer):
    """Speaks OpenAI's protocol. first: (status, body, headers) given before anything else; spoilt: words in place of an
    answer, by part of the prompt, for the first so many times that it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.first: list[tuple[int, object, dict]] = []
        self.spoilt: dict[str, tuple[str | None, int]] = {}
        self.key: str | None = None
        self.seconds = 0.0
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        status, value, headers = self._answer(prompt)
        self.send_response(status)
        for name, content in headers.items():
            self.send_header(name, content)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def _answer(self, prompt: str) -> tuple[int, object, dict]:
        server = self.server
        if server.first:
            return server.first.pop(0)
        if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            return 401, {"error": {"code": "invalid_api_key"}}, {}
        assert self.path == "/v1/chat/completions"
        server.seen.append(prompt)
        time.sleep(server.seconds)
        words: str | None = written_by_a_model(prompt)
        for part, (instead, times) in server.spoilt.items():
            if part in prompt and server.seen.count(prompt) <= times:
                words = instead
        return 200, {"choices": [{"message": {"role": "assistant", "content": words}}]}, {}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def arguments(endpoint: Endpoint, out: Path, goals: int = 3, *more: str) -> list[str]:
    given = ["--goals", str(goals), "--endpoint", endpoint.url, "--model", "m", "--out", str(out), "--quota", "200"]
    return ["latentqa-data", *given, *more]


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """A function that gives the command to the command line, in this process."""

    def call(*given, key: str = "") -> Result:
        monkeypatch.setenv(KEY, key)
        code, line = 0, ""
        try:
            cli.main(arguments(*given))
        except SystemExit as stop:
            code, line = (1, f"{stop.code}\n") if isinstance(stop.code, str) else (int(stop.code or 0), "")
        caught = capsys.readouterr()
        return Result(code, caught.out, caught.err + line)

    return call


def told(result: Result) -> list[str]:
    """The lines on stderr but for bars and forecasts."""
    return [line for line in result.stderr.splitlines() if line.startswith("latentqa-data: ")]


def test_the_files_are_of_the_published_schemas_and_every_label_has_items_and_questions(endpoint, tmp_path, run):
    result = run(endpoint, tmp_path, 12, "--stimuli", "2")
    assert result.returncode == 0 and not told(result), result.stderr
    qa = questions(tmp_path / "qa.json")
    assert qa.label.nunique() == 12 and len(qa) == 24
    for kind, n in (("control", 12), ("stimulus", 24), ("stimulus_completion", 24), ("system", 24)):
        frame = items(tmp_path / f"{kind}.json", kind)
        assert len(frame) == n and set(frame.label) == set(qa.label)
    assert "control_thought" in json.loads((tmp_path / "stimulus.json").read_text())[0]
    assert "12 of qa" in result.stdout and Counter(endpoint.seen).most_common(1)[0][1] == 1
    assert len(endpoint.seen) == 2 + 3 * 12  # two lists of goals


def test_a_second_run_asks_nothing_and_more_goals_ask_for_the_further_ones_alone(endpoint, tmp_path, run):
    run(endpoint, tmp_path, 4)
    asked, files = len(endpoint.seen), {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert len(files) == 5
    run(endpoint, tmp_path, 4)
    assert len(endpoint.seen) == asked and files == {path: path.read_bytes() for path in files}
    run(endpoint, tmp_path, 6)
    assert len(endpoint.seen) == asked + 3 * 2
    assert set(json.loads(files[tmp_path / "qa.json"])) < set(json.loads((tmp_path / "qa.json").read_text()))


def test_after_a_kill_nothing_that_was_kept_is_asked_again(endpoint, tmp_path, run):
    endpoint.seconds = 0.05
    started = [sys.executable, "-m", "steerlab", *arguments(endpoint, tmp_path, 40)]
    process = subprocess.Popen(started, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while len(endpoint.seen) < 60 and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "qa.json").exists()
    with ScoreCache(tmp_path / "answers" / FILE) as cache:
        kept = {row[0] for row in cache.rows()}
    before = len(endpoint.seen)
    assert 30 < len(kept) < 124  # of all requests
    result = run(endpoint, tmp_path, 40)
    assert result.returncode == 0, result.stderr
    again = {text_digest(request(prompt)) for prompt in endpoint.seen[before:]}
    assert not again & kept and len(again | kept) == 4 + 3 * 40
    assert questions(tmp_path / "qa.json").label.nunique() == 40


def test_a_storm_of_429_is_waited_out_and_every_answer_comes_once(endpoint, tmp_path, run):
    endpoint.first = [(429, {"error": {}}, {"Retry-After": "0.05"})] * 15
    result = run(endpoint, tmp_path, 3)
    assert result.returncode == 0 and not told(result)
    assert len(endpoint.seen) == 1 + 3 * 3 and questions(tmp_path / "qa.json").label.nunique() == 3


def test_answers_of_another_form_are_asked_for_again(endpoint, tmp_path, run):
    endpoint.spoilt = {"Write three short texts": ('{"control_user": "Do."}', 2), "Think of ways": ("Sure!", 1)}
    result = run(endpoint, tmp_path, 2)
    assert result.returncode == 0 and not told(result)
    counts = Counter(endpoint.seen)
    assert sorted(counts.values()) == [1, 1, 1, 1, 2, 3, 3]
    again = run(endpoint, tmp_path, 2)  # bad answers are kept as well
    assert again.returncode == 0 and Counter(endpoint.seen) == counts


def test_goals_without_a_usable_answer_are_left_out_and_told(endpoint, tmp_path, run):
    goal = "the mood in which it writes 1 in way 1"
    endpoint.spoilt = {f"like this: {goal}.": (None, 99)}
    result = run(endpoint, tmp_path, 3, "--tries", "2")
    lines = told(result)
    assert result.returncode == 0 and len(lines) == 1
    assert re.fullmatch(
        r"latentqa-data: control of goal-the-mood\S+: no usable answer in 2 tries \(no answer\); left out", lines[0]
    )
    assert questions(tmp_path / "qa.json").label.nunique() == 2
    assert sum(goal in prompt for prompt in endpoint.seen) == 2


def test_where_nothing_is_made_no_file_is_written(endpoint, tmp_path, run):
    endpoint.spoilt = {"Think of ways": ("[]", 99)}
    result = run(endpoint, tmp_path, 3, "--tries", "1")
    assert result.returncode == 1 and told(result)[-1].startswith("latentqa-data: nothing was made; choose a model")
    assert "goals: the model gave 0 different ones of 3; ask for fewer" in result.stderr
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(("key", "what"), [("", "no key is given"), ("wrong", "the key is refused")])
def test_a_missing_or_wrong_key_is_one_line_that_names_its_variable(endpoint, tmp_path, run, key, what):
    endpoint.key = "right"
    result = run(endpoint, tmp_path, 3, key=key)
    line = f"latentqa-data: chat_completions: {what} (HTTP 401); set the environment variable {KEY}"
    assert result.returncode == 1 and told(result) == [line] and "Traceback" not in result.stderr
    assert run(endpoint, tmp_path, 3, key="right").returncode == 0


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ((404, {"error": {"code": "model_not_found"}}, {}), "HTTP 404 model_not_found; check the endpoint's address"),
        ((429, {"error": {"code": "insufficient_quota"}}, {}), "the quota is spent; fill it up and run again"),
        ((301, {}, {"Location": "http://127.0.0.1:9/"}), "HTTP 301; check the endpoint's address and the model"),
    ],
)
def test_what_no_attempt_can_change_is_one_line(endpoint, tmp_path, run, first, said):
    endpoint.first = [first]
    result = run(endpoint, tmp_path, 3)
    assert result.returncode == 1 and len(told(result)) == 1 and said in told(result)[0]


def test_numbers_below_one_and_an_address_without_a_host_are_one_line(endpoint, tmp_path, run):
    result = run(endpoint, tmp_path, 0)
    assert result.returncode == 1 and "--goals, --stimuli, --questions and --tries begin at 1" in result.stderr
    endpoint.url = "localhost/v1"
    result = run(endpoint, tmp_path, 1)
    assert result.returncode == 1 and len(told(result)) == 1 and "check its address" in told(result)[0]


def test_patience_with_too_fast_ends_and_names_the_option(endpoint, tmp_path, monkeypatch):
    from steerlab.scores.chat_completions import ChatCompletions, ask
    from steerlab.scores.connection import ServiceStopped

    monkeypatch.setattr(network, "PATIENCE", 0.3)
    endpoint.first = [(429, {"error": {}}, {"Retry-After": "0.1"})] * 999
    with pytest.raises(ServiceStopped, match="or less than --quota; run again later"):
        ask(ChatCompletions("", base_url=endpoint.url, model="m"), ["a"], tmp_path, quota=100)


# ---- without an endpoint ----


def answered(answers: dict[str, str]):
    """An `ask` that says what is given, by part of the prompt, and else what a willing model says."""

    def ask(prompts, attempt):
        own = {prompt: [words for part, words in answers.items() if part in prompt] for prompt in prompts}
        return {prompt: words[0] if words else written_by_a_model(prompt) for prompt, words in own.items()}

    return ask


@pytest.mark.parametrize(
    ("part", "words", "reason"),
    [
        ("control_user", "[]", "no object"),
        ("control_user", '{"control_user": "a", "control_model": "b"}', "lacks 'system'"),
        ("control_user", '{"control_user": " ", "control_model": "b", "system": "c"}', "' ' in place of a text"),
        ("control_user", '{"control_user": "\\ud83c", "control_model": "b", "system": "c"}', "surrogates not allowed"),
        ("stimulus_user", '[{"stimulus_user": "a", "stimulus_model": "b"}]', "1 different stimuli, not 2"),
        ("stimulus_user", "[1, 2]", "no list of objects"),
        ("Write 2 questions", '[["a", "b"], ["a", "c"]]', "1 different questions, not 2"),
        ("Write 2 questions", '[["a", "b", "c"]]', "no list of pairs"),
    ],
)
def test_each_fault_of_an_answer_has_its_reason(part, words, reason):
    made = generation.generate(answered({part: words}), 1, stimuli=2, tries=1)
    assert len(made.faults) == 1 and reason in made.faults[0] and made.rows["qa"] == {}


def test_equal_goals_count_once_whatever_their_case():
    again = json.dumps(["Be glad", "be  GLAD.", "be sad"])
    made = generation.generate(answered({"Think of ways": again}), 3, tries=1)
    labels = [label.rpartition("-")[0] for label in made.rows["qa"]]
    assert sorted(labels) == ["goal-be-glad", "goal-be-sad", "persona-be-glad"]
