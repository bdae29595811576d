"""Kvasir v1 and v2: endoscopy in eight class folders, with the masks of Kvasir-SEG where they are at hand.

Pogorelov et al., KVASIR, MMSys 2017; Jha et al., Kvasir-SEG, MMM 2020 (arXiv 1911.07069). There is no official
split, and patients are not named.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from calibration_data.dataset import Dataset, SourceSettings
from calibration_data.datasets.class_folders import (
    ClassFolders,
    fingerprint_class_folders,
    load_image,
    records_of,
    require_classes,
    scan_class_folders,
)
from calibration_data.image_files import is_image_name, require_folder, require_inside
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.settings import LocalPath

CLASSES = (
    "dyed-lifted-polyps",
    "dyed-resection-margins",
    "esophagitis",
    "normal-cecum",
    "normal-pylorus",
    "normal-z-line",
    "polyps",
    "ulcerative-colitis",
)
_SEGMENTED = "polyps"
"""The class whose images Kvasir-SEG shows."""


class KvasirSettings(SourceSettings):
    """Kvasir as its authors pack it."""

    name: Literal["kvasir"] = Field("kvasir", description="Kvasir v1 or v2: endoscopy of eight classes")
    root: LocalPath = Field(description="the folder with the eight class folders")
    masks: LocalPath | None = Field(
        None, description="folder of Kvasir-SEG, with images/ and masks/; default: only masks beside the images"
    )


def open_kvasir(settings: KvasirSettings) -> Dataset:
    """Open the eight folders.

    A mask belongs to the polyp image whose file equals its image in Kvasir-SEG, or has its name: Kvasir-SEG renamed
    the images that it took over. Masks beside an image (`NAME_mask.jpg`) are used as well, all are united.

    Raises:
        UsageError: no folder, other class folders, or `masks` is set and no image of it is among the polyps.
    """
    folders = _folders(settings)
    masks = {image: tuple(folders.root / mask for mask in beside) for image, beside in folders.masks.items()}
    for image, mask in _segmented(folders, settings).items():
        masks[image] = (*masks.get(image, ()), mask)
    return Dataset(
        settings.name,
        CLASSES,
        records_of(folders),
        synthetic=False,
        load=partial(load_image, folders.root, masks),
        ignored=folders.ignored,
    )


def fingerprint_kvasir(settings: KvasirSettings) -> str:
    """Return a sha256 over the paths and bytes of all images and of the masks that are used."""
    folders = _folders(settings)
    masks = {image: sha256_of_file(path) for image, path in _segmented(folders, settings).items()}
    return sha256_of_json({"images": fingerprint_class_folders(folders), "masks": masks})


def _folders(settings: KvasirSettings) -> ClassFolders:
    folders = scan_class_folders(require_folder(settings.root, "source.root"))
    require_classes(folders.classes, CLASSES, folders.root)
    return folders


def _segmented(folders: ClassFolders, settings: KvasirSettings) -> dict[str, Path]:
    """Return polyp image → its mask in Kvasir-SEG."""
    if settings.masks is None:
        return {}
    segmented = require_folder(settings.masks, "source.masks")
    images, masks = (
        {path.stem: require_inside(segmented, path) for path in sorted(folder.iterdir()) if is_image_name(path.name)}
        for folder in (require_folder(segmented / name, "source.masks") for name in ("images", "masks"))
    )
    by_digest = {sha256_of_file(path): masks[stem] for stem, path in images.items() if stem in masks}
    found: dict[str, Path] = {}
    for image in folders.images:
        if image.startswith(f"{_SEGMENTED}/"):
            path = folders.root / image
            mask = by_digest.get(sha256_of_file(path), masks.get(path.stem))
            if mask is not None:
                found[image] = mask
    if not found:
        raise UsageError(
            f"{segmented}: expected masks of images in {folders.root / _SEGMENTED}, found that none of its "
            f"{len(images)} images is there, by content or by name. Leave `source.masks` out, or use the source "
            "`kvasir_seg`, which needs no Kvasir."
        )
    return found
