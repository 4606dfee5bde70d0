"""A mirror is filled where there is a network, and the workflow then runs where there is none: the same bytes."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
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


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Web]:
    """A package index, files at addresses and a hub, all on loopback."""
    with_prompts = {
        "made_up/prompts.txt": (SAMPLE / "prompts.txt").read_bytes(),
        "made_up-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n",
        "made_up-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "made_up-1.0.dist-info/RECORD": b"",
    }
    web, wheel = Web(), "made_up-1.0-py3-none-any.whl"
    web.files = {
        "/simple/made-up/": f'<a href="/files/{wheel}">{wheel}</a>'.encode(),
        f"/files/{wheel}": zipped(with_prompts),
        "/comments.jsonl": (SAMPLE / "comments.jsonl").read_bytes(),
    }
    web.headers["/simple/made-up/"] = {"Content-Type": "text/html"}
    model = {"kind": "random", "family": "llama", "layers": 1, "seed": 0}
    models.prepare(model, tmp_path / "model", name="tiny")
    web.put_on_the_hub(MODEL, tmp_path / "model")
    web.put_on_the_hub(CLASSIFIER, a_classifier(tmp_path / "classifier"))
    yield web
    web.close()


def a_project(folder: Path, web: Web, mirror: Path | None = None) -> Path:
    """A checkout whose table of sources leads to the web server: a wheel, and a file that is not pinned."""
    copy_project(folder)
    table = folder / "steerlab/data/sources.yaml"
    sources = yaml.safe_load(table.read_text())
    prompts = sources["rtp_prompts"]["doors"]["sample"]["files"][0] | {"member": "made_up/prompts.txt"}
    comments = sources["comments"]["doors"]["sample"]["files"][0] | {"bytes": None, "sha256": None}
    archive = hashlib.sha256(web.files["/files/made_up-1.0-py3-none-any.whl"]).hexdigest()
    wheel = {"origin": "made-up==1.0", "archive": archive, "files": [prompts]}
    sources["rtp_prompts"]["doors"]["wheel"] = wheel
    sources["comments"]["doors"]["url"] = {"origin": web.address, "files": [comments]}
    table.write_text(yaml.safe_dump(sources))
    overlay = OVERLAY | {"data": OVERLAY["data"] | {"mirror": str(mirror)}} if mirror else OVERLAY
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    return folder


def environment(web: Web) -> dict[str, str]:
    return own_index(web) | {"HF_ENDPOINT": web.address, "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}


def call(project: Path, web: Web, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environ = environment(web) | {"HOME": str(project)}
    return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=300)


def mirror_command(project: Path, web: Web, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    overlays = ("--configfile", "presets/tiny.yaml", "overlay.yaml")
    return call(project, web, sys.executable, "-m", "steerlab", "mirror", *arguments, *overlays)


def run(project: Path, web: Web, *before: str) -> None:
    overlays = ("--configfile", "presets/tiny.yaml", "overlay.yaml")
    done = call(project, web, *before, SNAKEMAKE, *overlays, "--cores", "2", "--quiet", "rules", "--", *TARGETS)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.fixture
def no_network_at_all() -> Sequence[str]:
    """A command to put before another one, which then has no network, not even loopback."""
    cut = ("unshare", "--user", "--map-root-user", "--net")
    try:
        tried = subprocess.run([*cut, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("this machine has no unshare, which gives a command a network of its own")
    if tried.returncode:
        pytest.skip(f"the kernel refuses a network namespace: {tried.stderr.strip()}")
    return cut


def test_a_run_from_a_mirror_with_the_network_cut_gives_the_bytes_of_one_with_a_network(
    network: Web, tmp_path: Path, no_network_at_all: Sequence[str]
):
    online, mirror = a_project(tmp_path / "online", network), tmp_path / "mirror"
    filled = mirror_command(online, network, mirror)
    assert filled.returncode == 0 and filled.stdout.splitlines()[-1].startswith("4 parts, "), filled.stderr[-4000:]
    assert set(json.loads((mirror / "MIRROR.json").read_text())["parts"]) == {
        *("rtp_prompts (wheel)", "comments (url)"),
        *(f"{repo} at {COMMIT[:12]}" for repo in (MODEL, CLASSIFIER)),
    }
    run(online, network)

    network.asked.clear()
    offline = a_project(tmp_path / "offline", network, mirror)
    listed = mirror_command(offline, network, mirror, "--list")
    assert listed.stdout.splitlines()[-1] == "4 of 4 parts are there"
    run(offline, network, *no_network_at_all)
    assert not network.asked
    expected = result_bytes(online)
    assert {"results/data/toxicity.parquet", "results/models/of-hub/model.safetensors"} < set(expected)
    assert result_bytes(offline) == expected


def test_what_cannot_be_had_is_a_line_and_the_rest_is_fetched(network: Web, tmp_path: Path):
    project, mirror = a_project(tmp_path / "project", network), tmp_path / "mirror"
    network.statuses |= {path: 401 for path in network.files if CLASSIFIER in path}
    refused = mirror_command(project, network, mirror)
    told = refused.stderr.splitlines()
    assert refused.returncode == 1 and told[-1].startswith("mirror: 1 of 4 parts are missing; call it again")
    assert [line for line in told if CLASSIFIER in line and "set HF_TOKEN" in line]
    network.statuses.clear()
    again = mirror_command(project, network, mirror)
    assert again.returncode == 0
    assert [line.rpartition(", ")[2] for line in again.stdout.splitlines()[:-1]] == ["was there"] * 3 + ["fetched"]
