"""Is an output reproducible? One job is done again from its sidecar alone, and its bytes are compared.

The sidecar names the inputs with their hashes, the settings, the code and the versions. What has changed since is told.
The job's script then runs in a process of its own, with a store of its own, so that nothing finished is taken over, and
with outputs in a temporary folder, so that nothing is overwritten.
"""

import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from steerlab import job
from steerlab.comparison import difference
from steerlab.experiment import codes, config, names
from steerlab.store import file_digest, weights_digest

SUFFIX = ".run.json"
FROM_ELSEWHERE = "its files come from elsewhere, so they are only held to the recorded hash"
NOT_DONE_AGAIN = {
    "fetch_source": FROM_ELSEWHERE,
    "score_texts_by_service": "a service that is paid for answers it; `scores verify` tests the kept answers",
    "measure_training": "it measures seconds",
    "build_report": "its page tells the seconds of all jobs",
}

FOUND = ("identical", "different", "not comparable", "not done again")


class VerificationError(ValueError):
    """An output that cannot be verified; the message says which and why."""


@dataclass(frozen=True)
class Report:
    """What was found of one job. found: one of FOUND; lines: what a person reads."""

    found: str
    lines: list[str] = field(default_factory=list)


# ---- which jobs ----


def sidecars(cell: str) -> list[Path]:
    """The sidecars that a person means, below the folder `results` here.

    cell: an output or a sidecar; <model>/<method>/<task>/<split>, perhaps with /<seed>, for its generations and scores;
    a rule's name, or "all". Raises VerificationError where there are none.
    """
    path = Path(cell)
    if cell.startswith("results/") or path.is_absolute() or path.exists():
        found = [path] if path.name.endswith(SUFFIX) and path.is_file() else list(_beside(path))
    elif cell.count("/") in (3, 4):
        found = list(_of_cell(*cell.split("/")))
    else:
        found = [path for path in sorted(Path("results").rglob(f"*{SUFFIX}")) if cell in ("all", _read(path)["rule"])]
    if not found:
        raise VerificationError(
            f"no sidecar tells how {cell} was made; name an output below results/, <model>/<method>/<task>/<split>/"
            "<seed>, a rule, or all"
        )
    return found


def _beside(output: Path) -> Iterator[Path]:
    """The sidecar of an output: it has the name of the job's first one."""
    own = output.with_name(output.name + SUFFIX)
    for path in [own] if own.is_file() else sorted(output.parent.glob(f"*{SUFFIX}")):
        paths = _read(path)["outputs"]
        listed = paths if isinstance(paths, list) else [each["path"] for each in paths.values()]
        if path == own or any(Path(each).name == output.name for each in listed):
            yield path


def _of_cell(model: str, method: str, task: str, split: str, seed: str | None = None) -> Iterator[Path]:
    cell = {"model": model, "method": method, "task": task, "split": split, "seed": "*"}
    for pattern in (names.GENERATIONS, names.TEXT_SCORES):
        for path in sorted(Path(pattern.format(**cell)).parent.rglob(f"*{SUFFIX}")):
            if _read(path)["wildcards"].get("seed", seed) == (seed or _read(path)["wildcards"].get("seed")):
                yield path


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise VerificationError(
            f"sidecar {path} is damaged ({error}); delete it and its output and run again"
        ) from None


# ---- one job ----


def verify(sidecar: Path) -> Report:
    """Compare what changed since a job ran, do it again where that can be done, and compare the bytes."""
    about = _read(sidecar)
    lines = list(_changes(about))
    if "inputs" not in about:
        told = "its sidecar is of an older release and names no inputs; make the output again to verify it"
        return Report("not comparable", [*lines, f"not done again: {told}"])
    if changed := list(_changed_inputs(about)):
        told = "bring back what it read, or make the output again"
        return Report("not comparable", [*lines, *changed, f"not done again: {told}"])
    if reason := not_done_again(about):
        wrong = [line for output in about["outputs"].values() if (line := _on_disk(output))]
        return Report("different" if wrong else "not done again", [*lines, *wrong, f"not done again: {reason}"])
    with tempfile.TemporaryDirectory(prefix="steerlab-verify-") as temporary:
        again = Path(temporary)
        if error := _do_again(about, again):
            return Report("not comparable", [*lines, f"cannot be done again: {error}"])
        found = [_compared(output, again / "outputs" / output["path"]) for output in about["outputs"].values()]
        found += [*_compared_shards(about, again)]
    same = all(same for same, _ in found)
    return Report("identical" if same else "different", [*lines, *(line for _, line in found)])


def not_done_again(about: dict[str, Any]) -> str | None:
    """Why a job's bytes are not compared with those of the same job done again; None where they are."""
    if about["rule"] == "prepare_model" and about["spec"]["definition"]["kind"] == "hub":
        return FROM_ELSEWHERE
    if about["rule"] == "prepare_scorer" and "repo" in about["spec"].get("definition", {}):
        return FROM_ELSEWHERE
    return NOT_DONE_AGAIN.get(about["rule"])


