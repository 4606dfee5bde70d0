"""Plot one figure from the tables it needs, with its caption and the CSV behind it."""

import importlib
import json
from pathlib import Path

from steerlab.job import job


def run(*, inputs: dict[str, list[Path]], figure: Path, data: Path, caption: Path, spec: dict) -> None:
    """Write the figure (SVG), its rows (CSV) and its caption, filled in (reStructuredText); inputs: files by kind."""
    from steerlab.figures import captions, style

    module = importlib.import_module(spec["module"])
    table = module.table(**_read(inputs, spec["figure"]), **spec["arguments"])
    table.to_csv(data, index=False)
    facts = {"sample_data": spec["sample_data"]} | module.facts(table, **spec["intervals"])
    caption.write_text(captions.caption(spec["caption"], facts))
    style.save(module.plot(table), figure)


def _read(inputs: dict[str, list[Path]], figure: str) -> dict[str, object]:
    """What the figure's module takes by name."""
    import pandas as pd

    from steerlab import parameters, reference

    found: dict[str, object] = {}
    if "metrics" in inputs:
        tables = [pd.read_csv(path, dtype={"seed": str}) for path in inputs["metrics"]]
        found["metrics"] = pd.concat(tables, ignore_index=True)
    if "choices" in inputs:
        cells = [dict(zip(("model", "method", "task"), path.with_suffix("").parts[-3:])) for path in inputs["choices"]]
        found["choices"] = [json.loads(path.read_text()) | cell for path, cell in zip(inputs["choices"], cells)]
    if "steers" in inputs:
        found["parameters"] = parameters.counted(inputs["steers"], inputs["models"])
    if "interpretation" in inputs:
        for name in INTERPRETED.get(figure, [figure]):  # whose tokens may be "nan"
            found[name] = pd.read_csv(inputs["interpretation"][0] / f"{name}.csv", **AS_WRITTEN)
    for kind in set(KINDS.split()) & set(inputs):
        found[kind] = pd.concat(map(pd.read_csv, inputs[kind]), ignore_index=True)
    if "training" in inputs:
        found["training"] = parameters.training(inputs["training"])
    if "reading" in inputs:
        found["choice"] = json.loads(inputs["reading"][0].read_text())
    if figure == "calibration":
        found |= reference.calibration(*inputs.get("calibration", []))
    if figure == "replication":
        found["reference"] = reference.read("lm_steer")
    return found


KINDS = "grid accuracies coverage norms texts questions curves comparisons costs reads pairs"  # one table each
INTERPRETED = {"spectrum": ["spectrum", "coordinates"], "evidence": ["evidence", "guesses"]}
AS_WRITTEN = {"dtype": {"token": str}, "keep_default_na": False, "na_values": {"evidence": [""], "toxicity": [""]}}

if "snakemake" in globals():
    with job(snakemake) as j:
        run(inputs=j.inputs, **j.outputs, spec=j.spec)
