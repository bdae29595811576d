"""Every transfer syntax against the pixels that were encoded, and what becomes of an image whose decoder fails."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import LOSSLESS, dicom, write_compressed, write_dicom
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders import JPEGLSLosslessDecoder
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from calibration_data.dataset import BadImageError
from calibration_data.datasets import dicom_decoding
from calibration_data.datasets.dicom_decoding import decode_frame
from calibration_data.datasets.dicom_file import read_dicom_file
from calibration_data.datasets.dicom_layout import pixel_layout
from calibration_data.datasets.dicom_pixels import read_dicom_pixels

RNG = np.random.default_rng(0)
GRAY = np.cumsum(RNG.integers(-3, 4, (40, 56)), axis=1).astype(np.int64)
RGB = np.stack([GRAY % 200, GRAY % 90, 255 - GRAY % 70], axis=2).astype(np.uint8)
DEPTHS = {
    "8 bits": (GRAY % 256).astype(np.uint8),
    "16 bits": (GRAY * 401 % 65536).astype(np.uint16),
    "16 bits, signed": (GRAY * 401 % 65536 - 32768).astype(np.int16),
    "colour": RGB,
}


def stored(path: Path, frame: int = 0) -> np.ndarray:
    file = read_dicom_file(path)
    return decode_frame(file, pixel_layout(file), frame)[0]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_lossless_compression_gives_back_what_was_encoded(tmp_path, syntax, depth):
    path = write_compressed(tmp_path / "a.dcm", DEPTHS[depth], syntax)
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(stored(path), DEPTHS[depth])


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLossless, JPEGLSLossless, JPEG2000Lossless])
def test_twelve_bits_of_sixteen_are_lossless_too(tmp_path, syntax):
    pixels = (GRAY * 401 % 4096).astype(np.uint16)
    path = write_compressed(tmp_path / "a.dcm", pixels, syntax, BitsStored=12, HighBit=11)
    assert np.array_equal(stored(path), pixels)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000, JPEGLSNearLossless])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_compression_comes_close(tmp_path, syntax, channels):
    rows, columns = np.mgrid[:40, :56]
    slopes = [3 * rows + columns, 200 - 2 * columns, 20 + rows + 2 * columns]
    pixels = np.stack(slopes[:channels], axis=2).astype(np.uint8)
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    path = tmp_path / "a.dcm"
    if syntax == JPEG2000:
        header = dicom(pixels)
        header.compress(syntax, encoding_plugin="pylibjpeg", j2k_psnr=[60])
        header.save_as(path, enforce_file_format=True)
    else:
        write_compressed(path, pixels, syntax)
    shown = read_dicom_pixels(path).reshape(pixels.shape)
    assert np.abs(shown.astype(int) - pixels).mean() < 1.5


def test_htj2k_agrees_with_another_build_of_its_library(request):
    path = request.config.rootpath.parent / "shared" / "data" / "dicom" / "HTJ2K_08_RGB.dcm"
    if not path.is_file():
        pytest.skip(f"{path} is not there, and no package here writes HTJ2K")
    encoded = get_frame(dcmread(path).PixelData, 0, number_of_frames=1)
    assert np.array_equal(stored(path), np.asarray(Image.open(io.BytesIO(encoded))))


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [  # pydicom's own reference values, from other decoders
        ("JLSL_RGB_ILV1.dcm", np.s_[124:126, 40], [[115, 109, 91], [109, 105, 100]]),
        ("JLSL_16_15_1_1F.dcm", np.s_[59:65, 58], [-2073, -2629, -1167, 5566, 11808, 15604]),
    ],
)
def test_real_jpeg_ls_has_its_reference_values(request, name, place, expected):
    path = request.config.rootpath.parent / "shared" / "data" / "dicom" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert stored(path)[place].tolist() == expected


def test_the_frames_of_two_compressions_of_a_real_file_are_equal(request):
    folder = request.config.rootpath.parent / "shared" / "data" / "dicom"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    for frame in range(10):
        run_length = stored(folder / "emri_small_RLE.dcm", frame)
        assert run_length.std() > 0
        assert np.array_equal(run_length, stored(folder / "emri_small_jpeg_ls_lossless.dcm", frame))


# --- no decoder ---


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (
            MPEG2MPML,
            r"found MPEG2 Main Profile / Main Level \(1\.2\.840\.10008\.1\.2\.4\.100\), for which there is",
        ),
        (
            UID("1.2.3.4"),
            r"found a syntax of unknown name \(1\.2\.3\.4\), for which there is no decoder.*Save the file",
        ),
    ],
)
def test_a_syntax_that_nobody_decodes_is_named(tmp_path, syntax, message):
    header = dicom(DEPTHS["8 bits"])
    header.compress(RLELossless)
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True, enforce_file_format=True)
    with pytest.raises(BadImageError, match=message):
        read_dicom_pixels(tmp_path / "a.dcm")


def test_a_decoder_that_is_not_installed_is_asked_for(tmp_path, monkeypatch):
    path = write_compressed(tmp_path / "a.dcm", DEPTHS["8 bits"], JPEGLSLossless)
    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
    with pytest.raises(
        BadImageError,
        match=r"decoder of JPEG-LS Lossless Image Compression \(1\.2\.840\.10008\.1\.2\.4\.80\), found none "
        r"installed\. Run `pip install 'edgeproof\[dicom\]'`",
    ):
        read_dicom_pixels(path)


@pytest.mark.parametrize(
    ("syntax", "bits", "message"),
    [
        (JPEGLSLossless, 7, "another depth than 6 or 7 bits, which GDCM decodes wrongly, found 7"),
        (JPEGExtended12Bit, 12, "expected lossy JPEG of 8 bits, found 12, for which there is no decoder"),
        (JPEGLSLossless, 17, "expected compressed samples of up to 16 bits, found 17"),
    ],
)
def test_depths_that_are_decoded_wrongly_are_refused(tmp_path, syntax, bits, message):
    marker = b"\xff\xf7" if syntax == JPEGLSLossless else b"\xff\xc1"
    start = marker + b"\x00\x0b" + bytes([bits, 0, 4, 0, 6, 1, 1, 0x11, 0])
    with pytest.raises(BadImageError, match=message):
        read_dicom_pixels(_holding(tmp_path, b"\xff\xd8" + start + b"\xff\xd9", syntax))


# --- damaged data ---


def _holding(tmp_path: Path, encoded: bytes, syntax: UID) -> Path:
    header = dicom(np.zeros((4, 6), dtype=np.uint16))
    header.PixelData = encapsulate([encoded])
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    return tmp_path / "a.dcm"


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLSLossless, JPEG2000Lossless, JPEGBaseline8Bit])
def test_a_frame_larger_than_its_header_is_refused_before_it_is_decoded(tmp_path, syntax, monkeypatch):
    path = write_compressed(tmp_path / "a.dcm", DEPTHS["8 bits"], syntax)
    header = dcmread(path)
    header.Rows = 20
    header.save_as(path)
    monkeypatch.setattr(dicom_decoding, "_ask_child", None)
    with pytest.raises(
        BadImageError, match=r"of 56 × 20 pixels and 1 samples, as the header says, found 56 × 40 and 1"
    ):
        read_dicom_pixels(path)


@pytest.mark.parametrize("encoded", [b"\xff\xff", b"\xff\xd8\xff", b"\xff\x4f\xff\x51\x00", b"no image at all" * 9])
@pytest.mark.parametrize("syntax", [JPEGLossless, HTJ2KLossless])
def test_no_codestream_is_damaged_data(tmp_path, encoded, syntax):
    with pytest.raises(BadImageError, match="a compressed frame that says how large it is, found damaged data"):
        read_dicom_pixels(_holding(tmp_path, encoded, syntax))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_half_a_compressed_frame_is_not_shown(tmp_path, syntax):
    path = write_compressed(tmp_path / "a.dcm", DEPTHS["16 bits"], syntax)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(BadImageError, match=rf"expected \d+ bytes or more, found {len(content) - 100} \(cut off\?\)"):
        read_dicom_pixels(path)
    path.write_bytes(content[:-8])  # the delimiter alone
    assert read_dicom_pixels(path).shape == (40, 56, 1)


def test_a_crash_of_the_decoder_costs_one_image(tmp_path, monkeypatch):
    path = write_compressed(tmp_path / "a.dcm", RGB, JPEG2000Lossless)
    dicom_decoding._end_child()
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(
            BadImageError, match=r"expected whole JPEG 2000 .* data, found data on which the decoder crashed"
        ):
            read_dicom_pixels(path)
    assert np.array_equal(read_dicom_pixels(path), RGB)
    dicom_decoding._child().kill()
    dicom_decoding._child().wait()
    assert np.array_equal(read_dicom_pixels(path), RGB)


def test_a_decoder_that_does_not_end_is_ended(tmp_path, monkeypatch):
    path = write_compressed(tmp_path / "a.dcm", RGB, JPEG2000Lossless)
    (tmp_path / "sleep").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "sleep").chmod(0o755)
    dicom_decoding._end_child()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "sleep"))
    monkeypatch.setattr(dicom_decoding, "_SECONDS", 0.2)
    with pytest.raises(BadImageError, match="found data that took more than 0 s"):
        read_dicom_pixels(path)


def test_without_memory_the_decoder_gives_up(tmp_path, monkeypatch):
    path = write_compressed(tmp_path / "a.dcm", np.zeros((2000, 2000), dtype=np.uint16), JPEG2000Lossless)
    dicom_decoding._end_child()
    monkeypatch.setattr(dicom_decoding, "ADDRESS_SPACE_BYTES", 1 << 20)
    with pytest.raises(BadImageError, match=r"expected whole JPEG 2000 .* data, found da"):
        read_dicom_pixels(path)
    dicom_decoding._end_child()


def test_uncompressed_data_that_is_too_short_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", DEPTHS["16 bits"], NumberOfFrames=2)
    assert dcmread(path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    with pytest.raises(BadImageError, match="expected whole pixel data of 8960 bytes, found 4480"):
        stored(path)
