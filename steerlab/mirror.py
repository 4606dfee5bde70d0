"""`python -m steerlab mirror FOLDER`: fill a folder with all that a configuration's run takes from a network.

What lies there whole is left alone, so the command goes on where it stopped, and checks a copied mirror where there is
no network. steerlab.data.mirrors says how the folder is laid out and who reads it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.data import mirrors, sources
from steerlab.experiment import Experiment, lookups
from steerlab.experiment.scorers import text_scorer
from steerlab.store import write_json
from steerlab.terminal import one_line, write

if TYPE_CHECKING:
    from steerlab.mirror_parts import OfHub, OfSource

MIB = 2**20
Configured = Callable[[Sequence[Path]], Experiment]  # the experiment of config.yaml with overlays


def add(parser: argparse.ArgumentParser, configured: Configured) -> None:
    """The command's arguments."""
    parser.description = (
        "Fill a folder with the sources, models and classifiers of a configuration, checked, so that a run with "
        "data: {mirror: FOLDER} asks no network. Call it again to go on, to check a copy, to add a configuration."
    )
    parser.add_argument("folder", type=Path, help="the mirror; made where it is not there")
    overlays = "overlays on config.yaml, as for snakemake"
    parser.add_argument("--configfile", nargs="*", type=Path, default=[], help=overlays)
    parser.add_argument("--list", action="store_true", help="say what is there and what is missing; fetch nothing")
    parser.set_defaults(run=lambda chosen: _mirror(chosen, configured))


def _mirror(chosen: argparse.Namespace, configured: Configured) -> None:
    from steerlab.data.doors import FetchError
    from steerlab.data.hub import HubError

    mirror: Path = chosen.folder
    configuration = " ".join(["config.yaml", *map(str, chosen.configfile)])
    faults = held = 0
    try:
        if not chosen.list:
            mirror.mkdir(parents=True, exist_ok=True)  # an overlay may name it as data.mirror
        x = configured(chosen.configfile)
        wanted = parts(x, mirror)
        for part in wanted:
            try:
                held += _listed(part, mirror) if chosen.list else _fill(part, mirror, configuration)
            except (FetchError, HubError) as error:
                faults += 1
                sys.stderr.write(f"mirror: {one_line(error)}\n")
    except OSError as error:
        sys.exit(f"mirror: {one_line(error)}")
    except KeyboardInterrupt:
        sys.exit("mirror: stopped; call it again: it goes on where it was")
    for line in _besides(x):
        write(f"not in the mirror: {line}\n")
    if faults:
        sys.exit(f"mirror: {faults} of {len(wanted)} parts are missing; call it again: what is there stays")
    if chosen.list:
        write(f"{held} of {len(wanted)} parts are there\n")
    else:
        write(f"{len(wanted)} parts, {held:,} bytes; a run takes them with data: {{mirror: {mirror}}}\n")


def parts(x: Experiment, mirror: Path) -> "list[OfSource | OfHub]":
    """All that a run takes from a network or from a mirror by dataset: sources, then repositories of the hub."""
    from steerlab.mirror_parts import OfHub, OfSource

    given = Path(x.config["data"]["mirror"]) if x.config["data"]["mirror"] else None
    other = given if given and given.resolve() != mirror.resolve() else None
    kinds = {name: sources.table()[name].doors[door].kind for name, door in x.doors.items()}
    of_sources = [
        OfSource(sources.table()[name], door, given if kinds[name] == "mirror" else other)
        for name, door in sorted(x.doors.items())
        if kinds[name] != "sample"  # ships with the package
    ]
    asked = [(f"model {name!r}", x.config["models"][name], False) for name in x.models]
    asked += [(f"scorer {name!r}", definition, True) for name, definition in _classifiers(x).items()]
    of_hub = {}
    for who, definition, classifies in asked:
        if "repo" in definition:
            place = definition["repo"], definition["revision"]
            of_hub[place] = OfHub(*place, who, classifies, definition.get("endpoint"))
    return [*of_sources, *of_hub.values()]


def _classifiers(x: Experiment) -> dict[str, dict]:
    """What the configuration says of the classifiers that score its texts."""
    found = {name: text_scorer(x.config, name).definition for name in lookups.text_scorers(x.config)}
    return {name: dict(definition) for name, definition in found.items() if definition is not None}


def _besides(x: Experiment) -> Iterator[str]:
    """What a run needs and no mirror holds, one line each."""
    own = {f"model {name!r}": x.config["models"][name] for name in x.models}
    own |= {f"scorer {name!r}": definition for name, definition in _classifiers(x).items()}
    for who, definition in own.items():
        if "path" in definition:
            yield f"{who} is a folder of your own: copy {definition['path']} too"
    for name in dict.fromkeys(name for task in x.config["run"]["tasks"] for name in lookups.services(x.config, task)):
        yield f"scorer {name!r} answers over a network: take its answers along with python -m steerlab scores export"


def _listed(part: "OfSource | OfHub", mirror: Path) -> bool:
    """Say in a line whether a part is there."""
    there = part.is_whole(mirror)
    write(f"{'is there' if there else 'to fetch'}: {part.name} from {part.origin}, {_mib(part.size)}\n")
    return there


def _fill(part: "OfSource | OfHub", mirror: Path, configuration: str) -> int:
    """Bring a part into the mirror and its record, and say so in a line; returns its bytes."""
    file = mirror / mirrors.RECORD
    record = json.loads(file.read_text()) if file.is_file() else {"configurations": [], "parts": {}}
    known = record["parts"].get(part.name, {})
    there = known.get("origin") == part.origin and part.is_whole(mirror)
    about = known if there else part.fill(mirror, dict(os.environ)) | {"origin": part.origin}
    held = part.files(mirror)
    files = {path: {"bytes": (mirror / path).stat().st_size, "sha256": sha256} for path, sha256 in held.items()}
    record["parts"][part.name] = about | {"files": files}
    record["configurations"] = sorted({*record["configurations"], configuration})
    write_json(file, record)
    total = sum(each["bytes"] for each in files.values())
    write(f"{part.name} from {part.origin}: {_mib(total)}, {'was there' if there else 'fetched'}\n")
    return total


def _mib(size: int | None) -> str:
    return "of unknown size" if size is None else f"{size / MIB:.2f} MiB"
