"""How many numbers steers and their models have, by the files' headers."""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path

import pandas as pd
from safetensors import safe_open


def counted(steers: Sequence[Path], models: Sequence[Path]) -> pd.DataFrame:
    """model, method, learnable (numbers in a steer's first checkpoint), model_parameters; a row a steer and its model.

    Tied embeddings count once, as they lie in the file.
    """
    rows = []
    for steer, model in zip(steers, models, strict=True):
        about = json.loads((steer / "steer.json").read_text())
        tensors = _numbers(steer / "steer.safetensors")
        first = min((name.partition("/")[0] for name in tensors if "/" in name), default=None)
        learnable = sum(n for name, n in tensors.items() if first is None or name.startswith(f"{first}/"))
        total = sum(sum(_numbers(file).values()) for file in sorted(model.glob("*.safetensors")))
        rows.append((about["model"], about["method"], learnable, total))
    return pd.DataFrame(rows, columns=["model", "method", "learnable", "model_parameters"])


def _numbers(path: Path) -> dict[str, int]:
    with safe_open(path, framework="np") as file:
        return {name: prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
