"""What the console says of the images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration_data.prepared import PreparedData
from calibration_data.summary import summary_lines


@pytest.fixture
def plain(stripes: PreparedData) -> PreparedData:
    """210 images whose patients are known, two images each, without masks."""

    def paired(name: str, count: int) -> dict:
        groups = tuple(f"{name} {index // 2}" for index in range(count))
        return {"groups": groups, "has_mask": np.zeros(count, dtype=bool)}

    return replace(
        stripes,
        groups_known=True,
        train=replace(stripes.train, **paired("train", 120)),
        validation=replace(stripes.validation, **paired("validation", 30)),
        test=replace(stripes.test, **paired("test", 60)),
    )


def test_images_groups_and_splits_are_counted(plain):
    assert summary_lines(plain, named=True) == ["210 images of 105 groups: 120 train, 30 validation, 60 test."]


def test_the_bits_of_deep_images_are_told(plain):
    assert (
        summary_lines(replace(plain, bits=12), named=True)[-1]
        == "Gray images of 16 bits are taken to use 12 of them."
    )


def test_images_of_unknown_patients_are_no_groups(stripes):
    assert summary_lines(stripes, named=True) == [
        "210 images: 120 train, 30 validation, 60 test.",
        "210 images have a mask.",
        "No patients are named: leakage between the splits is not excluded.",
    ]


def test_patients_of_some_images_alone_exclude_no_leakage(plain):
    assert summary_lines(replace(plain, groups_known=False), named=True) == [
        "210 images: 120 train, 30 validation, 60 test.",
        "Not every image names its patient: leakage between the splits is not excluded.",
    ]


def test_everything_left_out_has_its_own_reason(plain):
    data = replace(
        plain,
        missing=tuple(f"ISIC_{index}" for index in range(3021)),
        skipped=("a.png: expected an image, found a file of zero bytes",),
        dropped=("b: equal to c, which stands in test", "d: equal to c, which stands in test"),
        merged=tuple("efghijkl"),
        ignored=("a.txt", "b.txt", "c.txt"),
    )
    assert summary_lines(data, named=True)[1:] == [
        "3,021 images that the source lists are not there and passed over: ISIC_0, ISIC_1, ISIC_2 and 3,018 more.",
        "1 image could not be read and was skipped: a.png: expected an image, found a file of zero bytes.",
        "2 images were left out, being equal to others in a stricter split: b: equal to c, which stands in test, "
        "d: equal to c, which stands in test.",
        "8 equal images were kept on one side.",
        "3 files are no images and were ignored: a.txt, b.txt, c.txt.",
    ]
    told = " ".join(summary_lines(data, named=False))
    assert not any(name in told for name in ("ISIC_", "a.png", "b:", "a.txt"))
    assert "3,021 images that the source lists are not there and passed over. 1 image could not be read" in told
