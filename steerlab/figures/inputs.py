"""What a figure's module takes by name, read from files that stand by kind (steerlab/experiment/figures.py)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from steerlab import reference

TABLES = (
    "grid",
    "accuracies",
    "coverage",
    "norms",
    "texts",
    "questions",
    "curves",
    "compared",
    "compared_pairs",
    "comparisons",
    "costs",
    "reads",
    "pairs",
    "parameters",
)
INTERPRETED = {"spectrum": ["spectrum", "coordinates"], "evidence": ["evidence", "guesses"]}
AS_WRITTEN = {"dtype": {"token": str}, "keep_default_na": False, "na_values": {"evidence": [""], "toxicity": [""]}}


def read(inputs: dict[str, list[Path]], figure: str) -> dict[str, Any]:
    """What the figure's `table` takes by name; several files of one of TABLES become one table."""
    found: dict[str, Any] = {}
    if "metrics" in inputs:
        tables = [pd.read_csv(path, dtype={"seed": str}) for path in inputs["metrics"]]
        found["metrics"] = pd.concat(tables, ignore_index=True)
    if "choices" in inputs:
        cells = [dict(zip(("model", "method", "task"), path.with_suffix("").parts[-3:])) for path in inputs["choices"]]
        found["choices"] = [json.loads(path.read_text()) | cell for path, cell in zip(inputs["choices"], cells)]
    if "interpretation" in inputs:
        for name in INTERPRETED.get(figure, [figure]):  # whose tokens may be "nan"
            found[name] = pd.read_csv(inputs["interpretation"][0] / f"{name}.csv", **AS_WRITTEN)
    for kind in set(TABLES) & set(inputs):
        found[kind] = pd.concat(map(pd.read_csv, inputs[kind]), ignore_index=True)
    if "training" in inputs:
        found["training"] = _training(inputs["training"])
    if "reading" in inputs:
        found["choice"] = json.loads(inputs["reading"][0].read_text())
    if figure == "calibration":
        found |= reference.calibration(*inputs.get("calibration", []))
    if "tables" in inputs:
        found["tables"] = {path.stem: pd.read_csv(path, dtype={"seed": str}) for path in inputs["tables"]}
    if figure.startswith("replication"):
        found["reference"] = reference.read(figure.removeprefix("replication").removeprefix("_") or "lm_steer")
    return found


def _training(readers: Sequence[Path]) -> pd.DataFrame:
    """The updates of readers, .../<setting>/<seed>/training.csv, with setting and seed."""
    tables = [pd.read_csv(path / "training.csv").assign(setting=path.parts[-2], seed=path.name) for path in readers]
    return pd.concat(tables, ignore_index=True)
