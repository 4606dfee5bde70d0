"""Toxicity by the Perspective API, through Google's own client. The service ends on 31 December 2026.

Its models change without a version, so the version of a score is that of the API; a service with the same schema at
another address is another version. The documentation asks for the API's own description at start-up; here a small one
of our own stands for it, so that nothing but texts is ever asked for. Source: the API's methods, attributes and limits
pages (github conversationai/perspectiveapi, 2-api/).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import requests
from google.api_core.client_options import ClientOptions
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError
from httplib2 import Response

from steerlab.scores import services
from steerlab.scores.cache import Answer, Question, now
from steerlab.scores.network import Connection, ServiceStopped, Unavailable, retry_after

LARGEST = 20 * 1024  # bytes of a text, by the limits page
KEY = services.KEYS["perspective"]

REFUSED = {
    "COMMENT_EMPTY", "COMMENT_TOO_LONG", "LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE", "LANGUAGE_DETECTION_FAILED",
}  # fmt: skip
BAD_KEY = {
    "API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED",
    "API_KEY_HTTP_REFERRER_BLOCKED", "SERVICE_DISABLED", "CONSUMER_SUSPENDED", "CONSUMER_INVALID",
    "accessNotConfigured",
    "keyInvalid", "keyExpired", "forbidden", "PERMISSION_DENIED", "UNAUTHENTICATED",
}  # fmt: skip
TOO_FAST = {"RATE_LIMIT_EXCEEDED", "rateLimitExceeded", "userRateLimitExceeded"}
SPENT = {"dailyLimitExceeded", "quotaExceeded", "dailyLimitExceededUnreg"}


class Perspective:
    """One request a text, for all `attributes` at once; the first one is the score.

    key: sent in a header, so that no address, log line or error message has it; "" where the cache has every answer.
    languages: of the texts, as ISO 639
    codes; () lets the service detect them, and refuse texts. address: of the service. timeout: seconds.
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
        self._has_key = bool(key)
        self._http = _Http(timeout, {"X-Goog-Api-Key": key})
        self._client: Any = build_from_document(
            DOCUMENT, http=self._http, client_options=ClientOptions(api_endpoint=address.rstrip("/") + "/")
        )
        self._about = {
            "requestedAttributes": {name: {} for name in attributes},
            "languages": list(languages),
            "doNotStore": True,
        }

    def refusal(self, text: str) -> str | None:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return "NO_UNICODE"  # a lone surrogate: JSON could carry it, UTF-8 cannot
        return "COMMENT_EMPTY" if not text else "COMMENT_TOO_LONG" if size > LARGEST else None

    def ask(self, text: str) -> Answer:
        if not self._has_key:
            raise ServiceStopped(
                f"perspective: texts are not in the score cache and there is no key; set {KEY}, or merge a cache "
                "that has them (python -m steerlab scores merge), or take perspective out of scores.toxicity"
            )
        request = self._client.comments().analyze(body={"comment": {"text": text, "type": "PLAIN_TEXT"}} | self._about)
        try:
            response = request.execute()
        except HttpError as error:
            return self._refused(error)
        except (requests.RequestException, ValueError) as error:  # ValueError: the answer is no JSON
            raise Unavailable(type(error).__name__) from None
        return Answer(self._scores(response), None, json.dumps(response, sort_keys=True, separators=(",", ":")), now())

    def score(self, answer: Answer) -> float:
        return answer.scores[self._first]

    def _scores(self, response: Any) -> dict[str, float]:
        try:
            found = response["attributeScores"]
            scores = {name: float(found[name]["summaryScore"]["value"]) for name in self.question.attributes}
        except (KeyError, TypeError, ValueError):
            raise Unavailable("an answer without scores") from None
        if not all(0 <= score <= 1 for score in scores.values()):
            raise Unavailable("a score outside 0 to 1")
        return scores

    def _refused(self, error: HttpError) -> Answer:
        """The answer that is a refusal for good; raises what other errors mean. Its own words are not repeated."""
        status, told = int(error.status_code), _told(error)
        if refusals := sorted(told & REFUSED):
            response = json.dumps(_body(error), sort_keys=True, separators=(",", ":"))
            return Answer({}, refusals[0], response, now())
        if told & SPENT or (status == 429 and any("perday" in word.lower().replace(" ", "") for word in told)):
            raise ServiceStopped(
                "perspective: the quota of the day is spent; run again tomorrow, scores are kept"
            ) from None
        if status == 429 or told & TOO_FAST:
            raise Unavailable("HTTP 429", throttled=True, retry_after=retry_after(error.resp)) from None
        if status >= 500:
            raise Unavailable(f"HTTP {status}", retry_after=retry_after(error.resp)) from None
        if status in (401, 403) or told & BAD_KEY:
            raise ServiceStopped(
                f"perspective: the key is refused (HTTP {status}); set {KEY} to a key of a project that has the API "
                "enabled, or take perspective out of scores.toxicity"
            ) from None
        if status in (404, 410):
            raise ServiceStopped(
                f"perspective: HTTP {status}, the service is not there: it ends with 2026; take perspective out of "
                "scores.toxicity, or merge a cache (python -m steerlab scores merge)"
            ) from None
        kind = ", ".join(sorted(word for word in told if word.isupper() and " " not in word)) or "no reason given"
        raise ServiceStopped(
            f"perspective: a request is invalid (HTTP {status}, {kind}); "
            "check scores.perspective.attributes and languages"
        ) from None


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


class _Http:
    """What Google's client sends requests through: one try each, on a connection a thread.

    httplib2, which it takes by itself, sends a request again where a connection is cut: past the quota and paid twice.
    """

    def __init__(self, timeout: float, headers: Mapping[str, str]) -> None:
        self._timeout, self._headers, self._connection = timeout, dict(headers), Connection()

    def request(self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: object):
        headers = dict(headers or {}) | self._headers
        got = self._connection.session.request(method, uri, data=body, headers=headers, timeout=self._timeout)
        about = Response(
            {**{name.lower(): value for name, value in got.headers.items()}, "status": str(got.status_code)}
        )
        about.reason = got.reason
        return about, got.content


def _body(error: HttpError) -> Any:
    try:
        return json.loads(error.content)
    except ValueError:
        return {}


def _told(error: HttpError) -> set[str]:
    """Every string in the error's body: reasons stand at different places for different causes."""
    found: set[str] = set()
    waiting = [_body(error)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found
