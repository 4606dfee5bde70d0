"""The whole workflow on a card, beside a run on a CPU: `python -m benchmarks.card_run <results/metrics of that run>`.

Runs it (further arguments go to snakemake), watches the card, and says how long it took, how busy the card was, and
which metrics lie within the intervals that the other run gave them. Draws differ in their last bits from device to
device, so that some texts differ; the metrics should not.
"""

import argparse
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.pairs import timed

RUN = ["bash", "envs/run.sh", ".venv/bin/snakemake", "--config", "device=cuda"]
USE = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop=1"]
KEY = ["model", "method", "task", "split", "prompts", "steps", "strength", "seed", "metric", "scorer"]
METRICS = Path("results/metrics")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=Path, help="results/metrics of a run on a CPU, kept elsewhere")
    options, further = parser.parse_known_args(arguments)
    there = metrics_in(options.metrics)
    try:
        with subprocess.Popen(USE, stdout=subprocess.PIPE, text=True) as watching:
            seen: list[str] = []
            reader = threading.Thread(target=lambda: seen.extend(watching.stdout or ()), daemon=True)
            reader.start()
            try:
                seconds = timed(lambda: subprocess.run([*RUN, *further], check=True))
            finally:
                watching.terminate()
                reader.join()
    except FileNotFoundError as error:
        sys.exit(f"card_run: {error.filename} is not there; this needs a card and `make setup`")
    except subprocess.CalledProcessError as error:
        sys.exit(f"card_run: the run failed with status {error.returncode}; its last lines say why")
    print(f"{seconds / 60:.1f} minutes; {told_by(seen)}")
    compared = beside(metrics_in(METRICS), there)
    outside = compared[~compared.within]
    print(f"{len(compared) - len(outside)} of {len(compared)} metrics lie within the other run's intervals")
    if len(outside):
        print(outside.to_string(index=False))
    return 0


def told_by(lines: list[str]) -> str:
    """How busy the card was; lines: percent and MiB, or what a driver writes for what it does not know."""
    pairs = [line.split(",") for line in lines if re.fullmatch(r"\s*\d+\s*,\s*\d+\s*", line)]
    if not pairs:
        return "nvidia-smi does not tell how busy the card was"
    use, mib = np.array(pairs, dtype=float).T
    return f"card {use.mean():.0f} % busy, at most {mib.max():,.0f} MiB in use"


def metrics_in(folder: Path) -> pd.DataFrame:
    """The metrics of all cells; exits with a line where there are none."""
    files = sorted(folder.rglob("*.csv"))
    if not files:
        sys.exit(f"card_run: {folder} holds no metrics; give results/metrics of a run that ended")
    found = pd.concat([pd.read_csv(file, dtype={"seed": str, "prompts": str}) for file in files])
    return found.dropna(subset=["metric", "value"])


def beside(here: pd.DataFrame, there: pd.DataFrame) -> pd.DataFrame:
    """A row a metric of both runs that the other has an interval of: its key, value, and the other's value and
    interval; within: whether the value lies there. A cell whose strength was picked otherwise is in neither's rows."""
    both = here[[*KEY, "value"]].merge(there[[*KEY, "value", "low", "high"]], on=KEY, suffixes=("", "_there"))
    both = both.dropna(subset=["low", "high"])
    return both.assign(within=both["value"].between(both["low"], both["high"]))


if __name__ == "__main__":
    sys.exit(main())
