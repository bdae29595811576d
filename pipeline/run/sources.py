"""Which of our own code a result depends on: what its modules import, and what those import in turn.

A list by hand forgets; the imports cannot. Imports inside functions count, those for type checkers alone do not.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from foundation.files import sha256_of_file, sha256_of_json

_ROOT = Path(__file__).resolve().parents[2]
OWN = ("edgeproof", "pipeline", "stages", "calibration_data", "reports", "onnx_files", "foundation")
"""Our packages: where pip puts them, everybody else's lie beside them."""


@cache
def sources_sha256(*modules: str) -> str:
    """Return a digest over modules, all that they import of ours, and requirements pinned beside them."""
    files = {path for module in closure(*modules) for path in _files(module)}
    return sha256_of_json({path.relative_to(_ROOT).as_posix(): sha256_of_file(path) for path in sorted(files)})


@cache
def closure(*modules: str) -> frozenset[str]:
    """Return the dotted names of modules and of all of ours that they import, packages included.

    Args:
        modules: dotted names.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        waiting += _imports(module)
        if "." in module:  # importing a module runs the packages that it lies in
            waiting.append(module.rpartition(".")[0])
    return frozenset(found)


def _files(module: str) -> list[Path]:
    path = _path(module)
    assert path is not None, module
    beside = path.with_name("requirements.txt")
    return [path, beside] if beside.exists() else [path]


def _path(module: str) -> Path | None:
    if module.partition(".")[0] not in OWN:
        return None
    path = _ROOT.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def _imports(module: str) -> tuple[str, ...]:
    path = _path(module)
    assert path is not None, f"{module} is no module of ours"
    visitor = _Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return tuple(name for name in sorted(visitor.names) if _path(name) is not None)


class _Imports(ast.NodeVisitor):
    """Collects the dotted names that a module's code may import."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        """Pass over what only a type checker sees."""
        for part in node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else (*node.body, *node.orelse):
            self.visit(part)

    def visit_Import(self, node: ast.Import) -> None:
        """Take `import a.b`."""
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Take `from a.b import c`, where c may be a module."""
        if node.module is not None:
            self.names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
