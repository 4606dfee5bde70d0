"""The command line: `python -m steerlab <command>`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from steerlab import experiment
from steerlab.experiment import plan

CONFIG = Path("config.yaml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors are one line each."""
    parser = argparse.ArgumentParser(prog="python -m steerlab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_plan(commands.add_parser("plan", help="what a configuration asks for: cells, continuations, tokens, minutes"))
    _add_scores(
        commands.add_parser("scores", help="the cache of scores that were paid for: export, merge, stats, verify")
    )
    chosen = parser.parse_args(arguments)
    chosen.run(chosen)


# ---- plan ----


def _add_plan(parser: argparse.ArgumentParser) -> None:
    overlays = "overlays on config.yaml, as for snakemake"
    parser.add_argument("--configfile", nargs="*", type=Path, default=[], help=overlays)
    parser.add_argument(
        "--perspective",
        action="store_true",
        help="what the Perspective API is to be asked for while it answers: texts, hours and last day to begin, "
        "of config.yaml and of each preset",
    )
    parser.set_defaults(run=_plan)


def _plan(chosen: argparse.Namespace) -> None:
    if chosen.perspective:
        presets = [plan.with_base(path) for path in sorted(Path("presets").glob("*.yaml"))]
        asked = [chosen.configfile] if chosen.configfile else [[], *presets]
        named = {plan.preset_name(paths): _experiment(paths).config for paths in asked}
        sys.stdout.write(plan.perspective_table(named) + "\n")
    else:
        sys.stdout.write(plan.table(plan.counted(_experiment(chosen.configfile).config)) + "\n")


def _experiment(overlays: Sequence[Path]) -> experiment.Experiment:
    config: dict = {}
    for path in (CONFIG, *overlays):
        config = _merged(config, _read(path))
    return experiment.load_or_exit(config)


def _read(path: Path) -> dict:
    if not path.is_file():
        sys.exit(f"plan: there is no file {path}; call it in the project's folder")
    try:
        return yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        sys.exit(f"plan: {path} is no YAML: {' '.join(str(error).split())}")


def _merged(below: dict, above: dict) -> dict:
    """Dictionaries are merged deeply and everything else is replaced, as Snakemake merges its config files."""
    both = {
        key: _merged(below[key], above[key]) for key in below.keys() & above.keys() if _are_dicts(below, above, key)
    }
    return below | above | both


def _are_dicts(below: dict, above: dict, key: str) -> bool:
    return isinstance(below[key], dict) and isinstance(above[key], dict)


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
