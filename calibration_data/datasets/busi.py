"""BUSI: breast ultrasound in the class folders benign, malignant and normal, with masks of the lesions.

Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 2020. The masks of `benign (4).png` are
`benign (4)_mask.png`, `benign (4)_mask_1.png`…; those of normal images are black. Patients are not named.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.datasets.class_folders import (
    ClassFolders,
    fingerprint_class_folders,
    load_image,
    records_of,
    require_classes,
    scan_class_folders,
)
from calibration_data.image_files import require_folder
from foundation.settings import LocalPath

CLASSES = ("benign", "malignant", "normal")


class BusiSettings(SourceSettings):
    """BUSI as its authors pack it."""

    name: Literal["busi"] = Field("busi", description="breast ultrasound: benign, malignant and normal, with masks")
    root: LocalPath = Field(description="the folder with benign/, malignant/ and normal/")


def open_busi(settings: BusiSettings) -> Dataset:
    """Open the three folders; an image's masks are united, and a black one shows no lesion, so it is none.

    Raises:
        UsageError: no folder, other class folders, a link that leaves it.
    """
    folders = _folders(settings)
    return Dataset(
        settings.name,
        CLASSES,
        records_of(folders),
        synthetic=False,
        load=partial(_load, folders.root, dict(folders.masks)),
        ignored=folders.ignored,
    )


def fingerprint_busi(settings: BusiSettings) -> str:
    """Return a sha256 over the paths and bytes of all images and masks."""
    return fingerprint_class_folders(_folders(settings))


def _folders(settings: BusiSettings) -> ClassFolders:
    folders = scan_class_folders(require_folder(settings.root, "source.root"))
    require_classes(folders.classes, CLASSES, folders.root)
    return folders


def _load(root: Path, masks: dict[str, tuple[str, ...]], record: Record) -> Frame:
    frame = load_image(root, masks, record)
    return frame if frame.mask is not None and frame.mask.any() else Frame(frame.pixels, None)
