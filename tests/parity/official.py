"""The official repositories, where somebody has put clones of them, and how far from what they compute ours lies.

Nothing of theirs is copied: single definitions are compiled from their files, with what they import given by the test,
as the files import much that is not installed here. README.md names the clones.
"""

import __future__

import ast
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch

FOLDER = os.environ.get("STEERLAB_OFFICIAL")


def definitions(repository: str, path: str, *names: str, **given: Any) -> SimpleNamespace:
    """Functions, classes and assignments of an official file, by name, also those inside a function.

    given: what they use and do not define themselves. Of several with one name the last. Skips the test where the
    repository is not there, and fails it where the file no longer has the name.
    """
    file = _file(repository, path)
    tree, namespace = ast.parse(file.read_text(), str(file)), dict(given)
    for name in names:
        found = [node for node in ast.walk(tree) if name in _defined(node)]
        if not found:
            _moved(f"{file} does not define {name}")
        last = max(found, key=lambda node: node.lineno)
        module = ast.Module([last], [])
        flags = __future__.annotations.compiler_flag  # annotations name what is not given
        exec(compile(module, str(file), "exec", flags, dont_inherit=True), namespace)
    return SimpleNamespace(**{name: namespace[name] for name in names})


def compare(what: str, ours: Any, theirs: Any, bound: float) -> float:
    """Print the largest difference, and its share of the largest of theirs; this share must be within the bound."""
    ours, theirs = (torch.as_tensor(each, dtype=torch.float64).detach() for each in (ours, theirs))
    assert ours.shape == theirs.shape and ours.numel() > 0, f"{what}: {tuple(ours.shape)} against {tuple(theirs.shape)}"
    largest = float((ours - theirs).abs().max())
    share = largest / float(theirs.abs().max())
    print(f"\n{what}: largest difference {largest:.1e}, {share:.1e} of the largest value (bound {bound:.0e})")
    assert share <= bound, what
    return share


def _file(repository: str, path: str) -> Path:
    if not FOLDER or not (Path(FOLDER) / repository).is_dir():
        pytest.skip(f"needs a clone of {repository} in the folder STEERLAB_OFFICIAL (tests/parity/README.md)")
    file = Path(FOLDER) / repository / path
    return file if file.is_file() else _moved(f"{file} is not there")


def _moved(what: str) -> NoReturn:
    pytest.fail(f"{what}; check out the commit that tests/parity/README.md names")


def _defined(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return {each.id for each in node.targets if isinstance(each, ast.Name)} if isinstance(node, ast.Assign) else set()
