"""A saliency map as objects for a PACS, by highdicom: a picture (Secondary Capture) and the numbers (Parametric Map).

Both belong to the study of the source image and refer to it by its UIDs. Their own UIDs follow from their content
(ITU-T X.667, "2.25."), and they hold no time but the source image's: the same map gives the same bytes.
"""

from __future__ import annotations

import copy
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foundation.errors import StageError
from foundation.files import sha256_of_json
from foundation.versions import installed_version
from pipeline.exports.dicom_source import PATIENT, STUDY, SourceImage

if TYPE_CHECKING:
    from pydicom import Dataset as DicomDataset

_LONGEST_SIDE = 1024
"""Pixels of a picture; the numbers keep the source image's."""
_SERIES_NUMBER = 8000
_COMMENT = "Saliency of a classifier: what it looks at. Not for diagnosis."


@dataclass(frozen=True)
class MapOfImage:
    """One saliency map on the grid of its source image.

    Attributes:
        variant: the file that was explained.
        method: how the map was made, as one writes it.
        file_sha256: of the file.
        place: of variant and method among those that are exported, from 0.
        target: the class that the map explains.
        values: float32 [rows, columns].
        shown: uint8 [rows, columns, 1 or 3], the source image as a viewer shows it.
    """

    variant: str
    method: str
    file_sha256: str
    place: int
    target: str
    values: NDArray[np.float32]
    shown: NDArray[np.uint8]


