"""MNIST's IDX files, written by hand, and the real ones where they are at hand."""

from __future__ import annotations

import gzip
import hashlib
import struct
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from calibration_data.datasets.mnist import MnistSettings, fingerprint_mnist, open_mnist
from foundation.errors import UsageError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "mnist"


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # without the time, so that every process names its tests alike


def idx(values: np.ndarray, kind: int = 0x08) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape) + values.tobytes()


def images(count: int) -> np.ndarray:
    return np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five training and two test images of 2 × 3 pixels; half of the files are compressed."""
    for prefix, count in (("train", 5), ("t10k", 2)):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images(count)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(packed(idx(np.arange(count, dtype=np.uint8) + 3)))
    return tmp_path


def opened(root: Path):
    return open_mnist(MnistSettings(root=root))


def test_images_and_labels_are_read_big_endian_and_in_rows(root):
    dataset = opened(root)
    assert [record.label for record in dataset.records] == [3, 4, 5, 6, 7, 3, 4]
    assert dataset.load(dataset.records[1]).pixels.tolist() == [[[6], [7], [8]], [[9], [10], [11]]]
    assert dataset.records[1].sha256 == hashlib.sha256(bytes(range(6, 12))).hexdigest()


def test_the_ten_thousand_are_the_official_test_split_and_no_one_is_validation(root):
    dataset = opened(root)
    assert [record.official_split for record in dataset.records] == ["train"] * 5 + ["test"] * 2
    assert dataset.records[5].image_id == "t10k/00000"


def test_compressed_files_hold_the_same(root):
    before = opened(root)
    path = root / "train-images-idx3-ubyte"
    (root / f"{path.name}.gz").write_bytes(packed(path.read_bytes()))
    path.unlink()
    after = opened(root)
    assert after.records == before.records
    assert np.array_equal(after.load(after.records[4]).pixels, before.load(before.records[4]).pixels)


def test_a_dot_in_the_names_is_read_as_well(root):
    (root / "train-images-idx3-ubyte").rename(root / "train-images.idx3-ubyte")
    assert len(opened(root).records) == 7


def test_pixels_can_be_changed_without_changing_the_file(root):
    dataset = opened(root)
    dataset.load(dataset.records[0]).pixels[:] = 0
    assert dataset.load(dataset.records[0]).pixels.max() == 5


def test_the_fingerprint_sees_labels(root):
    first = fingerprint_mnist(MnistSettings(root=root))
    (root / "t10k-labels-idx1-ubyte.gz").write_bytes(packed(idx(np.array([4, 3], dtype=np.uint8))))
    assert fingerprint_mnist(MnistSettings(root=root)) != first


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train-images-idx3-ubyte",
            idx(images(5))[:-1],
            r"5 × 2 × 3 = 30 bytes after the header, found fewer \(29\)",
        ),
        ("train-images-idx3-ubyte", idx(images(5)) + b"\0", r"= 30 bytes after the header, found more \(31\)"),
        ("train-images-idx3-ubyte", idx(images(5))[:9], "a header of 16 bytes, found 9"),
        ("train-images-idx3-ubyte", b"", "magic number 0x00000803, found 0x. "),
        ("train-images-idx3-ubyte", idx(images(5), 0x0D), "magic number 0x00000803, found 0x00000d03"),
        ("train-images-idx3-ubyte", idx(np.zeros(5, np.uint8)), "magic number 0x00000803, found 0x00000801"),
        ("train-images-idx3-ubyte", packed(idx(images(5))), "found 0x1f8b.*unpacked"),
        ("train-images-idx3-ubyte", struct.pack(">4I", 0x803, 2**31, 28, 28), "at most 1073741824 values"),
        ("train-images-idx3-ubyte", idx(images(6)), "expected 6 labels, one per image of train, found 5"),
        ("t10k-labels-idx1-ubyte.gz", b"no gzip at all", "expected a whole gzip file"),
        ("t10k-labels-idx1-ubyte.gz", packed(idx(np.zeros(2, np.uint8)))[:-9], "expected a whole gzip file"),
        ("t10k-labels-idx1-ubyte.gz", packed(idx(np.array([3], np.uint8))), "expected 2 labels"),
        (
            "t10k-labels-idx1-ubyte.gz",
            packed(idx(np.array([9, 10], np.uint8))),
            "labels from 0 to 9, found 10 at image 1",
        ),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected(root, name, content, message):
    (root / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        opened(root)
    assert str(root) in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked_beyond_its_header(root):
    bomb = packed(idx(np.zeros(2, np.uint8)) + bytes(20_000_000))
    (root / "t10k-labels-idx1-ubyte.gz").write_bytes(bomb)
    with pytest.raises(UsageError, match=r"= 2 bytes after the header, found more \(3\)"):
        opened(root)


def test_a_missing_file_is_named(root):
    (root / "t10k-images-idx3-ubyte").unlink()
    for function in (open_mnist, fingerprint_mnist):
        with pytest.raises(UsageError, match=r"expected t10k-images-idx3-ubyte or t10k-images-idx3-ubyte\.gz"):
            function(MnistSettings(root=root))


@pytest.mark.skipif(not REAL.is_dir(), reason="needs MNIST in ../shared/data/mnist")
def test_the_real_set_has_its_published_counts_and_opens_in_seconds():
    started = time.perf_counter()
    dataset = opened(REAL)
    assert time.perf_counter() - started < 10
    labels = Counter((record.official_split, record.label) for record in dataset.records)
    # Counts per digit as LeCun's page and every loader since state them.
    assert [labels["train", digit] for digit in range(10)] == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert [labels["test", digit] for digit in range(10)] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.load(dataset.records[-1]).pixels.shape == (28, 28, 1)
