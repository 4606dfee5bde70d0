"""Speed and memory on a card: `python -m benchmarks.gpu`, on random weights of real shapes in bfloat16.

Two ceilings are measured first, in the same run: the rate at which memory is read, and that of large matrix products.
Then a table: how near prefill and decoding come to them, what each steer costs, transformers' own generate, the
official repositories' ways of editing restated, and training beside a plain loop. `--out` writes the figures as JSON.
"""

import argparse
import dataclasses
import gc
import sys
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Conv1D

from benchmarks import cogsteer, decoding, hpr, latentqa, lm_steer, slim
from benchmarks.pairs import Ratio, ratio_of, speed_ratio, timed
from benchmarks.shapes import SHAPES, RandomModel
from benchmarks.table import heading, line
from steerlab import decoding as steps
from steerlab import sites
from steerlab.activations import Row, states_of
from steerlab.generations import Decoding, generate
from steerlab.models import ModelHandle, encode, pad
from steerlab.sites import Site
from steerlab.store import write_json

MIB = 2**20
PROMPTS = decoding.PROMPTS * 4  # one sample of 64 prompts: no two rows share a prefill
SHORT, LONG = 40, 100  # new tokens; what lies between is decoding alone, and both need 192 columns: one recording
PREFILL_ROWS, PREFILL_TOKENS = 32, 512


