"""Writes DICOM files for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset as DicomDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage


def dicom(pixels: np.ndarray | None, **tags) -> DicomDataset:
    """Return an uncompressed image, gray [height, width] or RGB [height, width, 3], of its array's depth."""
    header = DicomDataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3.4"
    header.PatientName = "Doe^Jane"
    if pixels is not None:
        bits = 8 * pixels.dtype.itemsize
        header.Rows, header.Columns = pixels.shape[:2]
        header.BitsAllocated = header.BitsStored = bits
        header.HighBit = bits - 1
        header.PixelRepresentation = int(pixels.dtype.kind == "i")
        header.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
        header.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
        if pixels.ndim == 3:
            header.PlanarConfiguration = 0
        header.PixelData = pixels.tobytes()
        header["PixelData"].VR = "OB" if bits == 8 else "OW"
    for key, value in tags.items():
        setattr(header, key, value)
    return header


def write_dicom(path: Path, pixels: np.ndarray | None, **tags) -> Path:
    """Write what `dicom` returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom(pixels, **tags).save_as(path, enforce_file_format=True)
    return path