def _changes(about: dict[str, Any]) -> Iterator[str]:
    """What is not as it was when the job ran and may change its bytes, a line each."""
    rule, code = about["rule"], about.get("code")
    if code and not codes.is_current(rule, code):
        unnamed = "" if "inputs" in about else ", or is in modules that its older sidecar does not name"
        yield f"code of {rule} has changed since{unnamed}"
    here = job.versions()
    for name, version in about.get("versions", {}).items():
        if here.get(name) != version:
            yield f"{name} was {version}, is {here.get(name, 'not installed')}"
    if about["threads"] > (os.cpu_count() or 1):
        yield f"it ran with {about['threads']} threads, more than this machine has cores"


def _changed_inputs(about: dict[str, Any]) -> Iterator[str]:
    for name, described in about["inputs"].items():
        for each in described if isinstance(described, list) else [described]:
            path = Path(each["path"])
            if not path.exists():
                yield f"input {name} is gone: {path}"
            elif _digest(path) != each["sha256"]:
                yield f"input {name} has changed since: {path}"
            elif (path / "model.json").is_file() and not _weights_are_whole(path.resolve()):
                yield f"input {name} has other weights than its model.json says: {path}"


def _digest(path: Path) -> str:
    return job.described(str(path), job.content(str(path)))["sha256"]


@functools.cache
def _weights_are_whole(folder: Path) -> bool:
    return weights_digest(folder) == json.loads((folder / "model.json").read_text())["revision"]


# ---- doing it again ----


def _do_again(about: dict[str, Any], folder: Path) -> str | None:
    """Run the job's script with its outputs below `folder`/outputs; the last line that it printed if it failed."""
    stand_in = folder / "job.json"
    stand_in.write_text(json.dumps(stands_for(about, folder)))
    threads = {f"{library}_NUM_THREADS": str(about["threads"]) for library in LIBRARIES}  # as Snakemake sets them
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from steerlab import verification; verification.run(sys.argv[1])",
            stand_in,
        ],
        env=os.environ | threads | {"PYTHONPATH": str(codes.ROOT)},
        capture_output=True,
        text=True,
    )
    printed = [line for line in done.stderr.splitlines() if line.strip()]
    return None if done.returncode == 0 else printed[-1] if printed else f"it ended with status {done.returncode}"


LIBRARIES = ("OMP", "GOTO", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR")


def stands_for(about: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a script is given in place of Snakemake's own object, as JSON can hold it.

    Of the configuration it has the store, a fresh one, and the defaults of what the scripts read besides: that changes
    no bytes, else it would be in the spec.
    """
    paths = {
        name: [each["path"] for each in described] if isinstance(described, list) else described["path"]
        for name, described in about["inputs"].items()
    }
    defaults = config.defaults()
    return {
        "rule": about["rule"],
        "input": paths,
        "output": {name: str(folder / "outputs" / each["path"]) for name, each in about["outputs"].items()},
        "params": {"spec": json.dumps(about["spec"], sort_keys=True), "code": about["code"]},
        "resources": {"gpu": about["gpu"]},
        "wildcards": about["wildcards"],
        "threads": about["threads"],
        "log": [str(folder / "log.txt")],
        "config": {"store": str(folder / "store"), **{key: defaults[key] for key in READ}},
    }


READ = ("data", "latentqa")  # the parts of the configuration, besides the store, that scripts read


class _Named(dict):
    """Snakemake's input, output, params, resources and wildcards: by key and by attribute."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def run(stand_in: str) -> None:
    """Run a script in this process on what `stands_for` gives, a JSON file."""
    given = json.loads(Path(stand_in).read_text())
    given |= {key: _Named(value) for key, value in given.items() if isinstance(value, dict) and key != "config"}
    script = codes.ROOT / "scripts" / f"{given['rule']}.py"
    runpy.run_path(str(script), init_globals={"snakemake": SimpleNamespace(**given)})


# ---- comparing ----


def _compared(output: dict[str, str], again: Path) -> tuple[bool, str]:
    """Whether an output and the one that was made again have the same bytes, and a line that says so."""
    path = Path(output["path"])
    same = _digest(again) == output["sha256"]
    if not path.exists():
        return same, f"{'identical to' if same else 'differs from'} the recorded hash; the output is gone: {path}"
    if told := difference(path, again):
        of_old = "; what its job wrote is identical, the file has changed since" if same else ""
        return False, f"differs: {path}: {told}{of_old}"
    return True, f"identical: {path}"


def _on_disk(output: dict[str, str]) -> str | None:
    """What is wrong with an output itself; None where it is as its job wrote it."""
    path = Path(output["path"])
    if not path.exists():
        return f"the output is gone: {path}"
    return None if _digest(path) == output["sha256"] else f"the file is not what its job wrote: {path}"


def _compared_shards(about: dict[str, Any], again: Path) -> Iterator[tuple[bool, str]]:
    """Of captured activations the output is a list of shards; these lie in the store, where it has not been cleared."""
    if about["rule"] != "capture_activations":
        return
    shards = json.loads((again / "outputs" / about["outputs"]["manifest"]["path"]).read_text())["shards"]
    kept = [shard for shard in shards if (Path(about["store"]) / shard).is_file()]
    told = [
        shard for shard in kept if file_digest(Path(about["store"]) / shard) != file_digest(again / "store" / shard)
    ]
    if told:
        where = Path(about["store"]) / told[0]
        yield (
            False,
            f"differs: {len(told)} of {len(kept)} shards, {where}: {difference(where, again / 'store' / told[0])}",
        )
    else:
        yield (
            True,
            f"identical: {len(kept)} of {len(shards)} shards are in the store" + ("" if kept else ", none compared"),
        )
