"""`python -m steerlab watch`: how far the latest run in this folder is, in the terminal and as a page that refreshes.

All is read from Snakemake's own log of the run, so it can be called at any time, from another terminal, of a run that
is under way or over, on a cluster as well. How long is left comes from the jobs that ended, and for rules that have
none yet from the rates of `plan`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.store import write_atomically
from steerlab.terminal import write

if TYPE_CHECKING:
    from steerlab.experiment import Experiment

LOGS = Path(".snakemake/log")
PAGE = Path("results/live.html")
LINES = 15  # of a failed job's log, on the page
CLEAR = "\033[H\033[J"


@dataclass
class Job:
    """A job as the log tells of it. ended: None while it runs; failed: it ended with an error."""

    rule: str
    began: datetime
    log: str = ""
    wildcards: Mapping[str, str] = field(default_factory=dict)
    ended: datetime | None = None
    failed: bool = False

    @property
    def name(self) -> str:
        """The rule and its wildcards' values, as one line."""
        return " ".join([self.rule, *self.wildcards.values()])

    def seconds(self, now: datetime) -> float:
        """How long it has run, until `now` if it has not ended."""
        return ((self.ended or now) - self.began).total_seconds()


@dataclass
class Run:
    """A run of Snakemake: jobs to do by rule, and those that were begun, by number. is_over: nothing more is begun."""

    began: datetime | None = None
    latest: datetime | None = None
    overlays: tuple[Path, ...] = ()
    asked: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    is_over: bool = False

    def of(self, rule: str) -> list[Job]:
        """The jobs of a rule that were begun."""
        return [job for job in self.jobs.values() if job.rule == rule]

    @property
    def done(self) -> list[Job]:
        """The jobs that ended well."""
        return [job for job in self.jobs.values() if job.ended and not job.failed]

    @property
    def failed(self) -> list[Job]:
        """The jobs that ended with an error."""
        return [job for job in self.jobs.values() if job.failed]

    @property
    def running(self) -> list[Job]:
        """The jobs that have not ended; none once the run is over."""
        return [] if self.is_over else [job for job in self.jobs.values() if not job.ended]


def add(parser: argparse.ArgumentParser, experiment_of: Callable[[Sequence[Path]], "Experiment"]) -> None:
    """The options of the command. experiment_of: the experiment of config.yaml under some overlays."""
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--every", type=float, default=10, metavar="SECONDS", help="between two looks (default 10)")
    parser.add_argument("--once", action="store_true", help="look once")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"the page that refreshes itself (default {PAGE})")
    parser.add_argument("--log", type=Path, help=f"of another run than the latest in {LOGS}")
    parser.set_defaults(run=lambda chosen: _watch(chosen, experiment_of))


def _watch(chosen: argparse.Namespace, experiment_of: Callable[[Sequence[Path]], "Experiment"]) -> None:
    known: dict[Path, tuple[Experiment, dict[str, float]]] = {}  # by log: a run's configuration does not change
    try:
        while True:
            log = chosen.log or latest(LOGS)
            if log is None or not log.is_file():
                sys.exit(f"watch: there is no {log or LOGS}; call it in the folder of a run that has begun")
            run, now = read(log.read_text(errors="replace")), datetime.now()
            if log not in known:
                x = experiment_of(run.overlays)
                known[log] = x, seconds_told(x, run.overlays)
            x, told = known[log]
            text = "\n".join(summary(run, now, told, tokens_a_second(x, run)))
            write_atomically(chosen.page, lambda path, run=run, text=text: path.write_text(page(run, text, chosen)))
            write((CLEAR if sys.stdout.isatty() and not chosen.once else "") + text + "\n")
            if chosen.once or run.is_over:
                write(f"page: {chosen.page}\n")
                return
            time.sleep(chosen.every)
    except KeyboardInterrupt:
        write("\n")


# ---- Snakemake's log ----


def latest(folder: Path) -> Path | None:
    """The log of the latest run; plans and summaries, that of `plan` for this command too, leave logs without jobs."""
    newest_first = sorted(folder.glob("*.snakemake.log"), reverse=True)
    return next((log for log in newest_first if read(log.read_text(errors="replace")).jobs), None)


