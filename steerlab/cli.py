"""The command line: `python -m steerlab <command>`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import yaml

from steerlab import (
    audit_command,
    experiment,
    export_command,
    latentqa_commands,
    latentqa_data,
    mirror,
    plan_command,
    watch,
)
from steerlab.demo import command as demo
from steerlab.terminal import add_where, be_quiet, one_line, write

CONFIG = Path("config.yaml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors are one line each."""
    parser = argparse.ArgumentParser(prog="python -m steerlab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    plan_command.add(
        commands.add_parser("plan", help="what a configuration asks for and costs: cells, jobs, tokens, hours, disk"),
        _experiment,
    )
    watch.add(
        commands.add_parser("watch", help="how far the latest run in this folder is: jobs, rates, time to go, a page"),
        lambda overlays: _experiment(overlays, command="watch"),
    )
    _add_scores(
        commands.add_parser("scores", help="the cache of scores that were paid for: export, merge, stats, verify")
    )
    audit_command.add(
        commands.add_parser("audit", help="pairs of continuations for a person's blind eye, and how scorers agree")
    )
    _add_verify(
        commands.add_parser("verify", help="do the job of an output again, from its sidecar, and compare bytes")
    )
    _add_evaluate(commands.add_parser("evaluate", help="a model, steered or not, on tasks of lm-evaluation-harness"))
    _add_chat(commands.add_parser("chat", help="ask a model and see its answers without and with a steer"))
    demo.add(
        commands.add_parser("demo", help="a local page: a model's continuations without and with steers, in colour"),
        lambda overlays: _experiment(overlays, command="demo"),
    )
    export_command.add(
        commands.add_parser("export", help="write a saved steer with its card to a folder of its own, as for a hub")
    )
    latentqa_commands.add_read(
        commands.add_parser("read", help="ask a reader (LatentQA's decoder) about a model's states of a dialog"),
        _of_latentqa,
    )
    latentqa_commands.add_control(
        commands.add_parser("control", help="change a model so that a reader of its states answers as is wished"),
        _of_latentqa,
    )
    latentqa_data.add(
        commands.add_parser("latentqa-data", help="make data in LatentQA's schemas with a model behind an endpoint")
    )
    mirror.add(
        commands.add_parser("mirror", help="fill a folder from which a run needs no network"),
        lambda overlays: _experiment(overlays, command="mirror"),
    )
    chosen = parser.parse_args(arguments)
    chosen.run(chosen)


# ---- the configuration ----


def _experiment(overlays: Sequence[Path], command: str = "plan") -> experiment.Experiment:
    config: dict = {}
    for path in (CONFIG, *overlays):
        config = _merged(config, _read(path, command))
    return experiment.load_or_exit(config)


def _of_latentqa(key: str) -> Sequence[str]:
    """A list of latentqa in the configuration; empty where there is none here."""
    return _experiment(()).config["latentqa"][key] if CONFIG.is_file() else []


def _read(path: Path, command: str = "plan") -> dict:
    if not path.is_file():
        sys.exit(f"{command}: there is no file {path}; call it in the project's folder")
    try:
        return yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        sys.exit(f"{command}: {path} is no YAML: {' '.join(str(error).split())}")


def _merged(below: dict, above: dict) -> dict:
    """Dictionaries are merged deeply and everything else is replaced, as Snakemake merges its config files."""
    both = {
        key: _merged(below[key], above[key]) for key in below.keys() & above.keys() if _are_dicts(below, above, key)
    }
    return below | above | both


def _are_dicts(below: dict, above: dict, key: str) -> bool:
    return isinstance(below[key], dict) and isinstance(above[key], dict)


# ---- verify ----


def _add_verify(parser: argparse.ArgumentParser) -> None:
    what = (
        "an output or its sidecar; <model>/<method>/<task>/<split>/<seed>, for its generations and scores; a rule; all"
    )
    parser.add_argument("cells", nargs="+", metavar="cell", help=what)
    parser.set_defaults(run=_verify_cells)


def _verify_cells(chosen: argparse.Namespace) -> None:
    from steerlab import verification

    found = []
    try:
        for sidecar in dict.fromkeys(path for cell in chosen.cells for path in verification.sidecars(cell)):
            report = verification.verify(sidecar)
            found.append(report.found)
            write("\n  ".join((str(sidecar).removesuffix(verification.SUFFIX), *report.lines)) + "\n")
    except (verification.VerificationError, OSError) as error:
        sys.exit(f"verify: {error}")
    write(f"jobs: {', '.join(f'{found.count(word)} {word}' for word in verification.FOUND)}\n")
    if not {"identical"} <= set(found) <= {"identical", "not done again"}:
        sys.exit(1)


