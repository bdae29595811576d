"""MedMNIST v2 and MedMNIST+: the twelve sets of 2-D images as their authors pack them, `NAME.npz` or `NAME_64.npz`.

Yang et al., MedMNIST v2, Scientific Data 2023 (arXiv 2110.14795).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.datasets.medmnist_sets import SETS, MedMnistSet, SetName
from calibration_data.datasets.unpacking import largest_unpacked_bytes, unpacked_path
from calibration_data.image_files import require_file
from calibration_data.prepared import SplitName
from foundation.errors import UsageError
from foundation.files import atomic_path, sha256_of_file, sha256_of_json
from foundation.settings import LocalPath

SIZES_PX = (28, 64, 128, 224)
_SPLITS: tuple[tuple[str, SplitName], ...] = (("train", "train"), ("val", "validation"), ("test", "test"))
_BLOCK_BYTES = 1 << 20
_LARGEST_LABELS_BYTES = 2**27
"""ChestMNIST's 14 labels of 78,468 images take 9 MB in eight bytes each."""
_FILE_STEM = re.compile(r"([a-z]+mnist)(?:_\d+)?", re.IGNORECASE)


class MedMnistSettings(SourceSettings):
    """One file of MedMNIST."""

    name: Literal["medmnist"] = Field("medmnist", description="one of the twelve 2-D sets of MedMNIST v2, any size")
    root: LocalPath = Field(description="the set's file, for example pneumoniamnist.npz")
    set: SetName | None = Field(None, description="which set it is; default: what the file is called")


def open_medmnist(settings: MedMnistSettings) -> Dataset:
    """Open a set in its official splits; MedMNIST names no patients. Compressed arrays are unpacked once, to disk.

    Raises:
        UsageError: no such file, no npz, an array is missing, pickled, damaged, or not what the set should hold.
    """
    path = require_file(settings.root, "a MedMNIST file (.npz)").resolve()
    content = SETS[_set_name(settings)]
    records: list[Record] = []
    for prefix, split in _SPLITS:
        images, labels = _images(path, prefix), _array(path, f"{prefix}_labels")
        _check_images(path, prefix, images, content)
        _check_labels(path, prefix, labels, len(images), content)
        values: list[int | tuple[int, ...]] = (
            labels.reshape(-1).tolist()
            if content.task == "multi_class"
            else [tuple(np.flatnonzero(row).tolist()) for row in labels]
        )
        for index, (image, label) in enumerate(zip(images, values, strict=True)):
            image_id = f"{prefix}/{index:06d}"
            records.append(Record(image_id, label, image_id, (), split, hashlib.sha256(image.tobytes()).hexdigest()))
    return Dataset(
        settings.name,
        content.classes,
        tuple(records),
        synthetic=False,
        load=partial(_load, path),
        task=content.task,
    )


def fingerprint_medmnist(settings: MedMnistSettings) -> str:
    """Return a sha256 over the file and which set it is."""
    path = require_file(settings.root, "a MedMNIST file (.npz)")
    return sha256_of_json({"set": _set_name(settings), "file": sha256_of_file(path)})


def _load(path: Path, record: Record) -> Frame:
    prefix, index = record.image_id.split("/")
    pixels = np.array(_images(path, prefix)[int(index)])
    return Frame(pixels[:, :, None] if pixels.ndim == 2 else pixels, None)


def _set_name(settings: MedMnistSettings) -> SetName:
    if settings.set is not None:
        return settings.set
    match = _FILE_STEM.fullmatch(settings.root.stem)
    for name in get_args(SetName):
        if match and name == match[1].lower():
            return name  # type: ignore[no-any-return]
    raise UsageError(
        f"{settings.root}: expected a file called like one of {', '.join(SETS)} (with or without _64, _128, _224). "
        "Rename it, or set `source.set`."
    )


