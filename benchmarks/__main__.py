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

import numpy as np
import torch

from benchmarks import answers, capturing, cogsteer, decoding, hpr, latentqa, lm_steer, slim, workflow
from benchmarks.pairs import Ratio, ratio_of, timed
from benchmarks.table import heading, line
from steerlab.models import ModelHandle


def import_seconds(handle: ModelHandle, pairs: int) -> Ratio:
    """Importing what the Snakefile needs, in a fresh interpreter; the ratio is to the allowed second."""
    seconds = np.array([timed(lambda: _fresh("import steerlab.experiment")) for _ in range(pairs)])
    taken = np.stack([seconds, np.ones(pairs)], axis=1)
    return ratio_of("import of steerlab.experiment / 1 s", 1.0, 1.0 / seconds, taken)


BENCHMARKS: dict[str, Callable[[ModelHandle, int], Ratio]] = {
    benchmark.__name__: benchmark
    for benchmark in (
        decoding.idle_edit,
        decoding.added_vector,
        decoding.nucleus_sampling,
        decoding.batching,
        lm_steer.steered_decoding,
        lm_steer.steered_decoding_low_rank,
        lm_steer.cached_training,
        lm_steer.training_memory,
        hpr.decoding_under_hpr,
        hpr.decoding_by_matrices,
        hpr.edit_without_matrix,
        hpr.training_all_layers_at_once,
        answers.shared_prefixes,
        capturing.sites_together,
        slim.transport_of_a_layer,
        slim.transport_by_conic_solver,
        slim.fitting_every_layer,
        slim.decoding_under_slim,
        cogsteer.decoding_under_cogsteer,
        cogsteer.decoding_under_cogsteer_everywhere,
        cogsteer.decoding_by_two_models,
        cogsteer.memory_of_one_block,
        cogsteer.memory_of_every_block,
        cogsteer.memory_of_two_models,
        latentqa.decoding_under_control,
        latentqa.training_from_states_on_disk,
        latentqa.training_with_the_target,
        latentqa.reading_with_a_cache,
        latentqa.memory_of_a_training_step,
        import_seconds,
        workflow.planning,
        workflow.memory_of_planning,
        workflow.starting_a_job,
    )
}


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
    handle.load()
    print(f"{handle.info.name}, {options.dtype} on {options.device}, {options.threads} threads, {options.pairs} pairs")
    print(heading())
    ratios = []
    for name in options.only:
        ratio = BENCHMARKS[name](handle, options.pairs)
        ratios.append(ratio)
        print(line(ratio), flush=True)
    if options.out:
        options.out.write_text(json.dumps([asdict(ratio) for ratio in ratios], indent=1) + "\n")
    return int(not all(ratio.met for ratio in ratios))


def _fresh(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    sys.exit(main())
