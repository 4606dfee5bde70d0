"""Doors against real servers on loopback: a web server that cuts and fails, a package index, the hub and Kaggle."""

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from steerlab.data import loaders
from steerlab.data.doors import FetchError, fetch
from steerlab.data.mirrors import SUMS
from steerlab.data.sources import Door, File, Source, table
from tests.unit.web import COMMIT, Web

BYTES = bytes(range(256)) * 8192  # 2 MiB
ENVIRON = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}


def a_file(content: bytes = BYTES, *, name="data.bin", remote="data.bin", member="", sha256="") -> File:
    return File(name, len(content), sha256 or hashlib.sha256(content).hexdigest(), "none", remote, member)


def a_source(kind: str, *files: File, origin: str = "", archive: str = "") -> Source:
    return Source("made_up", "none", "none", {kind: Door(kind, files, origin, archive)})


def get(source: Source, folder: Path, *, environ=ENVIRON, mirror=None) -> None:
    fetch(source, next(iter(source.doors)), folder, mirror=mirror, environ=environ, pause=0.01)


def like_the_tables(name: str, kind: str, *contents: bytes, origin: str, archive: str = "") -> Source:
    """A source of the table with the files of one of its doors replaced by these, at another origin."""
    door = table()[name].doors[kind]
    files = tuple(
        dataclasses.replace(file, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        if file.sha256
        else file
        for file, content in zip(door.files, contents, strict=True)
    )
    changed = dataclasses.replace(door, files=files, origin=origin, archive=archive)
    return dataclasses.replace(table()[name], doors={kind: changed})


def rows_of(source: Source, folder: Path) -> list[tuple[str, float]]:
    frame = loaders.read(source.name, next(iter(source.doors)), folder, {source.name: source})
    return list(zip(frame["text"], frame["label"], strict=True))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- url ------------------------------------------------------------------------------------------------------------


def test_a_cut_download_goes_on_from_the_byte_where_it_was_cut(web, tmp_path):
    web.files["/data.bin"], web.faults = BYTES, [("cut", 1_500_000)]
    get(a_source("url", a_file(), origin=web.address), tmp_path / "raw")
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES
    (_, _, first), (_, _, second) = web.asked
    assert first is None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 0


def test_a_download_given_up_is_resumed_by_the_next_call_even_when_its_folder_is_deleted(web, tmp_path):
    web.files["/data.bin"], web.faults = BYTES, [("cut", 1_500_000), *[503] * 5]
    source = a_source("url", a_file(), origin=web.address)
    with pytest.raises(FetchError, match="made_up/data.bin .*503.*run again"):
        get(source, tmp_path / "raw")
    assert not (tmp_path / "raw/data.bin").exists()
    web.asked.clear()
    get(source, tmp_path / "raw")
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES
    assert [request[2] is not None for request in web.asked] == [True]
    assert leftovers(tmp_path) == ["data.bin"]


def test_a_server_that_ignores_ranges_gives_the_whole_file_once(web, tmp_path):
    web.files["/data.bin"], web.faults = BYTES, [("cut", 1_500_000), "whole"]
    get(a_source("url", a_file(), origin=web.address), tmp_path / "raw")
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES


def test_503_then_ok_is_a_download(web, tmp_path):
    web.files["/data.bin"], web.faults = BYTES, [503, 429]
    get(a_source("url", a_file(), origin=web.address), tmp_path / "raw")
    assert len(web.asked) == 3


def test_a_truncated_file_is_refused_and_not_left(web, tmp_path):
    web.files["/data.bin"] = BYTES[:-1]
    with pytest.raises(FetchError, match="data.bin"):
        get(a_source("url", a_file(), origin=web.address), tmp_path / "raw")
    assert not (tmp_path / "raw").exists() or leftovers(tmp_path / "raw") == []


def test_a_wrong_hash_names_the_file_and_the_remedy_and_leaves_nothing(web, tmp_path):
    web.files["/data.bin"] = BYTES[::-1]
    with pytest.raises(FetchError, match="made_up/data.bin .*pinned.*choose another door") as error:
        get(a_source("url", a_file(), origin=web.address), tmp_path / "raw")
    assert "\n" not in str(error.value)
    assert leftovers(tmp_path) == []


def test_an_address_that_has_gone_is_said_at_once(web, tmp_path):
    with pytest.raises(FetchError, match="404 .*choose another door"):
        get(a_source("url", a_file(), origin=web.address), tmp_path / "raw")
    assert len(web.asked) == 1


def test_members_of_one_remote_archive_are_downloaded_once(web, tmp_path):
    web.files["/all.zip"] = zipped({"a.txt": b"a", "b/c.txt": b"c" * 9})
    files = (
        a_file(b"a", name="a.txt", remote="all.zip", member="a.txt"),
        a_file(b"c" * 9, name="c.txt", remote="all.zip", member="b/c.txt"),
    )
    get(a_source("url", *files, origin=web.address), tmp_path / "raw")
    assert leftovers(tmp_path) == ["a.txt", "c.txt"]
    assert len([request for request in web.asked if request[2] is None]) == 1


def test_a_whole_file_is_not_fetched_again_and_a_damaged_one_is(web, tmp_path):
    web.files["/data.bin"] = BYTES
    source = a_source("url", a_file(), origin=web.address)
    get(source, tmp_path / "raw")
    get(source, tmp_path / "raw")
    assert len(web.asked) == 1
    (tmp_path / "raw/data.bin").write_bytes(BYTES[:-1] + b"!")
    get(source, tmp_path / "raw")
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES


def test_a_file_that_is_not_pinned_is_noted_and_held_to_its_first_copy(web, tmp_path, caplog):
    web.files["/data.bin"] = BYTES
    source = a_source("url", File("data.bin", None, None, "none", "data.bin"), origin=web.address)
    digest = hashlib.sha256(BYTES).hexdigest()
    with caplog.at_level("INFO", "steerlab.data.doors"):
        get(source, tmp_path / "raw")
        get(source, tmp_path / "raw")
    assert [line for line in caplog.messages if "not pinned" in line] == [
        f"made_up/data.bin is not pinned: this copy has SHA-256 {digest}"
    ]
    assert (tmp_path / "raw" / SUMS).read_text() == f"{digest}  data.bin\n" and len(web.asked) == 1
    (tmp_path / "raw/data.bin").write_bytes(b"damaged")
    get(source, tmp_path / "raw")
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES
    (tmp_path / "raw/data.bin").unlink()
    web.files["/data.bin"] = BYTES[::-1]
    with pytest.raises(FetchError, match=f"not the pinned {digest[:12]}.*the publisher has changed"):
        get(source, tmp_path / "raw")
    assert leftovers(tmp_path) == [SUMS]


def test_a_hash_is_enough_where_the_size_is_not_known(web, tmp_path):
    web.files["/data.bin"] = BYTES
    file = dataclasses.replace(a_file(), bytes=None)
    get(a_source("url", file, origin=web.address), tmp_path / "raw")
    assert leftovers(tmp_path) == ["data.bin"]
    with pytest.raises(FetchError, match="not the pinned 000000000000"):
        get(a_source("url", dataclasses.replace(file, sha256="0" * 64), origin=web.address), tmp_path / "other")


def test_members_of_an_archive_pinned_as_a_whole_come_out_of_no_other(web, tmp_path):
    train = b"sentence\tlabel\na joy to watch \t1\nendless \t0\n"
    web.files["/SST-2.zip"] = zipped({"SST-2/train.tsv": train, "SST-2/dev.tsv": b"-"})
    pinned = hashlib.sha256(web.files["/SST-2.zip"]).hexdigest()
    source = like_the_tables("sentiment_texts", "url", train, origin=web.address, archive=pinned)
    get(source, tmp_path / "raw")
    assert rows_of(source, tmp_path / "raw") == [("a joy to watch", 1.0), ("endless", -1.0)]
    web.files["/SST-2.zip"] = zipped({"SST-2/train.tsv": train})
    with pytest.raises(FetchError, match="is not the pinned archive .*the publisher has changed it"):
        get(source, tmp_path / "other")
    assert not (tmp_path / "other").exists() or leftovers(tmp_path / "other") == []


def test_prompts_in_a_repository_come_by_its_commit(web, tmp_path):
    lines = {name: prompt_line(f"A {name} opening") for name in ("positive", "neutral", "negative")}
    web.files = {f"/{COMMIT}/{name}_prompts.jsonl": line for name, line in lines.items()}
    source = like_the_tables("sentiment_prompts", "url", *lines.values(), origin=f"{web.address}/{COMMIT}")
    get(source, tmp_path / "raw")
    labels = {"positive": 1.0, "neutral": 0.0, "negative": -1.0}
    assert rows_of(source, tmp_path / "raw") == [(f"A {name} opening", label) for name, label in labels.items()]

    web.files[f"/{COMMIT}/nontoxic_prompts-10k.jsonl"] = prompt_line("A plain opening")
    source = like_the_tables("nontoxic_prompts", "url", b"", origin=f"{web.address}/{COMMIT}")
    get(source, tmp_path / "plain")
    assert [text for text, _ in rows_of(source, tmp_path / "plain")] == ["A plain opening"]


@pytest.mark.parametrize("how", ["tmpfs", "limit"])
def test_a_full_disk_is_one_line_and_leaves_no_partial_file(web, tmp_path, how):
    web.files["/data.bin"] = BYTES
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
import resource, sys
from pathlib import Path
from tests.unit.test_data_doors import *
if {how == "limit"}: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try: get(a_source("url", a_file(), origin={web.address!r}), Path({str(disk / "raw")!r}))
except FetchError as error: sys.stdout.write(str(error))
sys.stdout.write("|" + ",".join(leftovers(Path({str(disk)!r}))))
"""
    command = [sys.executable, "-c", script]
    if how == "tmpfs":
        mount = f'mount -t tmpfs -o size=1m none {disk} && exec "$@"'
        if subprocess.run(["unshare", "-rm", "sh", "-c", mount, "sh", "true"], capture_output=True).returncode:
            pytest.skip("this machine gives no user namespace with a tmpfs")
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", *command]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    said, _, left = run.stdout.partition("|")
    assert "the disk is full" in said and "free 2 MiB" in said and "\n" not in said, run.stderr
    assert left == ""


# --- wheel and sdist ------------------------------------------------------------------------------------------------


BUILD = {
    "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": b"""
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder) / "made_up-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: made-up\\nVersion: 1.0\\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    return info.name
def build_wheel(*_): raise SystemExit("nothing is ever built")
""",
}


@pytest.fixture
def index(web):
    """A package index with made_up 1.0 as a wheel and as an sdist whose own build backend needs nothing else."""
    metadata = b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n"
    wheel = zipped(
        {
            "made_up/data.bin": BYTES,
            "made_up-1.0.dist-info/METADATA": metadata,
            "made_up-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "made_up-1.0.dist-info/RECORD": b"",
        }
    )
    sdist = tarred({"PKG-INFO": metadata, **BUILD, "data.bin": BYTES}, "made_up-1.0/")
    web.archives = {"made_up-1.0-py3-none-any.whl": wheel, "made_up-1.0.tar.gz": sdist}
    for name, content in web.archives.items():
        web.files[f"/files/{name}"] = content
    links = "".join(f'<a href="/files/{name}">{name}</a>' for name in web.archives)
    web.files["/simple/made-up/"] = links.encode()
    web.headers["/simple/made-up/"] = {"Content-Type": "text/html"}
    return web


def from_index(web, kind: str, member: str, archive: str = "") -> tuple[Source, dict[str, str]]:
    name = "made_up-1.0-py3-none-any.whl" if kind == "wheel" else "made_up-1.0.tar.gz"
    pinned = archive or hashlib.sha256(web.archives[name]).hexdigest()
    source = a_source(kind, a_file(member=member), origin="made-up==1.0", archive=pinned)
    return source, own_index(web)


def own_index(web) -> dict[str, str]:
    """An index of the user's own, and nothing of this machine's pip settings."""
    index = {"PIP_INDEX_URL": f"{web.address}/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    return ENVIRON | index


@pytest.mark.parametrize(("kind", "member"), [("wheel", "made_up/data.bin"), ("sdist", "made_up-1.0/data.bin")])
def test_a_package_comes_through_the_users_own_index(index, tmp_path, kind, member):
    source, environ = from_index(index, kind, member)
    get(source, tmp_path / "raw", environ=environ)
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES
    assert leftovers(tmp_path) == ["data.bin"]


def test_an_archive_inside_a_package_comes_whole_and_its_loaders_read_it(index, tmp_path):
    rated = {
        "movieReviewSnippets_GroundTruth.txt": b"1\t2.0\tA joy.\r\n2\t-1.5\tEndless.",
        "nytEditorialSnippets_GroundTruth.txt": b"1_1\t1.5\tThe city has at last found a way to clean it.",
    }
    inner, member = tarred(rated, "hutto_ICWSM_2014/"), table()["sentiment_texts"].doors["sdist"].files[0].member
    metadata = b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n"
    top = member.split("/")[0]
    package = {f"{top}/{name}": content for name, content in (("PKG-INFO", metadata), *BUILD.items())}
    sdist = zipped({**package, member: inner})
    index.files["/files/made_up-1.0.zip"] = sdist
    index.files["/simple/made-up/"] = b'<a href="/files/made_up-1.0.zip">made_up-1.0.zip</a>'
    found = {}
    for name in ("sentiment_texts", "sentiment_prompts"):
        archive = hashlib.sha256(sdist).hexdigest()
        source = like_the_tables(name, "sdist", inner, origin="made-up==1.0", archive=archive)
        get(source, tmp_path / name, environ=own_index(index))
        found[name] = rows_of(source, tmp_path / name)
    assert found["sentiment_texts"] == [("A joy.", 0.5), ("Endless.", -0.375)]
    assert found["sentiment_prompts"] == [("The city has at last", 1.0)]


def test_an_index_that_fails_once_is_asked_again(index, tmp_path):
    source, environ = from_index(index, "wheel", "made_up/data.bin")
    index.faults = [503]
    get(source, tmp_path / "raw", environ=environ)
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES


def test_another_release_under_the_pinned_version_is_refused_before_it_is_opened(index, tmp_path):
    source, environ = from_index(index, "sdist", "made_up-1.0/data.bin", archive="0" * 64)
    with pytest.raises(FetchError, match="another made-up==1.0 than the one pinned .*original release"):
        get(source, tmp_path / "raw", environ=environ)
    assert not (tmp_path / "raw").exists() or leftovers(tmp_path / "raw") == []


def test_a_member_that_the_wheel_does_not_hold_is_named(index, tmp_path):
    source, environ = from_index(index, "wheel", "made_up/other.bin")
    with pytest.raises(FetchError, match="no member made_up/other.bin"):
        get(source, tmp_path / "raw", environ=environ)


# --- hub ------------------------------------------------------------------------------------------------------------


def on_the_hub(web) -> tuple[Source, dict[str, str]]:
    environ = put_on_the_hub(web, "sub/data.bin", BYTES)
    return a_source("hub", a_file(remote="sub/data.bin"), origin=f"datasets/someone/some_data@{COMMIT}"), environ


def put_on_the_hub(web, name: str, content: bytes, repository: str = "datasets/someone/some_data") -> dict[str, str]:
    path = f"/{repository}/resolve/{COMMIT}/{name}"
    web.files[path] = content
    web.headers[path] = {
        "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        "X-Repo-Commit": COMMIT,
        "Accept-Ranges": "bytes",
    }
    return ENVIRON | {"HF_ENDPOINT": web.address, "HF_HUB_DISABLE_TELEMETRY": "1", "HOME": "/nonexistent"}


def test_texts_and_prompts_come_from_the_hub_in_their_formats(web, tmp_path):
    texts = b'{"text": "a joy , really .", "label": 3, "label_text": "positive"}\n'
    source = like_the_tables("sentiment_texts", "hub", texts, origin=f"datasets/someone/some_data@{COMMIT}")
    get(source, tmp_path / "texts", environ=put_on_the_hub(web, "train.jsonl", texts))
    assert rows_of(source, tmp_path / "texts") == [("a joy , really .", 0.5)]

    prompts = prompt_line("The first half") + prompt_line("Another half")
    source = like_the_tables("rtp_prompts", "hub", prompts, origin=f"datasets/someone/some_data@{COMMIT}")
    get(source, tmp_path / "prompts", environ=put_on_the_hub(web, "prompts.jsonl", prompts))
    assert [text for text, _ in rows_of(source, tmp_path / "prompts")] == ["The first half", "Another half"]


def test_a_file_comes_from_the_hub_at_its_pinned_commit(web, tmp_path):
    source, environ = on_the_hub(web)
    get(source, tmp_path / "raw", environ=environ)
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES
    assert leftovers(tmp_path) == ["data.bin"]


def test_a_model_on_the_hub_has_no_folder_before_its_owner(web, tmp_path):
    environ = put_on_the_hub(web, "vocab.txt", BYTES, repository="someone/some_model")
    source = a_source("hub", a_file(remote="vocab.txt"), origin=f"models/someone/some_model@{COMMIT}")
    get(source, tmp_path / "raw", environ=environ)
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES
    web.statuses[next(iter(web.files))] = 401
    with pytest.raises(FetchError, match="set HF_TOKEN"):
        get(source, tmp_path / "again", environ=environ)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(403, "GatedRepo", "accept them at https://huggingface.co/datasets/someone/some_data"), (401, "", "set HF_TOKEN")],
)
def test_a_hub_that_wants_terms_or_a_key_says_where_to_get_them(web, tmp_path, status, code, said):
    source, environ = on_the_hub(web)
    path = next(iter(web.files))
    web.statuses[path] = status
    web.headers[path] = {"X-Error-Code": code} if code else {}
    with pytest.raises(FetchError) as error:
        get(source, tmp_path / "raw", environ=environ)
    assert said in str(error.value) and "\n" not in str(error.value)


# --- kaggle ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def kaggle(tmp_path):
    """Kaggle's service where its client looks for a test service: loopback, port 7777, which these tests share."""
    web, until = None, time.monotonic() + 20
    while web is None:
        try:
            web = Web(7777)
        except OSError:
            if time.monotonic() > until:
                pytest.skip("port 7777 is busy, and Kaggle's client knows no other for tests")
            time.sleep(0.1)
    web.endpoint = "/api/v1/competitions.CompetitionApiService/DownloadDataFile"
    web.statuses[web.endpoint] = 302
    web.headers[web.endpoint] = {"Location": f"{web.address}/signed/train.csv.zip"}
    web.files["/signed/train.csv.zip"] = zipped({"train.csv": BYTES})
    source = a_source(
        "kaggle", a_file(remote="train.csv.zip", member="train.csv"), origin="competitions/some-challenge"
    )
    environ = ENVIRON | {"KAGGLE_API_ENVIRONMENT": "TEST", "HOME": str(tmp_path)}
    yield web, source, environ | {"KAGGLE_USERNAME": "someone", "KAGGLE_KEY": "a key"}
    web.server.shutdown()
    web.server.server_close()


