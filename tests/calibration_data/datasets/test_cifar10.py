"""CIFAR-10's editions, written by hand, and the images at hand where they are."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration_data.datasets.cifar10 import CLASSES, Cifar10Settings, fingerprint_cifar10, open_cifar10
from foundation.errors import UsageError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "cifar10" / "cifar10_jpg_full.tar.xz"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def opened(root: Path):
    return open_cifar10(Cifar10Settings(root=root))


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """Six batches of three images; the label is the index plus the batch's number."""
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = np.random.default_rng(number).integers(0, 256, (3, 3073)).astype(np.uint8)
        rows[:, 0] = np.arange(3) + number
        (tmp_path / f"{name}.bin").write_bytes(rows.tobytes())
    return tmp_path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two PNGs of each class to train on, one to test on, below `images/`."""
    for side, count in (("train", 2), ("test", 1)):
        for label, name in enumerate(CLASSES):
            for index in range(count):
                path = tmp_path / "images" / side / name / f"{index:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(100 * label + 10 * count + index).integers(0, 256, (32, 32, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "images"


def test_a_binary_record_is_a_label_and_three_planes(binary):
    dataset = opened(binary)
    assert [record.label for record in dataset.records] == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5, 6, 5, 6, 7]
    assert Counter(record.official_split for record in dataset.records) == {"train": 15, "test": 3}
    record = dataset.records[16]
    assert record.image_id == "test_batch/00001"
    content = (binary / "test_batch.bin").read_bytes()[3073:6146]
    pixels = dataset.load(record).pixels
    assert pixels.shape == (32, 32, 3)
    assert pixels[0, 1].tolist() == [content[1 + 1], content[1 + 1024 + 1], content[1 + 2048 + 1]]
    assert pixels[31, 31, 2] == content[-1]


def test_class_folders_hold_the_same_classes_in_the_same_order(folders):
    dataset = opened(folders)
    assert dataset.classes == CLASSES
    assert dataset.records[0].image_id == "train/airplane/0000.png"
    assert Counter((record.official_split, record.label) for record in dataset.records) == {
        (split, label): count for split, count in (("train", 2), ("test", 1)) for label in range(10)
    }
    expected = np.asarray(Image.open(folders / "test" / "truck" / "0000.png"))
    assert np.array_equal(dataset.load(dataset.records[-1]).pixels, expected)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
@pytest.mark.parametrize("inside", [True, False])
def test_archives_hold_the_same_images_as_the_folders(folders, kind, inside):
    (folders / "notes.txt").write_text("no image")
    base = folders.parent if inside else folders
    archive = Path(
        shutil.make_archive(str(folders.parent.parent / "packed"), kind, base, "images" if inside else ".")
    )
    dataset, plain = opened(archive), opened(folders)
    assert [record.sha256 for record in dataset.records] == [
        record.sha256 for record in sorted(plain.records, key=lambda record: record.image_id)
    ]
    assert {(r.sha256, r.label, r.official_split) for r in dataset.records} == {
        (r.sha256, r.label, r.official_split) for r in plain.records
    }
    first = next(record for record in plain.records if record.sha256 == dataset.records[0].sha256)
    assert np.array_equal(dataset.load(dataset.records[0]).pixels, plain.load(first).pixels)
    assert dataset.ignored == (("images/" if inside else "") + "notes.txt",)
    assert opened(archive).records == dataset.records
    archive.unlink()


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta", "images.pkl", "a.pickle"])
def test_pickles_are_refused_with_the_reason_and_a_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for root in (tmp_path, tmp_path / name):
        with pytest.raises(UsageError, match=rf"found {name} .*runs whatever program .*cifar-10-binary\.tar\.gz"):
            opened(root)


def test_the_pickled_archive_is_refused_by_its_name_and_by_its_content(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data_batch_1").write_bytes(b"\x80\x04.")
    archive = Path(shutil.make_archive(str(tmp_path / "cifar-10-python"), "gztar", tmp_path / "in"))
    with pytest.raises(UsageError, match=r"found cifar-10-python\.tar\.gz of the Python edition"):
        opened(archive)
    with pytest.raises(UsageError, match="found data_batch_1 of the Python edition"):
        opened(archive.rename(tmp_path / "mine.tar.gz"))


def test_the_binary_archive_says_to_unpack_it(binary, tmp_path_factory):
    archive = shutil.make_archive(str(tmp_path_factory.mktemp("x") / "cifar-10-binary"), "gztar", binary)
    with pytest.raises(UsageError, match=r"found the binary edition. Unpack it"):
        opened(Path(archive))


def test_a_truncated_batch_is_refused(binary):
    path = binary / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match=r"data_batch_3\.bin: expected records of 3073 bytes .* found 9214 bytes"):
        opened(binary)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="found 0 bytes"):
        opened(binary)


def test_a_label_above_nine_is_refused(binary):
    path = binary / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[2 * 3073] = 10
    path.write_bytes(content)
    with pytest.raises(UsageError, match="labels from 0 to 9, found 10 at image 2"):
        opened(binary)


def test_other_names_and_a_missing_batch_are_refused(binary):
    (binary / "batches.meta.txt").write_text("\n".join(reversed(CLASSES)))
    with pytest.raises(UsageError, match=r"batches\.meta\.txt: expected airplane, .* found truck, ship"):
        opened(binary)
    (binary / "batches.meta.txt").unlink()
    (binary / "data_batch_5.bin").unlink()
    with pytest.raises(UsageError, match=r"data_batch_5\.bin: expected a batch .* found nothing"):
        opened(binary)


def test_folders_of_other_classes_are_refused(folders):
    (folders / "test" / "ship").rename(folders / "test" / "boat")
    with pytest.raises(UsageError, match="missing: ship, unexpected: boat"):
        opened(folders)
    shutil.rmtree(folders / "test")
    with pytest.raises(UsageError, match="found no test"):
        opened(folders)


def test_an_archive_laid_out_otherwise_is_refused(folders, tmp_path_factory):
    for inside, message in (
        (folders / "train", "found airplane/0000.png"),
        (folders.parent / "only", "found no test/"),
    ):
        if inside.name == "only":
            shutil.copytree(folders / "train", inside / "train")
        archive = shutil.make_archive(str(tmp_path_factory.mktemp("x") / "a"), "zip", inside)
        with pytest.raises(UsageError, match=message):
            opened(Path(archive))


def test_other_files_and_nothing_are_refused(tmp_path):
    (tmp_path / "a.rar").touch()
    with pytest.raises(UsageError, match=r"expected a folder or an archive \(\.zip, .* found another file"):
        opened(tmp_path / "a.rar")
    for function in (open_cifar10, fingerprint_cifar10):
        with pytest.raises(UsageError, match="expected a folder or an archive, found nothing"):
            function(Cifar10Settings(root=tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="or the folders train and test, found no train"):
        opened(tmp_path)


def test_the_fingerprint_sees_each_edition(binary, folders, tmp_path_factory):
    archive = Path(shutil.make_archive(str(tmp_path_factory.mktemp("x") / "a"), "tar", folders))
    seen = {fingerprint_cifar10(Cifar10Settings(root=root)) for root in (binary, folders, archive)}
    image = folders / "test" / "cat" / "0000.png"
    image.write_bytes(image.read_bytes() + b"\0")
    seen.add(fingerprint_cifar10(Cifar10Settings(root=folders)))
    assert len(seen) == 4


@pytest.mark.long
@pytest.mark.skipif(not REAL.is_file(), reason="needs CIFAR-10 in ../shared/data/cifar10")
def test_the_real_archive_has_6000_images_of_each_class():
    dataset = opened(REAL)
    counts = Counter((record.official_split, record.label) for record in dataset.records)
    assert counts == {(split, label): n for split, n in (("train", 5000), ("test", 1000)) for label in range(10)}
    assert {dataset.load(record).pixels.shape for record in dataset.records[::6000]} == {(32, 32, 3)}
