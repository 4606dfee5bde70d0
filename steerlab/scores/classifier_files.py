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
    (hex) of a digest of its files. Behind them what is read off it: one label or two, and an activation of one's own.
    """
    read_off = "-".join(definition[key] for key in ("label", "against") if key in definition)
    if definition.get("activation", "auto") != "auto":
        read_off += f",{definition['activation']}"
    if "path" not in definition:
        return definition["repo"], f"{definition['revision'][:12]}:{read_off}"
    folder = Path(definition["path"]).resolve()
    about = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files(folder))
    return folder.name, f"{_digest(about)[:12]}:{read_off}"


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
