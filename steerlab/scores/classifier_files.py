"""Which files a text classifier is made of, and how tables name it: known before anything is read, without torch."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlab.store import file_digest

WEIGHTS, PICKLED = ("*.safetensors", "model.safetensors.index.json"), ("pytorch_model*.bin",)
OTHERS = (
    *("config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.*", "merges.txt", "*.model"),
)


def name_and_version(definition: Mapping[str, Any]) -> tuple[str, str]:
    """What scores are labelled with. definition: of the configuration, with `repo` and `revision`, or with `path`.

    From the hub: the repository and the first 12 digits of its commit; from a folder: its name and the first 12 digits
    (hex) of a digest of its files.
    """
    if "path" not in definition:
        return definition["repo"], definition["revision"][:12]
    folder = Path(definition["path"]).resolve()
    about = [(file, file.stat()) for file in files(folder)]
    return folder.name, _digest(tuple((file, status.st_size, status.st_mtime_ns) for file, status in about))[:12]


def files(folder: Path) -> list[Path]:
    """The files of a saved classifier: config, tokenizer and safetensors, or pickled weights where there are none."""
    weights = [file for pattern in WEIGHTS for file in folder.glob(pattern)]
    weights = weights or [file for pattern in PICKLED for file in folder.glob(pattern)]
    return sorted({*weights, *(file for pattern in OTHERS for file in folder.glob(pattern) if file.is_file())})


@functools.cache
def _digest(about: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 (hex) of names and contents; sizes and times only say when the files are to be read again."""
    parts = [(file.name, file_digest(file)) for file, _, _ in about]
    return hashlib.sha256(repr(parts).encode()).hexdigest()
