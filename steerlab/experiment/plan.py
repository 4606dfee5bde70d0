"""What a configuration asks for, before anything runs: cells, continuations and tokens."""

from dataclasses import dataclass

from steerlab.experiment.registry import METHODS

TOKENS_PER_SECOND = 150  # generating and scoring together: SmolLM2-135M, float32, two CPU cores


@dataclass(frozen=True)
class Cell:
    """One model, method, task and split with all its seeds. continuations: texts; tokens: new tokens at most."""

    model: str
    method: str
    task: str
    split: str
    strengths: int
    continuations: int
    tokens: int


def cells(config: dict, methods: list[str]) -> list[Cell]:
    """Every cell of the run, in the order of the configuration."""
    found = []
    for model in config["run"]["models"]:
        for method in methods:
            for task in config["run"]["tasks"]:
                drawn = config["generations"][task]
                strengths = len(config["steers"][method]["strengths"]) if METHODS[method].steer else 1
                for split, prompts in config["tasks"][task]["prompts"].items():
                    texts = prompts * drawn["samples"] * strengths * len(config["run"]["seeds"])
                    cell = Cell(model, method, task, split, strengths, texts, texts * drawn["max_new_tokens"])
                    found.append(cell)
    return found


def summary(found: list[Cell]) -> str:
    """One line: cells, continuations, tokens."""
    texts, tokens = sum(cell.continuations for cell in found), sum(cell.tokens for cell in found)
    return f"{len(found)} cells, {texts:,} continuations, {tokens:,} new tokens at most"


def table(found: list[Cell]) -> str:
    """The cells as text, with the sum and the minutes that the embedded default's model would take on two cores."""
    head = ("model", "method", "task", "split", "strengths", "continuations", "tokens")
    rows = [head] + [
        tuple(f"{value:,}" if isinstance(value, int) else value for value in vars(cell).values()) for cell in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() for row in rows]
    minutes = sum(cell.tokens for cell in found) / TOKENS_PER_SECOND / 60
    lines.append(f"\n{summary(found)}")
    lines.append(f"about {minutes:.0f} min at {TOKENS_PER_SECOND} tokens a second (SmolLM2-135M, two CPU cores)")
    return "\n".join(lines)
