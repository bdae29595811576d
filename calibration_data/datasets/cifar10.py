"""CIFAR-10: the authors' binary edition, or the images as files in class folders, in a folder or in an archive.

A record of the binary edition is one byte for the label and 32 × 32 bytes each of red, green and blue, in rows
(Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html). The authors' Python edition is pickled: reading it
would run whatever program stands in it, so it is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.datasets.class_folders import (
    ClassFolders,
    fingerprint_class_folders,
    records_of,
    require_classes,
    scan_class_folders,
)
from calibration_data.datasets.packed_images import (
    ARCHIVE_SUFFIXES,
    PackedImages,
    is_archive,
    pack_images,
    read_packed_image,
)
from calibration_data.image_files import (
    decode_pixels,
    fingerprint_of_files,
    read_pixels,
    require_file,
    require_inside,
)
from calibration_data.prepared import SplitName
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.settings import LocalPath

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_SIDES: tuple[tuple[str, SplitName], ...] = (("train", "train"), ("test", "test"))
_BATCHES: tuple[tuple[str, SplitName], ...] = (
    ("data_batch_1.bin", "train"),
    ("data_batch_2.bin", "train"),
    ("data_batch_3.bin", "train"),
    ("data_batch_4.bin", "train"),
    ("data_batch_5.bin", "train"),
    ("test_batch.bin", "test"),
)
_NAMES = "batches.meta.txt"
_SIZE_PX = 32
_RECORD_BYTES = 1 + 3 * _SIZE_PX**2
_PICKLES = frozenset({*(name.removesuffix(".bin") for name, _ in _BATCHES), "batches.meta"})
_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle"})


class Cifar10Settings(SourceSettings):
    """CIFAR-10 in any edition that is not pickled."""

    name: Literal["cifar10"] = Field("cifar10", description="CIFAR-10, binary edition or images in class folders")
    root: LocalPath = Field(
        description="the folder with data_batch_1.bin…, or with train/CLASS/ and test/CLASS/, or an archive of those"
    )


def open_cifar10(settings: Cifar10Settings) -> Dataset:
    """Open whichever edition lies at `root`; the authors' test images are the test split.

    An archive's images are copied into the cache once (see `packed_images`).

    Raises:
        UsageError: none of the editions, the pickled one, other classes, a truncated file, a label above 9.
    """
    root = _root(settings)
    if root.is_file():
        return _open_archive(settings, root)
    if _is_binary(root):
        return _open_binary(settings, root)
    sides = _class_folders(root)
    records = [
        record
        for (side, split), folders in zip(_SIDES, sides, strict=True)
        for record in records_of(folders, prefix=f"{side}/", official_split=split)
    ]
    ignored = tuple(
        f"{side}/{name}" for (side, _), found in zip(_SIDES, sides, strict=True) for name in found.ignored
    )
    load = partial(_load_file, root)
    return Dataset(settings.name, CLASSES, tuple(records), synthetic=False, load=load, ignored=ignored)


def fingerprint_cifar10(settings: Cifar10Settings) -> str:
    """Return a sha256 over the edition's files."""
    root = _root(settings)
    if root.is_file():
        return sha256_of_file(root)
    if _is_binary(root):
        names = [name for name, _ in _BATCHES if (root / name).is_file()]
        names.extend([_NAMES] if (root / _NAMES).is_file() else [])
        return fingerprint_of_files(root, [root / name for name in names])
    return sha256_of_json([fingerprint_class_folders(folders) for folders in _class_folders(root)])


def _root(settings: Cifar10Settings) -> Path:
    root = settings.root.resolve()
    if root.is_file():
        _refuse_pickles(root, [root.name])
        if "python" in root.name and is_archive(root):
            raise _pickled(root, root.name)
        if not is_archive(root):
            raise UsageError(
                f"{root}: expected a folder or an archive ({', '.join(ARCHIVE_SUFFIXES)}), found another file. "
                "Set `source.root` to the folder that holds it."
            )
        return root
    if not root.is_dir():
        raise UsageError(f"{root}: expected a folder or an archive, found nothing. Set `source.root` to CIFAR-10.")
    if not _is_binary(root):
        _refuse_pickles(root, (path.name for path in root.iterdir()))
    return root


def _is_binary(root: Path) -> bool:
    return any((root / name).exists() for name, _ in _BATCHES)


def _refuse_pickles(place: Path, names: Iterable[str]) -> None:
    for name in sorted(names):
        if name in _PICKLES or Path(name).suffix.lower() in _PICKLE_SUFFIXES:
            raise _pickled(place, name)


def _pickled(place: Path, name: str) -> UsageError:
    return UsageError(
        f"{place}: expected the binary edition or class folders, found {name} of the Python edition. Its files are "
        "pickles, and reading a pickle runs whatever program it holds, so they are never read. Get "
        "cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it."
    )


