"""The conversation beside a steered one: what is said, what is remembered, and how it goes in a terminal."""

import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from steerlab import cli, models
from steerlab.chat import Chat, ChatError, converse, rendered
from steerlab.generations import Decoding, generate
from steerlab.models import ModelHandle
from tests.laws.subjects import fitted, handle
from tests.workflow.project import ROOT

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]"
STRENGTH = 4.0  # at which the tiny model answers otherwise


@pytest.fixture(scope="module")
def with_template(tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    """The tiny Llama with a chat template, and room for long answers."""
    folder = tmp_path_factory.mktemp("chat")
    definition = {"kind": "folder", "path": str(handle("llama").folder)}
    models.prepare(definition, folder / "model", name="tiny")
    (folder / "model/chat_template.jinja").write_text(TEMPLATE)
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | {"max_position_embeddings": 100_000}))
    return ModelHandle(folder / "model")


@pytest.fixture(scope="module")
def caa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caa")
    fitted("caa", "llama").save(folder)
    return folder


class Listener:
    """A chat that writes into a list."""

    def __init__(self, model: ModelHandle, steer: Any = None, **how: Any):
        self.pieces: list[str] = []
        how = {"strength": STRENGTH, "max_new_tokens": 12} | how
        self.chat = Chat(model, steer or fitted("caa", "llama"), self.pieces.append, **how)

    def hears(self, *lines: str) -> str:
        self.pieces.clear()
        converse(self.chat, lines)
        return "".join(self.pieces)

    def lines(self, *lines: str) -> list[str]:
        return self.hears(*lines).splitlines()


def greedy(model: ModelHandle, said: list[dict[str, str]], steered: bool, tokens: int = 12) -> str:
    """What the project's own generation answers."""
    body, tokenizer = model.load(), model.info.tokenizer
    decoding = Decoding(max_new_tokens=tokens, temperature=0.0)
    with fitted("caa", "llama").attached(body, STRENGTH) if steered else nullcontext():
        return generate(body, tokenizer, [("id", rendered(tokenizer, said))], decoding, seed=0).text.item()


def test_both_answers_are_those_of_our_generations_and_come_piece_by_piece(with_template: ModelHandle):
    listener = Listener(with_template)
    listener.hears("Hello", "And then?")
    said = listener.chat.said
    for name in ("base", "steered"):
        first, second = (said[name][:1], said[name][:3])
        assert said[name][1]["content"] == greedy(with_template, first, name == "steered").strip()
        assert said[name][3]["content"] == greedy(with_template, second, name == "steered").strip()
        assert [message["content"] for message in said[name][::2]] == ["Hello", "And then?"]
    assert said["base"][1] != said["steered"][1]
    assert len(listener.pieces) > 20


def test_nothing_is_written_that_a_terminal_obeys(with_template: ModelHandle):
    listener = Listener(with_template)
    listener.chat._tokens = lambda prompt: (token for token in "\x1b[2J a\tb\n\x07\x9b!".encode())
    listener.chat.ask("x")
    written = "\ufffd[2J a\tb\n\ufffd\ufffd!\n"
    assert "".join(listener.pieces) == f"base: {written}steered: {written}"


def test_the_model_is_as_before_after_every_answer(with_template: ModelHandle):
    Listener(with_template).hears("Hello", "### strength: 2", "again")
    model: Any = with_template.load()
    assert not model._forward_hooks and not model._forward_pre_hooks and "generate" not in vars(model)


def test_without_a_chat_template_an_answer_ends_at_the_next_question():
    model = handle("llama")
    assert Listener(model).lines("hi")[0] == 'this model has no chat template; it continues "Q: ...", "A:"'
    assert rendered(model.info.tokenizer, [{"role": "user", "content": "x"}]) == "Q: x\nA:"
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]
    assert rendered(model.info.tokenizer, said) == "Q: x\nA: y\n\nQ: z\nA:"
    listener = Listener(model)
    listener.chat._tokens = lambda prompt: (token for token in b" yes\n\nQ\nQ: more")
    listener.chat.ask("x")
    assert listener.chat.said["base"][1]["content"] == "yes\n\nQ"
    assert "".join(listener.pieces) == "base:  yes\n\nQ\nsteered:  yes\n\nQ\n"


