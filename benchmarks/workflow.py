"""What a run spends beside its work: planning a large matrix, and starting each job."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from benchmarks.pairs import Ratio, ratio_of, timed
from steerlab.models import ModelHandle

ROOT = Path(__file__).parents[1]
MODELS, SEEDS = 17, 10  # with the preset full: close to ten thousand jobs
JOBS, SECONDS, MIB = 10_000, 30, 700


def planning(handle: ModelHandle, pairs: int) -> Ratio:
    """The dry-run of a real matrix, scaled to 10,000 jobs; the ratio is that of the allowed 30 s to it."""
    seconds = np.array([_dry_run()[0] for _ in range(min(pairs, 3))])
    taken = np.stack([seconds, np.full(len(seconds), SECONDS)], axis=1)
    return ratio_of("30 s / plan of 10,000 jobs", 1.0, SECONDS / seconds, taken)


def memory_of_planning(handle: ModelHandle, pairs: int) -> Ratio:
    """The peak of that dry-run; the ratio is that of the allowed 700 MiB to it."""
    peak = np.array([_dry_run()[1]])
    taken = np.stack([peak, np.full(1, MIB)], axis=1)
    return ratio_of("700 MiB / plan of 10,000 jobs", 1.0, MIB / peak, taken, unit="MiB")


def starting_a_job(handle: ModelHandle, pairs: int) -> Ratio:
    """A job that imports what a model job does, by itself, over one that a warm process forks."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "job.py"
        script.write_text(JOB)
        around = os.environ | {"RUN": str(os.getpid()), "OMP_NUM_THREADS": "1"}

        def start(warm: int) -> None:
            subprocess.run([sys.executable, script], env=around | {"STEERLAB_WARM": str(warm)}, check=True)

        start(1)
        while timed(lambda: start(1)) > 0.5 * timed(lambda: start(0)):
            continue  # the warm process is not ready yet
        taken = np.array([[timed(lambda: start(1)), timed(lambda: start(0))] for _ in range(pairs)])
    return ratio_of("start of a model job: by itself / forked", 5.0, taken[:, 1] / taken[:, 0], taken)


JOB = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from steerlab.warm import hand_over
hand_over(int(os.environ["RUN"]))
import steerlab.generations
"""


def _dry_run() -> tuple[float, float]:
    """Seconds and MiB of a dry-run of the preset full on many models and seeds, scaled to JOBS jobs."""
    run = yaml.safe_load((ROOT / "presets" / "full.yaml").read_text())["run"]
    models = {f"model-{i}": {"kind": "random", "family": "llama", "layers": 2, "seed": i} for i in range(MODELS)}
    many = {"models": list(models), "seeds": list(range(SEEDS))}
    many["variants"] = [name for name in run["variants"] if name != "transferred"]  # it names a model
    with tempfile.NamedTemporaryFile("w", suffix=".json") as overlay:
        json.dump({"run": many, "models": models}, overlay)
        overlay.flush()
        command = [sys.executable, "-m", "snakemake", "-n", "--forceall", "--quiet", "rules", "--configfile"]
        timing = [sys.executable, "-c", MEASURED, *command, "presets/full.yaml", overlay.name]
        said = subprocess.run(timing, cwd=ROOT, check=True, capture_output=True, text=True)
    jobs = int(re.findall(r"^total +(\d+)", said.stdout, re.M)[-1])
    seconds, peak = map(float, said.stdout.split()[-2:])
    return seconds * JOBS / jobs, peak * JOBS / jobs


MEASURED = """
import resource, subprocess, sys, time
started = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""
