"""`python -m steerlab demo`: opens the page over the results that are there."""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from steerlab.experiment import Experiment
from steerlab.terminal import add_device, be_quiet, one_line, write

PORT = 7860


def add(parser: argparse.ArgumentParser, experiment_of: Callable[[Sequence[Path]], Experiment]) -> None:
    """The options of the command. experiment_of: the experiment of config.yaml under some overlays."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="of a run; default: results")
    parser.add_argument("--model", help="the model to begin with, by its name; default: the first one with steers")
    parser.add_argument("--port", type=int, default=PORT, help=f"on 127.0.0.1; default: {PORT}")
    overlays = "the run's overlays on config.yaml, which names the scorers"
    parser.add_argument("--configfile", nargs="*", type=Path, default=[], help=overlays)
    add_device(parser)
    parser.set_defaults(run=lambda chosen: _demo(chosen, experiment_of))


def _demo(chosen: argparse.Namespace, experiment_of: Callable[[Sequence[Path]], Experiment]) -> None:
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}  # read when their packages are imported
    config = experiment_of(chosen.configfile).config
    try:
        from steerlab.demo import found
        from steerlab.demo.continuations import Bench

        model = chosen.model or found.model_names(chosen.results)[0]
        folder = found.model_folder(chosen.results, model)
        scorers, missing = found.local_scorers(config, chosen.results)
        be_quiet(chosen.device)
        with closing(Bench(scorers, device=chosen.device, dtype=chosen.dtype)) as bench:
            write(f"{model} is being loaded\n")
            bench.warm(folder)
            _serve(chosen, bench, model, missing)
    except KeyboardInterrupt:
        write("\n")
    except (ValueError, OSError) as error:
        sys.exit(f"demo: {one_line(error)}")


def _serve(chosen: argparse.Namespace, bench: Any, model: str, notes: Sequence[str]) -> None:
    try:
        from steerlab.demo import page
    except ImportError as error:
        raise ValueError(f"{error}; install gradio, of the version in envs/requirements.lock") from error
    opened = page.build(chosen.results, bench, model, notes)
    try:
        address = page.serve(opened, chosen.port)
    except OSError as error:
        raise ValueError(f"port {chosen.port} cannot be used; choose another one with --port") from error
    try:
        write(f"{address} (Ctrl-C ends)\n")
        threading.Event().wait()
    finally:
        opened.close(verbose=False)
