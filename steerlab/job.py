"""`with job(snakemake) as j`: the one prelude of every script.

It logs, ends the job when the run that started it is gone, leases a card before torch is imported, hands out temporary
names that are renamed into place at the end, and leaves a sidecar `<output>.run.json` with how the output was made.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import random
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steerlab import warm
from steerlab.store import WHOLE, Share, digest, file_digest, write_json
from steerlab.warm import process_stat

log = logging.getLogger(__name__)

JOBS_LOCK = ".jobs.lock"
SCRIPTS = Path(__file__).parents[1] / "scripts"


@dataclass(frozen=True)
class Job:
    """What a script's `run` gets.

    inputs: path, or list of paths, by name; outputs: temporary path by name, renamed when the job ends well;
    spec: the leaves that change the bytes; store: the whole store; work: this job's own folder in it, named by the
    digest of its spec, code and inputs; config: the configuration, for what does not change the bytes; share: those of
    the work's batches that this job is for. Shards and the job that gathers them have one work folder.
    """

    inputs: dict
    outputs: dict[str, Path]
    spec: dict
    store: Path
    work: Path
    config: dict
    share: Share = WHOLE


@contextlib.contextmanager
def job(snakemake) -> Iterator[Job]:
    """Run the body of a script; on an error print one line, leave the traceback in the log and exit with 1."""
    spec = json.loads(snakemake.params.spec)
    os.environ["OMP_NUM_THREADS"] = str(spec.get("threads", max(snakemake.threads, 1)))  # read when torch is imported
    run = parent_run()
    if run and not _is_one_job(run) and not snakemake.resources.get("gpu", 0):
        warm.hand_over(run)
    watch_run(run)
    finals = {name: Path(path) for name, path in snakemake.output.items()}
    outputs = {name: _temporary(path) for name, path in finals.items()}
    started = time.time()
    with _logging_to(Path(snakemake.log[0])), open(JOBS_LOCK, "a+") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)  # envs/run.sh waits for it: while it is held, a job is alive
        try:
            asked = snakemake.resources.get("gpu", 0)
            with lease_cards(asked) if asked else contextlib.nullcontext():
                current, read = _job(snakemake, finals, outputs)
                yield current
            for name, final in finals.items():
                _remove(final)
                outputs[name].rename(final)
            write_json(_sidecar(next(iter(finals.values()))), _provenance(snakemake, finals, read, started))
        except Exception as error:
            log.debug("traceback", exc_info=True)
            own = type(error).__module__.startswith("steerlab")
            message = str(error) if own else f"{type(error).__name__}: {error}"
            sys.exit(f"{snakemake.rule}: {message} (log: {snakemake.log[0]})")
        finally:
            for path in outputs.values():
                _remove(path)


def _job(snakemake, finals: dict[str, Path], outputs: dict[str, Path]) -> tuple[Job, dict]:
    """The job, and what names the bytes of its inputs: the files may be made again while it works."""
    inputs = {name: paths for name, paths in snakemake.input.items() if name != "shards"}
    spec = json.loads(snakemake.params.spec)
    store = Path(snakemake.config["store"])
    of_shard = {name: int(number) for name, number in snakemake.wildcards.items() if name in ("shard", "shards")}
    stage = _BEFORE_STAGE.sub("", str(next(iter(finals.values()))), count=1).partition("/")[0]
    contents = {name: content(paths) for name, paths in inputs.items()}
    work = store / stage / digest(spec, snakemake.params.get("code"), contents)
    paths = {
        name: [Path(p) for p in value] if not isinstance(value, str) else Path(value) for name, value in inputs.items()
    }
    share = (of_shard["shard"] - 1, of_shard["shards"]) if of_shard else WHOLE
    return Job(paths, outputs, spec, store, work, snakemake.config, share), contents


_BEFORE_STAGE = re.compile(r".*?\bresults/(?:shards/[^/]+/)?")  # a module may have a prefix


def content(paths: str | list[str]) -> object:
    """What names the bytes of an input: its hash; of a folder all its files, of a model folder all but the weights."""
    if not isinstance(paths, str):
        return [content(path) for path in paths]
    path = Path(paths)
    if path.is_file():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != ".snakemake_timestamp")
    if (path / "model.json").exists():
        files = [file for file in files if file.suffix != ".safetensors"]  # model.json has their hash
    return [(str(file.relative_to(path)), file_digest(file)) for file in files]


def described(paths: str | list[str], contents: Any) -> Any:
    """Path and SHA-256 of an input or output, or of several: of a file its own, of a folder that of its `content`."""
    if isinstance(paths, str):
        return {"path": paths, "sha256": contents if isinstance(contents, str) else digest(contents)}
    return [described(path, each) for path, each in zip(paths, contents, strict=True)]


# Outputs ------------------------------------------------------------------------------------------------------------


def _temporary(final: Path) -> Path:
    """A name beside the output; what killed jobs left under such names is removed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = re.compile(rf"\.?\.{re.escape(final.name)}(\.run\.json)?\.\d+\.(part|tmp).*")
    for left in final.parent.iterdir():
        if temporary.fullmatch(left.name):
            _remove(left)
    return final.with_name(f".{final.name}.{os.getpid()}.part")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sidecar(final: Path) -> Path:
    return final.with_name(final.name + ".run.json")


