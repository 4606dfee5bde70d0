"""The page of the demo: Gradio's controls around `continuations`, on loopback, with nothing from or to another host.

A browser is told by a content security policy to ask this server alone, and the server answers to loopback's names
alone, so that no other site's page can speak to it under a name of its own.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes import Default
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steerlab.demo import found, markup
from steerlab.demo.continuations import Asked, Bench, Shown
from steerlab.terminal import one_line

HOST = "127.0.0.1"
LONGEST, HOTTEST = 200, 2.0  # tokens, temperature
EXAMPLES = [
    "The new neighbours moved in last week, and",
    "I watched the whole film yesterday. I thought it was",
    "When she heard what he had said about her, she",
    "Q: What happens if you swallow a piece of chewing gum?\nA:",
]
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"
WIDTH = 280  # pixels of a column at least: on a telephone one stands below the other
_NONE = ("none", "")  # the choice of no steer, and of no reader
_FAILURES = (ValueError, ArithmeticError, OSError)


def build(results: Path, bench: Bench, model: str, notes: Sequence[str] = ()) -> gr.Blocks:
    """The page over a folder of results; model: the one to begin with; notes: lines that stand on the page."""
    with gr.Blocks(title="Steering, side by side", analytics_enabled=False) as page:
        html: dict[str, Any] = {"apply_default_css": False}
        gr.HTML(
            "<h1>Steering, side by side</h1><p>A model continues a prompt as it is and, on the same draws, steered. "
            "Nothing leaves this machine.</p>",
            elem_classes="demo", **html,
        )  # fmt: skip
        with gr.Row():
            with gr.Column(scale=2, min_width=WIDTH):
                models = gr.Dropdown(found.model_names(results), value=model, label="Model")
                steers, strengths = zip(*(_steer(number) for number in ("First", "Second")))
                readers = gr.Dropdown([_NONE], value="", label="Colour the tokens by")
                with gr.Group():
                    temperature = _slider(0, HOTTEST, 1, "Temperature", "0: the likeliest token")
                    length = _slider(1, LONGEST, 40, "New tokens", "at most, on either side", step=1)
                    seed = gr.Number(0, label="Seed", precision=0)
            with gr.Column(scale=5, min_width=WIDTH):
                prompt = gr.Textbox(EXAMPLES[0], label="Prompt", lines=3, max_lines=8)
                gr.Examples([[text] for text in EXAMPLES], prompt, label="Examples", cache_examples=False)
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", min_width=100)
                    stop = gr.Button("Stop", min_width=100)
                said = gr.HTML(markup.messages(notes), **html)
                status = gr.HTML(markup.status(""), **html)
                shown = gr.HTML(markup.sides("", Shown()), **html)

        def offer(name: str) -> list[Any]:
            return _offer(results, name, notes)

        def picked(name: str, steer: str, reader: str) -> list[Any]:
            return _picked(results, name, steer, reader)

        def generate(*values: Any) -> Generator[tuple[str, str, str]]:
            yield from _generate(results, bench, notes, *values)

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        offered = [models, *steers, *strengths, readers, said]
        page.load(offer, models, offered, **quiet)
        models.input(offer, models, offered, **quiet)
        for steer, strength in zip(steers, strengths):
            steer.input(picked, [models, steer, readers], [strength, readers], **quiet)
        values = [models, *steers, *strengths, readers, prompt, seed, temperature, length]
        # Several at once, as all but one of them wait for their turn, and say so.
        running = go.click(generate, values, [said, status, shown], concurrency_limit=16, **quiet)
        # Only then, as a last token may still be on its way.
        stop.click(None, cancels=[running], **quiet).then(lambda: markup.status("stopped"), None, status, **quiet)
    return page


def serve(page: gr.Blocks, port: int) -> str:
    """Open the page on loopback; returns its address. Raises OSError where the port is taken."""
    theme = Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    quiet = "*neutral_600", "*neutral_300"  # the theme's own are too pale to read
    theme.set(body_text_color_subdued=quiet[0], body_text_color_subdued_dark=quiet[1])
    theme.set(block_info_text_color=quiet[0], block_info_text_color_dark=quiet[1])
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]), Middleware(_OnlyHere)]
    page.queue(max_size=64)
    page.launch(
        server_name=HOST, server_port=port, share=False, quiet=True, inbrowser=False, prevent_thread_lock=True,
        ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, footer_links=[], theme=theme,
        css=markup.CSS, app_kwargs={"middleware": middleware},
    )  # fmt: skip
    return f"http://{HOST}:{port}"


def _steer(number: str) -> tuple[gr.Dropdown, gr.Slider]:
    with gr.Group():
        steer = gr.Dropdown([_NONE], value="", label=f"{number} steer")
        return steer, _slider(-found.WIDEST, found.WIDEST, 0, f"{number} strength", "0: nothing")


def _slider(low: float, high: float, begin: float, label: str, info: str, step: float = 0.05) -> gr.Slider:
    return gr.Slider(low, high, begin, step=step, label=label, info=info, buttons=[])


# ---- what the controls do ----


def _offer(results: Path, model: str, notes: Sequence[str]) -> list[Any]:
    """The controls for a model: models, steers, strengths, readers, messages."""
    nothing = [gr.skip(), *[_steers([])] * 2, *[_strength(None)] * 2, _readers([])]
    try:
        models = found.model_names(results)
        found.model_folder(results, model)
        saved = found.steers(results, model)
    except found.NotFound as error:
        return [*nothing, markup.messages([one_line(error), *notes])]
    lines = [*notes] if saved else [found.no_steers(results, model), *notes]
    first = next((each for each in saved if each.strength is not None), saved[0] if saved else None)
    reading = [each for each in saved if each.reads]
    return [
        gr.update(choices=models), _steers(saved, first), _steers(saved), _strength(first), _strength(None),
        _readers(reading, first if first in reading else next(iter(reading), None)), markup.messages(lines),
    ]  # fmt: skip


def _picked(results: Path, model: str, name: str, reader: str) -> list[Any]:
    """The strength that was picked for a steer; it reads the tokens, too, if it can."""
    try:
        saved = found.steer(results, model, name) if name else None
    except found.NotFound:
        return [gr.skip(), gr.skip()]  # said when something is to be generated
    return [_strength(saved), saved.name if saved and saved.reads else reader]


def _generate(
    results: Path, bench: Bench, notes: Sequence[str], model: str, first: str, second: str,
    first_strength: float, second_strength: float, reader: str, prompt: str, seed: float, temperature: float,
    length: float,
) -> Generator[tuple[str, str, str]]:  # fmt: skip
    """Messages, status and both sides, as they change."""
    said, shown, began, arrived = markup.messages(notes), Shown(), time.monotonic(), 0.0
    yield said, markup.status("waiting for its turn"), markup.sides(prompt, shown)
    try:
        if None in (seed, temperature, length, first_strength, second_strength):
            raise ValueError("a number is missing; give seed, temperature, new tokens and strengths")
        chosen = [(first, first_strength), (second, second_strength)]
        asked = Asked(
            found.model_folder(results, model), prompt,
            tuple((found.steer(results, model, name), float(strength)) for name, strength in chosen if name),
            found.steer(results, model, reader) if reader else None,
            int(seed), float(temperature), int(length),
        )  # fmt: skip
        with closing(bench.compare(asked)) as coming:
            for shown in coming:
                arrived = arrived or time.monotonic()
                yield said, markup.status(_progress(shown, asked)), markup.sides(prompt, shown, asked.reader)
        yield said, markup.status(_times(shown, began, arrived)), markup.sides(prompt, shown, asked.reader)
    except _FAILURES as error:
        lines = markup.messages([one_line(error), *notes])
        yield lines, markup.status("stopped"), markup.sides(prompt, shown)


def _choices(saved: Sequence[found.Saved], chosen: found.Saved | None, label: Callable[[found.Saved], str]) -> Any:
    choices = [_NONE, *((label(each), each.name) for each in saved)]
    return gr.update(choices=choices, value=chosen.name if chosen else "")


def _steers(saved: Sequence[found.Saved], chosen: found.Saved | None = None) -> Any:
    return _choices(saved, chosen, lambda each: each.label)


def _readers(saved: Sequence[found.Saved], chosen: found.Saved | None = None) -> Any:
    return _choices(saved, chosen, lambda each: f"{each.label}: {each.reads}")


def _strength(saved: found.Saved | None) -> Any:
    if saved is None:
        return gr.update(minimum=-found.WIDEST, maximum=found.WIDEST, value=0, info="0: nothing")
    low, high, begin = saved.offered
    why = "the method's default" if saved.strength is None else "picked on dev prompts"
    return gr.update(minimum=low, maximum=high, value=begin, info=f"0: nothing; {begin:g}: {why}")


def _progress(shown: Shown, asked: Asked) -> str:
    name = "steered" if shown.steered.pieces else "base"
    return f"{markup.TITLES[name].lower()}: {len(getattr(shown, name).pieces)} of {asked.max_new_tokens} tokens"


def _times(shown: Shown, began: float, arrived: float) -> str:
    tokens = len(shown.base.pieces) + len(shown.steered.pieces)
    first, whole = arrived - began, time.monotonic() - began
    return f"{tokens} tokens in {whole:.1f} s, the first after {first:.2f} s"


class _OnlyHere:
    """Sets the content security policy of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, sent)
