"""DICOM files in class folders, `ROOT/CLASS/…/NAME.dcm`, shown as a viewer would show them.

Gray values go through the modality's rescaling and the window (PS3.3 C.11.1 and C.11.2) to 0…255; MONOCHROME1, where
low is bright, is inverted. Needs pydicom and its decoders (`pip install edgeproof[dicom]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from calibration_data.dataset import Dataset, Frame, Record, SourceSettings
from calibration_data.datasets.class_folders import (
    ClassFolders,
    fingerprint_class_folders,
    records_of,
    scan_class_folders,
)
from calibration_data.datasets.dicom_facts import DicomFacts, read_dicom_facts
from calibration_data.datasets.dicom_file import is_dicom
from calibration_data.datasets.dicom_pixels import read_dicom_pixels
from calibration_data.datasets.dicom_window import Window
from calibration_data.image_files import require_folder
from foundation.errors import UsageError
from foundation.files import sha256_of_json
from foundation.settings import LocalPath

_SUFFIXES = frozenset({".dcm", ".dicom"})
_DIRECTORY = "DICOMDIR"
"""A table of contents that comes with DICOM files; it is no image."""

Frames = Literal["refuse", "first", "middle", "all"]


class DicomSettings(SourceSettings):
    """A folder with one folder of DICOM files per class."""

    name: Literal["dicom"] = Field("dicom", description="a folder with one folder of DICOM files per class")
    root: LocalPath = Field(description="the folder that holds the class folders")
    frames: Frames = Field(
        "refuse",
        description="which frames of a multi-frame file are images; refuse: such a file is a bad image, because only "
        "you can say whether its class holds for each of its frames",
    )
    window_center: float | None = Field(
        None, description="middle of the shown range, after rescaling (HU in CT); default: what the file says"
    )
    window_width: float | None = Field(None, ge=1, description="width of the shown range, likewise")
    subgroup: Literal["sex", "none"] = Field("sex", description="what the subgroups are, where the file says it")

    @model_validator(mode="after")
    def _whole_window(self) -> Self:
        if (self.window_center is None) != (self.window_width is None):
            raise ValueError("window_center and window_width belong together: set both or neither")
        return self


def open_dicom(settings: DicomSettings) -> Dataset:
    """Open the class folders; the group is a hash of who the patient is, so that no identity reaches a report.

    Files ending in .dcm or .dicom count, and any other file whose content is DICOM; reports, plans, presentation
    states and other objects without pixels are ignored. A frame of several is named "PATH#3", from 1 as DICOM
    counts, and belongs to the patient of its file. A hash of a guessable ID can be guessed; de-identify what must be
    anonymous. Where there is no PatientID, a file is its own group.

    Raises:
        UsageError: pydicom is missing, no folder, no class folder in it, a link that leaves it, a file named like
            another one's frame.
    """
    _require_pydicom()
    found = _folders(settings)
    facts = {image: read_dicom_facts(found.root / image) for image in found.images}
    folders = replace(found, images=tuple(image for image in found.images if not facts[image].no_image))
    window = None
    if settings.window_center is not None and settings.window_width is not None:
        window = Window(settings.window_center, settings.window_width)
    records = records_of(
        folders,
        group_of=lambda image: facts[image].group or image,
        subgroups_of=lambda image: (facts[image].sex,) if settings.subgroup == "sex" and facts[image].sex else (),
    )
    return Dataset(
        settings.name,
        folders.classes,
        _frames_of(records, facts, settings.frames, folders.root),
        synthetic=False,
        load=partial(_load, folders.root, window),
        ignored=tuple(sorted((*found.ignored, *_ignored(found, facts)))),
        groups_known=all(facts[image].group for image in folders.images if facts[image].readable),
    )


def fingerprint_dicom(settings: DicomSettings) -> str:
    """Return a sha256 over the classes and the paths and bytes of all images."""
    return fingerprint_class_folders(_folders(settings))


def _frames_of(
    records: tuple[Record, ...], facts: Mapping[str, DicomFacts], frames: Frames, root: Path
) -> tuple[Record, ...]:
    """Return a record for every frame that is an image."""
    images: list[Record] = []
    for record in records:
        total = facts[record.image_id].frames
        if total == 1 or frames == "refuse":
            images.append(record)
            continue
        chosen = {"first": range(1, 2), "middle": range((total + 1) // 2, (total + 1) // 2 + 1)}
        for frame in chosen.get(frames, range(1, total + 1)):
            image_id = f"{record.image_id}#{frame}"
            if image_id in facts:
                raise UsageError(
                    f"{root / image_id}: expected a name of its own, found that of a frame of {record.image_id}. "
                    "Rename it."
                )
            # The frames of a file are no copies of one another, as equal digests would say.
            digest = sha256_of_json({"file": record.sha256, "frame": frame})
            images.append(replace(record, image_id=image_id, sha256=digest))
    return tuple(images)


def _ignored(found: ClassFolders, facts: Mapping[str, DicomFacts]) -> list[str]:
    objects = [f"{image}: {fact.no_image}" for image, fact in facts.items() if fact.no_image]
    masks = [f"{mask}: named like a mask" for masks in found.masks.values() for mask in masks]
    return [*objects, *masks]


def _load(root: Path, window: Window | None, record: Record) -> Frame:
    path, frame = root / record.image_id, None
    name, mark, number = record.image_id.rpartition("#")
    if mark and number.isdecimal() and not path.is_file():
        path, frame = root / name, int(number)
    return Frame(read_dicom_pixels(path, window, frame), None)


def _folders(settings: DicomSettings) -> ClassFolders:
    return scan_class_folders(require_folder(settings.root, "source.root"), _is_image)


def _is_image(path: Path) -> bool:
    if path.name == _DIRECTORY:
        return False
    return path.suffix.lower() in _SUFFIXES or is_dicom(path)


def _require_pydicom() -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "source.name: dicom needs the package pydicom, found none. Run `pip install 'edgeproof[dicom]'`."
        ) from error