def secondary_capture(source: SourceImage, of: MapOfImage) -> bytes:
    """Return the map in colour over the gray image, as a file of Secondary Capture Image Storage.

    Raises:
        StageError: highdicom refused the source image.
    """
    from highdicom import PhotometricInterpretationValues
    from highdicom.sc import SCImage

    with _told(source):
        image = SCImage(
            pixel_array=_picture(of),
            photometric_interpretation=PhotometricInterpretationValues.RGB,
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=["L", "P"],
            study_instance_uid=source.header.StudyInstanceUID,
            manufacturer="edgeproof",
            **_identity(source, of, "picture"),
        )
    for keyword in ("DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        delattr(image, keyword)
    for keyword in (*PATIENT, *STUDY):
        if keyword in source.header:
            image[keyword] = source.header[keyword]
    image.PatientOrientation = None
    image.DerivationDescription = _description(of)
    image.ImageComments = _COMMENT
    image.SourceImageSequence = [_reference(source)]
    image.ReferencedSeriesSequence = [_series_reference(source)]
    return _bytes(image)


def parametric_map(source: SourceImage, of: MapOfImage) -> bytes:
    """Return the map's own numbers, on the pixels of the source image, as a file of Parametric Map Storage.

    Raises:
        StageError: highdicom refused the source image.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping
    from pydicom.sr.codedict import codes

    low, high = float(of.values.min(initial=0.0)), float(of.values.max(initial=0.0))
    identity = RealWorldValueMapping(
        lut_label="1",
        lut_explanation="saliency, higher is more important",
        unit=codes.UCUM.NoUnits,
        value_range=(low, high if high > low else low + 1.0),
        slope=1.0,
        intercept=0.0,
    )
    placed = "FrameOfReferenceUID" in source.header
    with _told(source):
        image = ParametricMap(
            source_images=[source.header if placed else _with_a_place(source.header)],
            pixel_array=of.values,
            manufacturer="edgeproof",
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[identity],
            voi_lut_transformations=[VOILUTTransformation(window_center=high / 2, window_width=max(high, 1e-6))],
            content_label="SALIENCY",
            content_description=f"{of.variant}, {of.method}"[:64],
            **_identity(source, of, "numbers"),
        )
    if not placed:
        _take_the_place_away(image)
    organization = _uid(image.SOPInstanceUID, "dimensions")
    image.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for item in image.DimensionIndexSequence:
        item.DimensionOrganizationUID = organization
    image.ImageComments = f"{_description(of)} {_COMMENT}"
    return _bytes(image)


def _with_a_place(header: DicomDataset) -> DicomDataset:
    """Return a header with a place of its own: highdicom (0.28) makes no map of one channel without any."""
    placed = copy.deepcopy(header)
    placed.FrameOfReferenceUID = _uid(header.SOPInstanceUID, "a place")
    placed.ImagePositionPatient = [0.0, 0.0, 0.0]
    placed.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    placed.PixelSpacing, placed.SliceThickness = [1.0, 1.0], 1.0
    return placed


def _take_the_place_away(image: DicomDataset) -> None:
    """Leave a map that lies on the pixels of its source image and claims no place in the patient."""
    from pydicom import Dataset as DicomDataset
    from pydicom.datadict import tag_for_keyword

    del image.FrameOfReferenceUID, image.PositionReferenceIndicator
    (shared,), (frame,) = image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence
    for item in (shared, frame):
        for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"):
            if keyword in item:
                delattr(item, keyword)
    index = DicomDataset()
    index.DimensionIndexPointer = tag_for_keyword("FrameLabel")
    index.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame Label"
    image.DimensionIndexSequence = [index]
    frame.FrameContentSequence[0].FrameLabel = "1"


def _identity(source: SourceImage, of: MapOfImage, kind: str) -> dict[str, Any]:
    """Return what tells an object from all others, and whose it is."""
    version = installed_version("edgeproof") or "0"
    made_by = [version, installed_version("highdicom"), kind, of.variant, of.method, of.file_sha256]
    study = source.header.StudyInstanceUID
    pixels = [hashlib.sha256(array.tobytes()).hexdigest() for array in (of.values, of.shown)]
    return {
        "series_instance_uid": _uid(study, *made_by),
        "series_number": _SERIES_NUMBER + 2 * of.place + (kind == "numbers"),
        "sop_instance_uid": _uid(study, source.header.SOPInstanceUID, *made_by, source.sha256, of.target, *pixels),
        "instance_number": source.index + 1,
        "manufacturer_model_name": "edgeproof",
        "software_versions": version,
        "device_serial_number": of.file_sha256[:16],
        "series_description": f"Saliency {kind}, {of.variant}, {of.method}"[:64],
        "content_date": source.date,
        "content_time": source.time,
        "specific_character_set": source.header.get("SpecificCharacterSet"),
    }


def _description(of: MapOfImage) -> str:
    """Return what was done, in the characters of every file: a class may be called in any."""
    told = f"Saliency map by {of.method} of {of.variant} (sha256 {of.file_sha256[:12]}) for class {of.target}."
    return told.encode("ascii", "replace").decode().replace("\\", "/")


def _uid(*parts: str | None) -> str:
    return f"2.25.{uuid5(NAMESPACE_OID, sha256_of_json(list(map(str, parts)))).int}"


def _picture(of: MapOfImage) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]: saliency above 0, scaled to its own largest, over the gray image."""
    import matplotlib

    strength = np.clip(np.nan_to_num(of.values.astype(np.float64), posinf=0.0), 0.0, None)
    highest = strength.max(initial=0.0)
    level = np.rint(strength / highest * 255 if highest > 0 else strength).astype(np.uint8)
    pixels = of.shown[:, :, 0] if of.shown.shape[2] == 1 else of.shown
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)[:, :, None]
    palette = np.asarray(matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255.0, dtype=np.float64)
    opacity = 0.85 * np.sqrt(level / 255.0)[:, :, None]
    blended = Image.fromarray(np.rint(grey * (1 - opacity) + palette[level] * opacity).astype(np.uint8))
    blended.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return np.asarray(blended)


def _reference(source: SourceImage) -> DicomDataset:
    from pydicom import Dataset as DicomDataset
    from pydicom.sr.codedict import codes

    item, purpose = DicomDataset(), DicomDataset()
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    item.ReferencedSOPClassUID = source.header.SOPClassUID
    item.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _series_reference(source: SourceImage) -> DicomDataset:
    from pydicom import Dataset as DicomDataset

    series, instance = DicomDataset(), DicomDataset()
    instance.ReferencedSOPClassUID = source.header.SOPClassUID
    instance.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    series.SeriesInstanceUID = source.header.SeriesInstanceUID
    series.ReferencedInstanceSequence = [instance]
    return series


def _bytes(image: DicomDataset) -> bytes:
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        if keyword in image:
            delattr(image, keyword)
    for equipment in image.get("ContributingEquipmentSequence") or ():  # highdicom itself
        equipment.pop("ContributionDateTime", None)
    stream = io.BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@contextmanager
def _told(source: SourceImage) -> Iterator[None]:
    """Say which image highdicom refuses; its own words may quote who the patient is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning quotes the value that it is about
            yield
    except Exception as error:
        raise StageError(
            f"{source.path}: expected an image that highdicom derives others from, found one that it refuses "
            f"({type(error).__name__}); an element that its kind of image must have may be missing. Leave it out."
        ) from error
