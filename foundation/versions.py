"""Versions of installed packages, and of the folder that is worked in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_OTHER_BUILDS = {"onnxruntime": ("onnxruntime-openvino", "onnxruntime-gpu")}
"""Distributions that are installed in place of one, and bring the same module."""


def versions_of(packages: Sequence[str]) -> dict[str, str | None]:
    """Return the installed version of each package, None where it is missing."""
    return {package: installed_version(package) for package in packages}


def installed_version(distribution: str) -> str | None:
    """Return an installed distribution's version, or that of another build of it; None where there is none."""
    for build in (distribution, *_OTHER_BUILDS.get(distribution, ())):
        try:
            return version(build)
        except PackageNotFoundError:
            continue
    return None


def commit_of(folder: Path) -> str | None:
    """Return the commit that a folder's git checkout stands on; None where it is none. git itself is not asked.

    Whether files were changed since is not told.
    """
    for parent in (folder, *folder.parents):
        dot_git = parent / ".git"
        try:
            if dot_git.is_file():  # a worktree or a submodule
                dot_git = (parent / dot_git.read_text(encoding="utf-8").partition(":")[2].strip()).resolve()
            if dot_git.is_dir():
                return _head(dot_git)
        except (OSError, UnicodeDecodeError):
            return None
    return None


def _head(git: Path) -> str | None:
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return _commit(head)
    name = head.removeprefix("ref: ")
    common = git / "commondir"
    shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.exists() else git
    for base in (git, shared):
        if (base / name).is_file():
            return _commit((base / name).read_text(encoding="utf-8").strip())
    packed = shared / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.exists() else []
    return next((_commit(line.split(" ")[0]) for line in lines if line.endswith(f" {name}")), None)


def _commit(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else None
