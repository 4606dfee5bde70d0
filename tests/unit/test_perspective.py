"""The Perspective client with Google's own library against a local server: what is asked, paid, kept and refused."""

import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steerlab.scores.cache import FILE, ScoreCache, text_digest
from steerlab.scores.connection import ServiceStopped
from steerlab.scores.network import NetworkScorer, answers
from steerlab.scores.perspective import Perspective
from steerlab.scores.quota import SHARE, Claims, Quota
from tests.unit.perspective_server import BILLED, FAULTS, KEY, SPOILT, Behaviour, PerspectiveServer, score_of
from tests.unit.storm import storm

TEXTS = [f"text {number}" for number in range(24)]


def client(server: PerspectiveServer, key: str = KEY, **settings) -> Perspective:
    return Perspective(key, address=server.address, timeout=1.0, **settings)


def scores(found) -> dict[str, float]:
    return {text: one.scores["TOXICITY"] for text, one in found.items()}


def test_a_request_is_what_the_documentation_asks_for(tmp_path):
    with PerspectiveServer() as server:
        answers(client(server, attributes=("TOXICITY", "INSULT"), languages=("en",)), ["hello"], tmp_path, quota=100)
    assert server.bodies == [
        {
            "comment": {"text": "hello", "type": "PLAIN_TEXT"},
            "requestedAttributes": {"TOXICITY": {}, "INSULT": {}},
            "languages": ["en"],
            "doNotStore": True,
        }
    ]


def test_summary_scores_and_the_whole_response_are_kept(tmp_path):
    with PerspectiveServer() as server:
        found = answers(client(server, attributes=("TOXICITY", "INSULT")), ["hello"], tmp_path, quota=100)["hello"]
    assert found.scores == {"TOXICITY": score_of("hello"), "INSULT": score_of("hello", "INSULT")}
    assert '"spanScores"' in found.response and '"detectedLanguages"' in found.response
    assert abs(found.at - time.time()) < 60


def test_each_text_is_asked_for_once_and_never_again(tmp_path, capsys):
    with PerspectiveServer() as server:
        for _ in range(2):
            found = answers(client(server), TEXTS * 3, tmp_path, quota=400)
            assert scores(found) == {text: score_of(text) for text in TEXTS}
        assert len(server.log) == len(TEXTS)
    first, second = [line for line in capsys.readouterr().err.splitlines() if "duplicates" in line]
    assert first == "perspective: 72 texts, 0 cached, 48 duplicates, about 0 s at 400 per second"
    assert second == "perspective: 72 texts, 24 cached, 48 duplicates, about 0 s at 400 per second"