def _check_images(path: Path, prefix: str, images: NDArray[Any], content: MedMnistSet) -> None:
    shape, ends = images.shape, (() if content.channels == 1 else (content.channels,))
    if images.dtype != np.uint8 or len(shape) < 3 or shape[1] != shape[2] or shape[3:] != ends:
        axes = ", ".join(("n", "size", "size", *map(str, ends)))
        raise UsageError(
            f"{path}: expected {prefix}_images to be uint8 [{axes}], found {images.dtype} {list(shape)}. "
            "Is it the set that `source.set`, or the file's name, says? The 3-D sets cannot be read."
        )
    if shape[1] not in SIZES_PX:
        raise UsageError(
            f"{path}: expected images of {', '.join(map(str, SIZES_PX))} px, found {shape[1]} px in {prefix}_images."
        )


def _check_labels(path: Path, prefix: str, labels: NDArray[Any], n_images: int, content: MedMnistSet) -> None:
    columns, largest = (1, len(content.classes) - 1) if content.task == "multi_class" else (len(content.classes), 1)
    if labels.dtype.kind not in "ui" or labels.shape != (n_images, columns):
        raise UsageError(
            f"{path}: expected {prefix}_labels to be whole numbers [{n_images}, {columns}], one row per image, found "
            f"{labels.dtype} {list(labels.shape)}. Is it the set that `source.set`, or the file's name, says?"
        )
    outside = np.flatnonzero(((labels < 0) | (labels > largest)).any(axis=1))
    if len(outside):
        raise UsageError(
            f"{path}: expected labels from 0 to {largest} in {prefix}_labels, found {labels[outside[0]].tolist()} at "
            f"image {outside[0]}. Is it the set that `source.set`, or the file's name, says?"
        )


# --- arrays inside the file ---


def _images(path: Path, prefix: str) -> NDArray[np.uint8]:
    return _mapped(path, f"{prefix}_images", path.stat().st_mtime_ns)


@lru_cache(maxsize=6)
def _mapped(path: Path, key: str, mtime_ns: int) -> NDArray[np.uint8]:
    """Return an array mapped from disk, so that it is never in memory as a whole."""
    unpacked = unpacked_path(sha256_of_file(path), f"{key}.npy")
    with _as_usage_errors(path):
        with zipfile.ZipFile(path) as archive:
            member = _member(archive, path, key)
            if not (unpacked.is_file() and _crc32(unpacked) == member.CRC):  # none, or changed since
                with archive.open(member) as packed, atomic_path(unpacked) as temporary, temporary.open("wb") as out:
                    for block in _blocks(path, packed):
                        out.write(block)
        array: NDArray[np.uint8] = np.load(unpacked, mmap_mode="r", allow_pickle=False)
    return array


def _crc32(path: Path) -> int:
    found = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            found = zlib.crc32(block, found)
    return found


def _blocks(path: Path, packed: IO[bytes]) -> Iterator[bytes]:
    """Yield what comes out; an error of the unpacker's is told apart from one of the disk that is written to."""
    while True:
        with _as_usage_errors(path):
            block = packed.read(_BLOCK_BYTES)
        if not block:
            return
        yield block


def _array(path: Path, key: str) -> NDArray[Any]:
    with (
        _as_usage_errors(path),
        zipfile.ZipFile(path) as archive,
        archive.open(_member(archive, path, key)) as stream,
    ):
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> zipfile.ZipInfo:
    try:
        member = archive.getinfo(f"{key}.npy")
    except KeyError as error:
        found = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:8]) or "nothing"
        raise UsageError(f"{path}: expected an array {key}, found {found}. Is it a file of MedMNIST?") from error
    most = largest_unpacked_bytes(path.stat().st_size) if key.endswith("_images") else _LARGEST_LABELS_BYTES
    if member.file_size > most:
        raise UsageError(
            f"{path}: expected at most {most} bytes in {key}, its directory says "
            f"{member.file_size} (a decompression bomb?)."
        )
    return member


@contextmanager
def _as_usage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except (ValueError, MemoryError) as error:  # the latter where a header claims more than there is memory
        reason = "pickled objects, which are never read" if "bject" in str(error) else f"another ({error})"
        raise UsageError(f"{path}: expected a plain array, found {reason}. Get the file from its authors.") from error
    except Exception as error:  # the unpackers and numpy's header raise anything at all on damaged bytes
        raise UsageError(
            f"{path}: expected a whole .npz file, found a damaged one ({str(error)[:200]}). Get it again."
        ) from error
