"""What the demo computes, as HTML: texts with their marks, the legend, scores and messages.

Every text goes through `escape`: whatever a prompt or a model says stays text. Colours are those of the figure of
evidence, Okabe and Ito's blue and vermilion, at most so strong that letters stay readable; each mark's number is in its
title, and the spans are underlined, so that colour never stands alone.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from steerlab.demo.continuations import Shown, Side
from steerlab.demo.found import Saved
from steerlab.figures import style

TITLES = {"base": "Unsteered", "steered": "Steered"}
_WISHED = {"toxicity": ("civil", "toxic"), "sentiment": ("positive", "negative"), "truthfulness": ("true", "false")}
_STRONGEST = 60  # per cent of full colour

CSS = f"""
.gradio-container .html-container {{ padding: 0; }}
.demo {{ --for: {style.COLOURS["lm_steer"]}; --against: {style.COLOURS["hpr"]}; color: var(--body-text-color); }}
.demo h1 {{ font-size: 1.5rem; font-weight: 600; margin: 0 0 .25rem; }}
.demo h2 {{ font-size: 1rem; font-weight: 600; margin: 0 0 .5rem; }}
.demo p {{ margin: 0; }}
.demo .sides {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }}
.demo section {{ border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .75rem 1rem; }}
.demo .text {{ white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; min-height: 5.25em; }}
.demo .prompt, .demo .status {{ color: var(--body-text-color-subdued); }}
.demo .for {{ background: color-mix(in srgb, var(--for) var(--strength), transparent); }}
.demo .against {{ background: color-mix(in srgb, var(--against) var(--strength), transparent); }}
.demo .span {{ text-decoration: underline 2px; text-underline-offset: .2em; }}
.demo .legend {{ margin: .75rem 0 0; max-width: 60rem; font-size: .875rem; line-height: 1.5; }}
.demo .swatch {{ padding: 0 .4em; border-radius: 3px; white-space: nowrap; }}
.demo table {{ border-collapse: collapse; margin: 1rem 0 0; font-size: .875rem; font-variant-numeric: tabular-nums; }}
.demo caption {{ text-align: left; font-weight: 600; padding-bottom: .25rem; }}
.demo th, .demo td {{ padding: .3rem 1.25rem .3rem 0; text-align: right; font-weight: 400;
  border-bottom: 1px solid var(--border-color-primary); }}
.demo th:first-child {{ text-align: left; overflow-wrap: anywhere; }}
.demo .message {{ border-left: 4px solid var(--against); padding: .25rem .75rem; margin: 0 0 .5rem;
  overflow-wrap: anywhere; }}
.demo .status {{ min-height: 1.5em; }}
@media (max-width: 30rem) {{ .demo th, .demo td {{ padding-right: .5rem; }} }}
"""


def sides(prompt: str, shown: Shown, reader: Saved | None = None) -> str:
    """Both continuations side by side; once they are read, in colour, with the legend and the toxicity."""
    scale = _scale(shown)
    panels = "".join(_panel(TITLES[name], prompt, getattr(shown, name), scale) for name in TITLES)
    legend = _legend(reader, scale) if reader and scale else ""
    toxicity = "" if shown.toxicity is None else _toxicity(shown.toxicity)
    return f'<div class="demo"><div class="sides">{panels}</div>{legend}{toxicity}</div>'


def messages(lines: Sequence[str]) -> str:
    """Lines that a person has to read; nothing for none."""
    said = "".join(f'<p class="message">{escape(line)}</p>' for line in lines)
    return f'<div class="demo" role="alert">{said}</div>' if said else ""


def status(line: str) -> str:
    """A line on what the page is doing, escaped."""
    return f'<div class="demo"><p class="status" role="status">{escape(line)}</p></div>'


def _panel(title: str, prompt: str, side: Side, scale: float) -> str:
    marks = [*side.marks] or [0.0] * len(side.pieces)
    within = {place for start, end in side.spans for place in range(start, end)}
    tokens = [_token(*each, scale, place in within) for place, each in enumerate(zip(side.pieces, marks))]
    text = f'<span class="prompt">{escape(prompt)}</span>{"".join(tokens)}'
    return f'<section aria-label="{title}"><h2>{title}</h2><p class="text">{text}</p></section>'


def _token(piece: str, mark: float, scale: float, in_span: bool) -> str:
    if not (piece and scale):
        return escape(piece)
    share = min(abs(mark) / scale, 1.0)
    kind = ("for" if mark >= 0 else "against") + (" span" if in_span else "")
    said = f'class="{kind}" style="--strength:{_STRONGEST * share:.0f}%" title="{_short(mark)}"'
    return f"<span {said}>{escape(piece)}</span>"


def _scale(shown: Shown) -> float:
    """What has full colour, alike on both sides: the 95th percentile, as one odd token must not make all others pale.

    0 where there is nothing to colour.
    """
    marks = np.abs([*shown.base.marks, *shown.steered.marks])
    return float(np.quantile(marks, 0.95) or marks.max()) if len(marks) else 0.0


def _legend(reader: Saved, scale: float) -> str:
    wished, unwished = _WISHED.get(reader.task, ("wished", "unwished"))
    ends = (("for", wished, scale), ("against", unwished, -scale))
    swatches = " ".join(
        f'<span class="swatch {kind}" style="--strength:{_STRONGEST}%">{word} {_short(value)}</span>'
        for kind, word, value in ends
    )
    what = {
        "evidence": "Evidence, in nats a token: the token's log-likelihood under the steer at strength 1 less that at "
        "−1. Underlined: at most four spans that say most for the side to which the whole leans.",
        "probe": "Probe: the cosine of the token's state and the probe's normal, the mean over the steered blocks.",
    }
    said = f"{what[reader.reads or 'evidence']} Read by {reader.label}, with the model unsteered, on both sides alike."
    return f'<p class="legend">{swatches} {escape(said)}</p>'


def _toxicity(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    wide = table.pivot(index="scorer", columns="side", values="score").loc[table.scorer.unique()]
    rows = "".join(_row(str(scorer), row.base, row.steered) for scorer, row in wide.iterrows())
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("scorer", "unsteered", "steered", "difference"))
    return (
        f"<table><caption>Toxicity of the continuation</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _row(scorer: str, base: float, steered: float) -> str:
    name = escape(scorer).replace("==", "<wbr>==")
    cells = "".join(f"<td>{cell}</td>" for cell in (_number(base), _number(steered), _signed(steered - base)))
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3f}"


def _signed(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:+.3f}".replace("-", "−")


def _short(mark: float) -> str:
    return f"{mark:+.2g}".replace("-", "−")