def test_a_character_is_written_when_it_is_whole():
    listener = Listener(handle("llama"))
    listener.chat._tokens = lambda prompt: (token for token in "né€!".encode())
    listener.chat.ask("x")
    assert "".join(listener.pieces) == "base: né€!\nsteered: né€!\n" and "é" in listener.pieces


def test_strength_is_changed_and_a_wrong_one_costs_a_line(with_template: ModelHandle):
    listener = Listener(with_template)
    assert listener.lines("### strength: 0.5", "### strength: much", "### strength: nan", "### strength: inf") == [
        "strength 0.5",
        "strength 'much' is no number; give one, as in ### strength: 0.5",
        "strength nan is not finite; choose a number",
        "strength inf is not finite; choose a number",
    ]
    assert listener.chat.strength == 0.5
    listener.hears("### strength: 0", "Hello")
    assert listener.chat.said["base"] == listener.chat.said["steered"]  # strength 0 is the base model


def test_a_strength_at_which_nothing_is_finite_costs_a_line_and_no_turn(with_template: ModelHandle):
    listener = Listener(with_template)
    heard = listener.lines("### strength: 1e300", "Hello")
    assert heard[-1] == "steered: the logits are not finite; use a lower strength"
    assert len(listener.chat.said["base"]) == 2 and not listener.chat.said["steered"]


def test_target_layers_are_chosen_anew_where_a_steer_has_them(with_template: ModelHandle):
    listener = Listener(with_template, fitted("hpr", "llama"), strength=2.0)
    listener.hears("### target layers: none", "Hello")
    assert listener.chat.said["base"] == listener.chat.said["steered"]
    for chosen in ("1", "0, 2", "all"):
        listener.hears("### reset", "### target layers: none", f"### target layers: {chosen}", "Hello")
        assert listener.chat.said["base"] != listener.chat.said["steered"]
    assert listener.lines("### target layers: 1,7", "### target layers: one", "### target layers: 1") == [
        "this HPR has no layer 7, only 0 to 2; choose among them",
        "layers 'one' are no numbers; give them as in ### target layers: 13,14",
        "target layers 1",
    ]
    assert Listener(with_template).lines("### target layers: 1") == ["this steer, CAA, has no layers to choose"]


def test_reset_forgets_help_explains_and_an_unknown_command_costs_a_line(with_template: ModelHandle):
    listener = Listener(with_template)
    heard = listener.hears("Hello", "### reset", "### help", "### layers: 1", "", "never asked")
    assert not listener.chat.said["base"] and "never asked" not in heard
    assert "the history is forgotten\n### target layers: 13,14" in heard
    assert heard.endswith("there is no command 'layers'; choose one of target layers, strength, reset, help\n")


def test_the_oldest_turns_go_when_there_is_no_room():
    listener = Listener(handle("llama"), max_new_tokens=16)  # of 256 positions
    heard = listener.lines("a" * 90, "b" * 90, "c" * 90)
    assert sum(line.endswith("(no room for the oldest turns: 1 forgotten)") for line in heard) == 2
    assert [message["content"][0] for message in listener.chat.said["base"][::2]] == ["b", "c"]
    assert listener.lines("d" * 300)[-1] == "steered: 306 tokens are asked and there is room for 240; ask for less"
    assert [message["content"][0] for message in listener.chat.said["base"][::2]] == ["b", "c"]


def test_a_seed_gives_the_same_talk(with_template: ModelHandle):
    talks = [Listener(with_template, temperature=1.0, seed=seed).hears("Hello") for seed in (1, 1, 2)]
    assert talks[0] == talks[1] != talks[2]


@pytest.mark.parametrize(
    ("how", "why"),
    [({"max_new_tokens": 256}, "give less"), ({"temperature": -1.0}, "at least"), ({"strength": 1e400}, "finite")],
)
def test_what_no_talk_can_begin_with_is_refused(how: dict, why: str):
    with pytest.raises(ChatError, match=why):
        Listener(handle("llama"), **how)


