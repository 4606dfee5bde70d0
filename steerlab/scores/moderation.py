"""Toxicity by a moderation endpoint that speaks OpenAI's protocol: POST <base_url>/moderations {"model", "input"}.

A hosted model or one served at home. The score is the largest of the chosen categories'; all categories are kept.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

import requests

from steerlab.scores import services
from steerlab.scores.cache import Answer, Question, now
from steerlab.scores.network import Connection, ServiceStopped, Unavailable, retry_after

KEY = services.KEYS["moderation"]


class Moderation:
    """One request a text. key: "" for a server that wants none; base_url: such as http://localhost:8000/v1.

    model: as the server names it, with a version where it has versions; timeout: seconds.
    """

    name = "moderation"
    quantity: Literal["toxicity"] = "toxicity"

    def __init__(
        self, key: str, *, base_url: str, model: str, categories: Sequence[str], timeout: float = 20.0
    ) -> None:
        self.version = services.version(self.name, {"base_url": base_url, "model": model})
        self.question = Question(self.name, self.version, ())
        self._address, self._model, self._categories = base_url.rstrip("/") + "/moderations", model, tuple(categories)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout, self._connection = timeout, Connection()

    def refusal(self, text: str) -> str | None:
        try:
            text.encode()
        except UnicodeEncodeError:
            return "NO_UNICODE"
        return None if text else "EMPTY"

    def ask(self, text: str) -> Answer:
        body = {"model": self._model, "input": text}
        try:
            got = self._connection.session.post(self._address, json=body, headers=self._headers, timeout=self._timeout)
        except requests.RequestException as error:
            raise Unavailable(type(error).__name__) from None
        try:
            response = got.json()
        except requests.JSONDecodeError:
            response = None
        if got.status_code != 200:
            return self._refused(got, response)
        return Answer(self._scores(response), None, json.dumps(response, sort_keys=True, separators=(",", ":")), now())

    def score(self, answer: Answer) -> float:
        if missing := sorted(set(self._categories) - set(answer.scores)):
            known = ", ".join(sorted(answer.scores))
            raise ServiceStopped(
                f"moderation: {self._model} has no category {missing[0]!r}; name others of {known} in "
                "scores.moderation.categories"
            )
        return max(answer.scores[category] for category in self._categories)

    def _scores(self, response: Any) -> dict[str, float]:
        try:
            return {name: float(score) for name, score in response["results"][0]["category_scores"].items()}
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise Unavailable("an answer without scores") from None

    def _refused(self, got: requests.Response, response: Any) -> Answer:
        told = response.get("error") if isinstance(response, dict) else None
        code = str(told.get("code") or "") if isinstance(told, dict) else ""
        if code in ("string_above_max_length", "context_length_exceeded") or got.status_code == 413:
            return Answer({}, "TOO_LONG", json.dumps(response, sort_keys=True), now())
        if code == "insufficient_quota":
            raise ServiceStopped("moderation: the quota is spent; fill it up and run again, scores are kept")
        if got.status_code == 429:
            raise Unavailable("HTTP 429", throttled=True, retry_after=retry_after(got.headers))
        if got.status_code >= 500:
            raise Unavailable(f"HTTP {got.status_code}", retry_after=retry_after(got.headers))
        if got.status_code in (401, 403):
            raise ServiceStopped(f"moderation: the key is refused (HTTP {got.status_code}); set {KEY}")
        raise ServiceStopped(f"moderation: HTTP {got.status_code} {code}; check scores.moderation.base_url and model")
