"""A filled mirror: what it is filled with, and that a run takes the same bytes out of it and asks no network."""

import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from steerlab import models, scores
from steerlab.data import mirrors, sources
from steerlab.data.doors import FetchError, fetch
from steerlab.data.hub import HubError
from steerlab.data.sources import Source
from steerlab.experiment.scorers import CLASSIFIER
from steerlab.mirror_parts import OfHub, OfSource
from steerlab.models import ModelError
from steerlab.scores import ScorerError
from steerlab.store import file_digest, write_json
from tests.unit.test_classifier import a_classifier
from tests.unit.test_classifier import put as a_scorer_on_the_hub
from tests.unit.test_data_doors import BYTES, ENVIRON, a_file, a_source, get
from tests.unit.web import COMMIT, Web
from tests.workflow.project import ROOT

PINNED = a_file()
NOT_PINNED = dataclasses.replace(PINNED, bytes=None, sha256=None)
REPO = "someone/some_model"


def filled(mirror: Path, *parts: OfSource | OfHub) -> Path:
    for part in parts:
        part.fill(mirror, ENVIRON)
    write_json(mirror / mirrors.RECORD, {})
    return mirror


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file_digest(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


# --- sources --------------------------------------------------------------------------------------------------------


def on_the_web(web: Web, file: sources.File) -> Source:
    web.files["/data.bin"] = BYTES
    return a_source("url", file, origin=web.address)


@pytest.mark.parametrize("file", [PINNED, NOT_PINNED])
def test_a_source_out_of_a_mirror_is_that_of_its_door_and_no_network_is_asked(web, tmp_path, file):
    source = on_the_web(web, file)
    mirror = filled(tmp_path / "mirror", OfSource(source, "url", None))
    get(source, tmp_path / "by_network")
    web.asked.clear()
    get(source, tmp_path / "by_mirror", mirror=mirror)
    assert contents(tmp_path / "by_mirror") == contents(tmp_path / "by_network")
    assert not web.asked


@pytest.mark.parametrize("file", [PINNED, NOT_PINNED])
def test_a_flipped_byte_in_a_source_of_a_mirror_is_refused_with_what_to_do(web, tmp_path, file):
    part = OfSource(on_the_web(web, file), "url", None)
    mirror = filled(tmp_path / "mirror", part)
    flip(mirror / "doors/made_up/url/data.bin")
    with pytest.raises(FetchError, match=r"data.bin .*not the pinned .* python -m steerlab mirror") as error:
        get(part.source, tmp_path / "raw", mirror=mirror)
    assert "\n" not in str(error.value) and contents(tmp_path / "raw") == {}


def test_what_a_filled_mirror_lacks_is_said_at_once_and_not_asked_of_the_network(web, tmp_path):
    source = on_the_web(web, PINNED)
    mirror = filled(tmp_path / "mirror")
    with pytest.raises(FetchError, match=r"lacks doors/made_up/url/data.bin; .* python -m steerlab mirror") as error:
        get(source, tmp_path / "raw", mirror=mirror)
    assert "\n" not in str(error.value) and not web.asked


def test_a_mirror_by_dataset_leaves_the_doors_to_the_network(web, tmp_path):
    (tmp_path / "mirror").mkdir()
    get(on_the_web(web, PINNED), tmp_path / "raw", mirror=tmp_path / "mirror")
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES


def test_filling_goes_on_where_it_was_cut_and_mends_what_is_damaged(web, tmp_path):
    source, mirror = on_the_web(web, PINNED), tmp_path / "mirror"
    part = OfSource(source, "url", None)
    web.faults = [("cut", 1_500_000)]
    part.fill(mirror, ENVIRON)
    assert web.asked[-1][2] is not None and part.is_whole(mirror)
    flip(mirror / "doors/made_up/url/data.bin")
    assert not part.is_whole(mirror)
    part.fill(mirror, ENVIRON)
    assert part.is_whole(mirror) and contents(mirror) == part.files(mirror)


def test_a_source_of_a_mirror_by_dataset_keeps_its_place_in_the_one_that_is_filled(tmp_path):
    (tmp_path / "given/some").mkdir(parents=True)
    (tmp_path / "given/some/data.bin").write_bytes(BYTES)
    source = a_source("mirror", a_file(remote="some/data.bin"))
    part = OfSource(source, "mirror", tmp_path / "given")
    mirror = filled(tmp_path / "mirror", part)
    shutil.rmtree(tmp_path / "given")
    asked = {"door": "public", "mirror": str(mirror), "sources": {"made_up": "mirror"}}
    assert sources.choose_doors(asked, ["made_up"], {"made_up": source}) == ({"made_up": "mirror"}, [])
    get(source, tmp_path / "raw", mirror=mirror)
    assert contents(tmp_path / "raw") == {"data.bin": PINNED.sha256}


def test_the_sample_needs_no_mirror(tmp_path):
    fetch(sources.table()["comments"], "sample", tmp_path / "raw", mirror=filled(tmp_path / "mirror"), environ={})
    assert contents(tmp_path / "raw")


# --- the hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def of_hub(web, tmp_path) -> OfHub:
    """A tiny model on the hub, with files that no model needs."""
    saved = tmp_path / "saved"
    models.prepare({"kind": "random", "family": "llama", "seed": 0, "layers": 1}, saved, name="saved")
    (saved / "README.md").write_text("a card")
    web.put_on_the_hub(REPO, saved, card={"license": "mit"})
    return OfHub(REPO, COMMIT, "model 'tiny'", False, web.address)


def prepared(web: Web, folder: Path, mirror: Path | None = None) -> dict[str, str]:
    definition = {"kind": "hub", "repo": REPO, "revision": COMMIT, "endpoint": web.address}
    models.prepare(definition, folder, name="tiny", source=mirror)
    return contents(folder)


def test_a_model_out_of_a_mirror_is_that_of_the_hub_and_the_hub_is_not_asked(web, tmp_path, of_hub):
    mirror = filled(tmp_path / "mirror", of_hub)
    by_hub = prepared(web, tmp_path / "by_hub")
    web.asked.clear()
    assert prepared(web, tmp_path / "by_mirror", mirror) == by_hub
    assert not web.asked


def test_a_repository_is_recorded_with_its_licence_and_the_hashes_of_what_is_read(tmp_path, of_hub):
    assert of_hub.fill(tmp_path, ENVIRON) == {"licence": "mit"}
    held, place = of_hub.files(tmp_path), tmp_path / of_hub.place
    assert held == {path: file_digest(tmp_path / path) for path in held}
    assert {file.name for file in place.iterdir()} == {Path(path).name for path in held} | {mirrors.SUMS}
    assert "README.md" not in {Path(path).name for path in held}


def test_a_damaged_model_in_a_mirror_is_refused_and_mended_alone(web, tmp_path, of_hub):
    mirror = filled(tmp_path / "mirror", of_hub)
    flip(mirror / of_hub.place / "model.safetensors")
    with pytest.raises(ModelError, match=r"damaged .*model.safetensors; .* python -m steerlab mirror") as error:
        prepared(web, tmp_path / "refused", mirror)
    assert "\n" not in str(error.value) and not of_hub.is_whole(mirror)
    of_hub.fill(mirror, ENVIRON)
    assert of_hub.is_whole(mirror) and prepared(web, tmp_path / "mended", mirror)


@pytest.mark.parametrize("lost", ["model.safetensors", None])
def test_a_model_that_a_mirror_lacks_is_one_line_with_what_to_do(web, tmp_path, of_hub, lost):
    mirror = filled(tmp_path / "mirror", of_hub)
    place = mirror / of_hub.place
    (place / lost).unlink() if lost else shutil.rmtree(place)
    web.asked.clear()
    with pytest.raises(ModelError, match=f"model 'tiny'.* lacks .*{COMMIT}.* python -m steerlab mirror") as error:
        prepared(web, tmp_path / "refused", mirror)
    assert "\n" not in str(error.value) and not web.asked


def test_a_classifier_with_pickled_weights_comes_out_of_a_mirror(web, tmp_path):
    saved = a_classifier(tmp_path / "saved")
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    definition = a_scorer_on_the_hub(web, REPO, saved)
    mirror = filled(tmp_path / "mirror", OfHub(REPO, COMMIT, "scorer", True, web.address))
    scores.prepare(CLASSIFIER, tmp_path / "by_hub", definition=definition)
    web.asked.clear()
    scores.prepare(CLASSIFIER, tmp_path / "by_mirror", definition=definition, source=mirror)
    assert contents(tmp_path / "by_mirror") == contents(tmp_path / "by_hub")
    assert not web.asked
    flip(mirror / "hub" / REPO / COMMIT / "pytorch_model.bin")
    with pytest.raises(ScorerError, match="damaged .*pytorch_model.bin"):
        scores.prepare(CLASSIFIER, tmp_path / "refused", definition=definition, source=mirror)


def test_a_model_with_pickled_weights_alone_is_refused_when_the_mirror_is_filled(web, tmp_path, of_hub):
    (tmp_path / "saved/model.safetensors").rename(tmp_path / "saved/pytorch_model.bin")
    web.files = {}
    web.put_on_the_hub(REPO, tmp_path / "saved")
    with pytest.raises(HubError, match="no safetensors, and pickles run code"):
        of_hub.fill(tmp_path / "mirror", ENVIRON)


def test_a_hub_out_of_reach_is_one_line_that_names_the_mirror(tmp_path):
    asked = "from pathlib import Path; from steerlab.data import hub; hub.fetch("
    asked += f"{REPO!r}, {COMMIT!r}, Path({str(tmp_path)!r}), who='a model', files=hub.MODEL)"
    offline = ENVIRON | {"HF_HUB_OFFLINE": "1"}  # without it the hub's client tries for half a minute
    said = subprocess.run([sys.executable, "-c", asked], env=offline, cwd=ROOT, capture_output=True, text=True).stderr
    assert re.fullmatch(
        r"steerlab.data.hub.HubError: a model: the hub cannot be reached .* python -m steerlab mirror",
        said.splitlines()[-1],
    )


def test_the_hashes_of_a_repository_are_such_as_sha256sum_checks(tmp_path, of_hub):
    of_hub.fill(tmp_path, ENVIRON)
    check = ["sha256sum", "--check", "--strict", mirrors.SUMS]
    assert subprocess.run(check, cwd=tmp_path / of_hub.place, capture_output=True).returncode == 0
