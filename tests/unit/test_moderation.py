"""A moderation endpoint that speaks OpenAI's protocol, served on loopback."""

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from steerlab.scores.connection import ServiceStopped
from steerlab.scores.moderation import Moderation
from steerlab.scores.network import NetworkScorer

SCORES = {"harassment": 0.25, "harassment/threatening": 0.5, "violence": 0.9}


class Endpoint(ThreadingHTTPServer):
    """Answers with SCORES, after the answers in `first`: (status, body, headers)."""

    def __init__(self) -> None:
        self.first: list[tuple[int, object, dict]] = []
        self.seen: list[tuple[str, str | None, dict]] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers.get("Authorization"), body))
        result = {"flagged": True, "categories": {}, "category_scores": SCORES}
        scored = (200, {"id": "modr-1", "model": body["model"], "results": [result]}, {})
        status, value, headers = self.server.first.pop(0) if self.server.first else scored
        self.send_response(status)
        for name, content in headers.items():
            self.send_header(name, content)
        self.end_headers()
        self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def scorer(endpoint: Endpoint, store, categories=("harassment", "harassment/threatening"), key="secret"):
    service = Moderation(key, base_url=endpoint.base_url, model="mod-1", categories=categories, timeout=1.0)
    return NetworkScorer(service, store, quota=100)


def test_the_score_is_the_largest_of_the_chosen_categories(endpoint, tmp_path):
    found = scorer(endpoint, tmp_path).score(["hello", "hello", ""])
    np.testing.assert_array_equal(found, [0.5, 0.5, math.nan])
    assert endpoint.seen == [("/v1/moderations", "Bearer secret", {"model": "mod-1", "input": "hello"})]


def test_other_categories_of_a_text_cost_no_request(endpoint, tmp_path):
    scorer(endpoint, tmp_path).score(["hello"])
    assert scorer(endpoint, tmp_path, ("violence",)).score(["hello"]).tolist() == [0.9]
    assert len(endpoint.seen) == 1


def test_the_version_names_model_and_address(endpoint, tmp_path):
    assert scorer(endpoint, tmp_path).version == f"mod-1@127.0.0.1:{endpoint.server_port}/v1"


def test_a_server_that_wants_no_key_gets_none(endpoint, tmp_path):
    scorer(endpoint, tmp_path, key="").score(["hello"])
    assert endpoint.seen[0][1] is None


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"error": {"message": "down"}}, {}),
        (429, {"error": {"code": "rate_limit_exceeded"}}, {"Retry-After": "0.2"}),
        (200, b'{"results": [', {}),
        (200, {"results": []}, {}),
        (502, b"<html>bad gateway</html>", {}),
    ],
)
def test_what_passes_is_asked_again(endpoint, tmp_path, answer):
    endpoint.first.append(answer)
    assert scorer(endpoint, tmp_path).score(["hello"]).tolist() == [0.5] and len(endpoint.seen) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"error": {"code": "invalid_api_key"}}, {}), "the key is refused .HTTP 401.; set MODERATION_API_KEY"),
        ((429, {"error": {"code": "insufficient_quota"}}, {}), "the quota is spent"),
        (
            (404, {"error": {"code": "model_not_found"}}, {}),
            "HTTP 404 model_not_found; check scores.moderation",
        ),
    ],
)
def test_what_only_the_user_can_mend_stops_with_one_line(endpoint, tmp_path, answer, message):
    endpoint.first.append(answer)
    with pytest.raises(ServiceStopped, match=message) as stopped:
        scorer(endpoint, tmp_path).score(["hello"])
    assert "\n" not in str(stopped.value) and "secret" not in str(stopped.value)


def test_a_category_that_the_model_lacks_is_named_with_those_it_has(endpoint, tmp_path):
    with pytest.raises(ServiceStopped, match="no category 'toxic'; name others of harassment, "):
        scorer(endpoint, tmp_path, ("toxic",)).score(["hello"])


def test_a_text_that_is_too_long_is_refused_once_for_all(endpoint, tmp_path):
    endpoint.first.append((400, {"error": {"code": "string_above_max_length"}}, {}))
    for _ in range(2):
        assert math.isnan(scorer(endpoint, tmp_path).score(["long"])[0])
    assert len(endpoint.seen) == 1
