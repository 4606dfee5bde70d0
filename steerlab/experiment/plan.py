"""What a configuration asks for, before anything runs: cells, continuations and tokens."""

from dataclasses import dataclass

from steerlab.experiment import cells

TOKENS_PER_SECOND = 150  # generating and scoring together: SmolLM2-135M, float32, two CPU cores


@dataclass(frozen=True)
class Count:
    """What a cell asks for. continuations: texts; tokens: new tokens at most."""

    model: str
    method: str
    task: str
    split: str
    settings: int
    continuations: int
    tokens: int


def counted(config: dict) -> list[Count]:
    """Every cell of the run with its size, in the order of the configuration."""
    found = []
    for cell in cells.all_cells(config):
        asked = config["tasks"][cell.task]["prompts"][cell.split]
        prompts = min(asked, cell.prompts or asked) * CLASSES.get(cell.task, 1)
        settings = len(cell.steps) * len(cell.strengths)
        texts = prompts * cell.samples * settings * len(cell.seeds)
        tokens = texts * config["generations"][cell.task]["max_new_tokens"]
        found.append(Count(cell.model, cell.method, cell.task, cell.split, settings, texts, tokens))
    return found


CLASSES = {"sentiment": 3}  # prompts are counted a class there


def summary(found: list[Count]) -> str:
    """One line: cells, continuations, tokens."""
    texts, tokens = sum(cell.continuations for cell in found), sum(cell.tokens for cell in found)
    return f"{len(found)} cells, at most {texts:,} continuations and {tokens:,} new tokens"


def table(found: list[Count]) -> str:
    """The cells as text, with the sum and the minutes that the embedded default's model would take on two cores."""
    head = ("model", "method", "task", "split", "settings", "continuations", "tokens")
    rows = [head] + [
        tuple(f"{value:,}" if isinstance(value, int) else value for value in vars(cell).values()) for cell in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in rows]
    minutes = sum(cell.tokens for cell in found) / TOKENS_PER_SECOND / 60
    lines.append(f"\n{summary(found)}")
    pace = f"{TOKENS_PER_SECOND} tokens a second (SmolLM2-135M, two CPU cores)"
    lines.append(f"about {minutes:.0f} min of generating and scoring at {pace}; capture and training not counted")
    return "\n".join(lines)
