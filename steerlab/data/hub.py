"""Repositories of Hugging Face's hub: the files of one commit, from the hub itself or from a filled mirror."""

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from steerlab.data import mirrors
from steerlab.store import file_digest

MODEL = (
    *("config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*", "vocab.*", "merges.txt"),
    *("spiece.model", "LICENSE*"),
)


class HubError(ValueError):
    """A repository that cannot be had: one line with who wanted it, the reason and the remedy."""


def fetch(
    repo: str,
    revision: str,
    folder: Path,
    *,
    who: str,
    files: Sequence[str],
    pickled: Sequence[str] = (),
    endpoint: str | None = None,
    mirror: Path | None = None,
) -> None:
    """Fetch the files at the top of a repository, as they are at a commit, whose names match the patterns `files`.

    who: what they are for, as errors say it. pickled: patterns of the weights that are taken where the commit has no
    safetensors; without any such a commit is refused. mirror: taken in place of the hub where it is a filled one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise HubError(f"{who} pins revision {revision!r} of {repo}; give the commit's 40 hex digits")
    held = mirror / mirrors.repository_place(repo, revision) if mirror and mirrors.is_filled(mirror) else None
    hub = HfApi(endpoint=endpoint)
    with _told(who, repo, revision):
        listed = list(mirrors.read_sums(held)) if held else hub.list_repo_files(repo, revision=revision)
        if held and not listed:
            raise HubError(f"{who}: mirror {mirror} lacks {repo} at {revision}; {mirrors.remedy(mirror)}")
        safe = any(file.endswith(".safetensors") and "/" not in file for file in listed)
        if not safe and not pickled:
            raise HubError(f"{repo} at {revision} has no safetensors, and pickles run code; choose another revision")
        wanted, deeper = [*files, *(() if safe else pickled)], ["*/*"]
        if held:
            names = filter_repo_objects(listed, allow_patterns=wanted, ignore_patterns=deeper)
            _copy(held, list(names), folder, who=f"{who}: mirror {mirror}", remedy=mirrors.remedy(mirror))
        else:
            where = {"revision": revision, "local_dir": folder}
            hub.snapshot_download(repo, **where, allow_patterns=wanted, ignore_patterns=deeper)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub client's bookkeeping


def licence(repo: str, revision: str, *, endpoint: str | None = None) -> str:
    """The licence that the repository's card states, or "not stated"."""
    from huggingface_hub import HfApi

    with _told("its licence", repo, revision):
        card = HfApi(endpoint=endpoint).model_info(repo, revision=revision).card_data
    return str((card or {}).get("license") or "not stated")


@contextlib.contextmanager
def _told(who: str, repo: str, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    of_http = cast(type[Exception], HfHubHTTPError.__bases__[0])  # of whichever HTTP library the client is built on
    try:
        yield
    except HfHubHTTPError as error:  # a gated, private or mistyped repository
        remedy = "check repo and revision; for a gated one accept its terms and set HF_TOKEN"
        raise HubError(f"{who}: the hub refuses {repo} at {revision} ({_first_line(error)}); {remedy}") from error
    except (of_http, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise HubError(
            f"{who}: the hub cannot be reached for {repo} at {revision} ({_first_line(error)}); run again later, or "
            "fill a mirror where there is a network: python -m steerlab mirror"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _copy(held: Path, names: Sequence[str], folder: Path, *, who: str, remedy: str) -> None:
    """Copy files out of a mirror; raises HubError for one that is not there or not as it was."""
    sums = mirrors.read_sums(held)
    for name in names:
        if not (held / name).is_file():
            raise HubError(f"{who} lacks {held / name}; {remedy}")
        shutil.copyfile(held / name, folder / name)
        if file_digest(folder / name) != sums[name]:
            raise HubError(f"{who} has a damaged {held / name}; {remedy}")
