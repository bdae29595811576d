"""Writes DICOM files for the tests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset as DicomDataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

LOSSLESS = (RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
"""What the tests can write without a loss; nobody writes HTJ2K here."""


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


def write_frames(path: Path, frames: Sequence[np.ndarray], **tags) -> Path:
    """Write an uncompressed file of several frames."""
    pixels = b"".join(frame.tobytes() for frame in frames)
    return write_dicom(path, frames[0], NumberOfFrames=len(frames), PixelData=pixels, **tags)


def write_compressed(path: Path, pixels: np.ndarray, syntax: UID, **tags) -> Path:
    """Write an image in a compressed syntax, by the encoder that there is for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax in (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless):
        return _by_gdcm(write_dicom(path, pixels, **tags), syntax)
    header = dicom(pixels, **tags)
    if syntax == JPEGBaseline8Bit:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
        header.PixelData = encapsulate([stream.getvalue()])
        header["PixelData"].is_undefined_length = True
        header.file_meta.TransferSyntaxUID = syntax
        if pixels.ndim == 3:
            header.PhotometricInterpretation = "YBR_FULL"
    else:
        header.compress(syntax, encoding_plugin="pydicom" if syntax == RLELossless else "pylibjpeg")
    header.save_as(path, enforce_file_format=True)
    return path


def _by_gdcm(path: Path, syntax: UID) -> Path:
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path
