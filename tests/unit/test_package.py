"""The package is of use without the project around it: docs/reuse.md runs on what `pip install .` puts in place."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from steerlab.experiment import METHODS
from steerlab.tiny_models import byte_tokenizer
from tests.laws.subjects import tiny_model
from tests.workflow.project import ROOT

# The project's own folders must not be found.
WATCHED = """
import sys
from pathlib import Path
import steerlab
assert Path(steerlab.__file__).is_relative_to(Path(sys.argv[1])), steerlab.__file__
{page}
assert len(theirs) > 20 and len(ours) == 3 and louder.shape == (1, len(ids[0]) + 10)
print("all of it ran")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package alone, installed by pip from a copy of what it is made of."""
    base = tmp_path_factory.mktemp("package")
    source, target = base / "source", base / "site"
    source.mkdir()
    shutil.copytree(ROOT / "steerlab", source / "steerlab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    alone = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *alone, "--target", str(target), str(source)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to what the package asks for, and what that asks for, and nothing else."""
    folder, found = tmp_path_factory.mktemp("asked"), {}
    waiting = [
        Requirement(each) for each in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop().name).lower()
        if name not in found:
            try:
                found[name] = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:  # of another platform
                continue
            needs = map(Requirement, found[name].requires or [])
            waiting += [each for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    for each in found.values():
        for top in {file.parts[0] for file in each.files or []} - {"..", "bin"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(each.locate_file(top)))
    return folder


def alone(folder: Path, *arguments: str, site: tuple[Path, ...], said: str = "") -> str:
    """What a Python prints that has these folders and its own library alone."""
    path = ":".join(map(str, site))
    ran = subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        input=said,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_the_page_on_reuse_runs_on_the_installed_package_and_what_it_asks_for(
    installed: Path, asked: Path, tmp_path: Path
) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "my-model")
    byte_tokenizer().save_pretrained(tmp_path / "my-model")
    page, site = (ROOT / "docs/reuse.md").read_text(), (installed, asked)
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    assert len(blocks) == 4
    (tmp_path / "page.py").write_text(WATCHED.format(page="\n".join(blocks)))
    assert alone(tmp_path, "page.py", str(installed), site=site) == "all of it ran\n"
    (command,) = re.findall(r"^    python -m steerlab (chat .*)$", page, flags=re.M)
    talk = alone(
        tmp_path, "-m", "steerlab", *command.split(), "--max-new-tokens", "5", site=site, said="How are you?\n"
    )
    assert "steered" in talk


def test_the_page_says_what_each_method_learns_from() -> None:
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+) \| `(\w+)` \| `(\w+)` \|$", (ROOT / "docs/reuse.md").read_text(), flags=re.M
    )
    told = {path: states for paths, *states in rows for path in re.findall(r"`([\w.]+)`", paths)}
    own = [line for line in METHODS.values() if line.captures and line.steer and not line.derived_from]
    module = "steerlab.methods."
    assert told == {
        line.steer.removeprefix(module).replace(":", "."): [line.captures, line.positions] for line in own if line.steer
    }


def test_every_file_that_the_package_reads_is_installed(installed: Path) -> None:
    def data(folder: Path) -> set[str]:
        found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)) for path in found if path.suffix != ".py"}

    assert data(installed / "steerlab") == data(ROOT / "steerlab")
