"""Toxicity by a moderation endpoint that speaks OpenAI's protocol: POST <base_url>/moderations {"model", "input"}.

A hosted model or one served at home. The score is the largest of the chosen categories'; all categories are kept.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from steerlab.scores import services
from steerlab.scores.cache import Answer, Question, now
from steerlab.scores.connection import Connection, ServiceStopped, Unavailable, key_of, probabilities, unavailable

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
        key = key_of(self.name, key)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._connection = Connection(self.name, headers, timeout)

    def refusal(self, text: str) -> str | None:
        """See `Service.refusal`; empty texts and lone surrogates are not sent."""
        try:
            text.encode()
        except UnicodeEncodeError:
            return "NO_UNICODE"
        return None if text else "EMPTY"

    def ask(self, text: str) -> Answer:
        """See `Service.ask`."""
        got = self._connection.send(self._address, json.dumps({"model": self._model, "input": text}).encode(), {})
        try:
            response = json.loads(got.content)
        except ValueError:
            response = None
        if got.status_code != 200:
            return self._refused(got.status_code, got.headers, response)
        return Answer(self._scores(response), None, _compact(response), now())

    def score(self, answer: Answer) -> float:
        """The largest of the asked categories' scores, in [0, 1]."""
        return max(answer.scores[category] for category in self._known(answer.scores))

    def _scores(self, response: Any) -> dict[str, float]:
        try:
            found = probabilities(response["results"][0]["category_scores"])
        except (KeyError, IndexError, TypeError):
            raise Unavailable("an answer without scores") from None
        self._known(found)
        return found

    def _known(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """The chosen categories; raises ServiceStopped where the model has not all of them."""
        if missing := sorted(set(self._categories) - set(scores)):
            raise ServiceStopped(
                f"moderation: {self._model} has no category {missing[0]!r}; name others of {', '.join(sorted(scores))} "
                "in scores.moderation.categories"
            )
        return self._categories

    def _refused(self, status: int, headers: Mapping[str, str], response: Any) -> Answer:
        """The answer that is a refusal for good; raises what other statuses mean. Its own words are not repeated."""
        told = response.get("error") if isinstance(response, dict) else None
        code = str(told.get("code") or "") if isinstance(told, dict) else ""
        if code in TOO_LONG or status == 413:
            return Answer({}, "TOO_LONG", "", now())
        if code == "insufficient_quota":
            raise ServiceStopped("moderation: the quota is spent; fill it up and run again, scores are kept")
        if again := unavailable(status, headers):
            raise again
        if status in (401, 403):
            raise ServiceStopped(f"moderation: the key is refused (HTTP {status}); set {KEY}")
        raise ServiceStopped(f"moderation: HTTP {status} {code}; check scores.moderation.base_url and model")


TOO_LONG = {"string_above_max_length", "context_length_exceeded"}


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
