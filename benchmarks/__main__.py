"""`python -m benchmarks --model results/models/<model>`: a table of ratios, each with its aim.

A shortfall is printed as such and makes the exit status 1, so that it is seen; nothing else depends on it.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pairs import Ratio, median_interval, speed_ratio, timed
from steerlab import sites
from steerlab.generations import Decoding, generate
from steerlab.models import ModelHandle, encode, pad

# 16 prompts of 16 to 19 tokens of SmolLM2's tokenizer; what they say does not matter, their length does.
SUBJECTS = ("Yesterday my neighbour", "In the end the captain", "A very young teacher", "After that her best friend")
REST = (
    "told everybody at the meeting that the new plan for the town was",
    "looked at the letter on the kitchen table for a while and then",
    "thought that people who talk about the weather all day are just",
    "walked into the shop on the corner and asked the woman why she",
)
PROMPTS = [(f"{i}{j}", f"{subject} {rest}") for i, subject in enumerate(SUBJECTS) for j, rest in enumerate(REST)]
NUCLEUS = Decoding(samples=4, max_new_tokens=20, min_new_tokens=20, temperature=1.0, top_p=0.9)
GREEDY = Decoding(samples=4, max_new_tokens=20, min_new_tokens=20, temperature=0.0)


def idle_edit(model: Any, tokenizer: Any, pairs: int) -> Ratio:
    """Decoding with an edit that does nothing at the output of every block, over plain decoding."""
    return _edited("do-nothing edit, all layers / plain", 0.97, lambda x, where: x, model, tokenizer, pairs)


def added_vector(model: Any, tokenizer: Any, pairs: int) -> Ratio:
    """Decoding with a vector added to the output of every block, over plain decoding."""
    vector = torch.full((model.config.hidden_size,), 1e-3, dtype=model.dtype, device=model.device)
    return _edited("added vector, all layers / plain", 0.95, lambda x, where: x + vector, model, tokenizer, pairs)


def nucleus_sampling(model: Any, tokenizer: Any, pairs: int) -> Ratio:
    """Our nucleus sampling of 16 prompts x 4 samples over transformers' generate with the same settings."""
    ids, mask = pad(
        [encode(tokenizer, text) for _, text in PROMPTS],
        side="left",
        pad_id=tokenizer.pad_token_id,
        device=model.device,
    )

    def theirs() -> None:
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=NUCLEUS.temperature,
            top_p=NUCLEUS.top_p,
            top_k=0,
            num_return_sequences=NUCLEUS.samples,
            max_new_tokens=NUCLEUS.max_new_tokens,
            min_new_tokens=NUCLEUS.min_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )

    return speed_ratio(
        "nucleus sampling, batch 64 / transformers", 1.6, _ours(model, tokenizer, NUCLEUS), theirs, pairs=pairs
    )


def batching(model: Any, tokenizer: Any, pairs: int) -> Ratio:
    """One batch of 16 prompts x 4 samples over one continuation of one prompt at a time."""
    single = Decoding(1, NUCLEUS.max_new_tokens, NUCLEUS.min_new_tokens, NUCLEUS.temperature, NUCLEUS.top_p)

    def one_by_one() -> None:
        for _ in range(NUCLEUS.samples):
            for prompt in PROMPTS:
                generate(model, tokenizer, [prompt], single, seed=0)

    return speed_ratio("batch 64 / one at a time", 5.0, _ours(model, tokenizer, NUCLEUS), one_by_one, pairs=pairs)


def import_seconds(pairs: int) -> Ratio:
    """Importing what the Snakefile needs, in a fresh interpreter; the ratio is to the allowed second."""
    seconds = [timed(lambda: _fresh("import steerlab.experiment")) for _ in range(pairs)]
    low, high = median_interval(1.0 / np.array(seconds))
    median = float(np.median(seconds))
    return Ratio("import of steerlab.experiment / 1 s", 1.0, 1.0 / median, low, high, pairs, median, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a prepared model folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--pairs", type=int, default=7, help="pairs a ratio (default 7)")
    parser.add_argument("--only", nargs="*", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    handle = ModelHandle(options.model, device=options.device, dtype=options.dtype)
    model, tokenizer = handle.load(), handle.info.tokenizer
    print(f"{handle.info.name}, {options.dtype} on {options.device}, {options.threads} threads, {options.pairs} pairs")
    print(f"{'':44}{'ratio':>7}  {'95 % interval':>15}{'aim':>7}{'seconds':>10}{'other':>9}")
    ratios = []
    for name in options.only:
        ratio = BENCHMARKS[name](model, tokenizer, options.pairs)
        ratios.append(ratio)
        interval = f"{ratio.low:.3f}-{ratio.high:.3f}"
        figures = f"{ratio.ratio:7.3f}  {interval:>15}{ratio.aim:7.2f}{ratio.seconds:10.3f}{ratio.seconds_other:9.3f}"
        print(f"{ratio.name:44}{figures}{'' if ratio.met else '  SHORT'}", flush=True)
    if options.out:
        options.out.write_text(json.dumps([asdict(ratio) for ratio in ratios], indent=1) + "\n")
    return int(not all(ratio.met for ratio in ratios))


BENCHMARKS: dict[str, Callable[[Any, Any, int], Ratio]] = {
    "idle_edit": idle_edit,
    "added_vector": added_vector,
    "nucleus_sampling": nucleus_sampling,
    "batching": batching,
    "import_seconds": lambda model, tokenizer, pairs: import_seconds(pairs),
}


def _ours(model: Any, tokenizer: Any, decoding: Decoding) -> Callable[[], object]:
    return lambda: generate(model, tokenizer, PROMPTS, decoding, seed=0)


def _edited(name: str, aim: float, edit: sites.Edit, model: Any, tokenizer: Any, pairs: int) -> Ratio:
    plain = _ours(model, tokenizer, GREEDY)
    edits = dict.fromkeys((sites.Site("block_output", layer) for layer in range(model.config.num_hidden_layers)), edit)

    def edited() -> None:
        with sites.edit(model, edits):
            plain()

    return speed_ratio(name, aim, edited, plain, pairs=pairs)


def _fresh(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    sys.exit(main())