# --- the binary edition ---


def _open_binary(settings: Cifar10Settings, root: Path) -> Dataset:
    names_path = root / _NAMES
    if names_path.is_file():
        names = tuple(names_path.read_text(encoding="utf-8", errors="replace").split())
        if names != CLASSES:
            raise UsageError(f"{names_path}: expected {', '.join(CLASSES)}, found {', '.join(names)[:200]}.")
    records: list[Record] = []
    for name, split in _BATCHES:
        path = require_inside(root, require_file(root / name, "a batch of the binary edition"))
        batch = _batch(path, path.stat().st_mtime_ns)
        outside = np.flatnonzero(batch[:, 0] >= len(CLASSES))
        if len(outside):
            raise UsageError(
                f"{path}: expected labels from 0 to {len(CLASSES) - 1}, found {batch[outside[0], 0]} at image "
                f"{outside[0]}. Is it CIFAR-10, and not CIFAR-100?"
            )
        for index, row in enumerate(batch):
            image_id = f"{path.stem}/{index:05d}"
            sha256 = hashlib.sha256(row[1:].tobytes()).hexdigest()
            records.append(Record(image_id, int(row[0]), image_id, (), split, sha256))
    return Dataset(settings.name, CLASSES, tuple(records), synthetic=False, load=partial(_load_binary, root))


def _load_binary(root: Path, record: Record) -> Frame:
    stem, index = record.image_id.split("/")
    path = root / f"{stem}.bin"
    planes = _batch(path, path.stat().st_mtime_ns)[int(index), 1:].reshape(3, _SIZE_PX, _SIZE_PX)
    return Frame(np.array(planes.transpose(1, 2, 0), order="C"), None)


@lru_cache(maxsize=len(_BATCHES))
def _batch(path: Path, mtime_ns: int) -> NDArray[np.uint8]:
    """Return a batch's records, uint8 [n, 3073], mapped from disk."""
    size = path.stat().st_size
    if size == 0 or size % _RECORD_BYTES:
        raise UsageError(
            f"{path}: expected records of {_RECORD_BYTES} bytes (label, red, green, blue), found {size} bytes, which "
            f"leaves {size % _RECORD_BYTES} over. The file is truncated or damaged; get it again."
        )
    return np.memmap(path, np.uint8, "r", shape=(size // _RECORD_BYTES, _RECORD_BYTES))


# --- image files ---


def _class_folders(root: Path) -> list[ClassFolders]:
    sides: list[ClassFolders] = []
    for side, _ in _SIDES:
        if not (root / side).is_dir():
            raise UsageError(
                f"{root}: expected data_batch_1.bin…, or the folders train and test, found no {side}. "
                "Set `source.root` to the folder that holds them."
            )
        folders = scan_class_folders(require_inside(root, root / side))
        require_classes(folders.classes, CLASSES, folders.root)
        sides.append(folders)
    return sides


def _load_file(root: Path, record: Record) -> Frame:
    return Frame(read_pixels(root / record.image_id), None)


def _open_archive(settings: Cifar10Settings, archive: Path) -> Dataset:
    found = pack_images(archive)
    _refuse_pickles(archive, {name.rsplit("/", 1)[-1] for name in found.others})
    if any(name.endswith("data_batch_1.bin") for name in found.others):
        raise UsageError(
            f"{archive}: expected image files in class folders, found the binary edition. Unpack it, and set "
            "`source.root` to the folder with data_batch_1.bin."
        )
    records = tuple(_archived_records(archive, found))
    for side, split in _SIDES:
        if split not in {record.official_split for record in records}:
            raise UsageError(f"{archive}: expected images as train/CLASS/NAME and test/CLASS/NAME, found no {side}/.")
    return Dataset(
        settings.name,
        CLASSES,
        records,
        synthetic=False,
        load=partial(_load_packed, found.packed),
        ignored=found.others,
    )


def _archived_records(archive: Path, found: PackedImages) -> Iterable[Record]:
    split_of, label_of = dict(_SIDES), {name: label for label, name in enumerate(CLASSES)}
    for image_id, image in found.images.items():
        side, name = (["", "", *image_id.split("/")])[-3:-1]  # whatever folder they were packed in
        if side not in split_of or name not in label_of:
            raise UsageError(
                f"{archive}: expected images as train/CLASS/NAME or test/CLASS/NAME, with the classes "
                f"{', '.join(CLASSES)}; found {image_id}. Pack it like that, or use the source `folder`."
            )
        yield Record(image_id, label_of[name], image_id, (), split_of[side], image.sha256)


def _load_packed(packed: Path, record: Record) -> Frame:
    return Frame(decode_pixels(read_packed_image(packed, record.image_id)), None)
