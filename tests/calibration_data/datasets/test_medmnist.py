"""MedMNIST files of every kind, written by hand, and the real PneumoniaMNIST where it is at hand."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from calibration_data.datasets import medmnist
from calibration_data.datasets.medmnist import MedMnistSettings, fingerprint_medmnist, open_medmnist
from calibration_data.datasets.medmnist_sets import SETS
from foundation.errors import UsageError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def arrays(name: str, size: int = 28) -> dict[str, np.ndarray]:
    """Six, three and three images; the labels count up, of ChestMNIST two a row."""
    content, values = SETS[name], {}
    for seed, (prefix, count) in enumerate((("train", 6), ("val", 3), ("test", 3))):
        shape = (count, size, size) if content.channels == 1 else (count, size, size, 3)
        values[f"{prefix}_images"] = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
        if content.task == "multi_class":
            labels = (np.arange(count) % len(content.classes))[:, None]
        else:
            labels = np.zeros((count, 14), dtype=int)
            labels[1, [13, 2]] = 1
        values[f"{prefix}_labels"] = labels.astype(np.uint8)
    return values


def written(folder: Path, name: str, file: str | None = None, compressed: bool = True, **changed) -> Path:
    path = folder / (file or f"{name}.npz")
    (np.savez_compressed if compressed else np.savez)(path, **(arrays(name) | changed))
    return path


def opened(path: Path, **settings):
    return open_medmnist(MedMnistSettings(root=path, **settings))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_every_set_opens_in_its_official_splits(tmp_path, name, compressed):
    dataset = opened(written(tmp_path, name, compressed=compressed))
    assert Counter(record.official_split for record in dataset.records) == {"train": 6, "validation": 3, "test": 3}
    content = arrays(name)["val_images"][2]
    record = next(record for record in dataset.records if record.image_id == "val/000002")
    assert record.sha256 == hashlib.sha256(content.tobytes()).hexdigest()
    pixels = dataset.load(record).pixels
    assert pixels.shape == (28, 28, SETS[name].channels)
    assert np.array_equal(pixels.squeeze(), content)


def test_the_numbers_of_classes_are_the_published_ones():
    # The paper's table: Path, Chest, Derma, OCT, Pneumonia, Retina, Breast, Blood, Tissue, Organ A, C and S.
    assert [len(content.classes) for content in SETS.values()] == [9, 14, 7, 4, 2, 5, 2, 8, 8, 11, 11, 11]
    assert [name for name, content in SETS.items() if content.task == "multi_label"] == ["chestmnist"]
    assert [name for name, content in SETS.items() if content.channels == 3] == [
        "pathmnist",
        "dermamnist",
        "retinamnist",
        "bloodmnist",
    ]


def test_chest_labels_are_the_columns_that_hold_a_one(tmp_path):
    dataset = opened(written(tmp_path, "chestmnist"))
    assert dataset.task == "multi_label"
    assert [record.label for record in dataset.records[:3]] == [(), (2, 13), ()]
    assert [dataset.classes[label] for label in (2, 13)] == ["effusion", "hernia"]


def test_the_larger_sizes_are_read_and_a_name_of_ones_own_needs_the_set(tmp_path):
    path = tmp_path / "bloodmnist_64.npz"
    np.savez(path, **arrays("bloodmnist", 64))
    assert opened(path).load(opened(path).records[0]).pixels.shape == (64, 64, 3)
    other = path.rename(tmp_path / "mine.npz")
    with pytest.raises(
        UsageError, match=r"mine\.npz: expected a file called like one of pathmnist, .* `source\.set`"
    ):
        opened(other)
    assert len(opened(other, set="bloodmnist").records) == 12


def test_it_is_unpacked_once_and_pixels_stay_on_disk(tmp_path, own_cache):
    path = written(tmp_path, "pneumoniamnist")
    dataset = opened(path)
    unpacked = {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.npy")}
    assert len(unpacked) == 3
    assert [record.sha256 for record in opened(path).records] == [record.sha256 for record in dataset.records]
    assert {file: file.stat().st_mtime_ns for file in own_cache.rglob("*.npy")} == unpacked


def test_pixels_that_were_changed_in_the_cache_are_unpacked_again(tmp_path, own_cache):
    path = written(tmp_path, "pneumoniamnist")
    before = [record.sha256 for record in opened(path).records]
    for file in own_cache.rglob("*.npy"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    medmnist._mapped.cache_clear()  # as in another process
    assert [record.sha256 for record in opened(path).records] == before


def test_the_fingerprint_sees_the_file_and_the_set(tmp_path):
    path = written(tmp_path, "organamnist")
    seen = {fingerprint_medmnist(MedMnistSettings(root=path))}
    seen.add(fingerprint_medmnist(MedMnistSettings(root=path, set="organcmnist")))
    written(tmp_path, "organamnist", val_labels=np.array([[3], [2], [1]], np.uint8))
    seen.add(fingerprint_medmnist(MedMnistSettings(root=path)))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        (
            "bloodmnist",
            {"val_labels": np.array([[0], [8], [1]])},
            r"from 0 to 7 in val_labels, found \[8\] at image 1",
        ),
        ("bloodmnist", {"val_labels": np.array([[0], [-1], [1]])}, r"from 0 to 7 in val_labels, found \[-1\]"),
        (
            "bloodmnist",
            {"val_labels": np.zeros((2, 1), int)},
            r"val_labels to be whole numbers \[3, 1\], .* \[2, 1\]",
        ),
        ("bloodmnist", {"val_labels": np.zeros((3, 14), int)}, r"whole numbers \[3, 1\].*found int64 \[3, 14\]"),
        ("bloodmnist", {"val_labels": np.zeros((3, 1))}, r"whole numbers \[3, 1\].*found float64"),
        ("chestmnist", {"test_labels": np.full((3, 14), 2)}, "from 0 to 1 in test_labels"),
        (
            "bloodmnist",
            {"test_images": np.zeros((3, 28, 28), np.uint8)},
            r"test_images to be uint8 \[n, size, size, 3\]",
        ),
        ("octmnist", {"test_images": np.zeros((3, 28, 28, 28), np.uint8)}, r"uint8 \[n, size, size\].*3-D sets"),
        ("octmnist", {"test_images": np.zeros((3, 28, 28))}, "to be uint8 .* found float64"),
        ("octmnist", {"test_images": np.zeros((3, 32, 32), np.uint8)}, "images of 28, 64, 128, 224 px, found 32 px"),
        (
            "octmnist",
            {"test_labels": np.array([[{}], [0], [1]], dtype=object)},
            "pickled objects, which are never read",
        ),
        ("octmnist", {"train_images": np.array([{}] * 6, dtype=object)}, "pickled objects, which are never read"),
    ],
)
def test_contents_of_another_kind_are_refused(tmp_path, name, changed, message):
    path = written(tmp_path, name, **changed)
    with pytest.raises(UsageError, match=message):
        opened(path)


def test_a_missing_array_is_named_with_what_was_found(tmp_path):
    np.savez(tmp_path / "octmnist.npz", **{k: v for k, v in arrays("octmnist").items() if k != "val_images"})
    with pytest.raises(
        UsageError, match="expected an array val_images, found train_images, train_labels, val_labels"
    ):
        opened(tmp_path / "octmnist.npz")


@pytest.mark.parametrize("keep", [0.0, 0.4, 0.98])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = written(tmp_path, "octmnist")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UsageError, match=r"expected a whole \.npz file, found a damaged one"):
        opened(path)


def test_a_header_that_claims_more_than_there_is_memory_is_refused(tmp_path):
    path = written(tmp_path, "octmnist")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**13, 14)})
    members["train_labels.npy"] = header.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UsageError, match=r"octmnist\.npz: expected a plain array, found another"):
        opened(path)


def test_damaged_bytes_are_refused_and_leave_nothing_behind(tmp_path, own_cache):
    path = written(tmp_path, "octmnist")
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"expected a whole \.npz file, found a damaged one"):
        opened(path)
    assert not [file for file in own_cache.rglob("*") if file.is_file()]


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, found in ((tmp_path / "octmnist.npz", "nothing"), (tmp_path, "a folder")):
        for function in (open_medmnist, fingerprint_medmnist):
            with pytest.raises(UsageError, match=rf"expected a MedMNIST file \(.npz\), found {found}"):
                function(MedMnistSettings(root=path, set="octmnist"))


@pytest.mark.skipif(not REAL.is_file(), reason="needs PneumoniaMNIST in ../shared/data/medmnist")
def test_the_real_set_has_its_published_counts():
    dataset = opened(REAL)
    splits = Counter(record.official_split for record in dataset.records)
    assert splits == {"train": 4708, "validation": 524, "test": 624}
    # 234 healthy and 390 ill children in the source's test folder (Kermany et al., 2018).
    assert Counter(record.label for record in dataset.records if record.official_split == "test") == {0: 234, 1: 390}
    sides: dict[str, set] = {}
    for record in dataset.records:
        sides.setdefault(record.sha256, set()).add(record.official_split)
    assert [sorted(found) for found in sides.values() if len(found) > 1] == [["train", "validation"]] * 8
