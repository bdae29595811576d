"""The DICOM file that a test image was read from, held against the run, with what an object derived from it needs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from calibration_data.dataset import BadImageError
from calibration_data.prepared import PreparedSplit
from foundation.errors import UsageError
from foundation.files import JSON, sha256_of_file
from foundation.record import RunRecord
from foundation.run_folder import RunFolder

if TYPE_CHECKING:
    from pydicom import Dataset as DicomDataset

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")
PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName")
_IMAGE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "SpecificCharacterSet")
_PLACE = (
    "FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
)  # fmt: skip
_DATES = (("ContentDate", "ContentTime"), ("AcquisitionDate", "AcquisitionTime"), ("StudyDate", "StudyTime"))


@dataclass(frozen=True)
class SourceImage:
    """A test image's own file.

    Attributes:
        index: position in the test split.
        path: of the file.
        sha256: of its bytes.
        header: the patient, the study and the place of the image, and nothing else of its header.
        date: when its content was made, as DICOM writes it.
        time: likewise.
    """

    index: int
    path: Path
    sha256: str
    header: DicomDataset
    date: str
    time: str


def dicom_settings(run: RunFolder, record: RunRecord) -> Mapping[str, JSON]:
    """Return what a run's configuration says of its DICOM images.

    Raises:
        UsageError: they were no DICOM files.
    """
    data = record.configuration.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    name = source.get("name") if isinstance(source, dict) else None
    if not isinstance(data, dict) or name != "dicom":
        raise UsageError(
            f"{run.root}: expected a run on DICOM files, to whose studies such objects belong, found one on the data "
            f"set {record.dataset[:60]}. Its maps stand in report/index.html."
        )
    return data


def find_source(root: Path, split: PreparedSplit, index: int) -> SourceImage:
    """Return the file of a test image.

    Args:
        root: the folder that the run read its images from.
        split: the test images.
        index: of the image.

    Raises:
        UsageError: no such file, another one than the run read, a frame of several, or one without identifiers.
    """
    image = split.image_ids[index]
    path = root / image
    mend = "Give the folder that the run read: --images ROOT."
    if not path.is_file():
        name, mark, _ = image.rpartition("#")
        if mark and (root / name).is_file():
            raise UsageError(
                f"{image}: expected a file of one image, found a frame of several, which is not supported. Store the "
                "frames as files of their own."
            )
        raise UsageError(f"{path}: expected the DICOM file of a test image, found nothing. {mend}")
    if not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path}: expected a file below {root}, found a link that leaves it. {mend}")
    found = sha256_of_file(path)
    if found != split.sha256[index]:
        raise UsageError(
            f"{path}: expected sha256 {split.sha256[index][:12]} as the run read it, found {found[:12]}. {mend}"
        )
    return _checked(index, path, found)


def _checked(index: int, path: Path, sha256: str) -> SourceImage:
    from calibration_data.datasets.dicom_file import read_dicom_file
    from calibration_data.datasets.dicom_layout import number_of_frames

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning quotes the value that it is about
        try:
            file = read_dicom_file(path)
            if number_of_frames(file) > 1:
                raise BadImageError("expected a file of one image, found several frames, which is not supported")
        except BadImageError as error:
            raise UsageError(
                f"{path}: {error}. Leave it out of the test images, or store its frames as files."
            ) from None
        missing = [keyword for keyword in _NEEDED if not _text(file.header, keyword)]
        removed = _text(file.header, "PatientIdentityRemoved") == "YES"
        if missing or removed:
            found = f"no {', '.join(missing)}" if missing else "PatientIdentityRemoved YES"
            raise UsageError(
                f"{path}: expected an image with the identifiers of its patient, study and series, found {found}. An "
                "object derived from it has no place in a PACS; use the images as the PACS holds them."
            )
        date, time = _made(file.header)
        return SourceImage(index, path, sha256, _kept(file.header), date, time)


def _kept(header: DicomDataset) -> DicomDataset:
    """Return the few elements that a derived object takes over; what it must hold and the image lacks is empty."""
    from pydicom import Dataset as DicomDataset

    kept = DicomDataset()
    for keyword in (*PATIENT, *STUDY):
        value = _text(header, keyword) if keyword != "PatientName" else header.get(keyword)
        if value or keyword != "IssuerOfPatientID":
            setattr(kept, keyword, value or None)
    if kept.PatientSex not in ("M", "F", "O"):
        kept.PatientSex = None
    for keyword in ("PatientBirthDate", "StudyDate"):
        if not _is_date(_text(header, keyword)):
            setattr(kept, keyword, None)
    if not _is_time(_text(header, "StudyTime")):
        kept.StudyTime = None
    has_place = all(_text(header, keyword) for keyword in _PLACE if keyword in ("FrameOfReferenceUID", *_PLACE[2:5]))
    for keyword in (*_IMAGE, *(_PLACE if has_place else ())):
        if keyword in header:
            kept.add(header[keyword])
    return kept


def _made(header: DicomDataset) -> tuple[str, str]:
    """Return the first date and time that the image says; an object without any could not be stored.

    They stand in the derived object too: the same map gives the same bytes, so it cannot hold the time of the export.
    """
    for date, time in _DATES:
        if _is_date(_text(header, date)):
            found = _text(header, time)
            return _text(header, date), found.partition(".")[0] if _is_time(found) else "000000"
    return "19000101", "000000"


def _is_date(text: str) -> bool:
    return len(text) == 8 and _parses(text, "%Y%m%d")


def _is_time(text: str) -> bool:
    return len(text.partition(".")[0]) == 6 and _parses(text.partition(".")[0], "%H%M%S")


def _parses(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return text.isascii()


def _text(header: DicomDataset, keyword: str) -> str:
    try:
        value = header.get(keyword)
        return "" if value is None else str(value).strip()
    except Exception:  # a damaged value may raise anything at all
        return ""
