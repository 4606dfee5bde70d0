"""Toxicity by the Perspective API, through Google's own client. The service ends on 31 December 2026.

Its models change without a version, so the version of a score is that of the API; a service with the same schema at
another address is another version. The documentation asks for the API's own description at start-up; here a small one
of our own stands for it, so that nothing but texts is ever asked for. Source: the API's methods, attributes and limits
pages (github conversationai/perspectiveapi, 2-api/).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from google.api_core.client_options import ClientOptions
from googleapiclient.discovery import build_from_document
from httplib2 import Response

from steerlab.scores import services
from steerlab.scores.cache import Answer, Question, now
from steerlab.scores.connection import Connection, ServiceStopped, Unavailable, key_of, probabilities, unavailable

LARGEST = 20 * 1024  # bytes of a text, by the limits page
KEY = services.KEYS["perspective"]

REFUSED = {
    "COMMENT_EMPTY", "COMMENT_TOO_LONG", "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE", "LANGUAGE_DETECTION_FAILED",
}  # fmt: skip
OF_A_LANGUAGE = {"LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE"}
BAD_KEY = {
    "API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED",
    "API_KEY_HTTP_REFERRER_BLOCKED", "SERVICE_DISABLED", "CONSUMER_SUSPENDED", "CONSUMER_INVALID", "keyInvalid",
    "keyExpired", "accessNotConfigured", "forbidden", "PERMISSION_DENIED", "UNAUTHENTICATED",
}  # fmt: skip
TOO_FAST = {"RATE_LIMIT_EXCEEDED", "rateLimitExceeded", "userRateLimitExceeded"}
SPENT = {"dailyLimitExceeded", "quotaExceeded", "dailyLimitExceededUnreg"}


class Perspective:
    """One request a text, for all `attributes` at once; the first one is the score.

    key: sent in a header, so that no address, log line or error message has it; "" where the cache has every answer.
    languages: of the texts, ISO 639; () lets the service detect them, and refuse texts. address: of the service.
    timeout: seconds.
    """

    name = "perspective"
    quantity: Literal["toxicity"] = "toxicity"

    def __init__(
        self,
        key: str,
        *,
        attributes: Sequence[str] = ("TOXICITY",),
        languages: Sequence[str] = ("en",),
        address: str = services.PERSPECTIVE,
        timeout: float = 20.0,
    ) -> None:
        self.version = services.version(self.name, {"address": address})
        self._first = attributes[0]
        self.question = Question(self.name, self.version, tuple(attributes), tuple(languages))
        self._key = key_of(self.name, key)
        self._http = _Http(Connection(self.name, {"X-Goog-Api-Key": self._key}, timeout))
        self._client: Any = build_from_document(
            DOCUMENT, http=self._http, client_options=ClientOptions(api_endpoint=address.rstrip("/") + "/")
        )
        self._about = {
            "requestedAttributes": {name: {} for name in attributes},
            "languages": list(languages),
            "doNotStore": True,
        }

    def refusal(self, text: str) -> str | None:
        """See `Service.refusal`, in Perspective's own words; texts over LARGEST bytes are not sent."""
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return "NO_UNICODE"  # a lone surrogate: JSON could carry it, UTF-8 cannot
        return "COMMENT_EMPTY" if not text else "COMMENT_TOO_LONG" if size > LARGEST else None

    def ask(self, text: str) -> Answer:
        """See `Service.ask`. Raises ServiceStopped without a key."""
        if not self._key:
            raise ServiceStopped(
                f"perspective: texts are not in the score cache and there is no key; set {KEY}, or merge a cache "
                "that has them (python -m steerlab scores merge), or take perspective out of scores.toxicity"
            )
        request = self._client.comments().analyze(body={"comment": {"text": text, "type": "PLAIN_TEXT"}} | self._about)
        try:
            response = request.execute()
        except _Refused as refused:
            return self._refused(refused)
        except UnicodeDecodeError:  # what is no JSON comes back as a string
            raise Unavailable("an answer that is no text") from None
        return Answer(self._scores(response), None, _compact(response), now())

    def score(self, answer: Answer) -> float:
        """The first attribute's summary score, in [0, 1]."""
        return answer.scores[self._first]

    def _scores(self, response: Any) -> dict[str, float]:
        try:
            found = response["attributeScores"]
            return probabilities({name: found[name]["summaryScore"]["value"] for name in self.question.attributes})
        except (KeyError, TypeError):
            raise Unavailable("an answer without scores") from None

    def _refused(self, refused: "_Refused") -> Answer:
        """The answer that is a refusal for good; raises what other statuses mean. Its own words are not repeated."""
        status, told = refused.status, _strings(refused.body)
        if (reasons := sorted(told & REFUSED)) and not (reasons[0] in OF_A_LANGUAGE and _was_requested(refused.body)):
            kept = _compact(refused.body)
            return Answer({}, reasons[0], kept.replace(self._key, "***"), now())
        if told & SPENT or (status == 429 and any("perday" in word.lower().replace(" ", "") for word in told)):
            raise ServiceStopped("perspective: the quota of the day is spent; run again tomorrow, scores are kept")
        if again := unavailable(429 if told & TOO_FAST else status, refused.headers):
            raise again
        if status in (401, 403) or told & BAD_KEY:
            raise ServiceStopped(
                f"perspective: the key is refused (HTTP {status}); set {KEY} to a key of a project that has the API "
                "enabled, or take perspective out of scores.toxicity"
            )
        if status in (404, 410):
            raise ServiceStopped(
                f"perspective: HTTP {status}, the service is not there: it ends with 2026; take perspective out of "
                "scores.toxicity, or merge a cache (python -m steerlab scores merge)"
            )
        kind = ", ".join(sorted(word for word in told if word.isupper() and " " not in word)) or "no reason given"
        raise ServiceStopped(
            f"perspective: a request is not accepted (HTTP {status}, {kind}); "
            "check scores.perspective: attributes, languages and address"
        )