def test_a_member_of_a_zip_comes_from_kaggle_and_a_cut_is_resumed(kaggle, tmp_path):
    web, source, environ = kaggle
    web.faults = [None, None, ("cut", 1_500_000)]  # the question, the client's look at the signed address, our download
    get(source, tmp_path / "raw", environ=environ)
    assert (tmp_path / "raw/data.bin").read_bytes() == BYTES
    assert web.asked[-1] == ("GET", "/signed/train.csv.zip", "bytes=1048576-")
    assert leftovers(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("zips", [True, False])
def test_rated_comments_come_from_kaggle_zipped_or_not_and_are_noted(kaggle, tmp_path, zips):
    web, _, environ = kaggle
    content = (
        b'id,comment_text,split,toxicity,insult\n1,"vile,\nreally",train,0.7,0.5\n2,hm,train,0.2,0\n3,fine,test,0.0,0\n'
    )
    web.files["/signed/train.csv.zip"] = zipped({"all_data.csv": content}) if zips else content
    source = like_the_tables("comments", "kaggle", content, origin="competitions/some-challenge")
    get(source, tmp_path / "raw", environ=environ)
    assert rows_of(source, tmp_path / "raw") == [("vile,\nreally", -1.0), ("fine", 1.0)]
    assert (tmp_path / "raw" / SUMS).read_text() == f"{hashlib.sha256(content).hexdigest()}  all_data.csv\n"


@pytest.mark.parametrize(
    ("status", "has_key", "said"),
    [
        (401, False, "make one there and set KAGGLE_USERNAME and KAGGLE_KEY"),
        (401, True, "make one there and set KAGGLE_USERNAME and KAGGLE_KEY"),
        (403, True, "accept them at https://www.kaggle.com/competitions/some-challenge"),
    ],
)
def test_kaggle_without_a_key_or_with_rules_not_accepted_says_what_to_do(kaggle, tmp_path, status, has_key, said):
    web, source, environ = kaggle
    if not has_key:
        environ = {key: value for key, value in environ.items() if key not in ("KAGGLE_USERNAME", "KAGGLE_KEY")}
    web.statuses[web.endpoint], web.headers[web.endpoint] = status, {}
    with pytest.raises(FetchError) as error:
        get(source, tmp_path / "raw", environ=environ)
    assert said in str(error.value) and "\n" not in str(error.value)


# --- sample and mirror ----------------------------------------------------------------------------------------------


def test_the_sample_comments_are_the_pinned_ones(tmp_path):
    fetch(table()["comments"], "sample", tmp_path / "raw", mirror=None, environ={})
    assert leftovers(tmp_path) == ["comments.jsonl"]


def test_a_mirror_that_lacks_a_file_is_said_with_its_place(tmp_path):
    (tmp_path / "mirror").mkdir()
    with pytest.raises(FetchError, match="rtp_prompts/toxic_2k.jsonl .*lacks rtp/toxic_2k.jsonl"):
        fetch(table()["rtp_prompts"], "mirror", tmp_path / "raw", mirror=tmp_path / "mirror", environ={})


def test_a_mirror_file_with_another_hash_is_refused_and_stays_in_the_mirror(tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/data.bin").write_bytes(BYTES[::-1])
    with pytest.raises(FetchError, match="pinned"):
        get(a_source("mirror", a_file()), tmp_path / "raw", mirror=tmp_path / "mirror")
    assert leftovers(tmp_path) == ["data.bin"] and (tmp_path / "mirror/data.bin").exists()


def _is_pinned(source: Source, door: str) -> bool:
    """True if all files of a source behind a door have a hash; GECO's in a mirror has none, nor has any mirror it."""
    return door in source.doors and all(file.sha256 for file in source.doors[door].files)


@pytest.mark.real_data
@pytest.mark.parametrize("name", [name for name, source in table().items() if _is_pinned(source, "mirror")])
def test_the_mirror_holds_the_pinned_files(name, tmp_path):
    fetch(table()[name], "mirror", tmp_path / "raw", mirror=Path(os.environ["STEERLAB_MIRROR"]), environ={})
    assert leftovers(tmp_path) == sorted(file.name for file in table()[name].doors["mirror"].files)


ROOT = Path(__file__).parents[2]


def prompt_line(text: str) -> bytes:
    """A line in RealToxicityPrompts' format."""
    prompt = {"text": text, "toxicity": 0.1, "profanity": None}
    return (json.dumps({"filename": "0.txt", "prompt": prompt, "continuation": {"text": "."}}) + "\n").encode()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], prefix: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
