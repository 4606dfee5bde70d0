"""`python -m steerlab plan`: what a configuration asks for and costs, and how many prompts an interval needs."""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from steerlab.experiment import Experiment, load_or_exit, names, plan

METRICS = {"toxicity": ["mean_toxicity"], "sentiment": ["mean_sentiment"]}  # of other tasks: mc2


def add(parser: argparse.ArgumentParser, experiment_of: Callable[[Sequence[Path]], Experiment]) -> None:
    """The options of the command. experiment_of: the experiment of config.yaml under some overlays."""
    overlays = "overlays on config.yaml, as for snakemake"
    parser.add_argument("--configfile", nargs="*", type=Path, default=[], help=overlays)
    parser.add_argument(
        "--rates",
        type=Path,
        metavar="RESULTS",
        help="count with the rates of a finished run, from this folder of results, in place of those that ship; "
        "prints how well they fit it, too",
    )
    parser.add_argument("--at-once", type=int, metavar="N", help="jobs side by side; default: this machine's cores")
    parser.add_argument("--csv", type=Path, help="write the cost by rule, or the pilot's table, to this file, too")
    parser.add_argument(
        "--perspective",
        action="store_true",
        help="what the Perspective API is to be asked for while it answers: texts, hours and last day to begin, "
        "of config.yaml and of each preset",
    )
    parser.add_argument(
        "--pilot",
        type=Path,
        metavar="RESULTS",
        help="from the metrics of a finished run: the prompts that an interval of --width needs",
    )
    parser.add_argument("--width", type=float, help="of the 95 %% interval (metrics.confidence), in the metric's unit")
    parser.add_argument(
        "--metric", nargs="+", help="of --pilot; default: mean_toxicity, mean_sentiment or mc2, by task"
    )
    parser.set_defaults(run=lambda chosen: _plan(chosen, experiment_of))


def _plan(chosen: argparse.Namespace, experiment_of: Callable[[Sequence[Path]], Experiment]) -> None:
    if (chosen.pilot is None) != (chosen.width is None):
        sys.exit("plan: --pilot and --width go together: a folder of results, and how wide an interval may be")
    if chosen.perspective:
        presets = [plan.with_base(path) for path in sorted(Path("presets").glob("*.yaml"))]
        asked = [chosen.configfile] if chosen.configfile else [[], *presets]
        named = {plan.preset_name(paths): experiment_of(paths).config for paths in asked}
        _write([plan.perspective_table(named)])
    elif chosen.pilot:
        _pilot(chosen)
    else:
        _cost(chosen, experiment_of(chosen.configfile))


def _write(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


# ---- what it costs ----


def _cost(chosen: argparse.Namespace, x: Experiment) -> None:
    from steerlab.experiment import costs, rates, work

    told, used = rates.told(x.config["device"]), rates.shipped(x.config["device"], x.config["dtype"])
    if chosen.rates:
        lines, used = _refitted(chosen.rates, x.config["device"], used)
        told = f"those of the run in {chosen.rates}"
        _write([*lines, ""])
    _write([plan.table(plan.counted(x.config)), ""])
    cost = costs.of_jobs(x, work.jobs(files_of_plan(chosen.configfile)), used)
    at_once = chosen.at_once or (1 if x.gpu else max(1, (os.cpu_count() or 1) // x.config["threads"]))
    _write([costs.table(x, cost, at_once=at_once, told=told)])
    if chosen.csv:
        with open(chosen.csv, "w", newline="") as file:
            csv.writer(file).writerows([costs.COLUMNS, *cost.rows])


def _refitted(results: Path, device: str, known: dict[str, float]) -> tuple[list[str], dict[str, float]]:
    """The rates of a run, with lines that tell them and what they make of that run itself."""
    from steerlab.experiment import rates

    try:
        config, runs = rates.of_run(results)
    except (ValueError, OSError, KeyError) as error:
        sys.exit(f"plan: {error}")
    if config["device"] != device:
        sys.exit(f"plan: {results} ran on {config['device']}, and this is planned for {device}; give a run on {device}")
    x = load_or_exit(config)
    found = rates.fitted(x, runs, known)
    compared = rates.compared(x, runs, found)
    told: list[tuple] = [("rule", "jobs", "seconds told", "seconds taken")]
    told += [(rule, n, f"{guess:,.1f}", f"{spent:,.1f}") for rule, (n, guess, spent) in compared.items()]
    units = [(f"{unit}:", f"{each:.3g}") for unit, each in sorted(found.items())]  # as rates.yaml has them
    return [*plan.aligned(units), "", *plan.aligned(told)], found


def files_of_plan(overlays: Sequence[Path]) -> str:
    """What Snakemake would make, a line a file; nothing runs, and a run that is under way is not disturbed."""
    chosen = ["--configfile", *map(str, overlays)] if overlays else []
    asked = [sys.executable, "-m", "snakemake", "--summary", "--nolock", *chosen]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        sys.exit(f"plan: snakemake cannot plan this: {reason}")
    return done.stdout


# ---- how many prompts ----


def _pilot(chosen: argparse.Namespace) -> None:
    import pandas as pd

    from steerlab.metrics import pilot

    place = Path(names.METRICS).relative_to("results").parts[0]
    files = sorted((chosen.pilot / place).glob("*/*/*/test.csv"))
    if not files:
        sys.exit(f"plan: {chosen.pilot / place} has no metrics of test cells; give the results of a finished run")
    metrics = pd.concat([pd.read_csv(file, dtype={"seed": str, "prompts": str}) for file in files], ignore_index=True)
    names_of = {task: chosen.metric or METRICS.get(task, ["mc2"]) for task in metrics["task"].unique()}
    try:
        found = pilot.table(metrics, chosen.width, names_of)
    except ValueError as error:
        sys.exit(str(error))
    if found.empty:
        sys.exit(f"plan: no such metric there; metrics: {', '.join(sorted(set(metrics['metric'])))}")
    rows: list[tuple] = [("model", "method", "task", "metric", "n", "width", "needed", "paired", "needed", "times")]
    for row in found.to_dict("records"):
        cell = tuple(row[name] for name in ("model", "method", "task", "metric", "n"))
        of_kinds = [(_told(row[f"{kind}_width"], ".3g"), _told(row[f"{kind}_needed"], ",.0f")) for kind in pilot.KINDS]
        most = max((row[f"{kind}_times"] for kind in pilot.KINDS if not pd.isna(row[f"{kind}_times"])), default=1.0)
        rows.append((*cell, *of_kinds[0], *of_kinds[1], f"{most:.3g}"))
    if len(set(found["model"])) == 1:
        rows = [row[1:] for row in rows]
    _write([*plan.aligned(rows), "", HINT.format(width=f"{chosen.width:g}")])
    if chosen.csv:
        found.to_csv(chosen.csv, index=False)


def _told(number: float, how: str) -> str:
    return "-" if number != number else format(number, how)


HINT = """needed: prompts for an interval of {width}, of the metric itself and of its paired difference from the base
times: how often the work of the cell, for the larger of the two
Of several strengths and scorers the widest interval counts, of all seeds together; calibrated scores do not."""
