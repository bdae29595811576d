"""Unpacks the distribution's arm64 Python and two wheels into a folder, without root and without touching the system.

`python unpack_arm64.py FOLDER PACKAGE…`. apt-get checks what it fetches with the keys of this system.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

_DEBS = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


def apt_options(folder: Path) -> list[str]:
    """Return what keeps apt-get inside a folder and on arm64."""
    source = next((one for one in _SOURCES if one.is_file() and one.stat().st_size), _SOURCES[-1])
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    values = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "0",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::State": str(folder),
        "Dir::State::Lists": str(folder / "lists"),
        "Dir::State::status": "/dev/null",
        "Dir::Cache": str(folder),
        "Dir::Etc::sourcelist": str(source),
        "Dir::Etc::sourceparts": "-",
    }
    return [word for key, value in values.items() for word in ("-o", f"{key}={value}")]


def unpack_system(folder: Path) -> Path:
    """Unpack the packages and what they depend on; return the folder that is the root of that system."""
    apt, root = ["apt-get", "--quiet", *apt_options(folder / "apt")], folder / "root"
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "--yes", "--download-only", "install", *_DEBS], check=True)
    root.mkdir(exist_ok=True)
    for package in sorted((folder / "apt" / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    return root


def unpack_wheels(folder: Path, version: str, packages: list[str]) -> None:
    """Unpack the wheels for a version of Python, "3.11", on aarch64."""
    wheels, site = folder / "wheels", folder / "site"
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
    subprocess.run([*command, "--python-version", version, "--dest", str(wheels), *packages], check=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def main(folder: Path, packages: list[str]) -> None:
    """Make the whole folder."""
    root = unpack_system(folder)
    pythons = sorted((root / "usr" / "bin").glob("python3.[0-9]*"))
    if not pythons:
        sys.exit(f"expected a Python in {root}/usr/bin, found none: the distribution names its packages otherwise")
    unpack_wheels(folder, pythons[0].name.removeprefix("python"), packages)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
