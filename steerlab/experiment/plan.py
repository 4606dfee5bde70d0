"""What a configuration asks for, before anything runs: cells, continuations and tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from steerlab.experiment import cells
from steerlab.experiment.registry import TASKS


@dataclass(frozen=True)
class Count:
    """What a cell asks for. continuations: texts; tokens: new tokens at most; questions: those whose given answers are
    scored, once a setting and seed."""

    model: str
    method: str
    task: str
    split: str
    settings: int
    continuations: int
    tokens: int
    questions: int = 0


def counted(config: dict) -> list[Count]:
    """Every cell of the run with its size, in the order of the configuration."""
    return [count(config, cell) for cell in cells.by_key(config).values()]


def count(config: dict, cell: cells.Cell) -> Count:
    """The size of one cell, with all its seeds."""
    drawn = cells.drawn_of(config, cell.task)
    asked = prompts(config, cell.task, cell.split, cell.prompts)
    settings = len(cell.steps) * len(cell.strengths)
    times = settings * len(cell.seeds)
    texts = min(asked, drawn.get("questions") or asked) * cell.samples * times
    questions = asked * times if TASKS[cell.task].answers else 0
    tokens = texts * drawn.get("max_new_tokens", 0)
    return Count(cell.model, cell.method, cell.task, cell.split, settings, texts, tokens, questions)


def prompts(config: dict, task: str, split: str, limit: int | None = None) -> int:
    """Prompts or questions of a task's split, of all its classes; 0 for a split that the task has not."""
    there = cells.settings_of(config, task)["prompts"]
    if split not in there:
        return 0
    return min(filter(None, (there[split], limit)), default=THERE.get(task, QUESTIONS[split])) * CLASSES.get(task, 1)


CLASSES = {"sentiment": 3}  # prompts are counted a class there
QUESTIONS = {"dev": 41, "test": 409}  # of TruthfulQA, where all are taken
THERE = {"nq_open": 3367, "trivia_qa": 2122, "bias": 1508}  # likewise, of tasks with test questions alone


def summary(found: list[Count]) -> str:
    """One line: cells, continuations, tokens."""
    texts, tokens = sum(cell.continuations for cell in found), sum(cell.tokens for cell in found)
    questions = sum(cell.questions for cell in found)
    given = f", answers to {questions:,} questions" if questions else ""
    return f"{len(found)} cells, at most {texts:,} continuations and {tokens:,} new tokens{given}"


def table(found: list[Count]) -> str:
    """The cells as text, with the sum."""
    head = ("model", "method", "task", "split", "settings", "continuations", "tokens", "questions")
    lines = aligned([head] + [tuple(vars(cell).values()) for cell in found])
    return "\n".join([*lines, "", summary(found)])


# ---- what the Perspective API is to be asked for ----

PERSPECTIVE_ENDS = datetime(2026, 12, 31, tzinfo=UTC)


def with_base(preset: Path) -> list[Path]:
    """The preset behind those that its name extends: paper-x-sizes is laid over paper-x."""
    others = sorted(preset.parent.glob("*.yaml"))
    return [*(other for other in others if preset.stem.startswith(f"{other.stem}-")), preset]


def preset_name(overlays: Sequence[Path]) -> str:
    """How a table calls a configuration."""
    return " + ".join(path.stem for path in overlays) or "config.yaml"


def perspective_table(configs: Mapping[str, dict], now: datetime | None = None) -> str:
    """Texts, hours and last day to begin, one line a configuration.

    Counted are the continuations of tasks about toxicity, at most: duplicates, and texts that another configuration has
    brought into the cache, cost nothing. Left out are configurations of random models, and those that generate what an
    earlier one does.
    """
    now = now or datetime.now(UTC)
    rows: list[tuple[object, ...]] = [("configuration", "texts at most", "hours", "last day to begin")]
    seen: list[dict] = []
    for name, config in configs.items():
        texts_of = {key: value for key, value in config.items() if key != "scores"}
        if texts_of in seen or all(config["models"][model]["kind"] == "random" for model in config["run"]["models"]):
            continue
        seen.append(texts_of)
        texts = sum(cell.continuations for cell in counted(config) if TASKS[cell.task].quantity == "toxicity")
        seconds = seconds_asking(texts, config["scores"]["perspective"]["quota"])
        begin = (PERSPECTIVE_ENDS - timedelta(seconds=seconds, days=1)).date()  # begun at any hour of that day
        late = "  (too late: ask for a part)" if begin < now.date() else ""
        rows.append((name, texts, f"{seconds / 3600:,.1f}", f"{begin}{late}"))
    quotas = sorted({config["scores"]["perspective"]["quota"] for config in configs.values()})
    ends = (
        f"The service ends on {PERSPECTIVE_ENDS:%Y-%m-%d}; counted at {' or '.join(f'{q:g}' for q in quotas)} a second."
    )
    hint = "Scores are asked for where scores.toxicity names perspective: add presets/perspective.yaml to --configfile."
    texts = "Hours are those of asking alone: the texts are to be there by the day to begin."
    return "\n".join([*aligned(rows), "", ends, texts, hint])


def seconds_asking(texts: int, quota: float) -> float:
    """How long a service is asked about so many texts at its quota, requests a second."""
    from steerlab.scores.quota import SHARE  # the Snakefile needs this module, and not that one's

    return texts / (SHARE * quota)


def aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table whose columns begin under each other."""
    told = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*told)]
    return ["  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in told]
