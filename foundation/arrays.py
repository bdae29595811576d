"""Arrays on disk: `.npz`, written atomically, the same bytes for the same arrays, never pickled; and mapped ones."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from foundation.files import atomic_path


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as an uncompressed `.npz`.

    Uncompressed because zlib's output differs between its versions, and the run's hashes should not.

    Args:
        path: the file; its folder is created.
        arrays: name → array of a plain dtype (no objects).
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **{name: np.ascontiguousarray(array) for name, array in arrays.items()})


def read_arrays(path: Path, names: tuple[str, ...]) -> tuple[NDArray[Any], ...]:
    """Return the named arrays of a `.npz` in the order asked for.

    Raises:
        UsageError: the file is missing, is no `.npz` as `write_arrays` writes it, or lacks one of the names.
    """
    try:
        # numpy leaves a file that it opened itself open when the archive turns out to be damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            unpacked, found = sum(member.file_size for member in stored.zip.infolist()), path.stat().st_size
            if unpacked > found:
                raise ValueError(f"{unpacked} bytes packed into {found}")
            arrays = tuple(stored[name] for name in names)
            if not all(isinstance(array, np.ndarray) for array in arrays):  # numpy gives other members as bytes
                raise ValueError("a member that is no array")
            return arrays
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected a file, found nothing. Run `edgeproof validate` first.") from error
    except Exception as error:  # the unpacker and numpy's header raise anything at all on damaged bytes
        raise UsageError(
            f"{path}: expected the arrays {', '.join(names)}, found something else ({error}). "
            "Delete it and run `edgeproof validate` again."
        ) from error


def let_go_of_pages(array: NDArray[Any]) -> None:
    """Give back the memory of what was read of an array that is mapped from disk; nothing of any other array."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
