"""A conversation with a model as it is and, side by side, with a steer on: the same questions, each its own answers.

`Chat` holds the two conversations and writes what is said, piece by piece, to a function it is given; `converse` runs
it over a person's lines. Lines that begin with ### are commands, see `HELP`.
"""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import islice
from typing import Any
from unicodedata import category

import numpy as np
import torch
from jinja2 import TemplateError

from steerlab import sites
from steerlab.decoding import prefill
from steerlab.generations import sample_tokens, stop_ids
from steerlab.methods.protocol import Steer
from steerlab.models import ModelHandle, Tokenizer, encode, in_chat

HELP = """\
### target layers: 13,14   steer these layers only; `all` those that the steer was fitted for, `none` for none
### strength: 0.5          change the strength
### reset                  forget what was said
### help                   this list
An empty line ends."""

COMMANDS = ("target layers", "strength", "reset", "help")

Message = dict[str, str]  # role, content


class ChatError(ValueError):
    """A line that cannot be served; the message says which and what to do."""


class Chat:
    """The two conversations of one model, steered and not.

    max_new_tokens: of an answer; temperature: 0 takes the likeliest token. write: what is said goes to it at once.
    Raises SteerMismatch and ValueError for a steer, strength or length that cannot be used with this model.
    """

    def __init__(
        self,
        handle: ModelHandle,
        steer: Steer,
        write: Callable[[str], object],
        *,
        strength: float = 1.0,
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        seed: int = 0,
    ):
        self.handle, self.write = handle, write
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        if not (max_new_tokens >= 1 and temperature >= 0):
            raise ChatError(f"max_new_tokens {max_new_tokens}, temperature {temperature}; need at least 1 and 0")
        self.room = handle.info.config.max_position_embeddings - max_new_tokens
        if self.room < 1:
            positions = self.room + max_new_tokens
            raise ChatError(f"max_new_tokens is {max_new_tokens} and this model has {positions} positions; give less")
        self.fitted = self.steer = steer
        self.strength = strength
        self._try(steer, strength)
        self.draws = np.random.default_rng(seed)
        self.said: dict[str, list[Message]] = {"base": [], "steered": []}

    def ask(self, question: str) -> None:
        """Write what both say to the question, and keep it; what cannot be answered is a line, and is not kept."""
        for name, before in self.said.items():
            self.write(f"{name}: ")
            try:
                said, tokens = self._fit([*before, {"role": "user", "content": question}])
                if dropped := (len(before) + 1 - len(said)) // 2:
                    self.write(f"(no room for the oldest turns: {dropped} forgotten)\n")
                with self._attached(name):
                    answer = self._answer(tokens)
                self.write("\n")
                self.said[name] = [*said, {"role": "assistant", "content": answer}]
            except (ChatError, FloatingPointError, TemplateError) as error:
                self.write(f"{_one_line(error)}\n")

    def command(self, line: str) -> str:
        """Do what a ### line says; returns the line that says it was done. Raises ValueError where it cannot."""
        name, _, value = (part.strip() for part in line.removeprefix("###").partition(":"))
        if name == "help":
            return HELP
        if name == "reset":
            self.said = {name: [] for name in self.said}
            return "the history is forgotten"
        if name == "strength":
            return self._set_strength(value)
        if name == "target layers":
            return self._set_layers(value)
        raise ChatError(f"there is no command {name!r}; choose one of {', '.join(COMMANDS)}")

    def _set_strength(self, value: str) -> str:
        try:
            strength = float(value)
        except ValueError as error:
            raise ChatError(f"strength {value!r} is no number; give one, as in ### strength: 0.5") from error
        self._try(self.steer, strength)
        self.strength = strength
        return f"strength {strength:g}"

    def _set_layers(self, value: str) -> str:
        with_layers = getattr(self.fitted, "with_layers", None)
        if with_layers is None:
            raise ChatError(f"this steer, {type(self.fitted).__name__}, has no layers to choose")
        steer = with_layers(_layers(value))
        self._try(steer, self.strength)
        self.steer = steer
        return f"target layers {value}"

    def _try(self, steer: Steer, strength: float) -> None:
        """Raises what attaching raises: for another model, a strength out of range, a layer that is not there."""
        if not math.isfinite(strength):
            raise ChatError(f"strength {strength} is not finite; choose a number")
        with steer.attached(self.handle.load(), strength):
            pass

    def _attached(self, name: str) -> AbstractContextManager[None]:
        return self.steer.attached(self.handle.load(), self.strength) if name == "steered" else nullcontext()

    def _fit(self, said: list[Message]) -> tuple[list[Message], list[int]]:
        """What was said and its tokens, without as many of the oldest turns as it takes to leave room for an answer."""
        tokenizer = self.handle.info.tokenizer
        while len(tokens := encode(tokenizer, rendered(tokenizer, said))) > self.room:
            if len(said) == 1:
                raise ChatError(f"{len(tokens)} tokens are asked and there is room for {self.room}; ask for less")
            said = said[2:]
        return said, tokens

    def _answer(self, prompt: list[int]) -> str:
        """Write the answer as it comes; returns it whole. Without a chat template it ends where a new Q: begins."""
        tokenizer = self.handle.info.tokenizer
        end = None if tokenizer.chat_template else NEXT_QUESTION
        tokens: list[int] = []
        text, shown = "", 0
        with closing(self._tokens(prompt)) as coming:
            for token in coming:
                tokens.append(token)
                text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                shown = self._show(text, shown, _settled(text, end))
                if end and end in text:
                    break
        text = text.partition(end)[0] if end else text
        self._show(text, shown, len(text))
        return text.strip()

    def _show(self, text: str, start: int, stop: int) -> int:
        """Write these characters; returns how many of the text have been written."""
        if stop > start:
            self.write("".join(map(_harmless, text[start:stop])))
        return max(start, stop)

    def _tokens(self, prompt: list[int]) -> Generator[int]:
        """The tokens of an answer, up to and without the end of the sequence; raises FloatingPointError."""
        model, tokenizer = self.handle.load(), self.handle.info.tokenizer
        how = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}
        return stream(model, tokenizer, prompt, iter(self.draws.random, None), **how)


