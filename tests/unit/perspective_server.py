"""A local server that speaks the Perspective API's schema on loopback, and can misbehave.

In a test: `with PerspectiveServer() as server: ... server.address`. By itself, for tests with several processes:
`python -m tests.unit.perspective_server '<JSON of Behaviour>'` prints its address; GET /log tells what it saw.
A text's score is a function of its SHA-256 (`score_of`), so a test knows what each answer must be.
"""

import hashlib
import json
import random
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "AIza-a-key-that-must-not-be-written-anywhere"
ATTRIBUTES = ("TOXICITY", "SEVERE_TOXICITY", "IDENTITY_ATTACK", "INSULT", "PROFANITY", "THREAT")
LARGEST = 20 * 1024
SPOILT = ("cut_after", "malformed", "truncated")  # the text was scored, its score did not arrive
BILLED = ("scored", *SPOILT)
FAULTS = ("error_500", "error_503", "stall", "cut_before", *SPOILT)


def score_of(text: str, attribute: str = "TOXICITY") -> float:
    """The score that the server gives a text, in [0, 1)."""
    return int(hashlib.sha256(f"{attribute} {text}".encode()).hexdigest()[:8], 16) / 2**32


@dataclass(frozen=True)
class Behaviour:
    """How the server misbehaves.

    faults: probability of each of FAULTS, drawn by (seed, text, how often it was asked); throttled: (number of a
    request, seconds in which it and all after it get a 429, Retry-After or None); daily: requests a day, then its quota
    is spent; latency, stalled: seconds; languages: that it knows; where a request
    names none, a text that begins with "<code>: " is of that language; poison: texts that always get 500.
    """

    faults: dict[str, float] = field(default_factory=dict)
    throttled: tuple[tuple[int, float, float | None], ...] = ()
    daily: int | None = None
    latency: float = 0.0
    stalled: float = 5.0
    seed: int = 0
    languages: tuple[str, ...] = ("en",)
    poison: tuple[str, ...] = ()


