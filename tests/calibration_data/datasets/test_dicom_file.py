"""DICOM without a preamble or file meta, in every uncompressed syntax, and what only looks like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom, write_dicom
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom_file import is_dicom, read_dicom_file
from calibration_data.datasets.dicom_pixels import read_dicom_pixels

PIXELS = np.arange(240, dtype=np.int16).reshape(12, 20) * 17 - 500
SHOWN = np.rint((PIXELS - PIXELS.min()) / 4063 * 255)


def written(path: Path, syntax, *, meta: bool) -> Path:
    header = dicom(PIXELS if syntax != ExplicitVRBigEndian else PIXELS.astype(">i2"))
    header.file_meta.TransferSyntaxUID = syntax
    if meta:
        header.save_as(path, enforce_file_format=True)
        return path
    del header.file_meta
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    header.save_as(path, implicit_vr=implicit, little_endian=little)
    return path


@pytest.mark.parametrize(
    ("syntax", "meta"),
    [
        (ImplicitVRLittleEndian, True),
        (ExplicitVRLittleEndian, True),
        (ExplicitVRBigEndian, True),
        (DeflatedExplicitVRLittleEndian, True),
        (ImplicitVRLittleEndian, False),
        (ExplicitVRLittleEndian, False),
        (ExplicitVRBigEndian, False),
    ],
)
def test_every_uncompressed_syntax_is_read(tmp_path, syntax, meta):
    path = written(tmp_path / "IM0001", syntax, meta=meta)
    assert is_dicom(path)
    assert read_dicom_file(path).syntax == syntax
    assert np.array_equal(read_dicom_pixels(path)[:, :, 0], SHOWN)


def test_a_file_that_lost_its_preamble_keeps_its_meta(tmp_path):
    path = written(tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian, meta=True)
    path.write_bytes(path.read_bytes()[132:])
    assert is_dicom(path)
    assert np.array_equal(read_dicom_pixels(path)[:, :, 0], SHOWN)


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("SOPClassUID", "expected a DICOM file, found other content"),
        ("Rows", "expected an image's header, found no Rows in it"),
        ("Columns", "expected an image's header, found no Columns in it"),
        ("PixelData", "expected pixel data, found a DICOM file without any"),
    ],
)
def test_without_a_preamble_all_of_an_image_must_be_there(tmp_path, missing, sentence):
    header = dicom(PIXELS)
    delattr(header, missing)
    del header.file_meta
    header.save_as(tmp_path / "a", implicit_vr=True, little_endian=True)
    assert not is_dicom(tmp_path / "a")
    with pytest.raises(BadImageError, match=sentence):
        read_dicom_pixels(tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x00",
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"a,b\n1,2\n" * 50,
    ],
)
def test_other_content_is_no_dicom(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert not is_dicom(tmp_path / "a")
    with pytest.raises(BadImageError, match=r"expected a (whole )?DICOM file, found"):
        read_dicom_pixels(tmp_path / "a")


def test_the_pixels_are_found_without_reading_them(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PIXELS)
    file = read_dicom_file(path)
    assert (file.pixel_keyword, file.length) == ("PixelData", 480)
    assert path.read_bytes()[file.offset :] == PIXELS.tobytes()
