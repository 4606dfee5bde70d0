"""Capturing what the methods of a task are trained on: all sites in the same passes, or one after another."""

import tempfile
from pathlib import Path

from benchmarks.answers import PAIRS
from benchmarks.pairs import Ratio, speed_ratio
from steerlab import activations
from steerlab.models import ModelHandle

TEXTS = [f"{prompt.rpartition('Q: ')[2]}{answer}" for prompt, answer in PAIRS]  # questions with an answer, 30 of them
SITES = (("lm_head_input", "all"), ("block_output", "last"), ("attention_heads", "last"))


def sites_together(handle: ModelHandle, pairs: int) -> Ratio:
    """SITES in one pass over the texts, over a pass for each; what is written is the same."""
    asked = [(site, activations.select(handle.info.tokenizer, TEXTS, positions)) for site, positions in SITES]

    def captured(*together: tuple[str, list[activations.Row]]) -> None:
        (site, rows), *also = together
        with tempfile.TemporaryDirectory() as folder:
            activations.capture(handle, rows, site, folder=Path(folder), batch_rows=16, shard_rows=16, also=also)

    def one_by_one() -> None:
        for each in asked:
            captured(each)

    def at_once() -> None:
        captured(*asked)

    return speed_ratio("capturing three sites, together / one by one", 1.5, at_once, one_by_one, pairs=pairs)