_AT = re.compile(r"\[(\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4})\]$")
_BEGUN = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):$")
_FAILED = re.compile(r"Error in (?:group|rule) (\w+)")
_ENDED = re.compile(r"Finished jobid: (\d+)")
_COUNT = re.compile(r"(\w+) +(\d+)$")


def read(text: str) -> Run:
    """What the log of a run tells."""
    run, job, at, error, counting = Run(), None, None, False, False
    for line in text.splitlines():
        if found := _AT.match(line):
            at = datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y")
            run.began, run.latest = run.began or at, at
        elif line.startswith("  Config file(s): "):
            run.overlays = tuple(Path(each) for each in re.findall(r"'([^']+)'", line) if each != "config.yaml")
        elif line == "Job stats:":
            counting = True
        elif counting and (found := _COUNT.match(line)):
            run.asked[found[1]] = int(found[2])
            counting = found[1] != "total"
        elif at and (found := _BEGUN.match(line)):
            job, error = Job(found[1], at), False
        elif at and (found := _FAILED.match(line)):
            job, error = Job(found[1], at), True
        elif found := _ENDED.match(line):
            if ended := run.jobs.get(found[1]):
                ended.ended, ended.failed = at, False
        elif job and line.startswith("    "):
            _take(run, job, *line.strip().partition(": ")[::2], failed_at=at if error else None)
        elif line.startswith(("Complete log", "Exiting because", "Terminating processes", "Nothing to be done")):
            run.is_over = True
    run.asked.pop("total", None)
    return run


def _take(run: Run, job: Job, key: str, value: str, *, failed_at: datetime | None) -> None:
    """One of the lines below a job's first: its number comes before or after its log."""
    if key == "log":
        job.log = value.partition(" (")[0]
    elif key == "wildcards":
        job.wildcards = dict(each.split("=", 1) for each in value.split(", ") if "=" in each)
    elif key == "jobid" and failed_at is None:
        run.jobs[value] = job
    elif key == "jobid" and value in run.jobs:
        run.jobs[value].ended, run.jobs[value].failed = failed_at, True


# ---- what it means ----


def summary(run: Run, now: datetime, told: Mapping[str, float], rates: Mapping[str, float]) -> list[str]:
    """The run in lines. told: seconds of a job by rule, where none was measured; rates: tokens a second by kind."""
    total = sum(run.asked.values())
    until = (run.latest or now) if run.is_over else now
    spent = until - run.began if run.began else timedelta()
    counts = [f"{len(run.done)} of {total} jobs done", f"{len(run.running)} running", f"{len(run.failed)} failed"]
    lines = [f"{', '.join(counts)}; {_clock(spent.total_seconds())} so far"]
    if run.is_over:
        lines.append("the run is over")
    elif (left := seconds_left(run, now, told)) is not None:
        lines.append(f"some {_clock(left)} to go: {now + timedelta(seconds=left):%a %H:%M}")
    lines += [f"{rate:,.0f} tokens/s {kind} by a job" for kind, rate in rates.items()]
    lines += [f"card {place}: {use} % busy, {used} of {there} MiB" for place, use, used, there in _cards()]
    lines += [""] * bool(run.running) + [f"{_clock(job.seconds(now)):>8}  {job.name}" for job in run.running]
    lines += ["", f"{'':24}done running failed  of"]
    for rule, asked in run.asked.items():
        of_rule = run.of(rule)
        done, failed = sum(job in run.done for job in of_rule), sum(job.failed for job in of_rule)
        running = sum(job in run.running for job in of_rule)
        lines.append(f"{rule:24}{done:4}{running or '':8}{failed or '':7}{asked:4}")
    for job in run.failed:
        lines += ["", f"FAILED: {job.name}", f"  log: {job.log or 'it has none'}"]
    return lines


