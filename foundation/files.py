"""How anything reaches the disk: hashes and atomic writes.

Every write is atomic: a temporary file in the same folder, fsync, rename, fsync of the folder. A reader therefore
sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundation.errors import DiskError, UsageError
from foundation.printable import printable_json

JSON = Any
"""A value that `json` can write: dictionaries with string keys, lists, strings, numbers, booleans and None."""

_OURS = ".edgeproof-partial"
_LEFTOVER = re.compile(r"\..*\.[a-z0-9_]{8}\.edgeproof-partial(\.[^.]*)?")
"""The names that `atomic_path` gives, and nobody else."""

_SETTLED_SECONDS = 2.0
"""A file changed more recently is hashed anew: a second change could carry the same time stamp."""


# --- hashes ---


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits.

    A process reads a file once, as long as it stays as it is; one that was written a moment ago is read again, since
    the clock of the file system may not tell two writes apart.
    """
    status = path.stat()
    stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
    if time.time() - max(status.st_mtime, status.st_ctime) < _SETTLED_SECONDS:
        return _read_sha256(path)
    return _sha256_at(path, stamp)


@lru_cache(maxsize=1 << 18)  # more than ChestX-ray14 has images
def _sha256_at(path: Path, stamp: tuple[int, ...]) -> str:
    return _read_sha256(path)


def _read_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(value: JSON) -> str:
    """Return the sha256 of a value's canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- atomic writes ---


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there when the block ends well, delete it otherwise.

    Args:
        path: the final file; its folder is created.

    Raises:
        DiskError: the file system refused the write (full, read-only); `path` is as it was before.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(f"{_OURS}{path.suffix}", f".{path.stem[:100]}.", path.parent)
        os.close(handle)
    except OSError as error:
        raise write_refused(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        raise write_refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process of ours left below a folder; nobody else is writing to it."""
    for path in folder.rglob(f".*{_OURS}*"):
        _remove_leftover(path)


def remove_leftovers_of(path: Path) -> None:
    """Delete what killed processes of ours left of writing one file; nobody else is writing it."""
    for found in path.parent.iterdir():
        if found.name.startswith(f".{path.stem[:100]}.") and found.suffix == path.suffix:
            _remove_leftover(found)


def _remove_leftover(path: Path) -> None:
    if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: JSON) -> None:
    """Write JSON atomically, indented, with sorted keys and a final newline; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, printable_json(text) + "\n")


def read_json(path: Path) -> JSON:
    """Read a JSON file.

    Raises:
        UsageError: the file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected a file, found nothing. Run the stage that writes it first.") from error
    except (ValueError, RecursionError, OSError) as error:
        raise UsageError(
            f"{path}: expected JSON, found something else ({error}). Delete it and run again."
        ) from error


def _umask() -> int:
    """Return the process's mask; it can only be read by setting it, for a moment to the strictest."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_refused(path: Path, error: OSError) -> DiskError:
    """Return the sentence for a write that the file system refused."""
    return DiskError(
        f"{path}: could not be written ({error.strerror or error}). "
        "Free some space or choose another folder; what stood there before is untouched."
    )
