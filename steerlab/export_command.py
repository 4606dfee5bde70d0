"""`python -m steerlab export`: a saved steer in a folder of its own, with its card as README.md, as a hub takes it.

Nothing is uploaded. The folder holds what `steerlab.methods.load` reads, safetensors and JSON, and no more of a run.
"""

import argparse
import shutil
import sys
from json import JSONDecodeError
from pathlib import Path

from steerlab.experiment import names
from steerlab.terminal import one_line, write

FILES = ("steer.json", "steer.safetensors")


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of `export`."""
    parser.add_argument("steer", type=Path, help="results/steers/<model>/<method>/<task>/<seed>")
    parser.add_argument("folder", type=Path, help="where to write it: a new folder, or an empty one")
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> None:
    try:
        card = export(chosen.steer, chosen.folder)
    except (ValueError, OSError) as error:
        sys.exit(f"export: {one_line(error)}")
    about = f"the card {card}" if card else "a card of its record alone, as this run has none of it"
    write(f"{chosen.folder}: {', '.join(FILES)}, and as README.md {about}\n")


def export(steer: Path, folder: Path) -> Path | None:
    """Copy a steer's files and write its card beside them; returns the card of the run, None where there is none.

    Raises ValueError for a folder that is no steer, or one to write to that is not empty.
    """
    from safetensors import SafetensorError

    from steerlab import methods
    from steerlab.report import card, saved_steers

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there and not empty; name a new folder")
    try:
        found, loaded = saved_steers.saved(steer), methods.load(steer)
    except (SafetensorError, JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{steer} holds a damaged steer ({error}); train it again") from error
    if hasattr(loaded, "read"):
        raise ValueError(f"{steer} holds a reader of states and no steer; name a steer's folder")
    written = _card_of(steer)
    about = written.read_text() if written else card.of_record(found)
    for part in ("", *found.parts):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(steer / part / name, folder / part / name)
    seed = found.record["seed"]
    (folder / "README.md").write_text(f"{about}\n## This folder\n\nIt holds the steer of seed {seed}.\n")
    return written


def _card_of(steer: Path) -> Path | None:
    """The card of a run's steer; None for a steer elsewhere, and for one that the run did not compare."""
    *above, model, method, task, _ = steer.resolve().parts
    if above[-2:] != ["results", "steers"]:
        return None
    card = Path(*above[:-2]) / names.CARD.format(model=model, method=method, task=task)
    return card if card.is_file() else None
