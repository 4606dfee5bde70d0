"""Seconds a unit of work: those that ship, or those of a run that has finished, and what they make of a plan."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.experiment import names
from steerlab.experiment.work import TABLE, Job, Units, of_job, scaled

if TYPE_CHECKING:
    from steerlab.experiment import Experiment

OTHER = "other"  # the rate of a rule that has none


@dataclass(frozen=True)
class Run:
    """A job that has run, with its wall time."""

    job: Job
    seconds: float
    device: str


def shipped(device: str, dtype: str = "float32") -> dict[str, float]:
    """The rates that ship; on a card those of jobs that need none are a CPU's, and the others depend on the dtype."""
    on_cpu = dict(TABLE["rates"]["cpu"]["seconds"])
    if device == "cpu":
        return on_cpu
    of_card = TABLE["rates"]["cuda"]
    slower = of_card["float32"] if dtype == "float32" else 1
    return on_cpu | {unit: each * (1 if unit in STARTS else slower) for unit, each in of_card["seconds"].items()}


STARTS = ("start", "load")


def told(device: str) -> str:
    """What the rates that ship were measured on."""
    return TABLE["rates"][device]["told"]


def seconds(units: Units, rates: Mapping[str, float]) -> float:
    """Wall time of a job."""
    return sum(amount * rates.get(unit, rates.get(OTHER, 0.0)) for unit, amount in units.items())


def of_run(results: Path) -> tuple[dict, list[Run]]:
    """The configuration that a finished run's report tells of, and the jobs whose sidecars lie below `results`.

    Raises ValueError, in one line, for a folder without a report's sidecar.
    """
    report = results / Path(names.REPORT).relative_to("results")
    told = report.with_name(report.name + ".run.json")
    if not told.is_file():
        raise ValueError(f"there is no {told}, which tells the configuration of a finished run; end the run first")
    runs = []
    for path in sorted(results.rglob("*.run.json")):
        sidecar = json.loads(path.read_text())
        job = Job(sidecar["rule"], sidecar["wildcards"])
        runs.append(Run(job, sidecar["seconds"], sidecar["device"]))
    return json.loads(told.read_text())["spec"]["config"], runs


def fitted(x: "Experiment", runs: Sequence[Run], known: Mapping[str, float]) -> dict[str, float]:
    """Rates by least squares from jobs that have run, none below 0; a unit that no job has keeps what is known of it.

    Jobs are weighted by one over what a first fit says of them, as longer ones vary more. x: of the run's
    configuration; a job that it does not ask for, left from another one, is passed over.
    """
    import numpy as np
    from scipy.optimize import nnls

    rows = [(scaled(x.config, of_job(x, run.job)), run.seconds) for run in runs if _is_asked(x, run.job)]
    units = sorted({unit for amounts, _ in rows for unit in amounts})
    amounts = np.array([[amounts.get(unit, 0.0) for unit in units] for amounts, _ in rows])
    spent = np.array([spent for _, spent in rows])
    found, _ = nnls(amounts, spent)
    weights = 1 / np.sqrt(np.maximum(amounts @ found, 0.1))
    found, _ = nnls(amounts * weights[:, None], spent * weights)
    return dict(known) | {unit: float(each) for unit, each in zip(units, found)}


def _is_asked(x: "Experiment", job: Job) -> bool:
    asked = {"model", "method", "task", "split"} <= job.wildcards.keys()
    key = tuple(job.wildcards.get(name, "") for name in ("model", "method", "task", "split"))
    return key in x.cells if asked else True


def compared(x: "Experiment", runs: Iterable[Run], rates: Mapping[str, float]) -> dict[str, tuple[int, float, float]]:
    """Jobs, predicted and actual seconds of a run, by rule."""
    found: dict[str, tuple[int, float, float]] = {}
    for run in runs:
        if _is_asked(x, run.job):
            jobs, told, spent = found.get(run.job.rule, (0, 0.0, 0.0))
            each = seconds(scaled(x.config, of_job(x, run.job)), rates)
            found[run.job.rule] = (jobs + 1, told + each, spent + run.seconds)
    return found