class Ceilings:
    """What the card does at best, measured: bytes read a second, and operations a second of a matrix product."""

    def __init__(self, device: str, dtype: torch.dtype, *, mib: int, side: int, turns: int = 10):
        kept = torch.ones(mib * MIB // dtype.itemsize, device=device, dtype=dtype)
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        product = torch.empty_like(a)
        # A matrix times one vector reads the matrix once, as a step of decoding reads the weights.
        vector, square = kept[:side], kept[: len(kept) // side * side].view(-1, side)
        self.bandwidth = square.nbytes / _best(lambda: square @ vector, turns)
        self.bandwidth = max(self.bandwidth, 2 * kept.nbytes / _best(lambda: kept.clone(), turns))
        self.products = 2 * side**3 / _best(lambda: torch.matmul(a, b, out=product), turns)

    def __str__(self) -> str:
        return f"memory {self.bandwidth / 1e9:,.0f} GB/s, products {self.products / 1e12:,.1f} TFLOP/s"


def _best(work: Callable[[], object], turns: int) -> float:
    return min(timed(work) for _ in range(turns))


# ---- prefill and decoding beside the ceilings ----


def prefill(handle: ModelHandle, pairs: int, ceilings: Ceilings) -> Ratio:
    """The states that `capture_activations` keeps, of the last token at every block: their operations a second."""
    generator = torch.Generator().manual_seed(0)
    config = handle.info.config
    seq = min(PREFILL_TOKENS, config.max_position_embeddings)
    ids = torch.randint(256, (PREFILL_ROWS, seq), generator=generator).tolist()
    rows = [Row(tuple(row), (seq - 1,)) for row in ids]
    blocks = [Site("block_output", layer) for layer in range(config.num_hidden_layers)]
    seconds = np.array([timed(lambda: states_of(handle, rows, blocks, PREFILL_ROWS)) for _ in range(pairs + 1)])[1:]
    tokens = PREFILL_ROWS * seq
    attention = 2 * tokens * seq * config.hidden_size * config.num_hidden_layers  # causal: half of all pairs
    operations = 2 * weights(handle) * tokens + attention
    rates = np.stack([operations / seconds, np.full(pairs, ceilings.products)], axis=1) / 1e12
    return _share("prefill, of the rate of products", 0.45, rates, "TFLOP/s", tokens / seconds)


def decode(handle: ModelHandle, pairs: int, ceilings: Ceilings) -> Ratio:
    """Decoding at batch 64: bytes that a step has to read, weights, keys and values, a second."""
    config, itemsize = handle.info.config, handle.load().dtype.itemsize
    _drawn(handle, LONG)
    seconds = np.array(
        [timed(lambda: _drawn(handle, LONG)) - timed(lambda: _drawn(handle, SHORT)) for _ in range(pairs)]
    )
    longest = max(len(encode(handle.info.tokenizer, text)) for _, text in PROMPTS)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    columns = longest + (SHORT + LONG) / 2
    kept = 2 * len(PROMPTS) * columns * config.num_hidden_layers * heads * head_size
    read = (weights(handle) + handle.output_embeddings().numel() + kept) * itemsize * (LONG - SHORT)
    tokens = len(PROMPTS) * (LONG - SHORT)
    rates = np.stack([read / seconds, np.full(pairs, ceilings.bandwidth)], axis=1) / 1e9
    return _share("decoding, batch 64, of the rate of memory", 0.5, rates, "GB/s", tokens / seconds)


def weights(handle: ModelHandle) -> int:
    """Numbers in the linear modules of the blocks, which every token is multiplied with."""
    blocks = handle.load().get_submodule(sites.family(handle.load()).blocks)
    linear = (each for each in blocks.modules() if isinstance(each, torch.nn.Linear | Conv1D))
    return sum(each.weight.numel() for each in linear)


def _share(name: str, aim: float, rates: np.ndarray, unit: str, tokens: np.ndarray) -> Ratio:
    """rates: (pairs, 2), ours and the ceiling; tokens: (pairs,), a second."""
    share = ratio_of(name, aim, rates[:, 0] / rates[:, 1], rates, unit)
    return dataclasses.replace(share, tokens_a_second=float(np.median(tokens)))


def _drawn(handle: ModelHandle, new: int) -> None:
    how = Decoding(samples=1, max_new_tokens=new, min_new_tokens=new, temperature=0.0)
    generate(handle.load(), handle.info.tokenizer, PROMPTS, how, seed=0)


# ---- beside other ways to decode ----


def recorded_steps(handle: ModelHandle, pairs: int) -> Ratio:
    """Steps that are replayed over steps that run, with keys and values that grow."""
    return decoding.compared("replayed steps / steps that run", 1.0, [nullcontext, _unrecorded], handle, pairs)


def recorded_steps_under_hpr(handle: ModelHandle, pairs: int) -> Ratio:
    """The same inside an edit of five blocks."""
    steer = hpr.fitted(handle)

    @contextmanager
    def ran():
        with steer.attached(handle.load()), _unrecorded():
            yield

    around = [lambda: steer.attached(handle.load()), ran]
    return decoding.compared("HPR, replayed steps / steps that run", 1.0, around, handle, pairs)


@contextmanager
def _unrecorded():
    kept = dict(steps.RECORDERS)
    steps.RECORDERS.clear()
    try:
        yield
    finally:
        steps.RECORDERS.update(kept)


def transformers_generate(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding over transformers' generate."""
    return _beside_transformers("decoding / transformers", handle, pairs)


def transformers_compiled(handle: ModelHandle, pairs: int) -> Ratio:
    """Decoding over transformers' generate with a static cache, which on a card it runs through torch.compile. Each of
    its calls makes a cache, and so records anew; ours keeps its recording."""
    try:
        return _beside_transformers("decoding / transformers, compiled", handle, pairs, cache_implementation="static")
    finally:  # the compiled call holds the model, and inductor its memory
        vars(handle.load()).pop("_compiled_call", None)
        torch._dynamo.reset()


def _beside_transformers(name: str, handle: ModelHandle, pairs: int, **options: Any) -> Ratio:
    model: Any = handle.load()
    sequences = [encode(handle.info.tokenizer, text) for _, text in PROMPTS]
    ids, mask = pad(sequences, side="left", pad_id=handle.info.tokenizer.pad_token_id, device=model.device)
    length = {"max_new_tokens": LONG, "min_new_tokens": LONG, "do_sample": False, "pad_token_id": 0}

    def theirs() -> None:
        model.generate(ids, attention_mask=mask, **length, **options)

    return speed_ratio(name, 1.0, lambda: _drawn(handle, LONG), theirs, pairs=pairs)


# ---- the table ----

BESIDE_CEILINGS: tuple[Callable[[ModelHandle, int, Ceilings], Ratio], ...] = (prefill, decode)
OURS: tuple[Callable[[ModelHandle, int], Ratio], ...] = (
    recorded_steps,
    recorded_steps_under_hpr,
    transformers_generate,
    transformers_compiled,
    decoding.idle_edit,
    decoding.added_vector,
    lm_steer.steered_decoding,
    lm_steer.steered_decoding_low_rank,
    hpr.decoding_under_hpr,
    slim.decoding_under_slim,
    cogsteer.decoding_under_cogsteer,
    cogsteer.decoding_under_cogsteer_everywhere,
    latentqa.decoding_under_control,
    hpr.decoding_by_matrices,
    cogsteer.decoding_by_two_models,
    latentqa.reading_with_a_cache,
    decoding.batching,
    lm_steer.cached_training,
    hpr.training_all_layers_at_once,
    latentqa.training_from_states_on_disk,
)
ON_CARDS: tuple[Callable[[ModelHandle, int], Ratio], ...] = (  # elsewhere a peak is that of a process with a folder
    lm_steer.training_memory,
    hpr.memory_of_training,
    latentqa.memory_of_a_training_step,
)
MEASURES = (*BESIDE_CEILINGS, *OURS, *ON_CARDS)
NAMES = [measure.__name__ for measure in MEASURES]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["llama-3-8b", "gpt2-large"])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: to try the table")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--pairs", type=int, default=5, help="pairs a ratio (default 5)")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file, after each of them")
    options = parser.parse_args(arguments)
    on_card = options.device.startswith("cuda")
    if on_card and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: there is no card here; give --device cpu --shapes tiny-llama to try the table")
    card = torch.cuda.get_device_name() if on_card else "a CPU"
    sizes = {"mib": 4096, "side": 8192} if on_card else {"mib": 64, "side": 512}
    ceilings = Ceilings(options.device, getattr(torch, options.dtype), **sizes)
    print(f"{card}, torch {torch.__version__}, {options.dtype}; at best: {ceilings}")
    found: dict[str, Any] = {"card": card, "torch": torch.__version__, "dtype": options.dtype, "rows": []}
    found |= {"bandwidth": ceilings.bandwidth, "products": ceilings.products}
    asked = [each for each in MEASURES if each.__name__ in options.only and (on_card or each not in ON_CARDS)]
    for shape in options.shapes:
        print(f"\n{shape}\n{heading()}")
        handle = RandomModel(shape, device=options.device, dtype=options.dtype)
        for measure in asked:
            row = _measured(measure, handle, options.pairs, ceilings)
            found["rows"].append({"shape": shape, "measure": measure.__name__, **row})
            if options.out:
                write_json(options.out, found)
        del handle  # before the next one is made
    return int(not all(row.get("met") for row in found["rows"]))


def _measured(measure: Callable[..., Ratio], handle: ModelHandle, pairs: int, ceilings: Ceilings) -> dict[str, Any]:
    """A row of the table, printed; a measure that a card refuses does not cost the others."""
    try:
        row = measure(handle, pairs, ceilings) if measure in BESIDE_CEILINGS else measure(handle, pairs)
    except Exception as error:
        print(f"{measure.__name__:44} failed: {str(error).splitlines()[0][:150]}", flush=True)
        return {"failed": str(error)}
    finally:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    print(line(row), flush=True)
    return dataclasses.asdict(row) | {"met": row.met}


if __name__ == "__main__":
    sys.exit(main())
