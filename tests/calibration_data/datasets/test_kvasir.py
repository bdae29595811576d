"""Kvasir's eight folders, and the masks that Kvasir-SEG has for some of its polyps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from calibration_data.dataset import BadImageError
from calibration_data.datasets.kvasir import CLASSES, KvasirSettings, fingerprint_kvasir, open_kvasir
from foundation.errors import UsageError


def opened(root: Path, masks: Path | None = None):
    return open_kvasir(KvasirSettings(root=root, masks=masks))


def save_mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(255, box)
    mask.save(path)


@pytest.fixture
def root(tmp_path: Path, write_image) -> Path:
    """Three images a class, beside them Kvasir-SEG: a polyp of another name, one of the same, one of its own."""
    for label, name in enumerate(CLASSES):
        for index in range(3):
            write_image(tmp_path / "kvasir" / name / f"{name}{index}.png", seed=10 * label + index)
    polyps, segmented = tmp_path / "kvasir" / "polyps", tmp_path / "Kvasir-SEG"
    (segmented / "images").mkdir(parents=True)
    shutil.copy(polyps / "polyps0.png", segmented / "images" / "cju0.png")
    write_image(segmented / "images" / "polyps1.png", seed=998)
    write_image(segmented / "images" / "cju9.png", seed=999)
    save_mask(segmented / "masks" / "cju0.png", (0, 0, 4, 3))
    save_mask(segmented / "masks" / "polyps1.png", (0, 0, 5, 5))
    save_mask(segmented / "masks" / "cju9.png", (0, 0, 6, 6))
    return tmp_path / "kvasir"


def test_the_eight_classes_open_without_masks(root):
    dataset = opened(root)
    assert dataset.classes == CLASSES
    assert [record.label for record in dataset.records] == [label for label in range(8) for _ in range(3)]
    assert {record.official_split for record in dataset.records} == {None}
    assert all(dataset.load(record).mask is None for record in dataset.records)


def test_masks_are_found_by_content_then_by_name(root):
    dataset = opened(root, root.parent / "Kvasir-SEG")
    masks = {record.image_id: dataset.load(record).mask for record in dataset.records}
    sizes = {name: int(mask.sum()) for name, mask in masks.items() if mask is not None}
    assert sizes == {"polyps/polyps0.png": 12, "polyps/polyps1.png": 25}


def test_masks_beside_an_image_are_united_with_those(root):
    save_mask(root / "polyps" / "polyps0_mask.png", (10, 10, 12, 12))
    save_mask(root / "esophagitis" / "esophagitis0_mask.png", (10, 10, 12, 11))
    dataset = opened(root, root.parent / "Kvasir-SEG")
    masks = {record.image_id: dataset.load(record).mask for record in dataset.records}
    assert int(masks["polyps/polyps0.png"].sum()) == 12 + 4
    assert int(masks["esophagitis/esophagitis0.png"].sum()) == 2


def test_a_mask_of_another_size_makes_a_bad_image(root):
    save_mask(root.parent / "Kvasir-SEG" / "masks" / "cju0.png", (0, 0, 1, 1), size=(8, 8))
    dataset = opened(root, root.parent / "Kvasir-SEG")
    record = next(record for record in dataset.records if record.image_id == "polyps/polyps0.png")
    with pytest.raises(BadImageError, match=r"its mask cju0\.png: expected 20 × 16 pixels, found 8 × 8"):
        dataset.load(record)


def test_masks_of_other_images_are_refused(root):
    for path in (root / "polyps").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="found that none of its 3 images is there, by content or by name"):
        opened(root, root.parent / "Kvasir-SEG")
    with pytest.raises(UsageError, match=r"nowhere: expected a folder, found nothing\. Set `source\.masks`"):
        opened(root, root.parent / "nowhere")


def test_other_folders_are_refused(root):
    (root / "polyps").rename(root / "cancer")
    for function in (open_kvasir, fingerprint_kvasir):
        with pytest.raises(UsageError, match=r"missing: polyps, unexpected: cancer\. .*the source `folder`"):
            function(KvasirSettings(root=root))


def test_the_fingerprint_sees_images_and_the_masks_in_use(root):
    settings = KvasirSettings(root=root, masks=root.parent / "Kvasir-SEG")
    seen = {fingerprint_kvasir(KvasirSettings(root=root)), fingerprint_kvasir(settings)}
    save_mask(root.parent / "Kvasir-SEG" / "masks" / "cju9.png", (0, 0, 1, 1))
    assert fingerprint_kvasir(settings) in seen  # it is of no image here
    save_mask(root.parent / "Kvasir-SEG" / "masks" / "cju0.png", (0, 0, 1, 1))
    seen.add(fingerprint_kvasir(settings))
    assert len(seen) == 3