def seconds_left(run: Run, now: datetime, told: Mapping[str, float]) -> float | None:
    """Seconds until the run is through, if as many jobs go on side by side; None before any job has ended."""
    of_rules: dict[str, list[float]] = {}
    for job in run.done:
        of_rules.setdefault(job.rule, []).append(job.seconds(now))
    measured = sum(map(sum, of_rules.values()))
    if not run.began or not measured:
        return None
    expected = sum(told.get(rule, 0.0) * len(each) for rule, each in of_rules.items())
    slower = measured / expected if expected else 1.0  # than the rates of `plan` say
    left = 0.0
    for rule, asked in run.asked.items():
        ended = of_rules.get(rule, [])
        a_job = sum(ended) / len(ended) if ended else slower * told.get(rule, 0.0)
        begun = [job for job in run.running if job.rule == rule]
        left += a_job * (asked - len(ended) - len(begun)) + sum(max(0.0, a_job - job.seconds(now)) for job in begun)
    spent = measured + sum(job.seconds(now) for job in run.running)
    side_by_side = max(1.0, spent / max(1.0, (now - run.began).total_seconds()))
    return left / side_by_side


def seconds_told(x: "Experiment", overlays: Sequence[Path]) -> dict[str, float]:
    """Mean seconds of a rule's jobs by the rates that `plan` counts with; Snakemake plans once for it."""
    from steerlab import plan_command
    from steerlab.experiment import costs, rates, work

    shipped = rates.shipped(x.config["device"], x.config["dtype"])
    rows = costs.of_jobs(x, work.jobs(plan_command.files_of_plan(overlays)), shipped).rows
    return {rule: 3600 * (cores + cards) / jobs for rule, jobs, *_, cores, cards in rows if jobs}


def tokens_a_second(x: "Experiment", run: Run) -> dict[str, float]:
    """Tokens a second that the jobs which ended have drawn and read, start and all."""
    from steerlab.experiment import work

    tokens: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for job in run.done:
        kind = {"generate_continuations": "drawn", "capture_activations": "read"}.get(job.rule)
        if kind and job.ended:
            todo = work.of_job(x, work.Job(job.rule, job.wildcards))
            tokens[kind] = tokens.get(kind, 0.0) + todo.tokens["new" if kind == "drawn" else kind]
            seconds[kind] = seconds.get(kind, 0.0) + job.seconds(job.ended)
    return {kind: tokens[kind] / max(1.0, seconds[kind]) for kind in tokens}


def _cards() -> list[list[str]]:
    """Number, percent, MiB used and MiB there, of each card that is here."""
    if not shutil.which("nvidia-smi"):
        return []
    asked = "--query-gpu=index,utilization.gpu,memory.used,memory.total"
    said = subprocess.run(["nvidia-smi", asked, "--format=csv,noheader,nounits"], capture_output=True, text=True)
    rows = [line.split(", ") for line in said.stdout.splitlines()]
    return [row for row in rows if len(row) == 4]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


# ---- the page ----


def page(run: Run, text: str, chosen: argparse.Namespace) -> str:
    """The summary with the ends of failed jobs' logs, as HTML that refreshes itself until the run is over."""
    from html import escape

    refresh = "" if run.is_over else f'<meta http-equiv="refresh" content="{max(1, round(chosen.every))}">'
    total = max(1, sum(run.asked.values()))
    logs = "".join(
        f'<h2>{escape(job.name)}</h2><p><a href="{escape(_relative(job.log, chosen.page))}">{escape(job.log)}</a></p>'
        f"<pre>{escape(_end_of(job.log))}</pre>"
        for job in run.failed
    )
    return PAGE_HTML.format(refresh=refresh, done=len(run.done), total=total, text=escape(text), logs=logs)


def _relative(log: str, page: Path) -> str:
    return os.path.relpath(log, page.parent) if log else ""


def _end_of(log: str) -> str:
    path = Path(log)
    return "\n".join(path.read_text(errors="replace").splitlines()[-LINES:]) if log and path.is_file() else "no log"


PAGE_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{refresh}
<title>{done} of {total}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem; }}
progress {{ width: 100%; height: 1.5rem; }}
pre {{ overflow-x: auto; font-size: .8rem; background: #f4f4f4; padding: .5rem; }}
</style>
</head>
<body>
<h1>{done} of {total} jobs done</h1>
<progress max="{total}" value="{done}"></progress>
<pre>{text}</pre>
{logs}
</body>
</html>
"""
