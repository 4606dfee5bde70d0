"""The command line: `python -m steerlab <command>`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from steerlab import experiment
from steerlab.experiment import plan


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors are one line each."""
    parser = argparse.ArgumentParser(prog="python -m steerlab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    planning = commands.add_parser("plan", help="what a configuration asks for: cells, continuations, tokens, minutes")
    planning.add_argument(
        "--configfile", nargs="*", type=Path, default=[], help="overlays on config.yaml, as for snakemake"
    )
    planning.set_defaults(run=_plan)
    chosen = parser.parse_args(arguments)
    chosen.run(chosen)


def _plan(chosen: argparse.Namespace) -> None:
    config: dict = {}
    for path in (Path("config.yaml"), *chosen.configfile):
        if not path.is_file():
            sys.exit(f"plan: there is no file {path}; call it in the project's folder")
        try:
            config = _merged(config, yaml.safe_load(path.read_text()) or {})
        except yaml.YAMLError as error:
            sys.exit(f"plan: {path} is no YAML: {' '.join(str(error).split())}")
    x = experiment.load_or_exit(config)
    sys.stdout.write(plan.table(plan.counted(x.config)) + "\n")


def _merged(below: dict, above: dict) -> dict:
    """Dictionaries are merged deeply and everything else is replaced, as Snakemake merges its config files."""
    both = {
        key: _merged(below[key], above[key]) for key in below.keys() & above.keys() if _are_dicts(below, above, key)
    }
    return below | above | both


def _are_dicts(below: dict, above: dict, key: str) -> bool:
    return isinstance(below[key], dict) and isinstance(above[key], dict)
