"""Code digests: what a job's result depends on besides its inputs and its settings.

The digest of a script covers the script and every module of this package that it imports, also inside functions. It is
taken of the syntax tree without docstrings, so a comment, a docstring or another formatting costs no rerun.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
PLUMBING = {"steerlab.job", "steerlab.progress"}  # they cannot change a result's bytes


@functools.cache
def code_digest(script: str, modules: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> str:
    """SHA-256 (hex) of a script, the package modules it imports, `modules` loaded by name and data `files` it reads.

    script, files: paths relative to the project's root; modules: dotted names.
    """
    found: set[Path] = set()
    for path in (ROOT / script, *map(_module_path, modules)):
        _walk(path, found)
    parts = [(str(path.relative_to(ROOT)), _facts(path)[0]) for path in sorted(found)]
    parts += [(file, file_digest(ROOT / file)) for file in files]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _walk(path: Path, found: set[Path]) -> None:
    if path in found:
        return
    found.add(path)
    for module in _facts(path)[1]:
        _walk(_module_path(module), found)


@functools.cache
def _facts(path: Path) -> tuple[str, set[str]]:
    """A file's digest and the package modules that it imports. No tree is kept: many make the collector slow."""
    tree = ast.parse(path.read_text(), filename=str(path))
    names = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    names = {name for name in names if name.split(".")[0] == "steerlab" and _is_module(name)}
    names |= {name.rsplit(".", up)[0] for name in names for up in range(1, name.count(".") + 1)}
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), names - PLUMBING


def _statements(tree: ast.Module) -> Iterator[Any]:
    """The tree and all of its statements; with their expressions there would be ten times as many nodes."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, part, [])


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _module_path(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
