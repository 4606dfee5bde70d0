"""The sources table (sources.yaml) as data: what each source is, by which doors it comes, which door a run takes.

Reads no file but the table and asks only whether mirror files exist: light enough for the Snakefile and the plan. The
bytes come through steerlab.data.doors.
"""

import difflib
import functools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

log = logging.getLogger(__name__)

KINDS = ("url", "hub", "kaggle", "wheel", "sdist", "sample", "mirror")
SAMPLE = Path(__file__).with_name("sample")
REAL, SYNTHETIC = "real", "synthetic sample"  # what a table says of its rows' data


@dataclass(frozen=True)
class File:
    """One file of a door: its name in the raw folder, its size in bytes and SHA-256 (hex), the format its loader reads.

    bytes, sha256: None where they are not known: the copy first fetched is then the one that counts (SHA256SUMS).
    remote: path under the door's origin, in the sample folder or in the mirror; member: path inside the archive that
    `remote` (or the door's package) is, or "" where the file comes by itself.
    """

    name: str
    bytes: int | None
    sha256: str | None
    format: str
    remote: str
    member: str = ""


@dataclass(frozen=True)
class Door:
    """One way to a source: its kind (one of KINDS), where it starts (see sources.yaml), its files.

    archive: SHA-256 of the wheel, sdist or remote archive. sample: the texts were written for this project and are no
    real data.
    """

    kind: str
    files: tuple[File, ...]
    origin: str = ""
    archive: str = ""
    gated: bool = False

    @property
    def sample(self) -> bool:
        """Whether its texts were written for this project and are no real data."""
        return self.kind == "sample"

    @property
    def needs_credentials(self) -> bool:
        """Whether an account is needed: always at Kaggle, at the hub where the repository is gated."""
        return self.kind == "kaggle" or self.gated


@dataclass(frozen=True)
class Source:
    """A role that data fill in a task, with its licence, its citation and its doors by kind."""

    name: str
    licence: str
    citation: str
    doors: Mapping[str, Door]


@functools.cache
def table() -> dict[str, Source]:
    """All sources by name."""
    return read_table(Path(__file__).with_name("sources.yaml"))


def read_table(path: Path) -> dict[str, Source]:
    """The sources in a YAML file of the shape described in sources.yaml."""
    rows = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: _source(name, row) for name, row in rows.items()}


def source_spec(name: str, door: str) -> dict[str, dict[str, str | None]]:
    """What pins the bytes of a source: name -> {sha256, format} of each file. The road they take does not count."""
    return {file.name: {"sha256": file.sha256, "format": file.format} for file in table()[name].doors[door].files}


def choose_doors(
    data_config: Mapping, needed: Iterable[str], sources: Mapping[str, Source] | None = None
) -> tuple[dict[str, str], list[str]]:
    """The door each needed source is taken through (source -> kind), and one line for each fault found on the way.

    data_config: {door: public|mirror, mirror: folder or None, sources: {source: kind}}.
    public: the door that `sources` names, or where it names none the first one in the table. mirror: all that the
    mirror folder has; what it lacks must have a door named in `sources`, else it is a fault. A source with a fault has
    no door.
    """
    sources, needed = table() if sources is None else sources, list(needed)
    named = {name: kind for name, kind in (data_config.get("sources") or {}).items() if kind is not None}
    mirror = Path(data_config["mirror"]) if data_config.get("mirror") else None
    everywhere = data_config.get("door") == "mirror"

    faults = [f"data.sources: no source {name!r}{_nearest(name, sources)}" for name in named if name not in sources]
    faults += [
        f"data.sources.{name}: no door {kind!r}{_nearest(kind, sources[name].doors)}"
        for name, kind in named.items()
        if name in sources and kind not in sources[name].doors
    ]
    if everywhere and mirror is None:
        faults.append("data.mirror: names no folder, which door 'mirror' needs; set it to the mirror's path")
    if mirror is not None and not mirror.is_dir():
        faults.append(f"data.mirror: {mirror} is no folder; set it to the mirror's path")
    if faults:
        return {}, faults

    choices: dict[str, str] = {}
    for name in needed:
        if name not in sources:
            faults.append(f"data: no source {name!r}{_nearest(name, sources)}")
            continue
        own = named.get(name)
        door = own or next(iter(sources[name].doors))
        lacks = _lacks(mirror, sources[name]) if everywhere or door == "mirror" else []
        if everywhere and not lacks:
            door = "mirror"
        elif everywhere and own not in (None, "mirror"):
            log.warning("the mirror lacks %s: taken through its own door %s", name, own)
        elif lacks:
            remedy = "add it there or name" if "mirror" in sources[name].doors else "name"
            faults += [f"data: {line}; {remedy} another door in data.sources.{name}" for line in lacks]
            continue
        choices[name] = door
    return choices, faults


def mirror_lacks(mirror: Path, choices: Mapping[str, str], sources: Mapping[str, Source] | None = None) -> list[str]:
    """One line for each thing that the sources whose door is "mirror" need and the folder does not have."""
    sources = table() if sources is None else sources
    return [line for name, door in choices.items() if door == "mirror" for line in _lacks(mirror, sources[name])]


def is_there(data_config: Mapping, name: str) -> bool:
    """True if a mirror holds a source that nothing waits for, or `data.sources` names a door for it.

    data_config: as in `choose_doors`.
    """
    if (data_config.get("sources") or {}).get(name) is not None:
        return True
    return bool(data_config.get("mirror")) and not mirror_lacks(Path(data_config["mirror"]), {name: "mirror"})


def _lacks(mirror: Path | None, source: Source) -> list[str]:
    if "mirror" not in source.doors:
        return [f"a mirror has no place for {source.name}"]
    if mirror is None:
        return [f"{source.name} comes from a mirror, but data.mirror names no folder"]
    files = source.doors["mirror"].files
    return [
        f"mirror {mirror} lacks {file.remote} ({source.name})" for file in files if not (mirror / file.remote).is_file()
    ]


def _source(name: str, row: Mapping) -> Source:
    return Source(
        name, row["licence"], row["citation"], {kind: _door(kind, door) for kind, door in row["doors"].items()}
    )


def _door(kind: str, row: Mapping) -> Door:
    if kind not in KINDS:
        raise ValueError(f"sources table: no kind of door {kind!r}{_nearest(kind, KINDS)}")
    return Door(kind, **{**row, "files": tuple(File(**{"remote": file["name"], **file}) for file in row["files"])})


def _nearest(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; choose one of {', '.join(known)}"