# ---- scores ----


def _add_scores(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(required=True, metavar="export|merge|stats|verify")
    export = what.add_parser("export", help="write scores.parquet and a dataset card")
    export.add_argument("folder", type=Path)
    merge = what.add_parser("merge", help="take over the answers of exports or of other caches; yours win")
    merge.add_argument("others", nargs="+", type=Path, metavar="export", help="folder, .parquet or .sqlite")
    merge.add_argument("--conflicts", type=Path, help="write the answers that differ to this CSV file")
    stats = what.add_parser("stats", help="answers by scorer, refusals, bytes a row")
    verify = what.add_parser("verify", help="read every row and test its seal; exits with 1 if one is damaged")
    verify.add_argument(
        "--repair", action="store_true", help="set a damaged file aside, make it again from what can be read"
    )
    for command, run in ((export, _export), (merge, _merge), (stats, _stats), (verify, _verify)):
        command.add_argument("--store", type=Path, help="folder of the cache; default: that of config.yaml")
        command.set_defaults(run=_scores, command=run)


def _scores(chosen: argparse.Namespace) -> None:
    from steerlab.scores.cache import FILE, ScoreCache
    from steerlab.scores.cache_file import CacheError

    path = (chosen.store or Path(_read(CONFIG).get("store", ".store") if CONFIG.is_file() else ".store")) / FILE
    if not path.is_file() and chosen.command is not _merge:
        sys.exit(f"scores: there is no score cache {path}; name its folder with --store, or merge an export")
    try:
        with ScoreCache(path) as cache:
            chosen.command(cache, chosen)
    except (CacheError, OSError) as error:
        sys.exit(f"scores: {error}")


def _export(cache, chosen: argparse.Namespace) -> None:
    from steerlab.scores import exchange

    sys.stdout.write(f"{exchange.export(cache, chosen.folder):,} answers written to {chosen.folder}\n")


def _merge(cache, chosen: argparse.Namespace) -> None:
    import pandas as pd

    from steerlab.scores import exchange

    conflicts = []
    for other in chosen.others:
        merged = exchange.merge(cache, other)
        conflicts.append(merged.conflicts)
        differ = f"{len(merged.conflicts):,} differ and stay as they were"
        differ += f", {merged.damaged:,} of theirs are damaged" if merged.damaged else ""
        sys.stdout.write(f"{other}: {merged.new:,} new answers, {merged.alike:,} known, {differ}\n")
    differing = pd.concat(conflicts, ignore_index=True)
    if chosen.conflicts:
        differing.to_csv(chosen.conflicts, index=False)
    if len(differing):
        largest = differing.sort_values("difference", ascending=False).head(10)
        sys.stdout.write(f"the largest differences:\n{largest.to_string(index=False)}\n")


def _stats(cache, chosen: argparse.Namespace) -> None:
    from steerlab.scores import exchange

    table = exchange.statistics(cache)
    rows, size = int(table["texts"].sum()), cache.path.stat().st_size
    sys.stdout.write(f"{table.to_string(index=False)}\n" if rows else "no answers yet\n")
    sys.stdout.write(
        f"{cache.path}: {rows:,} answers, {size:,} bytes" + (f", {size / rows:.0f} a row\n" if rows else "\n")
    )


def _verify(cache, chosen: argparse.Namespace) -> None:
    faults = cache.faults()
    if faults and chosen.repair:
        count, aside = cache.rebuild()
        sys.stdout.write(f"{cache.path}: {count:,} answers were read; the damaged file lies at {aside}\n")
    elif faults:
        sys.exit(f"{cache.path} is damaged: {'; '.join(faults)}; call scores verify --repair")
    else:
        sys.stdout.write(f"{cache.path}: every row is whole\n")


# ---- evaluate and chat: a model and a steer, from their folders ----


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    own = "truthfulness_mc1,truthfulness_mc2"
    _add_model(parser, steer_needed=False)
    parser.add_argument("--tasks", default=own, help=f"tasks of the harness, with commas between; default: {own}")
    parser.add_argument(
        "--table",
        type=Path,
        default=Path("results/data/truthfulness.parquet"),
        help="whose questions truthfulness_mc1 and truthfulness_mc2 ask; default: %(default)s",
    )
    parser.add_argument("--split", default="test", help="of the table: dev or test; default: test")
    parser.add_argument("--rendering", default="plain", help="of the prompts: plain or instructed; default: plain")
    parser.add_argument("--limit", type=int, help="the first so many questions of each task; default: all")
    parser.add_argument("--batch-size", type=int, default=8, help="rows of a forward pass; default: 8")
    parser.add_argument("--output", type=Path, help="write the results to this JSON file, too")
    parser.set_defaults(run=_evaluate)


def _evaluate(chosen: argparse.Namespace) -> None:
    for service in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):  # read when their packages are imported
        os.environ.setdefault(service, "1")
    try:
        from steerlab import harness
    except ImportError as error:
        sys.exit(f"evaluate: {error}; install lm_eval==0.4.13")
    names = [name for name in chosen.tasks.split(",") if name]
    try:
        be_quiet(chosen.device)
        if chosen.batch_size < 1 or (chosen.limit is not None and chosen.limit < 1):
            raise ValueError("--batch-size and --limit begin at 1")
        if set(names) & set(harness.TASKS) and not chosen.table.is_file():
            raise ValueError(f"there is no table {chosen.table}; name one with --table")
        if chosen.output:
            chosen.output.parent.mkdir(parents=True, exist_ok=True)
        model = {"device": chosen.device, "dtype": chosen.dtype, "batch_size": chosen.batch_size}
        steer = str(chosen.steer) if chosen.steer else None
        with (
            tempfile.TemporaryDirectory(prefix="steerlab-evaluate-") as folder,
            closing(harness.SteerlabLM(str(chosen.model), steer, chosen.strength, **model)) as lm,
        ):
            if set(names) & set(harness.TASKS):
                of_table = {"split": chosen.split, "rendering": chosen.rendering, "limit": chosen.limit}
                harness.write_tasks(chosen.table, Path(folder), **of_table)
            results = harness.evaluate(lm, names, folder=Path(folder), limit=chosen.limit)
        sys.stdout.write(f"{harness.shown(results)}\n")
        if chosen.output:
            chosen.output.write_text(harness.as_json(results))
    except (ValueError, OSError, ArithmeticError) as error:
        sys.exit(f"evaluate: {one_line(error)}")