def converse(chat: Chat, lines: Iterable[str]) -> None:
    """Answer line by line until one is empty or none are left; a line that cannot be served costs a line."""
    if chat.handle.info.tokenizer.chat_template is None:
        chat.write('this model has no chat template; it continues "Q: ...", "A:"\n')
    for line in lines:
        line = line.strip()
        if not line:
            return
        if not line.startswith("###"):
            chat.ask(line)
            continue
        try:
            chat.write(f"{chat.command(line)}\n")
        except ValueError as error:
            chat.write(f"{_one_line(error)}\n")


def stream(
    model: Any,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    draws: Iterable[float],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
) -> Generator[int]:
    """The tokens that continue a prompt, each as soon as it is drawn, up to and without the end of the sequence.

    prompt: token ids, one at least; draws: a number in [0, 1) a token, max_new_tokens of them at least; with those of
    `generations.uniforms` the tokens are those of `generations.generate`. Inside `sites.edit` they are steered.
    Raises FloatingPointError if the logits cease to be finite.
    """
    stops = stop_ids(model, tokenizer)
    ids = torch.tensor([prompt], device=model.device)
    mask = torch.ones_like(ids)
    after: Any = None
    token: Any = None
    for draw in islice(draws, max_new_tokens):
        # Step by step, as whoever takes the tokens is not to find gradients switched off in between.
        with torch.no_grad(), sites.prompt(model, [len(prompt)], mask):
            if after is None:
                logits, after = prefill(model, ids, mask, samples=1, new_tokens=max_new_tokens)
            else:
                logits = after(token)
            if not logits.amax().isfinite():
                raise FloatingPointError("the logits are not finite; use a lower strength")
            drawn = torch.tensor([draw], dtype=torch.float64, device=model.device)
            token = sample_tokens(logits, drawn, temperature=temperature, top_p=top_p)
        if int(token) in stops:
            return
        yield int(token)


NEXT_QUESTION = "\nQ:"


def rendered(tokenizer: Tokenizer, said: Sequence[Message]) -> str:
    """What the model reads: its chat template, or questions and answers in plain text where it has none."""
    if tokenizer.chat_template:
        return in_chat(tokenizer, said)
    asked = {"user": "Q: {}\nA:", "assistant": " {}\n\n"}
    return "".join(asked[message["role"]].format(message["content"]) for message in said)


def _layers(value: str) -> Any:
    """ "all", "none", or the indices of layers."""
    if value in ("all", "none"):
        return value
    try:
        return [int(layer) for layer in value.split(",")]
    except ValueError as error:
        raise ChatError(f"layers {value!r} are no numbers; give them as in ### target layers: 13,14") from error


def _settled(text: str, end: str | None) -> int:
    """How many characters further tokens cannot change: none that is half there, nothing that may become the end."""
    if not end:
        return len(text.rstrip("\N{REPLACEMENT CHARACTER}"))
    if end in text:
        return text.index(end)
    half = next((n for n in range(len(end), 0, -1) if text.endswith(end[:n])), 0)
    return len(text.removesuffix(end[:half]).rstrip("\N{REPLACEMENT CHARACTER}"))


def _harmless(character: str) -> str:
    """Without control characters, which a terminal obeys."""
    return character if character in "\n\t" or category(character) != "Cc" else "\N{REPLACEMENT CHARACTER}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