class PerspectiveServer:
    """Serves on a free port of loopback while inside the `with`. log: [seconds since 1970, text, outcome] a request."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.log: list[tuple[float, str, str]] = []
        self.bodies: list[dict] = []
        self._lock = threading.Lock()
        self.rest: float | None = None  # the Retry-After of the last 429
        self._throttled_since: dict[int, float] = {}
        self._times_asked: dict[str, int] = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "PerspectiveServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def outcomes(self, *kinds: str) -> list[str]:
        """Texts of the requests that ended in one of these ways, in order."""
        return [text for _, text, outcome in self.log if outcome in kinds]

    def outcome(self, arrived: float, body: dict) -> str:
        """How a request ends; noted in the log."""
        text = body.get("comment", {}).get("text", "")
        with self._lock:
            number = len(self.log)
            times = self._times_asked[text] = self._times_asked.get(text, 0) + 1
            found = self._outcome(number, text, times, body)
            self.log.append((arrived, text, found))
            self.bodies.append(body)
        return found

    def _outcome(self, number: int, text: str, times: int, body: dict) -> str:
        behaviour = self.behaviour
        if behaviour.daily is not None and number >= behaviour.daily:
            return "spent"
        if self._is_throttled(number):
            return "throttled"
        if text in behaviour.poison:
            return "error_500"
        if not text.strip():
            return "COMMENT_EMPTY"
        if len(text.encode()) > LARGEST:
            return "COMMENT_TOO_LONG"
        asked = body.get("languages") or ([text[:2]] if text[2:4] == ": " else [])
        if not set(asked) <= set(behaviour.languages):
            return "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"
        if not set(body["requestedAttributes"]) <= set(ATTRIBUTES):
            return "INVALID_REQUEST"
        draw = random.Random(f"{behaviour.seed} {times} {text}").random()
        for fault, share in behaviour.faults.items():
            if (draw := draw - share) < 0:
                return fault
        return "scored"

    def _is_throttled(self, number: int) -> bool:
        for place, (first, seconds, rest) in enumerate(self.behaviour.throttled):
            if number >= first:
                since = self._throttled_since.setdefault(place, time.time())
                if time.time() < since + seconds:
                    self.rest = rest
                    return True
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address) -> None:
        """Clients are killed in tests: a broken pipe is no news."""


def _handler(server: PerspectiveServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            arrived = time.time()
            url = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if url.path != "/v1alpha1/comments:analyze":
                return self.answer(404, error(404, "NOT_FOUND", "Not found"))
            if (self.headers.get("X-Goog-Api-Key") or parse_qs(url.query).get("key", [""])[0]) != KEY:
                return self.answer(400, error(400, "INVALID_ARGUMENT", "API key not valid.", reason="API_KEY_INVALID"))
            body = json.loads(raw)
            found = server.outcome(arrived, body)
            time.sleep(server.behaviour.latency)
            return getattr(self, found, lambda body: self.refuse(found, body))(body)

        def do_GET(self) -> None:
            self.answer(200, server.log)

        def scored(self, body: dict) -> None:
            self.answer(200, scores(body))

        def error_500(self, body: dict) -> None:
            self.answer(500, error(500, "INTERNAL", "Internal error encountered."))

        def error_503(self, body: dict) -> None:
            self.answer(503, error(503, "UNAVAILABLE", "The service is currently unavailable."), {"Retry-After": "1"})

        def throttled(self, body: dict) -> None:
            rest = server.rest
            limit = {"quota_limit": "AnalyzeRequestsPerMinutePerProject", "quota_limit_value": "60"}
            told = error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", reason="RATE_LIMIT_EXCEEDED", metadata=limit)
            self.answer(429, told, {"Retry-After": f"{rest:g}"} if rest else {})

        def spent(self, body: dict) -> None:
            limit = {"quota_limit": "AnalyzeRequestsPerDayPerProject", "quota_limit_value": "1000"}
            told = error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", reason="RATE_LIMIT_EXCEEDED", metadata=limit)
            self.answer(429, told)

        def stall(self, body: dict) -> None:
            time.sleep(server.behaviour.stalled)
            self.close_connection = True

        def cut_before(self, body: dict) -> None:
            self.close_connection = True

        cut_after = cut_before

        def malformed(self, body: dict) -> None:
            self.send(200, b'{"attributeScores": {"TOXICITY": }}')

        def truncated(self, body: dict) -> None:
            whole = json.dumps(scores(body)).encode()
            self.send(200, whole[: len(whole) // 2], length=len(whole))
            self.close_connection = True

        def refuse(self, kind: str, body: dict) -> None:
            detail: dict = {"errorType": kind}
            if kind == "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE":
                given, detected = body.get("languages"), [body["comment"]["text"][:2]]
                languages = {"requestedLanguages": given} if given else {"detectedLanguages": detected}
                detail["languageNotSupportedByAttributeError"] = {"attribute": "TOXICITY"} | languages
            told = error(400, "INVALID_ARGUMENT", "The request is refused.")
            told["error"]["details"].append(detail)
            self.answer(400, told)

        def answer(self, status: int, value: object, headers: dict | None = None) -> None:
            self.send(status, json.dumps(value).encode(), headers)

        def send(self, status: int, content: bytes, headers: dict | None = None, length: int | None = None) -> None:
            with suppress(OSError):  # the client may be gone
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=UTF-8")
                self.send_header("Content-Length", str(len(content) if length is None else length))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def scores(body: dict) -> dict:
    """The answer to a request, as the API documents it."""
    text, found = body["comment"]["text"], {}
    for name in body["requestedAttributes"]:
        score = {"value": score_of(text, name), "type": "PROBABILITY"}
        found[name] = {"spanScores": [{"begin": 0, "end": len(text), "score": score}], "summaryScore": score}
    return {"attributeScores": found, "languages": body.get("languages", ["en"]), "detectedLanguages": ["en"]}


def error(code: int, status: str, message: str, **info: object) -> dict:
    """An error as Google's services give it. info: of its ErrorInfo, such as reason and metadata."""
    details = (
        [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "googleapis.com", **info}] if info else []
    )
    return {"error": {"code": code, "status": status, "message": message, "details": details}}


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    with PerspectiveServer(Behaviour(**chosen)) as running:
        print(running.address, flush=True)
        sys.stdin.read()  # until whoever started it closes its end