def _add_chat(parser: argparse.ArgumentParser) -> None:
    _add_model(parser, steer_needed=True)
    parser.add_argument("--max-new-tokens", type=int, default=100, help="length of an answer; default: 100")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, takes the likeliest token")
    parser.add_argument("--seed", type=int, default=0, help="of the draws where the temperature is above 0; default: 0")
    parser.epilog = "Inside: ### target layers: 13,14 | all | none; ### strength: 0.5; ### reset; ### help."
    parser.set_defaults(run=_chat)


def _chat(chosen: argparse.Namespace) -> None:
    try:
        from steerlab import chat, methods
        from steerlab.models import ModelHandle

        be_quiet(chosen.device)
        handle = ModelHandle(chosen.model, device=chosen.device, dtype=chosen.dtype)
        steer = methods.load(chosen.steer, handle)
        how = {"max_new_tokens": chosen.max_new_tokens, "temperature": chosen.temperature, "seed": chosen.seed}
        chat.converse(chat.Chat(handle, steer, write, strength=chosen.strength, **how), _lines())
    except KeyboardInterrupt:
        write("\n")
    except (ValueError, OSError) as error:
        sys.exit(f"chat: {one_line(error)}")


def _lines() -> Iterator[str]:
    """What a person types, line by line until the end of input."""
    import readline  # noqa: F401  # gives input() its editing and history

    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    while True:
        try:
            yield input("> ")
        except EOFError:
            write("\n")
            return


def _add_model(parser: argparse.ArgumentParser, *, steer_needed: bool) -> None:
    add_where(parser)
    where = "results/steers/<model>/<method>/<task>/<seed>" + ("" if steer_needed else "; default: no steer")
    parser.add_argument("--steer", type=Path, required=steer_needed, help=f"a steer for it: {where}")
    parser.add_argument("--strength", type=float, default=1.0, help="of the steer; default: 1, the method's own")
