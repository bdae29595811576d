"""Versions of installed packages."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def versions_of(packages: Sequence[str]) -> dict[str, str | None]:
    """Return the installed version of each package, None where it is missing."""
    return {package: installed_version(package) for package in packages}


def installed_version(distribution: str) -> str | None:
    """Return an installed distribution's version; None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
