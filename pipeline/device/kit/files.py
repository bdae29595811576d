"""A kit on the disk, unpacked or not, and whether every byte of it is the one that was bundled. Python alone."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUMS = "SHA256SUMS"
FACTS = "kit.json"
MODEL = "model.onnx"
TWIN = "model.saliency.onnx"
IMAGES = "golden/images.npy"
MAPS = "golden/maps.npy"
PAGE = "index.html"

MOST_FILES = 200
MOST_BYTES = 2 << 30
"""What a kit may hold, unpacked; a zip that says more is none of ours."""


class KitError(Exception):
    """The kit is not what was bundled, or cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Kit:
    """A kit.

    Attributes:
        root: the zip, or the folder that it was unpacked into.
    """

    root: Path

    def names(self) -> list[str]:
        """Return the names of all its files, sorted; what a measurement left beside them is none of them.

        Raises:
            KitError: it is no kit, or a zip in which a name stands twice.
        """
        if self.root.is_dir():
            paths = (path for path in self.root.rglob("*") if path.is_file() or path.is_symlink())
            names = sorted(path.relative_to(self.root).as_posix() for path in paths)
            names = [name for name in names if not _is_left_over(name)]
        else:
            with self._zip() as archive:
                names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        if len(names) > MOST_FILES or len(set(names)) < len(names):
            raise KitError(f"{self.root}: expected a kit, found {len(names)} files. Take it anew from its bundle.")
        return names

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            KitError: there is no such file, or it is larger than a kit may be.
        """
        try:
            if self.root.is_dir():
                path = self.root / name
                if path.is_symlink() or path.stat().st_size > MOST_BYTES:
                    raise KitError(f"{path}: expected a plain file, found none. Take the kit anew.")
                return path.read_bytes()
            with self._zip() as archive:
                entry = archive.getinfo(name)
                if entry.file_size > MOST_BYTES:
                    raise KitError(f"{self.root}: {name} is larger than a kit may be. Take the kit anew.")
                return archive.read(entry)
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise KitError(f"{self.root}: {name} cannot be read ({error}). Take the kit anew.") from error

    def facts(self) -> dict[str, Any]:
        """Return what `kit.json` says.

        Raises:
            KitError: it is none.
        """
        try:
            found = json.loads(self.read(FACTS))
        except (ValueError, RecursionError) as error:
            raise KitError(f"{self.root}: {FACTS} is no JSON ({error}). Take the kit anew.") from error
        if not isinstance(found, dict) or found.get("format_version") != 1:
            raise KitError(f"{self.root}: expected {FACTS} of format 1, found another. Take the kit anew.")
        return found

    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.root)
        except (OSError, zipfile.BadZipFile) as error:
            raise KitError(f"{self.root}: expected a kit, a zip or a folder, found none ({error}).") from error


def own_kit(module: str) -> Kit:
    """Return the kit that a module of this package was started from.

    Args:
        module: its `__file__`.
    """
    return Kit(Path(module).resolve().parent.parent)


def checked(kit: Kit) -> dict[str, str]:
    """Return name → sha256 of every file of a kit that is, byte by byte, the one that was bundled.

    Raises:
        KitError: a file was changed, is missing, or was added; the message names them all.
    """
    listed = sums_of(kit.read(SUMS))
    found = {name: hashlib.sha256(kit.read(name)).hexdigest() for name in kit.names() if name in listed}
    added = sorted(set(kit.names()) - set(listed) - {SUMS})
    faults = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
    faults += [
        f"{name} was changed (expected sha256 {listed[name][:12]}, found {found[name][:12]})"
        for name in sorted(found)
        if found[name] != listed[name]
    ]
    faults += [f"{name} was added" for name in added]
    if faults:
        raise KitError(f"{kit.root}: not the kit that was bundled: {'; '.join(faults[:10])}. Take the kit anew.")
    return found


def sums_of(content: bytes) -> Mapping[str, str]:
    """Return name → sha256 of a `SHA256SUMS`, as sha256sum writes and checks it.

    Raises:
        KitError: it is none.
    """
    sums: dict[str, str] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        digest, space, name = line.partition("  ")
        if len(digest) != 64 or not space or not name or name in sums:
            raise KitError(f"{SUMS}: expected lines of a digest and a name, found {line[:80]!r}. Take the kit anew.")
        sums[name] = digest
    return sums


def sums_text(sums: Mapping[str, str]) -> str:
    """Return the `SHA256SUMS` of name → sha256."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def _is_left_over(name: str) -> bool:
    """Whether a file may lie in an unpacked kit without being of it: a measurement, what a file browser leaves."""
    path = Path(name)
    return (path.parent == Path() and path.name.startswith("device") and path.suffix == ".json") or any(
        part.startswith(".") for part in path.parts
    )
