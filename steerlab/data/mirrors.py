"""A filled mirror: everything that a run takes from a network, in one folder that `python -m steerlab mirror` fills.

    MIRROR.json                      what it was filled for and what it holds; it makes the folder a filled mirror
    doors/<source>/<door>/           a source's files, as they lie in a raw folder
    hub/<owner>/<name>/<commit>/     files of a repository of Hugging Face's hub, and SHA256SUMS
    <remote>                         the files of sources whose door is "mirror", laid out by dataset

A run with `data.mirror` takes from a filled mirror what it would take from a network, and asks no network: the bytes
are pinned either way, so the door stays what it was. A folder without MIRROR.json is a mirror by dataset and no more.
"""

from collections.abc import Mapping
from pathlib import Path

from steerlab.store import write_atomically

RECORD = "MIRROR.json"
SUMS = "SHA256SUMS"  # lines as sha256sum writes and checks them


def is_filled(mirror: Path | None) -> bool:
    """True for a folder that a run takes in place of the network."""
    return mirror is not None and (mirror / RECORD).is_file()


def source_place(source: str, door: str) -> str:
    """Where a mirror holds a source's files."""
    return f"doors/{source}/{door}"


def repository_place(repo: str, revision: str) -> str:
    """Where a mirror holds a repository's files at a commit."""
    return f"hub/{repo}/{revision}"


def remedy(mirror: Path | None) -> str:
    """What is to be done about a filled mirror that lacks something or is damaged."""
    return (
        f"where there is a network, call python -m steerlab mirror {mirror} with this configuration, and copy it again"
    )


def read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) by file name, as SHA256SUMS in the folder has them; empty without such a file."""
    path = folder / SUMS
    lines = path.read_text().splitlines() if path.exists() else []
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def note_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Put more hashes into the folder's SHA256SUMS."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted({**read_sums(folder), **sums}.items()))
    write_atomically(folder / SUMS, lambda temporary: temporary.write_text(lines))
