"""A prompt continued without and with steers, on the same draws, token by token; then both continuations are read.

Reading is the unsteered model's, for both sides alike: one forward over prompt and continuation, and of its states what
an LM-Steer or HPR's probes make of each new token. Toxicity is that of the continuation alone, as everywhere.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from steerlab import methods, scores, sites
from steerlab.analyses import interpretation
from steerlab.chat import stream
from steerlab.demo.found import Saved
from steerlab.demo.turns import Turns
from steerlab.generations import uniforms
from steerlab.methods.hpr import HPR
from steerlab.methods.lm_steer import LMSteer
from steerlab.models import ModelHandle, Tokenizer, encode
from steerlab.sites import Site

TOP_P = 0.9  # the nucleus of the papers' continuations, and of the default run's
SIDES = ("base", "steered")


@dataclass(frozen=True)
class Asked:
    """One request. steers: with the strength of each, attached one inside the other; reader: who reads the tokens."""

    model: Path
    prompt: str
    steers: tuple[tuple[Saved, float], ...] = ()
    reader: Saved | None = None
    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int = 40


@dataclass(frozen=True)
class Side:
    """A continuation: what each of its tokens adds to the text. When all are there: marks, what the reader says of
    each; spans, of evidence, the tokens [start, end) that say most for the side to which the whole leans."""

    pieces: tuple[str, ...] = ()
    marks: tuple[float, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        """The continuation so far."""
        return "".join(self.pieces)


@dataclass(frozen=True, eq=False)
class Shown:
    """What is known so far. toxicity: side, scorer, score, None until both sides are whole."""

    base: Side = Side()
    steered: Side = Side()
    toxicity: pd.DataFrame | None = None


class Bench:
    """Computes the requests in turn. One model is held at a time."""

    def __init__(self, scorers: Sequence[tuple[str, Path | None]], *, device: str = "cpu", dtype: str = "float32"):
        """scorers: arguments of `scores.load`."""
        self._device, self._dtype = device, dtype
        self._scorers = scorers
        self._loaded: list[scores.Scorer] | None = None
        self._handle: ModelHandle | None = None
        self._turns = Turns()

    def warm(self, model: Path) -> None:
        """Serve a short request, so that a person's first one waits for nothing to be loaded."""
        for _ in self.compare(Asked(model, "Hello", max_new_tokens=2)):
            pass

    def compare(self, asked: Asked) -> Generator[Shown]:
        """Both sides as they grow, base first; the last one has marks and toxicity.

        Raises ValueError for a request that cannot be served, FloatingPointError where the logits cease to be finite.
        """
        return self._turns.take(lambda: self._compared(asked))

    def close(self) -> None:
        """End the thread that serves requests."""
        self._turns.close()

    def _compared(self, asked: Asked) -> Generator[Shown]:
        handle, shown = self._opened(asked.model), Shown()
        tokenizer = handle.info.tokenizer
        prompt = checked_prompt(handle, asked)
        steers = [(methods.load(saved.folder, handle, steps=saved.steps), strength) for saved, strength in asked.steers]
        with (
            _told_apart(asked),
            attached(handle.load(), steers),
        ):  # what cannot be attached is said before anything is written
            pass
        tokens: dict[str, list[int]] = {side: [] for side in SIDES}
        for side in SIDES:
            with _told_apart(asked), attached(handle.load(), steers if side == "steered" else ()):
                for token in _tokens(handle, prompt, asked):
                    tokens[side].append(token)
                    shown = replace(shown, **{side: Side(pieces(tokenizer, prompt, tokens[side]))})
                    yield shown
        if asked.reader:
            reader = methods.load(asked.reader.folder, handle, steps=asked.reader.steps)
            for side in SIDES:
                shown = replace(shown, **{side: _read(handle, reader, prompt, tokens[side], getattr(shown, side))})
        yield replace(shown, toxicity=self._toxicity(shown))

    def _opened(self, model: Path) -> ModelHandle:
        if self._handle is None or self._handle.folder != model:
            self._handle = None  # before the next one needs its memory
            self._handle = ModelHandle(model, device=self._device, dtype=self._dtype)
        return self._handle

    def _toxicity(self, shown: Shown) -> pd.DataFrame:
        if self._loaded is None:
            self._loaded = [scores.load(path, folder) for path, folder in self._scorers]
        texts = pd.DataFrame({"side": SIDES, "text": [shown.base.text, shown.steered.text]})
        tables = [scores.scored(texts, scorer) for scorer in self._loaded]
        columns = ["side", "scorer", "score"]
        return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def checked_prompt(handle: ModelHandle, asked: Asked) -> list[int]:
    """The prompt's tokens. Raises ValueError where it has none, and where the model has no room for what is asked."""
    prompt = encode(handle.info.tokenizer, asked.prompt)
    if not prompt:
        raise ValueError("the prompt has no tokens; write something to go on from")
    if asked.max_new_tokens < 1 or asked.temperature < 0:
        raise ValueError(f"{asked.max_new_tokens} new tokens at temperature {asked.temperature}; give at least 1 and 0")
    room = handle.info.config.max_position_embeddings
    if len(prompt) + asked.max_new_tokens > room:
        raise ValueError(
            f"{len(prompt)} tokens of prompt and {asked.max_new_tokens} new ones, and this model has room for {room}; "
            "shorten the prompt or ask for fewer"
        )
    return prompt


