"""Handwritten digits: 1797 real scans of 8 × 8 pixels that ship inside scikit-learn."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings

_LARGEST_PIXEL = 16
_PREFIX = "digit-"
"""What an image's id consists of, with its index."""


class DigitsSettings(SourceSettings):
    """The digits of scikit-learn."""

    name: Literal["digits"] = Field("digits", description="1797 scans of digits from scikit-learn")


def open_digits(settings: DigitsSettings) -> Dataset:
    """Open the scans: ten classes, one gray channel, no masks; who wrote which digit is unknown."""
    pixels, labels = _scans()
    records = tuple(
        Record(
            image_id=f"{_PREFIX}{index:04d}",
            label=int(label),
            group=f"{_PREFIX}{index:04d}",
            subgroups=(),
            official_split=None,
            sha256=hashlib.sha256(scan.tobytes()).hexdigest(),
        )
        for index, (scan, label) in enumerate(zip(pixels, labels, strict=True))
    )
    return Dataset(
        name=settings.name,
        classes=tuple(str(digit) for digit in range(10)),
        records=records,
        synthetic=False,
        load=_load,
    )


def fingerprint_digits(settings: DigitsSettings) -> str:
    """Return a sha256 over every scan and label."""
    pixels, labels = _scans()
    return hashlib.sha256(pixels.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


def _load(record: Record) -> Frame:
    pixels, _ = _scans()
    return Frame(pixels[int(record.image_id.removeprefix(_PREFIX))].copy(), None)


@lru_cache(maxsize=1)
def _scans() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return uint8 [1797, 8, 8, 1], scaled from 0…16 to 0…255, and the labels, int64 [1797]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scaled = np.asarray(bunch.images, dtype=np.float64) * (255 / _LARGEST_PIXEL)
    return np.rint(scaled).astype(np.uint8)[..., None], np.asarray(bunch.target, dtype=np.int64)