def _provenance(snakemake, finals: dict[str, Path], contents: dict, started: float) -> dict:
    ended, spec = time.time(), json.loads(snakemake.params.spec)
    return {
        "rule": own_name(snakemake.rule),
        "inputs": {name: described(snakemake.input[name], each) for name, each in contents.items()},
        "outputs": {name: described(str(path), content(str(path))) for name, path in finals.items()},
        "wildcards": dict(snakemake.wildcards.items()),
        "spec": spec,
        "code": snakemake.params.get("code"),
        "shards": len(snakemake.input.get("shards", [])) or 1,
        "started": datetime.fromtimestamp(started, UTC).isoformat(),
        "ended": datetime.fromtimestamp(ended, UTC).isoformat(),
        "seconds": round(ended - started, 3),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "threads": snakemake.threads,
        "gpu": snakemake.resources.get("gpu", 0),
        "store": snakemake.config["store"],
        "device": spec.get("device", "cpu"),
        "host": platform.node(),
        "versions": versions(),
    }


def own_name(rule: str) -> str:
    """The name that a rule has here, of that in a project which uses this one as a module: `steering_<name>`, say."""
    scripts = sorted((path.stem for path in SCRIPTS.glob("*.py")), key=len, reverse=True)
    found = re.search(rf"({'|'.join(scripts)})(_shard)?", rule)
    return found[0] if found else rule


def versions() -> dict[str, str]:
    """Versions of what results depend on; a rule's own environment need not have all of the packages."""
    installed = {"python": platform.python_version()}
    for name in ("torch", "transformers", "snakemake", "pandas", "matplotlib", "alt-profanity-check"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Everything from DEBUG on of this package goes to the file, INFO of others; warnings to the terminal as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root, ours = logging.getLogger(), logging.getLogger("steerlab")
    to_file, to_terminal = logging.FileHandler(path, mode="w"), logging.StreamHandler()
    to_terminal.setLevel(logging.WARNING)
    for handler in (to_file, to_terminal):
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        root.addHandler(handler)
    levels = root.level, ours.level
    root.setLevel(logging.INFO)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        for handler in (to_file, to_terminal):
            root.removeHandler(handler)
            handler.close()


# The run that started the job ---------------------------------------------------------------------------------------


def parent_run() -> int | None:
    """Process id of the snakemake that started this process; None where it is none, or is another job's.

    It is the nearest ancestor whose command line names snakemake: with `--sdm conda` a shell stands between.
    """
    return next((pid for pid in _ancestors(os.getpid()) if _is_snakemake(pid)), None)


def watch_run(run: int | None, seconds: float = 1.0) -> None:
    """End this process when the run above it is gone: an orphan would hold a card and write later.

    It is polled, because the kernel's parent-death signal would not do where a shell stands between.
    """
    if run is None or (born := process_stat(run)) is None:
        if os.getppid() == 1:
            os._exit(1)  # the run died before its job could look for it
        return

    def watch() -> None:
        while (stat := process_stat(run)) and stat[1] == born[1]:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ancestors(pid: int) -> Iterator[int]:
    while (stat := process_stat(pid)) and stat[0] > 1:
        pid = stat[0]
        yield pid


def _is_snakemake(pid: int) -> bool:
    words = _command(pid)[:4]
    return any(Path(word).name == "snakemake" for word in words)


def _is_one_job(run: int) -> bool:
    """True for a snakemake that another one has started, on a node of a cluster say, for a single job."""
    return "--mode" in _command(run)


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


# Cards --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lease_cards(count: int = 1, seconds: float = 1.0) -> Iterator[str]:
    """Hold so many cards of this machine for this process alone, and make them the only visible ones.

    An already set CUDA_VISIBLE_DEVICES (a cluster's) wins. The locks are the kernel's: they are freed on any death.
    Waits while too few cards are free, and holds none meanwhile: two jobs of several cards would wait for each other.
    """
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        yield visible
        return
    from steerlab.experiment.resources import cards

    folder = Path(tempfile.gettempdir()) / "steerlab-cards"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o777)  # the machine's cards are everybody's
    number = len(cards())
    if number < count:
        raise RuntimeError(
            f"device is cuda and the job asks for {count}, but nvidia-smi -L lists {number}; ask for fewer, or set "
            "device: cpu"
        )
    waiting = False
    while True:
        with contextlib.ExitStack() as locks:
            held: list[str] = []
            for index in range(number):
                if len(held) < count and _lock(folder / f"{index}.lock", locks):
                    held.append(str(index))
            if len(held) == count:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
                try:
                    yield ",".join(held)
                finally:
                    del os.environ["CUDA_VISIBLE_DEVICES"]
                return
        if not waiting:
            log.warning("of %d cards too few are free; waiting for %d", number, count)
            waiting = True
        time.sleep(seconds * random.uniform(0.5, 1.5))  # not in step with another job that waits


def _lock(file: Path, locks: contextlib.ExitStack) -> bool:
    """Lock the file until the stack is closed; False where another process has it."""
    if not file.exists():
        file.touch()
        file.chmod(0o666)
    with contextlib.ExitStack() as opened:
        lock = opened.enter_context(open(file, "a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        locks.push(opened.pop_all())
    return True