def attached(model: Any, steers: Sequence[tuple[Any, float]]) -> ExitStack:
    """All of the steers at their strengths, one inside the other. Raises what attaching any of them raises."""
    with ExitStack() as stack:
        for steer, strength in steers:
            stack.enter_context(steer.attached(model, strength))
        return stack.pop_all()


def pieces(tokenizer: Tokenizer, prompt: Sequence[int], new: Sequence[int]) -> tuple[str, ...]:
    """What each new token adds to the text; of a character that several tokens make, all is the last one's."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    texts = [tokenizer.decode([*prompt, *new[:count]], **options) for count in range(len(new) + 1)]
    whole = [len(text.rstrip("\N{REPLACEMENT CHARACTER}")) for text in texts[1:-1]]
    ends = list(accumulate([len(texts[0]), *whole, len(texts[-1])], max))
    return tuple(texts[-1][start:end] for start, end in zip(ends, ends[1 : len(new) + 1]))


@contextmanager
def _told_apart(asked: Asked) -> Iterator[None]:
    """Says of two steers of which one does not stand the other which they are, and what the library says."""
    try:
        yield
    except sites.SiteError as error:
        if len(asked.steers) < 2:
            raise
        both = " and ".join(saved.label for saved, _ in asked.steers)
        raise ValueError(f"{both} do not go together: {error}; choose another one") from error


# ---- reading ----


def read(handle: ModelHandle, reader: LMSteer | HPR, prompt: Sequence[int], new: Sequence[int]) -> Tensor:
    """What a steer says of each new token, (new tokens,) float32, of the states of the model without any steer.

    LM-Steer: nats, the token's log-likelihood under the steer at strength 1 less that at -1, dummies off (see
    `interpretation.evidence`). HPR: the cosine of the token's state and the probe's normal, the mean over the blocks
    that it steers; the sign is that of the probe's side, positive the wished one.
    """
    probed = [site for site in reader.sites if site.name == "block_output"]
    model: Any = handle.load()
    ids = torch.tensor([[*prompt, *new]], device=model.device)
    with torch.no_grad(), sites.without_head(model), sites.capture(model, [Site("lm_head_input"), *probed]) as states:
        model(input_ids=ids, use_cache=False)
    if isinstance(reader, HPR):
        return torch.stack([_cosine(reader, site, states[site][0, len(prompt) :]) for site in probed]).mean(0).cpu()
    head = model.get_output_embeddings()
    predicting, targets = states[Site("lm_head_input")][0, len(prompt) - 1 : -1], ids[0, len(prompt) :]
    up, down = (reader.change(values).to(head.weight.device) for values in poles(reader))
    bias = getattr(head, "bias", None)
    return interpretation.evidence(predicting, targets, head.weight, up, down, bias=bias).cpu()


def poles(steer: LMSteer) -> tuple[list[float], list[float]]:
    """The steer's values at strengths 1 and -1, those of its dummies 0."""
    label, *dummies = steer.record.config["values"]
    weights = steer.record.config["weights"]
    up = [value for weight in weights for value in (label * weight, *[0.0] * len(dummies))]
    return up, [-value for value in up]


def _cosine(steer: HPR, site: Site, states: Tensor) -> Tensor:
    probe = steer.tensors["probe"][steer.record.config["trained"].index(site.layer)].to(states.device)
    return torch.nn.functional.cosine_similarity(states.float(), probe[None], dim=-1)


def _read(handle: ModelHandle, reader: Any, prompt: list[int], new: list[int], side: Side) -> Side:
    if not new:
        return side
    marks = read(handle, reader, prompt, new)
    # A probe says nearly the same of all tokens of a text, so that its spans would be the longest ones.
    leaning = marks if marks.sum() >= 0 else -marks
    spans = interpretation.spans(leaning) if isinstance(reader, LMSteer) else []
    return replace(side, marks=tuple(marks.tolist()), spans=tuple(spans))


def _tokens(handle: ModelHandle, prompt: list[int], asked: Asked) -> Iterator[int]:
    """Drawn with the numbers that `generations.generate` takes for a prompt whose id is its text."""
    draws = uniforms(asked.seed, [asked.prompt], 1, asked.max_new_tokens)[0].tolist()
    how = {"max_new_tokens": asked.max_new_tokens, "temperature": asked.temperature, "top_p": TOP_P}
    return stream(handle.load(), handle.info.tokenizer, prompt, draws, **how)
