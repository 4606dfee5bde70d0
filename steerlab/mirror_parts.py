"""What a mirror is filled with: the files of a source's door, and those of a repository of Hugging Face's hub.

A part says its name, its origin and its size in bytes (None where nobody has told it); is_whole: whether every file
lies in the mirror with the bytes that are pinned or were noted; fill: brings what is missing and returns what is to be
recorded of it; files: path in the mirror -> SHA-256 (hex) of each file of a part that is whole.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steerlab.data import hub, mirrors
from steerlab.data.doors import fetch, lacking
from steerlab.data.sources import Door, Source
from steerlab.scores.classifier_files import OTHERS, PICKLED, WEIGHTS
from steerlab.store import file_digest


@dataclass(frozen=True)
class OfSource:
    """A source's files through a door that leads to a network or to another mirror.

    given: the mirror of the configuration; None for a door to a network where it is the one that is filled.
    """

    source: Source
    door: str
    given: Path | None

    @property
    def name(self) -> str:
        """<source> (<door>), as the mirror's record lists it."""
        return f"{self.source.name} ({self.door})"

    @property
    def origin(self) -> str:
        """Where the door starts, or the mirror that is copied from."""
        return self.source.doors[self.door].origin or str(self.given)

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where the table does not know all."""
        sizes = [file.bytes for file in self.source.doors[self.door].files]
        return None if None in sizes else sum(filter(None, sizes))

    def is_whole(self, mirror: Path) -> bool:
        """Whether every file is in the mirror, with the bytes that are pinned or were noted."""
        return not any(lacking(door, mirror / place) for place, door in self._places())

    def fill(self, mirror: Path, environ: Mapping[str, str]) -> dict[str, str]:
        """Fetch what is missing; returns {licence, citation}. Raises FetchError for what cannot be had."""
        for place, door in self._places():
            alone = dataclasses.replace(self.source, doors={self.door: door})
            fetch(alone, self.door, mirror / place, mirror=self.given, environ=environ)
        return {"licence": self.source.licence, "citation": self.source.citation}

    def files(self, mirror: Path) -> dict[str, str]:
        """Path in the mirror -> SHA-256 (hex) of each file; call it when the part is whole."""
        noted = {place: mirrors.read_sums(mirror / place) for place, _ in self._places()}
        return {
            f"{place}/{file.name}": file.sha256 or noted[place][file.name]
            for place, door in self._places()
            for file in door.files
        }

    def _places(self) -> list[tuple[str, Door]]:
        """Folder in the mirror and what lies there: one raw folder, or the folders of a mirror by dataset."""
        door = self.source.doors[self.door]
        if door.kind != "mirror":
            return [(mirrors.source_place(self.source.name, self.door), door)]
        by_folder = defaultdict(list)
        for file in door.files:
            path = Path(file.remote)
            by_folder[str(path.parent)].append(dataclasses.replace(file, name=path.name))
        return [(folder, dataclasses.replace(door, files=tuple(files))) for folder, files in by_folder.items()]


@dataclass(frozen=True)
class OfHub:
    """The files of a repository at a commit that a model or a classifier is prepared from; who: says which.

    A classifier may have pickled weights alone.
    """

    repo: str
    revision: str
    who: str
    classifier: bool
    endpoint: str | None = None

    size = None

    @property
    def name(self) -> str:
        """<repository> at <commit>, as the mirror's record lists it."""
        return f"{self.repo} at {self.revision[:12]}"

    @property
    def origin(self) -> str:
        """The hub and the whole commit."""
        return f"the hub, commit {self.revision}"

    @property
    def place(self) -> str:
        """The folder in the mirror."""
        return mirrors.repository_place(self.repo, self.revision)

    def is_whole(self, mirror: Path) -> bool:
        """Whether files are there, and all have the hashes that were noted when they came."""
        sums, folder = mirrors.read_sums(mirror / self.place), mirror / self.place
        return bool(sums) and not self._damaged(folder, sums)

    def fill(self, mirror: Path, environ: Mapping[str, str]) -> dict[str, str]:
        """Fetch what is missing or damaged and note its hashes; returns {licence}. Raises HubError where that fails."""
        folder = mirror / self.place
        for name in self._damaged(folder, mirrors.read_sums(folder)):
            (folder / name).unlink(missing_ok=True)
        licence = hub.licence(self.repo, self.revision, endpoint=self.endpoint)
        wanted, pickled = (*hub.MODEL, *WEIGHTS, *OTHERS), PICKLED if self.classifier else ()
        where = self.repo, self.revision, folder
        hub.fetch(*where, who=self.who, files=wanted, pickled=pickled, endpoint=self.endpoint)
        fetched = [file for file in folder.iterdir() if file.is_file() and file.name != mirrors.SUMS]
        mirrors.note_sums(folder, {file.name: file_digest(file) for file in fetched})
        return {"licence": licence}

    def files(self, mirror: Path) -> dict[str, str]:
        """Path in the mirror -> SHA-256 (hex) of each file."""
        return {f"{self.place}/{name}": sha256 for name, sha256 in mirrors.read_sums(mirror / self.place).items()}

    @staticmethod
    def _damaged(folder: Path, sums: Mapping[str, str]) -> list[str]:
        return [
            name
            for name, sha256 in sums.items()
            if not (folder / name).is_file() or file_digest(folder / name) != sha256
        ]
