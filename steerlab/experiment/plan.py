"""What a configuration asks for, before anything runs: cells, continuations and tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from steerlab.experiment import cells
from steerlab.experiment.registry import TASKS

SECONDS_A_QUESTION = 0.3  # the likelihood of its answers, likewise
TOKENS_PER_SECOND = 150  # generating and scoring together: SmolLM2-135M, float32, two CPU cores


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
    found = []
    for cell in cells.by_key(config).values():
        asked = cells.settings_of(config, cell.task)["prompts"][cell.split]
        drawn = cells.drawn_of(config, cell.task)
        prompts = min(filter(None, (asked, cell.prompts)), default=QUESTIONS[cell.split]) * CLASSES.get(cell.task, 1)
        settings = len(cell.steps) * len(cell.strengths)
        times = settings * len(cell.seeds)
        texts = min(prompts, drawn.get("questions") or prompts) * cell.samples * times
        questions = prompts * times if TASKS[cell.task].answers else 0
        tokens = texts * drawn.get("max_new_tokens", 0)
        found.append(Count(cell.model, cell.method, cell.task, cell.split, settings, texts, tokens, questions))
    return found


CLASSES = {"sentiment": 3}  # prompts are counted a class there
QUESTIONS = {"dev": 41, "test": 409}  # of TruthfulQA, where all are taken


def summary(found: list[Count]) -> str:
    """One line: cells, continuations, tokens."""
    texts, tokens = sum(cell.continuations for cell in found), sum(cell.tokens for cell in found)
    questions = sum(cell.questions for cell in found)
    given = f", answers to {questions:,} questions" if questions else ""
    return f"{len(found)} cells, at most {texts:,} continuations and {tokens:,} new tokens{given}"


def table(found: list[Count]) -> str:
    """The cells as text, with the sum and the minutes that the embedded default's model would take on two cores."""
    head = ("model", "method", "task", "split", "settings", "continuations", "tokens", "questions")
    lines = _aligned([head] + [tuple(vars(cell).values()) for cell in found])
    seconds = sum(cell.tokens / TOKENS_PER_SECOND + cell.questions * SECONDS_A_QUESTION for cell in found)
    minutes = seconds / 60
    lines.append(f"\n{summary(found)}")
    pace = f"{TOKENS_PER_SECOND} tokens a second (SmolLM2-135M, two CPU cores)"
    lines.append(f"about {minutes:.0f} min of generating and scoring at {pace}; capture and training not counted")
    return "\n".join(lines)


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
    from steerlab.scores.quota import SHARE  # the Snakefile needs this module, and not that one's

    now = now or datetime.now(UTC)
    rows: list[tuple[object, ...]] = [("configuration", "texts at most", "hours", "last day to begin")]
    seen: list[dict] = []
    for name, config in configs.items():
        texts_of = {key: value for key, value in config.items() if key != "scores"}
        if texts_of in seen or all(config["models"][model]["kind"] == "random" for model in config["run"]["models"]):
            continue
        seen.append(texts_of)
        texts = sum(cell.continuations for cell in counted(config) if TASKS[cell.task].quantity == "toxicity")
        seconds = texts / (SHARE * config["scores"]["perspective"]["quota"])
        begin = (PERSPECTIVE_ENDS - timedelta(seconds=seconds, days=1)).date()  # begun at any hour of that day
        late = "  (too late: ask for a part)" if begin < now.date() else ""
        rows.append((name, texts, f"{seconds / 3600:,.1f}", f"{begin}{late}"))
    quotas = sorted({config["scores"]["perspective"]["quota"] for config in configs.values()})
    ends = (
        f"The service ends on {PERSPECTIVE_ENDS:%Y-%m-%d}; counted at {' or '.join(f'{q:g}' for q in quotas)} a second."
    )
    hint = "Scores are asked for where scores.toxicity names perspective: add presets/perspective.yaml to --configfile."
    texts = "Hours are those of asking alone: the texts are to be there by the day to begin."
    return "\n".join([*_aligned(rows), "", ends, texts, hint])


def _aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table whose columns begin under each other."""
    told = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*told)]
    return ["  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in told]
