"""The store: resumable work under `<store>/<stage>/<digest>/`, every file written to a temporary name and renamed.

A killed job leaves whole shards and nothing else that counts; the next job of the same digest goes on from them, and a
job of another digest (other settings, other code, other inputs) never sees them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.progress import progress

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def digest(*parts: object) -> str:
    """SHA-256 (hex) of the parts as sorted JSON; raises TypeError for what JSON cannot hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary)` with a name beside `path`, sync it to disk and rename it: `path` is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # safetensors writes for the owner alone; a store may be shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write sorted, indented JSON atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n"))


def write_shard(path: Path, write: Callable[[Path], object]) -> None:
    """Write a shard atomically, and its SHA-256 beside it: `shard_is_whole` then finds any flipped or missing byte."""
    write_atomically(path, write)
    write_atomically(_seal(path), lambda temporary: temporary.write_text(file_digest(path)))


def shard_is_whole(path: Path) -> bool:
    """True if the shard is there and its bytes are those that were written; a damaged one is reported in the log."""
    if not (path.exists() and _seal(path).exists()):
        return False
    whole = file_digest(path) == _seal(path).read_text()
    if not whole:
        log.warning("shard %s is damaged and is computed again", path)
    return whole


def resume(
    folder: Path, names: Sequence[str], compute: Callable[[int], pd.DataFrame], *, desc: str, unit: str
) -> pd.DataFrame:
    """Rows of all batches, in the order of `names`; a batch whose whole shard lies in `folder` is read, not computed.

    names: one file stem a batch; compute(i): the rows of batch i.
    """
    import pandas as pd  # half a second, which a job that hands over its script need not spend

    frames = []
    for index, name in enumerate(progress(names, total=len(names), desc=desc, unit=unit)):
        shard = folder / f"{name}.parquet"
        if not shard_is_whole(shard):
            rows = compute(index)
            write_shard(shard, lambda temporary, rows=rows: rows.to_parquet(temporary, index=False))
        frames.append(pd.read_parquet(shard))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _seal(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