DOCUMENT = {
    "name": "commentanalyzer",
    "version": services.PERSPECTIVE_VERSION,
    "rootUrl": services.PERSPECTIVE + "/",
    "servicePath": "",
    "schemas": {"Any": {"id": "Any", "type": "object", "additionalProperties": {"type": "any"}}},
    "resources": {
        "comments": {
            "methods": {
                "analyze": {
                    "id": "commentanalyzer.comments.analyze",
                    "path": f"{services.PERSPECTIVE_VERSION}/comments:analyze",
                    "httpMethod": "POST",
                    "request": {"$ref": "Any"},
                    "response": {"$ref": "Any"},
                }
            }
        }
    },
}


class _Refused(Exception):
    """An answer that is no success: status, headers, and body (None where it is no JSON)."""

    def __init__(self, status: int, headers: Mapping[str, str], body: Any) -> None:
        super().__init__(status)
        self.status, self.headers, self.body = status, headers, body


class _Http:
    """What Google's client sends requests through, in place of httplib2.

    httplib2 sends a request again where a connection is cut: past the quota, and paid twice. And the client logs what
    comes with an error, where a key may stand in: so errors do not reach it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def request(self, uri: str, method: str = "POST", body: Any = None, headers: Any = None, **_: object):
        got = self._connection.send(uri, body, headers or {})
        if got.status_code != 200:
            raise _Refused(got.status_code, got.headers, _parsed(got.content))
        return Response({"status": "200", "content-type": got.headers.get("Content-Type", "")}), got.content


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _strings(body: Any) -> set[str]:
    """Every string in the error's body: reasons stand at different places for different causes."""
    if isinstance(body, str):
        return {body}
    inside = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    return {word for one in inside for word in _strings(one)}


def _was_requested(body: Any) -> bool:
    """True if a refused language is one that the configuration names: then it is no fault of the text."""
    if isinstance(body, dict):
        return bool(body.get("requestedLanguages")) or any(map(_was_requested, body.values()))
    return isinstance(body, list) and any(map(_was_requested, body))
