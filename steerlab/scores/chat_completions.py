"""A model that writes texts over OpenAI's protocol: POST <base_url>/chat/completions {"model", "messages"}.

A hosted model or one served at home. It is asked through steerlab.scores.network as the scorers are, so every answer is
kept the moment it comes and no request that was answered is sent again. What is kept has no scores, but the words.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from steerlab.scores import network, services
from steerlab.scores.cache import Answer, Question, now
from steerlab.scores.connection import Connection, ServiceStopped, Unavailable, key_of, unavailable

NAME = "chat_completions"
KEY = services.KEYS[NAME]


class ChatCompletions:
    """One request a text; a text is `request(prompt, attempt)`. key: "" for a server that wants none.

    base_url: such as http://localhost:8000/v1; model: as the server names it; timeout: seconds.
    """

    name = NAME
    quantity: Literal["toxicity", "sentiment"] = "toxicity"  # of none: the interface of services has one

    def __init__(self, key: str, *, base_url: str, model: str, timeout: float = 300.0) -> None:
        self.version = services.version(self.name, {"base_url": base_url, "model": model})
        self.question = Question(self.name, self.version, ())
        self._address, self._model = base_url.rstrip("/") + "/chat/completions", model
        key = key_of(self.name, key)
        self._has_key = bool(key)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._connection = Connection(self.name, headers, timeout)

    def refusal(self, text: str) -> str | None:
        """None: every prompt is sent."""
        return None

    def ask(self, text: str) -> Answer:
        """See `Service.ask`. text: JSON of [prompt, number]; the answer's response is what the model wrote, as JSON."""
        prompt, _ = json.loads(text)
        body = {"model": self._model, "messages": [{"role": "user", "content": prompt}]}
        got = self._connection.send(self._address, json.dumps(body).encode(), {})
        try:
            response: Any = json.loads(got.content)
        except ValueError:
            response = None
        if got.status_code != 200:
            return self._refused(got.status_code, got.headers, response)
        try:
            words = response["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise Unavailable("an answer without a message") from None
        if not isinstance(words, str):  # a model that refuses may say nothing at all
            return Answer({}, "NO_TEXT", "", now())
        return Answer({}, None, json.dumps(words), now())

    def score(self, answer: Answer) -> float:
        """Raises NotImplementedError: the answers are texts."""
        raise NotImplementedError("a model that writes texts gives no scores")

    def _refused(self, status: int, headers: Any, response: Any) -> Answer:
        """The answer that is a refusal for good; raises what other statuses mean. Its own words are not repeated."""
        told = response.get("error") if isinstance(response, dict) else None
        code = str(told.get("code") or "") if isinstance(told, dict) else ""
        if code in REFUSALS:
            return Answer({}, code.upper(), "", now())
        if code == "insufficient_quota":
            raise ServiceStopped(f"{NAME}: the quota is spent; fill it up and run again, answers are kept")
        if again := unavailable(status, headers):
            raise again
        if status in (401, 403):
            what = "the key is refused" if self._has_key else "no key is given"
            raise ServiceStopped(f"{NAME}: {what} (HTTP {status}); set the environment variable {KEY}")
        raise ServiceStopped(f"{NAME}: HTTP {status} {code}".rstrip() + "; check the endpoint's address and the model")


REFUSALS = {"content_filter", "content_policy_violation", "context_length_exceeded"}


def request(prompt: str, attempt: int = 0) -> str:
    """The text that asks a prompt for the n-th time, from 0: each attempt has an answer of its own."""
    return json.dumps([prompt, attempt])


def ask(
    service: ChatCompletions, prompts: Sequence[str], store: Path, *, quota: float, attempt: int = 0
) -> dict[str, str]:
    """What the model says to each distinct prompt, "" where it refuses; from the cache in `store` or the service.

    quota: requests a second, of all processes that share the store. Raises ServiceStopped with one line.
    """
    texts = {prompt: request(prompt, attempt) for prompt in prompts}
    found = network.answers(service, list(texts.values()), store, quota=quota, setting="--quota")
    return {prompt: "" if found[text].refusal else json.loads(found[text].response) for prompt, text in texts.items()}
