"""The prompts of a decoder of hidden states: placeholders for the states, an acknowledgement, questions, answers.

The user's turn is one placeholder a state, the assistant says ACKNOWLEDGEMENT, then come questions and answers, all in
the model's chat template. Each part is tokenised for itself, so a prompt has exactly as many placeholders as states
with any tokenizer, and an answer is read as it is generated: after the same tokens.

Source: LatentQA. There the user's turn is the text "? " repeated until the tokens are as many as wished.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from steerlab.language_modelling import Text
from steerlab.latent_reads import parts, special_ids
from steerlab.models import ModelError, Tokenizer, encode

PLACEHOLDER = "?"
ACKNOWLEDGEMENT = "Sure, I've analyzed the assistant."
ASSISTANT = "assistant"


@dataclass(frozen=True)
class Prompt(Text):
    """Token ids; asked: places of the tokens of answers, with those that end them; the states' places are `first` to
    first + count - 1."""

    first: int
    count: int


@dataclass(frozen=True, eq=False)
class Template:
    """How one model's prompts are made. answer_role: what headers call the assistant; the paper's is "reflect".
    shift_position_ids: whether a prompt's positions are such that the placeholders have those of their states."""

    tokenizer: Tokenizer
    answer_role: str = ASSISTANT
    shift_position_ids: bool = False
    _parts: dict[int, list[str]] = field(default_factory=dict, init=False, repr=False)

    def prompt(
        self,
        count: int,
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        last_answer_only: bool = True,
        places: Sequence[int] | None = None,
    ) -> Prompt:
        """The prompt for so many states: as many answers as questions to learn, or one fewer where the model goes on.

        asked: the last answer, or all of them; each with the token that ends its turn. The acknowledgement never is.
        places: of the states in the read, which shifted positions need.
        """
        if not questions or len(questions) - len(answers) not in (0, 1):
            raise ValueError(f"{len(questions)} questions do not go with {len(answers)} answers; leave out the last")
        if count < 1:
            raise ValueError(f"a decoder reads {count} states; give at least one")
        if self.shift_position_ids and (places is None or len(places) != count):
            raise ValueError(f"{count} states are to have the positions of their read; give the place of each")
        opening, before_acknowledgement, *others = self._of(len(questions))
        ids = encode(self.tokenizer, opening)
        first = len(ids)
        ids += [self.placeholder] * count
        asked: list[int] = []
        ids += self._plain(before_acknowledgement + ACKNOWLEDGEMENT + others[0] + questions[0] + others[1])
        for turn, answer in enumerate(answers):
            spoken = self._plain(answer) + self.closing
            own = range(len(ids), len(ids) + len(spoken))
            asked = [*own] if last_answer_only else [*asked, *own]
            ids += spoken
            if turn + 1 < len(questions):
                between = self._plain(others[2 * turn + 2] + questions[turn + 1] + others[2 * turn + 3])
                ids += between[len(self.closing) :] if between[: len(self.closing)] == self.closing else between
        positions = _shifted(len(ids), first, places) if self.shift_position_ids and places else None
        return Prompt(ids, asked, first, count, positions=positions)

    @property
    def placeholder(self) -> int:
        """The token that stands where states are put."""
        return self._plain(PLACEHOLDER)[-1]

    @property
    def closing(self) -> list[int]:
        """The tokens that end an answer: the template's own up to a special one, or else the end of text."""
        tail, special = self._plain(self._of(1)[-1]), special_ids(self.tokenizer)
        end = next((place for place, token in enumerate(tail) if token in special), None)
        if end is not None:
            return tail[: end + 1]
        if self.tokenizer.eos_token_id is None:
            raise ModelError("neither this model's chat template nor its tokenizer ends an answer; use another model")
        return [self.tokenizer.eos_token_id]

    def _of(self, questions: int) -> list[str]:
        """The template's parts of a prompt with so many questions, all answered, with the assistant renamed."""
        if questions not in self._parts:
            turns = [{"role": role, "content": ""} for _ in range(questions + 1) for role in ("user", ASSISTANT)]
            found = parts(self.tokenizer, turns, prompt=False)
            if self.answer_role != ASSISTANT:
                found[1:-1:2] = [self._renamed(part) for part in found[1:-1:2]]
            self._parts[questions] = found
        return self._parts[questions]

    def _renamed(self, header: str) -> str:
        before, found, after = header.rpartition(ASSISTANT)
        if not found:
            raise ModelError(
                f"this model's chat template calls no turn {ASSISTANT!r}, so none can be {self.answer_role!r}; "
                f"set answer_role to {ASSISTANT!r}"
            )
        return before + self.answer_role + after

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _shifted(length: int, first: int, places: Sequence[int]) -> list[int]:
    """Positions of a prompt's tokens: the placeholders have the places' own, the others count down and up from them.

    None is below 0, which a model with an embedding a position does not have.
    """
    before = [max(0, places[0] - first + place) for place in range(first)]
    after = range(places[-1] + 1, places[-1] + 1 + length - first - len(places))
    return [*before, *places, *after]
