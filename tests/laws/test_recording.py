"""The laws of a recorded step: what is attached is felt in every replay, and nothing that is attached waits for a card.

On a card these are CUDA graphs (STEERLAB_DEVICE=cuda), on a CPU a tape of the same kernels.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pandas as pd
import pytest
import torch

from steerlab import decoding, sites
from steerlab.generations import Decoding, generate
from steerlab.methods import hpr, slim
from steerlab.tiny_models import FAMILIES, byte_tokenizer
from tests.laws.subjects import CHANGING, DEVICE, METHOD_FAMILIES, Subject, tiny_model
from tests.laws.tape import Waited, Watched, record_on_tape
from tests.laws.test_laws import by_name

PROMPTS = [("a", "You are a fool"), ("b", "Well"), ("c", "My neighbour said")]
GREEDY = Decoding(samples=2, max_new_tokens=7, min_new_tokens=7, temperature=0.0)
SAMPLED = Decoding(samples=2, max_new_tokens=7, temperature=0.7)
BOUNDED = ("gemma2", "gemma3_text", "gpt_neo")  # their attention has a window, and their steps are not recorded


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line a recording; on a CPU as on a card, methods may not wait and steps are recorded."""
    made = []
    record = decoding.RECORDERS.get(DEVICE, record_on_tape)

    def noted(step: decoding.Step, device: torch.device) -> decoding.Step:
        replay = record(step, device)
        made.append("recorded")
        return lambda: made.append("replayed") or replay()

    monkeypatch.setitem(decoding.RECORDERS, DEVICE, noted)
    for method in (hpr, slim):
        monkeypatch.setattr(method, "may_wait", lambda model: False)
    return made


def texts(model: Any, how: Decoding, prompts: list[tuple[str, str]] = PROMPTS) -> pd.DataFrame:
    return generate(model, byte_tokenizer(), prompts, how, seed=0)


@contextmanager
def unrecorded() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "RECORDERS", {})
        yield


@by_name([subject for subject in CHANGING if subject.family not in BOUNDED])
def test_replayed_steps_give_the_tokens_of_steps_that_run(subject: Subject, recordings: list[str]) -> None:
    model = subject.model
    for how in (GREEDY, SAMPLED):
        with subject.attached(model):
            with unrecorded():
                ran = texts(model, how)
            recordings.clear()
            again = texts(model, how)
            other = texts(model, how, PROMPTS[:2])
        assert recordings == (["recorded"] + ["replayed"] * 5) * 2  # a step runs before it is recorded
        pd.testing.assert_frame_equal(again, ran)
        pd.testing.assert_frame_equal(other, ran[:4])


@pytest.mark.parametrize("family", BOUNDED)
def test_a_family_whose_attention_is_bounded_runs_every_step(family: str, recordings: list[str]) -> None:
    assert family in FAMILIES
    assert len(texts(tiny_model(family), GREEDY)) == 6
    assert not recordings


def test_a_recording_serves_batches_of_one_shape_until_something_else_is_attached(recordings: list[str]) -> None:
    model = tiny_model("llama")
    longer = [(name, text + "!") for name, text in PROMPTS]
    vector = torch.linspace(-3, 3, model.config.hidden_size, device=DEVICE)
    with unrecorded():
        plain, plain_longer = texts(model, GREEDY), texts(model, GREEDY, longer)
    pd.testing.assert_frame_equal(texts(model, GREEDY), plain)
    pd.testing.assert_frame_equal(texts(model, GREEDY, longer), plain_longer)
    assert recordings.count("recorded") == 1 and recordings.count("replayed") == 5 + 6
    with sites.edit(model, {sites.Site("block_output", 1): lambda x, where: x + vector}):
        assert not texts(model, GREEDY).equals(plain)
    assert recordings.count("recorded") == 2
    pd.testing.assert_frame_equal(texts(model, GREEDY), plain)
    assert recordings.count("recorded") == 3


def test_a_model_that_was_moved_is_recorded_anew(recordings: list[str]) -> None:
    model = tiny_model("llama")
    before = texts(model, GREEDY)
    head: Any = model.lm_head
    kept = head.weight.data
    head.weight.data = -kept.clone()
    try:
        assert not texts(model, GREEDY).equals(before)
    finally:
        head.weight.data = kept


def test_a_hook_of_someone_else_is_felt(recordings: list[str]) -> None:
    model = tiny_model("llama")
    before = texts(model, GREEDY)
    hook = sites.block(model, 1).register_forward_hook(lambda module, args, output: -2 * output)
    try:
        assert not texts(model, GREEDY).equals(before)
    finally:
        hook.remove()
    pd.testing.assert_frame_equal(texts(model, GREEDY), before)


def test_a_card_that_refuses_a_recording_decodes_step_by_step(
    recordings: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(step: decoding.Step, device: torch.device) -> decoding.Step:
        try:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("CUDA error: the recording was spoilt")  # as torch does at the end of a recording

    model = tiny_model("gpt2")
    with unrecorded():
        plain = texts(model, GREEDY)
    monkeypatch.setitem(decoding.RECORDERS, DEVICE, refused)
    for _ in range(2):
        pd.testing.assert_frame_equal(texts(model, GREEDY), plain)
    assert [record.message for record in caplog.records] == [
        "a step of decoding cannot be recorded, and decoding is slower for it: "
        "CUDA error: operation not permitted when stream is capturing"
    ]


def watched() -> AbstractContextManager[Any]:
    """Raises, inside the `with`, at whatever waits for the device."""
    return Watched() if DEVICE == "cpu" else _on_card()


@contextmanager
def _on_card() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@by_name(CHANGING)
def test_no_edit_waits_for_the_device(subject: Subject, recordings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    edited = 0

    def counted(edit: Any, *args: Any) -> Any:
        nonlocal edited
        edited += 1
        with watched():
            return edit(*args)

    original = sites._edit_states
    monkeypatch.setattr(sites, "_edit_states", lambda *args: counted(original, *args))
    with unrecorded(), subject.attached(subject.model):
        texts(subject.model, GREEDY)
    if not subject.is_steer:
        assert edited >= 7


@pytest.mark.parametrize(
    "asks", [lambda x: bool(x.any()), lambda x: x[x > 0], lambda x: x.nonzero()], ids=["any", "masked", "nonzero"]
)
def test_what_waits_is_seen(asks: Any) -> None:
    with pytest.raises((Waited, RuntimeError)), watched():
        asks(torch.ones(3, device=DEVICE))


@pytest.mark.parametrize("family", METHOD_FAMILIES)
def test_an_edit_that_counts_in_python_is_caught_by_the_tape(family: str, recordings: list[str]) -> None:
    """The laws above would see an edit that a replay forgets."""
    model, calls = tiny_model(family), []

    def every_other(x: torch.Tensor, where: sites.Where) -> torch.Tensor:
        calls.append(1)
        return -2 * x if len(calls) % 2 else x

    edits = {sites.Site("block_output", 1): every_other}
    with unrecorded(), sites.edit(model, edits):
        ran = texts(model, GREEDY)
    calls.clear()
    with sites.edit(model, edits):
        assert not texts(model, GREEDY).equals(ran)
