"""BUSI's folders, with the quirks of its names, and the real images where they are at hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration_data.dataset import BadImageError
from calibration_data.datasets.busi import BusiSettings, fingerprint_busi, open_busi
from foundation.errors import UsageError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "busi"


def opened(root: Path):
    return open_busi(BusiSettings(root=root))


def save_mask(path: Path, *box: int, size: tuple[int, int] = (20, 16)) -> None:
    mask = Image.new("L", size)
    if box:
        mask.paste(255, box)
    mask.save(path)


@pytest.fixture
def root(tmp_path: Path, write_image) -> Path:
    """Two images a class; the first of each has two masks, those of normal are black."""
    for label, name in enumerate(("benign", "malignant", "normal")):
        for index in (1, 10):
            write_image(tmp_path / name / f"{name} ({index}).png", seed=10 * label + index)
        save_mask(tmp_path / name / f"{name} (1)_mask.png", *((0, 0, 4, 3) if label < 2 else ()))
        save_mask(tmp_path / name / f"{name} (1)_mask_1.png", *((10, 10, 12, 12) if label < 2 else ()))
    return tmp_path


def test_masks_are_united_and_black_ones_are_none(root):
    dataset = opened(root)
    assert dataset.classes == ("benign", "malignant", "normal")
    assert [record.image_id for record in dataset.records[:2]] == ["benign/benign (1).png", "benign/benign (10).png"]
    masks = [dataset.load(record).mask for record in dataset.records]
    assert [None if mask is None else int(mask.sum()) for mask in masks] == [16, None, 16, None, None, None]


def test_a_mask_of_another_size_makes_a_bad_image(root):
    save_mask(root / "benign" / "benign (1)_mask_1.png", 0, 0, 2, 2, size=(10, 8))
    dataset = opened(root)
    with pytest.raises(BadImageError, match=r"benign \(1\)_mask_1\.png: expected 20 × 16 pixels, found 10 × 8"):
        dataset.load(dataset.records[0])


def test_other_folders_are_refused(root):
    (root / "normal").rename(root / "healthy")
    for function in (open_busi, fingerprint_busi):
        with pytest.raises(UsageError, match="missing: normal, unexpected: healthy"):
            function(BusiSettings(root=root))


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the BUSI images in ../shared/data/busi")
def test_the_72_images_at_hand_have_masks_of_lesions_only():
    dataset = opened(REAL)
    assert Counter(record.label for record in dataset.records) == {0: 24, 1: 24, 2: 24}
    shares: dict[int, list[float]] = {0: [], 1: [], 2: []}
    bad = []
    for record in dataset.records:
        try:
            mask = dataset.load(record).mask
        except BadImageError:
            bad.append(record.image_id)
        else:
            shares[record.label].append(0.0 if mask is None else float(mask.mean()))
    assert bad == ["benign/benign (4).png"]  # one image of the published set has a second mask of another size
    assert min(shares[0] + shares[1]) > 0
    assert max(shares[2]) == 0
    assert np.mean(shares[1]) > np.mean(shares[0])  # malignant lesions are larger, Al-Dhabyani et al.