def test_an_answer_to_more_attributes_is_not_paid_again(tmp_path):
    with PerspectiveServer() as server:
        answers(client(server, attributes=("INSULT", "TOXICITY")), TEXTS, tmp_path, quota=400)
        answers(client(server, attributes=("TOXICITY",)), TEXTS, tmp_path, quota=400)
        assert len(server.log) == len(TEXTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_survived_and_each_text_scored(tmp_path, fault):
    with PerspectiveServer(Behaviour(faults={fault: 0.3}, stalled=1.2)) as server:
        found = answers(client(server), TEXTS, tmp_path, quota=400)
        assert scores(found) == {text: score_of(text) for text in TEXTS}
        assert len(server.outcomes(fault)) > 2
        assert len(server.outcomes(*BILLED)) == len(TEXTS) + len(server.outcomes(*SPOILT))


@pytest.mark.parametrize("rest", [1.0, None])
def test_a_throttled_client_rests_and_then_goes_on(tmp_path, rest):
    with PerspectiveServer(Behaviour(throttled=((12, 0.8, rest),))) as server:
        found = answers(client(server), TEXTS, tmp_path, quota=400)
        assert len(found) == len(TEXTS)
        moments = [moment for moment, _, outcome in server.log if outcome == "throttled"]
        assert 1 <= len(moments) < 20  # the quota would have sent 300 in that time
        if rest:
            assert next(moment for moment, _, _ in server.log if moment > moments[0] + 0.5) >= moments[0] + rest - 0.05


@pytest.mark.parametrize(
    ("text", "reason", "is_asked"),
    [
        ("", "COMMENT_EMPTY", False),
        ("\n", "COMMENT_EMPTY", True),
        ("x" * 100_000, "COMMENT_TOO_LONG", False),
        ("é" * 10_241, "COMMENT_TOO_LONG", False),
        ("\ud800", "NO_UNICODE", False),
        ("fr: bonjour", "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE", True),  # as the service detects it
    ],
)
def test_a_refused_text_is_recorded_with_its_reason_and_never_asked_again(tmp_path, text, reason, is_asked):
    with PerspectiveServer() as server:
        for _ in range(2):
            assert answers(client(server, languages=()), [text], tmp_path, quota=100)[text].refusal == reason
        assert len(server.log) == int(is_asked)


@pytest.mark.parametrize("text", ["a\0b", "\u202eright to left", "👩‍👩‍👧", "y" * 20_480, "%s &key=1#'\""])
def test_a_strange_text_reaches_the_server_as_it_is(tmp_path, text):
    with PerspectiveServer() as server:
        assert scores(answers(client(server), [text], tmp_path, quota=100)) == {text: score_of(text)}
        assert server.bodies[0]["comment"]["text"] == text


def test_as_a_scorer_refused_texts_are_nan_and_the_first_attribute_is_the_score(tmp_path):
    with PerspectiveServer() as server:
        scorer = NetworkScorer(client(server, attributes=("INSULT", "TOXICITY")), tmp_path, quota=100)
        found = scorer.score(["hello", "", "hello"])
    np.testing.assert_array_equal(found, [score_of("hello", "INSULT"), math.nan, score_of("hello", "INSULT")])
    assert scorer.version.startswith("v1alpha1@127.0.0.1")


# ---- what stops a run ----


@pytest.mark.parametrize(
    ("behaviour", "key", "settings", "message"),
    [
        (Behaviour(), "wrong", {}, "the key is refused .HTTP 400.; set PERSPECTIVE_API_KEY to"),
        (Behaviour(), "", {}, "there is no key; set PERSPECTIVE_API_KEY, or merge a cache"),
        (Behaviour(daily=5), KEY, {}, "the quota of the day is spent; run again tomorrow, scores are kept"),
        (Behaviour(), KEY, {"attributes": ("TOXIC",)}, "a request is not accepted .HTTP 400, INVALID_"),
        (Behaviour(), KEY, {"languages": ("tr",)}, "not accepted .HTTP 400, .*LANGUAGE_NOT_SUPPORTED"),
        (Behaviour(), "key with a \u201cquote\u201d", {}, "the key has characters that no key has; copy it anew"),
    ],
)
def test_what_nobody_but_the_user_can_mend_stops_the_run_with_one_line(tmp_path, behaviour, key, settings, message):
    with PerspectiveServer(behaviour) as server, pytest.raises(ServiceStopped, match=message) as stopped:
        answers(client(server, key, **settings), TEXTS, tmp_path, quota=20)
    assert "\n" not in str(stopped.value)
    with ScoreCache(tmp_path / FILE) as cache:
        assert len(list(cache.rows())) == len(server.outcomes("scored"))


def test_an_address_that_is_none_is_not_taken_for_an_outage(tmp_path):
    with pytest.raises(ServiceStopped, match="perspective: cannot be asked at all .InvalidURL.; check its address"):
        answers(Perspective(KEY, address="http://"), ["text"], tmp_path, quota=100)


def test_a_service_that_is_gone_says_what_to_do(tmp_path):
    with PerspectiveServer() as server:
        gone = Perspective(KEY, address=server.address + "/gone", timeout=1.0)
        with pytest.raises(ServiceStopped, match="HTTP 404, the service is not there: it ends with 2026"):
            answers(gone, ["text"], tmp_path, quota=100)


def test_a_service_that_stays_down_ends_the_run_and_what_was_answered_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("steerlab.scores.network.ATTEMPTS", 3)
    with PerspectiveServer(Behaviour(faults={"error_500": 0.7})) as server:
        with pytest.raises(
            ServiceStopped, match=r"no score in 3 attempts \(HTTP 500\); it seems to be down; run again"
        ):
            answers(client(server), TEXTS, tmp_path, quota=400)
        with ScoreCache(tmp_path / FILE) as cache:
            assert len(list(cache.rows())) == len(server.outcomes("scored")) > 0


def test_a_text_that_the_service_always_fails_on_does_not_keep_the_others_from_their_scores(tmp_path, monkeypatch):
    monkeypatch.setattr("steerlab.scores.network.ATTEMPTS", 3)
    told = f"1 texts got no score in 3 attempts .*{text_digest(TEXTS[5]).hex()}"
    with PerspectiveServer(Behaviour(poison=(TEXTS[5],))) as server, pytest.raises(ServiceStopped, match=told):
        answers(client(server), TEXTS, tmp_path, quota=400)
    with ScoreCache(tmp_path / FILE) as cache:
        assert len(list(cache.rows())) == len(TEXTS) - 1


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (307, {"Location": "/elsewhere"}, b"", "a request is not accepted .HTTP 307"),
        (403, {}, b"<html>@@ blocked</html>", "the key is refused .HTTP 403"),
        (403, {}, json.dumps([{"error": {"message": "api_key:@@"}}]).encode(), "the key is refused .HTTP 403"),
        (400, {}, json.dumps({"error": {"details": [{"reason": "API_KEY_INVALID"}]}}).encode(), "the key is refused"),
        (400, {}, b"null", "a request is not accepted .HTTP 400, no reason given"),
        (501, {}, b"{}", "a request is not accepted .HTTP 501"),
        (410, {}, b"", "the service is not there"),
    ],
)
def test_whatever_a_server_answers_the_run_stops_in_one_line_without_the_key(
    tmp_path, caplog, capfd, status, headers, body, expected
):
    caplog.set_level(logging.DEBUG)
    with (
        a_server_that_answers(status, headers, body.replace(b"@@", KEY.encode())) as (address, seen),
        pytest.raises(ServiceStopped, match=expected) as stopped,
    ):
        answers(Perspective(KEY, address=address, timeout=1.0), ["text"], tmp_path, quota=100)
    assert len(seen) == 1  # no redirect is followed
    assert KEY not in str(stopped.value) + caplog.text + "".join(capfd.readouterr())


