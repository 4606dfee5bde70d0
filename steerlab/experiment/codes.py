"""Code digests: what a job's result depends on besides its inputs and its settings.

The digest of a script covers the script and every module of this package that it imports, also inside functions. It is
taken of the syntax tree without docstrings, so a comment, a docstring or another formatting costs no rerun.
"""

import ast
import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUMBING = {"steerlab.job", "steerlab.progress"}  # they cannot change a result's bytes


def code_digest(script: str, modules: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> str:
    """SHA-256 (hex) of a script, the package modules it imports, `modules` loaded by name and data `files` it reads.

    script, files: paths relative to the project's root; modules: dotted names.
    """
    found: set[Path] = set()
    for path in (ROOT / script, *map(_module_path, modules)):
        _walk(path, found)
    parts = [(str(path.relative_to(ROOT)), _tree_digest(path)) for path in sorted(found)]
    parts += [(file, file_digest(ROOT / file)) for file in files]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _walk(path: Path, found: set[Path]) -> None:
    if path in found:
        return
    found.add(path)
    for module in _imports(path):
        _walk(_module_path(module), found)


@functools.cache
def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    names = {name for name in names if name.split(".")[0] == "steerlab" and _is_module(name)}
    names |= {name.rsplit(".", up)[0] for name in names for up in range(1, name.count(".") + 1)}
    return names - PLUMBING


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _module_path(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@functools.cache
def _tree_digest(path: Path) -> str:
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
