"""Draw docs/stages.svg, the picture of the stages: `.venv/bin/python docs/stages.py`. A test holds the two together.

Words stand on boxes of their own and lines are of a middle grey, so that the picture is right on a light page and on a
dark one. It is narrow, so that it can be read on a telephone.
"""

from pathlib import Path

STAGES = {
    "data": "raw files; one table a task",
    "models": "weights, named by their hash",
    "activations": "hidden states, captured once",
    "steers": "what a method learnt",
    "choices": "picked on dev prompts alone",
    "generations": "continuations and answers",
    "scores": "a number a text and scorer",
    "metrics": "numbers with intervals",
    "analyses": "words, probes, norms, readings",
    "figures": "picture, caption and its CSV",
    "report": "one page",
}
STEP, HEIGHT, LEFT, WIDTH, NAME = 44, 30, 34, 360, 112
GREY = "#808080"  # on white and on black alike
BOX, ON_BOX, PALE, ON_PALE = "#1f4e79", "#ffffff", "#e4ecf4", "#1c2733"
FONT = 'font-family="system-ui, sans-serif"'


def drawn() -> str:
    """The picture as SVG: a box a stage from top to bottom, and the way back from metrics to choices."""
    tops = {stage: 8 + STEP * place for place, stage in enumerate(STAGES)}
    parts = [part for stage, top in tops.items() for part in _stage(stage, top)]
    parts += [_arrow(top + HEIGHT, top + STEP) for top in list(tops.values())[:-1]]
    parts += _way_back(tops["metrics"] + HEIGHT // 2, tops["choices"] + HEIGHT // 2)
    height = 8 + STEP * len(STAGES)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    title = "The stages from data to report; metrics of dev prompts lead back to choices"
    return "\n".join([f'{head} role="img" aria-label="{title}">', f"<title>{title}</title>", *parts, "</svg>", ""])


def _stage(stage: str, top: int) -> list[str]:
    right, middle = WIDTH - LEFT - NAME, top + HEIGHT // 2 + 4
    return [
        f'<rect x="{LEFT}" y="{top}" width="{NAME}" height="{HEIGHT}" rx="4" fill="{BOX}"/>',
        f'<rect x="{LEFT + NAME}" y="{top}" width="{right - 2}" height="{HEIGHT}" rx="4" fill="{PALE}"/>',
        f'<text x="{LEFT + 10}" y="{middle}" {FONT} font-size="13" font-weight="600" fill="{ON_BOX}">{stage}</text>',
        f'<text x="{LEFT + NAME + 9}" y="{middle}" {FONT} font-size="12" fill="{ON_PALE}">{STAGES[stage]}</text>',
    ]


def _arrow(top: int, bottom: int) -> str:
    x = LEFT + NAME // 2
    line = f"M{x} {top + 1}V{bottom - 2}m-4 -5l4 5l4 -5"
    return f'<path d="{line}" fill="none" stroke="{GREY}" stroke-width="1.5"/>'


def _way_back(start: int, end: int) -> list[str]:
    """From metrics up to choices, on the left."""
    line = f"M{LEFT - 1} {start}H{LEFT - 16}V{end}H{LEFT - 2}m-5 -4l5 4l-5 4"
    middle = (start + end) // 2
    turned = f'transform="rotate(-90 {LEFT - 22} {middle})" text-anchor="middle"'
    return [
        f'<path d="{line}" fill="none" stroke="{GREY}" stroke-width="1.5"/>',
        f'<text x="{LEFT - 22}" y="{middle}" {turned} {FONT} font-size="12" fill="{GREY}">dev prompts</text>',
    ]


if __name__ == "__main__":
    Path(__file__).with_name("stages.svg").write_text(drawn(), encoding="utf-8")
