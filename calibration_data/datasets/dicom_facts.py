"""What is known of a DICOM file before it is decoded: whose it is, its frames, and whether it is an image."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom_file import DicomFile, read_dicom_file
from calibration_data.datasets.dicom_layout import number_of_frames

_PERSON = ("PatientID", "IssuerOfPatientID", "PatientSex")
_KEYWORDS = (*_PERSON, "SOPClassUID", "Rows", "NumberOfFrames")
_SEXES = ("F", "M", "O")
_PIXELS_BUT_NO_IMAGE = {
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose grid",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
}


@dataclass(frozen=True)
class DicomFacts:
    """What a header says.

    Attributes:
        group: a hash of the patient's ID and who issued it; "" where unknown.
        sex: "F", "M" or "O"; "" where unknown.
        frames: as the header promises; 1 where it cannot be said, and loading the image tells why.
        no_image: what it is instead of an image, a report for instance; "" for an image.
        readable: whether the header could be read at all.
    """

    group: str
    sex: str
    frames: int
    no_image: str
    readable: bool = True


def read_dicom_facts(path: Path) -> DicomFacts:
    """Read what the header says; a file that is none, or damaged, is an image that nothing is known of.

    Args:
        path: the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning quotes the value that it is about
        try:
            file = read_dicom_file(path, _KEYWORDS)
        except BadImageError:
            return DicomFacts("", "", 1, "", readable=False)
        patient, issuer, sex = (_text(file, keyword) for keyword in _PERSON)
        try:
            frames = number_of_frames(file)
        except BadImageError:
            frames = 1
        return DicomFacts(_group(patient, issuer), sex if sex in _SEXES else "", frames, _no_image(file))


def _group(patient: str, issuer: str) -> str:
    """Return a name that is the same for all files of a patient: IDs are unique for one issuer only."""
    if not patient:
        return ""
    whole = f"{issuer}\\{patient}" if issuer else patient  # neither can hold a backslash: PS3.5, 6.2
    return f"patient-{hashlib.sha256(whole.encode(errors='surrogatepass')).hexdigest()[:16]}"


def _text(file: DicomFile, keyword: str) -> str:
    try:
        return str(file.header.get(keyword) or "").strip()
    except Exception:  # a damaged value may raise anything at all
        return ""


def _no_image(file: DicomFile) -> str:
    """Return what an object without an image is, by the name of its SOP class."""
    from pydicom.uid import UID

    sop_class = UID(_text(file, "SOPClassUID"))
    if known := _PIXELS_BUT_NO_IMAGE.get(sop_class):
        return known
    # An image that was cut off before its pixels is a bad image, so the class has to say that it holds none.
    holds_none = not file.pixel_keyword and "Rows" not in file.header
    if holds_none and sop_class.name != str(sop_class) and "Image" not in sop_class.name:
        return f"{sop_class.name}, without pixels"
    return ""
