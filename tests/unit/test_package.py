"""The package is of use without the project around it: docs/reuse.md runs on what `pip install .` puts in place."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steerlab.tiny_models import byte_tokenizer
from tests.laws.subjects import tiny_model
from tests.workflow.project import ROOT

# The project's own folders must not be found, and what the package does not ask for must not be imported.
WATCHED = """
import sys
from pathlib import Path
import steerlab
assert Path(steerlab.__file__).is_relative_to(Path(sys.argv[1])), steerlab.__file__
{page}
assert len(theirs) > 20 and len(ours) == 3 and louder.shape == (1, len(ids[0]) + 10)
unasked = {{"snakemake", "matplotlib", "scipy.stats", "kagglesdk", "googleapiclient", "lm_eval"}} & set(sys.modules)
assert not unasked, unasked
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


def test_the_python_of_the_page_on_reuse_runs_on_the_installed_package(installed: Path, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "my-model")
    byte_tokenizer().save_pretrained(tmp_path / "my-model")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/reuse.md").read_text(), flags=re.M | re.S)
    assert len(blocks) == 4
    (tmp_path / "page.py").write_text(WATCHED.format(page="\n".join(blocks)))
    ran = subprocess.run(
        [sys.executable, "page.py", str(installed)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "all of it ran\n", ran.stderr[-3000:]


def test_every_file_that_the_package_reads_is_installed(installed: Path) -> None:
    def data(folder: Path) -> set[str]:
        found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)) for path in found if path.suffix != ".py"}

    assert data(installed / "steerlab") == data(ROOT / "steerlab")