def test_errors_of_the_commands_are_one_line(caa: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    model, other = str(handle("llama").folder), str(handle("gpt2").folder)
    for arguments, why in (
        (["chat", "--model", str(tmp_path / "none"), "--steer", str(caa)], "is no prepared model folder"),
        (["chat", "--model", model, "--steer", str(tmp_path)], "holds no steer"),
        (["chat", "--model", other, "--steer", str(caa)], "retrain it or load that revision"),
        (["chat", "--model", model, "--steer", str(caa), "--strength", "nan"], "not finite"),
        (["chat", "--model", model, "--steer", str(caa), "--device", "abacus"], "device 'abacus' cannot be used"),
        (["evaluate", "--model", model, "--table", str(tmp_path / "none.parquet")], "there is no table"),
        (["evaluate", "--model", other, "--steer", str(caa), "--table", str(caa / "steer.json")], "retrain it"),
        (["evaluate", "--model", model, "--table", str(caa / "steer.json")], "evaluate: "),
        (["evaluate", "--model", model, "--batch-size", "0"], "begin at 1"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert why in str(end.value.code) and "\n" not in str(end.value.code)


# ---- in a terminal ----


class Terminal:
    """A process in a pseudo-terminal of its own, which is spoken to and read with a time limit."""

    def __init__(self, *arguments: str):
        self.seen = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # of a run in the background it is ignored, and inherited so
            environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
            os.execve(sys.executable, [sys.executable, "-m", "steerlab", *arguments], environment)

    def until(self, text: str, seconds: float = 120.0) -> str:
        """What comes up to and with the text; AssertionError if it does not come."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.end], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come; seen was {self.seen!r}"
            self.seen += self._read()
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def _read(self) -> str:
        try:
            read = os.read(self.end, 65536)
        except OSError as error:  # the other end is closed
            raise AssertionError(f"the process has ended; seen was {self.seen!r}") from error
        assert read, f"the process has ended; seen was {self.seen!r}"
        return read.decode(errors="replace").replace("\r\n", "\n")

    def types(self, text: str) -> None:
        os.write(self.end, text.encode())

    def code(self, seconds: float = 60.0) -> int:
        """The exit code of the process, which is to end by itself."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            while select.select([self.end], [], [], 0.05)[0]:
                try:
                    self.seen += self._read()
                except AssertionError:
                    break
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"the process has not ended; seen was {self.seen!r}")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.end)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.close()


def test_a_talk_in_a_terminal_without_a_chat_template(caa: Path):
    how = ["--strength", str(STRENGTH), "--max-new-tokens", "8"]
    with terminal("chat", "--model", str(handle("llama").folder), "--steer", str(caa), *how) as opened:
        assert "has no chat template" in opened.until("> ")
        opened.types("Hello\n")
        opened.until("base: ")
        base = opened.until("\nsteered: ").removesuffix("\nsteered: ")
        assert base and opened.until("\n> ").removesuffix("\n> ") != base
        opened.types("### strength: 0\n")
        opened.until("strength 0\n> ")
        opened.types("### target layers: 1\n")
        opened.until("this steer, CAA, has no layers to choose\n> ")
        opened.types("### sing\n")
        opened.until("there is no command 'sing'; choose one of target layers, strength, reset, help\n> ")
        opened.types("### reset\nHello\n")
        opened.until("base: ")
        assert opened.until("\nsteered: ").removesuffix("\nsteered: ") == base
        assert opened.until("\n> ").removesuffix("\n> ") == base  # strength 0
        opened.types("\n")
        assert opened.code() == 0 and "Traceback" not in opened.seen


def test_a_long_answer_is_streamed_and_can_be_broken_off(with_template: ModelHandle, caa: Path):
    how = ["--max-new-tokens", "50000", "--temperature", "1"]
    with terminal("chat", "--model", str(with_template.folder), "--steer", str(caa), *how) as opened:
        opened.until("> ")
        opened.types("Hello\n")
        opened.until("base: ")
        opened.seen += opened._read()  # of 50,000 tokens, the first
        opened.types("\x03")
        assert opened.code() == 0 and "Traceback" not in opened.seen


def test_the_end_of_input_ends(with_template: ModelHandle, caa: Path):
    with terminal("chat", "--model", str(with_template.folder), "--steer", str(caa)) as opened:
        opened.until("> ")
        opened.types("\x04")
        assert opened.code() == 0 and "Traceback" not in opened.seen
