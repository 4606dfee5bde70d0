"""What a configuration costs, before anything runs: jobs, tokens and hours by rule, disk, and hours of services."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlab.experiment import disk, plan, rates, work
from steerlab.experiment.work import Job

if TYPE_CHECKING:
    from steerlab.experiment import Experiment

COLUMNS = ("rule", "jobs", "tokens read", "tokens new", "tokens trained on", "core-hours", "GPU-hours")


@dataclass(frozen=True)
class Cost:
    """What a plan costs.

    rows: a rule each, by COLUMNS; bytes: by where they lie; services: texts and seconds by name; unknown: the models
    whose work is left out, as nobody has told their size.
    """

    rows: list[tuple]
    bytes: Mapping[str, float]
    services: Mapping[str, tuple[int, float]]
    unknown: tuple[str, ...]

    @property
    def total(self) -> tuple:
        """The sums of the rows, by COLUMNS."""
        return ("all", *(sum(column) for column in list(zip(*self.rows))[1:]))


def of_jobs(x: "Experiment", jobs: Sequence[Job], seconds_a_unit: Mapping[str, float]) -> Cost:
    """The cost of jobs of an experiment, rules in the order of the plan. Core-hours do not depend on `threads`."""
    sums: dict[str, defaultdict[str, float]] = {}
    left: defaultdict[str, float] = defaultdict(float)
    services: dict[str, tuple[int, float]] = {}
    unknown = set()
    for job in jobs:
        todo, row = work.of_job(x, job), sums.setdefault(job.rule, defaultdict(float))
        spent = rates.seconds(work.scaled(x.config, todo), seconds_a_unit) / 3600
        hours = "GPU-hours" if todo.on_device and x.gpu else "core-hours"
        _add(row, {"jobs": 1, hours: spent} | {f"tokens {kind}": number for kind, number in todo.tokens.items()})
        _add(left, disk.of_job(x, job))
        if todo.model and work.size_of(x.config, todo.model) is None:
            unknown.add(todo.model)
        if service := job.wildcards.get("service"):
            texts, waited = services.get(service, (0, 0.0))
            asked, wait = _service(x, job, service)
            services[service] = (texts + asked, waited + wait)
    counts, hours = COLUMNS[1:5], COLUMNS[5:]
    rows = [
        (rule, *(round(row[name]) for name in counts), *(row[name] for name in hours)) for rule, row in sums.items()
    ]
    return Cost(rows, left, services, tuple(sorted(unknown)))


def _add(sums: defaultdict[str, float], more: Mapping[str, float]) -> None:
    for name, number in more.items():
        sums[name] += number


def _service(x: "Experiment", job: Job, service: str) -> tuple[int, float]:
    """Texts that a service is asked about at most, and the seconds that its quota lets pass for them."""
    key = tuple(job.wildcards[name] for name in ("model", "method", "task", "split"))
    texts = plan.count(x.config, x.cells[key]).continuations
    return texts, plan.seconds_asking(texts, x.config["scores"][service]["quota"])


def table(x: "Experiment", cost: Cost, *, at_once: int, told: str) -> str:
    """The cost as text. at_once: jobs that run side by side; told: what the rates were measured on."""
    shown = [_told(row) for row in [*cost.rows, cost.total]]
    wanted = [0, 1] + [place for place in range(2, len(COLUMNS)) if cost.total[place]]
    lines = plan.aligned([[row[place] for place in wanted] for row in [COLUMNS, *shown]])
    cores, cards = cost.total[5:]
    hours = (cards if x.gpu else cores / x.config["threads"]) / at_once
    what = f"{cards:,.2f} GPU-hours and {cores:,.2f} core-hours" if x.gpu else f"{cores:,.2f} core-hours"
    lines += ["", f"{what}: with {at_once} at once {_clock(hours)} at least", f"rates: {told}", ""]
    if cost.unknown:
        lines += [
            f"NOT COUNTED: the work of {', '.join(cost.unknown)}, whose size nobody has told; add its source, "
            "repository or name to models in steerlab/experiment/rates.yaml",
            "",
        ]
    lines += _disk(cost.bytes)
    for service, (texts, waited) in cost.services.items():
        lines += ["", f"{service}: at most {texts:,} texts, {waited / 3600:,.1f} API-hours at its quota"]
    return "\n".join(lines)


def _told(row: tuple) -> tuple:
    return (*row[:5], *(f"{hours:,.3f}" for hours in row[5:]))


def _clock(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 2 else f"{hours * 60:,.0f} min"


def _disk(left: Mapping[str, float]) -> list[str]:
    """Store and results with their parts, in MB or GB."""
    rows: list[tuple[str, str]] = [("disk", "MB")]
    for place in ("store", "results"):
        parts = {name: size for name, size in left.items() if name.startswith(place)}
        rows.append((place, f"{sum(parts.values()) / 1e6:,.0f}"))
        rows += [(f"  {name.partition(', ')[2]}", f"{size / 1e6:,.0f}") for name, size in sorted(parts.items())]
    return plan.aligned(rows)
