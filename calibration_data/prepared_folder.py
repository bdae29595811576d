"""The prepared images on disk: one `.npy` per split and array, and a manifest that holds the digest of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import SPLITS, PreparedData, PreparedSplit, SplitName, Task
from foundation.arrays import let_go_of_pages
from foundation.errors import UsageError
from foundation.files import JSON, atomic_path, read_json, sha256_of_file, sha256_of_json, write_json

ARRAYS = ("images", "labels", "masks", "has_mask", "mask_class")
COLUMNS = ("image_ids", "groups", "subgroups", "sha256")
LISTS = ("skipped", "dropped", "merged", "ignored", "missing")
"""Fields of the manifest and of `PreparedData` that name images and files."""
MANIFEST = "manifest.json"
FILES = (*(f"{split}.{array}.npy" for split in SPLITS for array in ARRAYS), MANIFEST)
"""The names of all files of the folder."""

_FORMAT_VERSION = 3
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Rows:
    """Where the images and masks of a split lie among those that were decoded.

    Attributes:
        images: uint8 [all, channels, size, size], usually mapped from disk.
        masks: bool [masks, size, size], likewise; only those that exist.
        image_row: int64 [n], into `images`.
        mask_row: int64 [n], into `masks`; −1 where the image has none.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    image_row: NDArray[np.int64]
    mask_row: NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """What else is known of the images of a split; as in `PreparedSplit`."""

    labels: NDArray[np.int64]
    mask_class: NDArray[np.int64]
    image_ids: Sequence[str]
    groups: Sequence[str]
    subgroups: Sequence[tuple[str, ...]]
    sha256: Sequence[str]


@dataclass(frozen=True)
class Head:
    """What the manifest says of all splits together; as in `PreparedData`."""

    dataset: str
    task: Task
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    synthetic: bool
    groups_known: bool
    skipped: Sequence[str] = ()
    dropped: Sequence[str] = ()
    merged: Sequence[str] = ()
    ignored: Sequence[str] = ()
    missing: Sequence[str] = ()
    bits: int | None = None


def write_prepared(folder: Path, head: Head, splits: dict[SplitName, tuple[Rows, Columns]]) -> PreparedData:
    """Write everything, the manifest last, a few images at a time; return it mapped from disk.

    Raises:
        UsageError: the file system refused a write.
    """
    manifest: dict[str, JSON] = {
        "format_version": _FORMAT_VERSION,
        "dataset": head.dataset,
        "task": head.task,
        "classes": list(head.classes),
        "mean": list(head.mean),
        "std": list(head.std),
        "synthetic": head.synthetic,
        "groups_known": head.groups_known,
        "bits": head.bits,
        **{name: list(getattr(head, name)) for name in LISTS},
        "splits": {name: _write_split(folder, name, *parts) for name, parts in splits.items()},
    }
    # What the labels mean, whose images they are, and every byte of the arrays.
    manifest["sha256"] = sha256_of_json({key: manifest[key] for key in ("task", "classes", "splits")})
    write_json(folder / MANIFEST, manifest)
    return _open(folder, manifest)


def read_prepared(folder: Path) -> PreparedData:
    """Return what `write_prepared` wrote, mapped from disk, after every file was held against its digest.

    Raises:
        UsageError: a file is missing, damaged, or not the one that the manifest describes.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format_version") != _FORMAT_VERSION:
        raise UsageError(f"{path}: expected a manifest of format {_FORMAT_VERSION}. Delete {folder} and run again.")
    try:
        for name in SPLITS:
            for array in ARRAYS:
                _check(folder / f"{name}.{array}.npy", manifest["splits"][name]["files"][array], folder)
        return _open(folder, manifest)
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: expected a whole manifest, {error!r}. Delete {folder} and run again.") from error


def _check(path: Path, expected: str, folder: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path}: expected a file, found nothing. Delete {folder} and run again.")
    if sha256_of_file(path) != expected:
        raise UsageError(
            f"{path}: expected the sha256 {expected[:12]}… of the manifest, found another. "
            f"The file was changed after it was made; delete {folder} and run again."
        )


def _open(folder: Path, manifest: dict[str, JSON]) -> PreparedData:
    splits: dict[str, Any] = {}
    for name in SPLITS:
        # Copy on write: nobody can change the file, and torch does not warn of an array that it may not write to.
        arrays: dict[str, Any] = {
            array: np.asarray(np.load(folder / f"{name}.{array}.npy", mmap_mode="c", allow_pickle=False))
            for array in ARRAYS
        }
        columns: dict[str, Any] = {column: tuple(manifest["splits"][name][column]) for column in COLUMNS}
        columns["subgroups"] = tuple(tuple(names) for names in columns["subgroups"])
        splits[name] = PreparedSplit(**arrays, **columns)
    lists: dict[str, Any] = {name: tuple(manifest[name]) for name in LISTS}
    return PreparedData(
        dataset=manifest["dataset"],
        classes=tuple(manifest["classes"]),
        mean=tuple(manifest["mean"]),
        std=tuple(manifest["std"]),
        synthetic=manifest["synthetic"],
        sha256=manifest["sha256"],
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        task=manifest["task"],
        groups_known=manifest["groups_known"],
        bits=manifest.get("bits"),
        **lists,
    )


def _write_split(folder: Path, name: SplitName, rows: Rows, columns: Columns) -> JSON:
    count, size = len(rows.image_row), rows.images.shape[2]
    with _array_file(folder / f"{name}.images.npy", np.uint8, (count, *rows.images.shape[1:])) as stream:
        for start in range(0, count, _ROWS_AT_ONCE):
            stream.write(rows.images[rows.image_row[start : start + _ROWS_AT_ONCE]].tobytes())
            let_go_of_pages(rows.images)
    with _array_file(folder / f"{name}.masks.npy", np.bool_, (count, size, size)) as stream:
        for place, row in enumerate(rows.mask_row):
            if place % _ROWS_AT_ONCE == 0:
                let_go_of_pages(rows.masks)
            if row >= 0:
                stream.write(rows.masks[row].tobytes())
            else:
                stream.seek(size * size, 1)  # a hole reads as zeros and takes no space on most file systems
        stream.truncate()
    for array, values in (
        ("labels", columns.labels),
        ("has_mask", rows.mask_row >= 0),
        ("mask_class", columns.mask_class),
    ):
        with _array_file(folder / f"{name}.{array}.npy", values.dtype.type, values.shape) as stream:
            stream.write(np.ascontiguousarray(values).tobytes())
    return {
        "n": count,
        "files": {array: sha256_of_file(folder / f"{name}.{array}.npy") for array in ARRAYS},
        **{column: list(getattr(columns, column)) for column in COLUMNS},
        "subgroups": [list(names) for names in columns.subgroups],
    }


@contextmanager
def _array_file(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Open an `.npy` file behind its header; what is then written is its content, in C order."""
    header = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        yield stream