@contextmanager
def a_server_that_answers(status: int, headers: dict, body: bytes):
    """(address, paths asked for) of a server that answers every request alike."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_no_key_is_needed_where_the_cache_has_every_answer(tmp_path):
    with PerspectiveServer() as server:
        answers(client(server), TEXTS, tmp_path, quota=400)
        found = answers(client(server, key=""), TEXTS, tmp_path, quota=400)
    assert scores(found) == {text: score_of(text) for text in TEXTS}


def test_the_key_is_in_no_log_line_and_in_no_file_even_of_a_debug_log(tmp_path):
    handler = logging.FileHandler(tmp_path / "debug.log")
    root = logging.getLogger()
    root.addHandler(handler)
    level, root.level = root.level, logging.DEBUG
    try:
        with PerspectiveServer(Behaviour(faults={"error_500": 0.2, "cut_after": 0.2, "malformed": 0.2})) as server:
            answers(client(server), TEXTS[:8], tmp_path, quota=400)
            try:
                answers(Perspective(KEY, address="http://127.0.0.1:9", timeout=0.1), [], tmp_path, quota=400)
                Perspective(KEY, address=server.address + "/gone").ask("text")
            except ServiceStopped:
                logging.getLogger("steerlab").debug("traceback", exc_info=True)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert "traceback" in (tmp_path / "debug.log").read_text()
    for file in tmp_path.rglob("*"):
        assert KEY.encode() not in file.read_bytes(), file


# ---- the quota, and several processes ----


@given(quota=st.sampled_from([0.5, 1.0, 7.0, 200.0]), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_window_of_ten_seconds_holds_more_than_its_quota(tmp_path, monkeypatch, quota, seed):
    """Callers come in bursts and pauses; the clock is ours, so a minute takes no time."""
    clock = SimpleNamespace(now=1e9, time=lambda: clock.now)
    monkeypatch.setattr("steerlab.scores.quota.time", clock)
    limiter = Quota(tmp_path / f"{quota}-{seed}", quota, threading.Event())
    draw, sent = random.Random(seed), []
    while clock.now < 1e9 + 60 and len(sent) < 5000:
        slot = limiter._take()
        clock.now = max(clock.now, slot)
        sent.append(clock.now)
        clock.now += draw.choice([0.0, 0.0, 0.0, draw.expovariate(quota), 0.15])
    most = max(place + 1 - bisect_left(sent, moment - 10 + 1e-6) for place, moment in enumerate(sent))
    assert most <= max(1, 10 * quota)


def test_slots_that_are_asked_for_in_time_fill_the_quota(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=1e9, time=lambda: clock.now)
    monkeypatch.setattr("steerlab.scores.quota.time", clock)
    limiters = [Quota(tmp_path / "quota", 200.0, threading.Event()) for _ in range(4)]
    for number in range(2000):
        clock.now = max(clock.now, limiters[number % 4]._take())
    assert 0.95 * 200 <= 2000 / (clock.now - 1e9) == pytest.approx(SHARE * 200, rel=0.025)


def test_a_pause_holds_every_process(tmp_path):
    stopped = threading.Event()
    one, other = Quota(tmp_path / "quota", 100.0, stopped), Quota(tmp_path / "quota", 100.0, stopped)
    one.pause(0.5)
    started = time.time()
    assert other.wait() and time.time() - started >= 0.45


def test_a_clock_that_was_set_back_does_not_stop_the_limiter(tmp_path):
    limiter = Quota(tmp_path / "quota", 100.0, threading.Event())
    limiter._exchange(lambda _: time.time() + 1e6)
    started = time.time()
    assert limiter.wait() and time.time() - started < 1


def test_a_claim_ends_with_its_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from steerlab.scores.quota import Claims\n"
        "claims = Claims(Path(sys.argv[1])); print(claims.take(b'a' * 32), flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path / "claims"], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "True\n"
    claims = Claims(tmp_path / "claims")
    assert claims.take(b"b" * 32) and not claims.take(b"a" * 32)
    other.kill()
    other.wait()
    assert claims.take(b"a" * 32)


def test_ctrl_c_leaves_what_was_answered(tmp_path):
    with PerspectiveServer() as server:
        code = (
            "import signal, sys; from pathlib import Path; from steerlab.scores.network import answers\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it\n"
            "from steerlab.scores.perspective import Perspective; from tests.unit.perspective_server import KEY\n"
            "texts = [f'text {n}' for n in range(500)]\n"
            "answers(Perspective(KEY, address=sys.argv[1]), texts, Path(sys.argv[2]), quota=50)"
        )
        running = subprocess.Popen([sys.executable, "-c", code, server.address, tmp_path], stderr=subprocess.DEVNULL)
        while len(server.log) < 40:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=20) != 0
        with ScoreCache(tmp_path / FILE) as cache:
            assert len(list(cache.rows())) == len(server.outcomes("scored")) < 500
            assert cache.faults() == []


def test_a_storm_of_faults_and_kills_scores_every_text_once(tmp_path):
    """Full size: `python -m tests.unit.storm`, whose figures docs/perspective.md has."""
    seen = storm(tmp_path, texts=int(os.environ.get("STEERLAB_STORM", "1500")), quota=200.0, kills=3)
    texts = seen["texts"]
    assert seen["exit codes"] == [0, 0, 0, 0]
    assert (seen["rows"], seen["right"], seen["faults of the file"]) == (texts, texts, [])
    assert seen["billed"] <= texts + seen["spoilt"] + seen["in flight at most"]
    # Slots keep the quota exactly (above); a busy machine may notice requests later than they were sent.
    assert seen["most requests in 10 s, of the quota"] <= 1.05
    assert seen["kills"] == 3 and min(seen["outcomes"][fault] for fault in FAULTS) > 0
