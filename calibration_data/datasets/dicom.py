"""DICOM files in class folders, `ROOT/CLASS/…/NAME.dcm`, shown as a viewer would show them.

Gray values go through the modality's rescaling and the window (PS3.3 C.11.1 and C.11.2) to 0…255; MONOCHROME1, where
low is bright, is inverted. Needs pydicom (`pip install edgeproof[dicom]`).
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
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
from calibration_data.datasets.dicom_pixels import Window, read_dicom_pixels
from calibration_data.image_files import require_folder
from foundation.errors import UsageError
from foundation.settings import LocalPath

_SUFFIXES = frozenset({".dcm", ".dicom"})
_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
_DIRECTORY = "DICOMDIR"
"""A table of contents that comes with DICOM files; it is no image."""


class DicomSettings(SourceSettings):
    """A folder with one folder of DICOM files per class."""

    name: Literal["dicom"] = Field("dicom", description="a folder with one folder of DICOM files per class")
    root: LocalPath = Field(description="the folder that holds the class folders")
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
    """Open the class folders; the group is a hash of PatientID, so that no identity reaches a report.

    Files ending in .dcm or .dicom count, and any other file that begins like DICOM. A hash of a guessable ID can be
    guessed; de-identify what must be anonymous. Where there is no PatientID, an image is its own group.

    Raises:
        UsageError: pydicom is missing, no folder, no class folder in it, a link that leaves it.
    """
    _require_pydicom()
    folders = _folders(settings)
    people = {image: _read_person(folders.root / image) for image in folders.images}
    with_sex = settings.subgroup == "sex"
    window = None
    if settings.window_center is not None and settings.window_width is not None:
        window = Window(settings.window_center, settings.window_width)
    return Dataset(
        settings.name,
        folders.classes,
        records_of(
            folders,
            group_of=lambda image: people[image].group or image,
            subgroups_of=lambda image: (people[image].sex,) if with_sex and people[image].sex else (),
        ),
        synthetic=False,
        load=partial(_load, folders.root, window),
        ignored=folders.ignored,
        groups_known=all(person.group for person in people.values() if person.readable),
    )


def fingerprint_dicom(settings: DicomSettings) -> str:
    """Return a sha256 over the classes and the paths and bytes of all images."""
    return fingerprint_class_folders(_folders(settings))


@dataclass(frozen=True)
class _Person:
    """Whose image it is: a hash, and the sex; "" where unknown."""

    group: str
    sex: str
    readable: bool = True


def _load(root: Path, window: Window | None, record: Record) -> Frame:
    return Frame(read_dicom_pixels(root / record.image_id, window), None)


def _folders(settings: DicomSettings) -> ClassFolders:
    return scan_class_folders(require_folder(settings.root, "source.root"), _is_dicom)


def _is_dicom(path: Path) -> bool:
    if path.name == _DIRECTORY:
        return False
    if path.suffix.lower() in _SUFFIXES:
        return True
    with path.open("rb") as stream:
        stream.seek(_MAGIC_OFFSET)
        return stream.read(len(_MAGIC)) == _MAGIC


def _read_person(path: Path) -> _Person:
    from pydicom import dcmread

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning quotes the value that it is about
            header = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", "PatientSex"])
            patient, sex = str(header.get("PatientID") or "").strip(), str(header.get("PatientSex") or "").strip()
    except Exception:  # a damaged header; loading the image tells the reason
        return _Person("", "", readable=False)
    return _Person(f"patient-{hashlib.sha256(patient.encode()).hexdigest()[:16]}" if patient else "", sex)


def _require_pydicom() -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "source.name: dicom needs the package pydicom, found none. Run `pip install 'edgeproof[dicom]'`."
        ) from error
