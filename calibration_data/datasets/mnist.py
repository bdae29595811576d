"""MNIST as its authors pack it: four IDX files, compressed by gzip or not.

An IDX file is two zero bytes, the type of a value (0x08: unsigned byte), the number of dimensions, each dimension as
a big-endian 32-bit number, and the values in C order (LeCun et al., http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import hashlib
import math
from functools import lru_cache, partial
from io import BufferedReader
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.image_files import fingerprint_of_files, require_folder, require_inside
from calibration_data.prepared import SplitName
from foundation.errors import UsageError
from foundation.settings import LocalPath

CLASSES = tuple(str(digit) for digit in range(10))

_SPLITS: tuple[tuple[str, SplitName], ...] = (("train", "train"), ("t10k", "test"))
"""Prefix of the files → official split; what is trained on is divided into train and validation."""
_UNSIGNED_BYTE = 0x08
_BLOCK_BYTES = 1 << 20
_LARGEST_FILE_BYTES = 2**30
"""Of an unpacked file; MNIST's largest has 47 MB, EMNIST's 550 MB."""


class MnistSettings(SourceSettings):
    """The four files of MNIST."""

    name: Literal["mnist"] = Field("mnist", description="handwritten digits in MNIST's four IDX files")
    root: LocalPath = Field(
        description="the folder with train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels, .gz or not"
    )


def open_mnist(settings: MnistSettings) -> Dataset:
    """Open both halves; `t10k` is the official test split, who wrote which digit is unknown.

    Raises:
        UsageError: a file is missing, truncated or no IDX file of that shape, counts differ, a label exceeds 9.
    """
    root = require_folder(settings.root, "source.root")
    records: list[Record] = []
    for prefix, split in _SPLITS:
        labels_path = _path(root, prefix, "labels", 1)
        images, labels = _read(_path(root, prefix, "images", 3), 3), _read(labels_path, 1)
        if len(images) != len(labels):
            raise UsageError(
                f"{labels_path}: expected {len(images)} labels, one per image of {prefix}, found {len(labels)}. "
                "The two files are not of one set; unpack both again."
            )
        if len(labels) and labels.max() >= len(CLASSES):
            first = int(np.argmax(labels >= len(CLASSES)))
            raise UsageError(
                f"{labels_path}: expected labels from 0 to {len(CLASSES) - 1}, found {labels[first]} at image "
                f"{first}. Is it another set in MNIST's format?"
            )
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            image_id = f"{prefix}/{index:05d}"
            records.append(Record(image_id, label, image_id, (), split, hashlib.sha256(image.tobytes()).hexdigest()))
    return Dataset(settings.name, CLASSES, tuple(records), synthetic=False, load=partial(_load, root))


def fingerprint_mnist(settings: MnistSettings) -> str:
    """Return a sha256 over the four files."""
    root = require_folder(settings.root, "source.root")
    kinds = (("images", 3), ("labels", 1))
    paths = [_path(root, prefix, content, axes) for prefix, _ in _SPLITS for content, axes in kinds]
    return fingerprint_of_files(root, paths)


def _load(root: Path, record: Record) -> Frame:
    prefix, index = record.image_id.split("/")
    return Frame(np.array(_read(_path(root, prefix, "images", 3), 3)[int(index)])[:, :, None], None)


def _path(root: Path, prefix: str, content: str, axes: int) -> Path:
    """Return the file that is there; a dot in place of the first hyphen of `-idx` is how some copies spell it."""
    names = [f"{prefix}-{content}{mark}idx{axes}-ubyte{end}" for end in ("", ".gz") for mark in ("-", ".")]
    for name in names:
        if (root / name).is_file():
            return require_inside(root, root / name)
    raise UsageError(
        f"{root}: expected {names[0]} or {names[0]}.gz, found neither. Put MNIST's four files into `source.root`."
    )


def _read(path: Path, axes: int) -> NDArray[np.uint8]:
    """Return the values, uint8 [n] or [n, height, width]: mapped from disk, or unpacked once per process."""
    return _read_at(path, axes, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_at(path: Path, axes: int, mtime_ns: int) -> NDArray[np.uint8]:
    header_bytes = 4 + 4 * axes
    is_packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if is_packed else path.open("rb") as stream:
            header = stream.read(header_bytes)
            shape = _shape(path, header, axes)
            expected = math.prod(shape)
            if expected > _LARGEST_FILE_BYTES:
                raise UsageError(
                    f"{path}: expected at most {_LARGEST_FILE_BYTES} values, its header says {expected}. "
                    "Is it a whole IDX file?"
                )
            if not is_packed:
                found = path.stat().st_size - header_bytes
                _require_length(path, shape, found)
                return np.memmap(path, np.uint8, "r", header_bytes, shape) if expected else np.zeros(shape, np.uint8)
            values = np.empty(expected, np.uint8)  # once in memory, where bytes read and joined would be twice
            found = _read_into(stream, values) + len(stream.read(1))
    except UsageError:
        raise
    except Exception as error:  # gzip raises errors of several kinds on damaged bytes
        raise UsageError(
            f"{path}: expected a whole {'gzip' if is_packed else 'IDX'} file, found a damaged one ({error}). "
            "Get it again."
        ) from error
    _require_length(path, shape, found)
    return values.reshape(shape)


def _read_into(stream: gzip.GzipFile | BufferedReader, values: NDArray[np.uint8]) -> int:
    done = 0
    while block := stream.read(min(_BLOCK_BYTES, len(values) - done)):
        values[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    return done


def _shape(path: Path, header: bytes, axes: int) -> tuple[int, ...]:
    magic, expected = header[:4], bytes((0, 0, _UNSIGNED_BYTE, axes))
    if magic != expected:
        raise UsageError(
            f"{path}: expected an IDX file of {axes} dimensions, magic number 0x{expected.hex()}, "
            f"found 0x{magic.hex()}. Is it the right file, and unpacked?"
        )
    if len(header) < 4 + 4 * axes:
        raise UsageError(f"{path}: expected a header of {4 + 4 * axes} bytes, found {len(header)}. Get it again.")
    return tuple(int(length) for length in np.frombuffer(header, ">u4", axes, 4))


def _require_length(path: Path, shape: tuple[int, ...], found: int) -> None:
    expected = math.prod(shape)
    if found != expected:
        raise UsageError(
            f"{path}: expected {' × '.join(map(str, shape))} = {expected} bytes after the header, found "
            f"{'fewer' if found < expected else 'more'} ({found}). The file is truncated or damaged; get it again."
        )
