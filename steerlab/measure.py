"""What training costs: seconds a step and the memory's peak, for an intervention in some blocks against others.

Each setting is trained in a process of its own, as a process's peak never falls. On a CPU the peak is the process's
resident memory (Linux' VmHWM), on a card what torch allocated there.
"""

import dataclasses
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ["intervention", "layers", "parameters", "steps", "seconds", "low", "high", "loaded_mib", "peak_mib"]
_MIB = 2**20
_FIRST = 2  # steps that are not counted: memory is asked for and kernels are chosen in them


def training_cost(
    model: Mapping[str, Any],
    rows: pd.DataFrame,
    settings: Sequence[tuple[str, Sequence[int], Mapping[str, Any]]],
    *,
    steps: int,
) -> pd.DataFrame:
    """One row a setting: COLUMNS. model: the keywords of ModelHandle; rows: text, second, label, trained on.

    settings: what tables call the layers, the layers, the spec of a steerlab.classifiers.Recipe.
    seconds: the median of the steps, low and high their quartiles; the first two are not counted. loaded_mib: memory
    with the model loaded, before training; peak_mib: the largest of all.
    """
    found = []
    for name, layers, spec in settings:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            cost = pool.submit(_train, dict(model), rows, list(layers), dict(spec), steps).result()
        found.append({"intervention": spec["intervention"], "layers": name, **cost})
    return pd.DataFrame(found, columns=COLUMNS)


def _train(
    model: dict[str, Any], rows: pd.DataFrame, layers: list[int], spec: dict[str, Any], steps: int
) -> dict[str, float]:
    import torch

    from steerlab import classifiers
    from steerlab.models import ModelHandle

    handle, recipe = ModelHandle(**model), classifiers.Recipe.of(spec)
    made = classifiers.make(handle.load(), recipe, layers, torch.Generator().manual_seed(0))
    on_card = handle.device.startswith("cuda")
    loaded = torch.cuda.memory_allocated() / _MIB if on_card else _resident("VmRSS")
    plan = dataclasses.replace(recipe.training, updates=steps + _FIRST, epochs=steps + _FIRST)  # an epoch has a step
    what = f"cost of {recipe.intervention} in {len(layers)} blocks"
    same = torch.Generator().manual_seed(0)  # whatever was drawn before, each setting trains on the same batches
    classifiers.train(made, handle.info.tokenizer, rows, plan, generator=same, desc=what)
    low, middle, high = np.quantile(made.seconds[_FIRST:], [0.25, 0.5, 0.75])
    peak = torch.cuda.max_memory_allocated() / _MIB if on_card else _resident("VmHWM")
    counted = {"parameters": made.count, "steps": steps, "loaded_mib": loaded, "peak_mib": peak}
    return counted | {"seconds": float(middle), "low": float(low), "high": float(high)}


def _resident(key: str) -> float:
    """Mebibytes, of this process as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024 / _MIB
