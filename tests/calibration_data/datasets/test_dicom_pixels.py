"""DICOM pixels against pydicom's own windowing and against values from the standard's formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom, write_dicom
from PIL import Image
from pydicom.dataset import Dataset as DicomDataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom_pixels import read_dicom_pixels
from calibration_data.datasets.dicom_window import Window, apply_window

RAMP = np.arange(240, dtype=np.uint8).reshape(12, 20)
COLOUR = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=2)
HU = np.linspace(-1000, 2000, 240).astype(np.int16).reshape(12, 20)


def shown(tmp_path: Path, pixels: np.ndarray, window: Window | None = None, **tags) -> np.ndarray:
    return read_dicom_pixels(write_dicom(tmp_path / "a.dcm", pixels, **tags), window)


def test_eight_bits_without_a_window_are_taken_as_they_are(tmp_path):
    pixels = shown(tmp_path, RAMP // 2)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, (RAMP // 2)[:, :, None])


@pytest.mark.parametrize(("bits", "shown_as"), [(7, [0, 129, 255]), (4, [0, 68, 255])])
def test_fewer_than_eight_bits_span_black_to_white_too(tmp_path, bits, shown_as):
    most = 2**bits - 1
    stored = np.array([[0, 4 if bits == 4 else 64, most]], dtype=np.uint8)
    pixels = shown(tmp_path, stored, BitsStored=bits, HighBit=bits - 1)
    assert pixels[0, :, 0].tolist() == shown_as


def test_single_bits_are_black_and_white(tmp_path):
    bits = (RAMP % 3 == 0).astype(np.uint8)
    tags = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    tags["PixelData"] = np.packbits(bits, bitorder="little").tobytes()
    assert np.array_equal(shown(tmp_path, bits, **tags)[:, :, 0], bits * 255)


def test_bits_above_those_that_count_are_left_out(tmp_path):
    overlaid = HU.astype(np.uint16) % 4096 | 0x8000
    tags = {"BitsStored": 12, "HighBit": 11}
    assert np.array_equal(shown(tmp_path, overlaid, **tags), shown(tmp_path, overlaid & 0xFFF, **tags))


def test_a_frame_of_many_rows_is_shown_like_its_parts(tmp_path):
    tall = np.tile(HU, (5000, 1))  # more than is shown at once
    tags = {"RescaleSlope": 2, "RescaleIntercept": -100}
    assert np.array_equal(shown(tmp_path, tall, **tags), np.tile(shown(tmp_path, HU, **tags), (5000, 1, 1)))


def test_twelve_bits_of_colour_keep_their_high_byte(tmp_path):
    stored = COLOUR.astype(np.uint16) * 16 + 7
    assert np.array_equal(shown(tmp_path, stored, BitsStored=12, HighBit=11), COLOUR)


def test_monochrome1_is_inverted(tmp_path):
    pixels = shown(tmp_path, RAMP, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(pixels[:, :, 0], 255 - RAMP)


def test_sixteen_bits_without_a_window_span_black_to_white(tmp_path):
    pixels = shown(tmp_path, HU)[:, :, 0]
    assert pixels[0, 0] == 0
    assert pixels[-1, -1] == 255
    assert np.abs(pixels - (HU + 1000.0) * 255 / 3000).max() <= 0.5


def test_a_flat_image_is_black(tmp_path):
    assert shown(tmp_path, np.full((4, 4), 700, dtype=np.uint16)).max() == 0


def test_a_window_is_applied_after_rescaling(tmp_path):
    # Stored 0…4095 is −1024…3071 HU; the lung window 1500 | −600 goes from −1350 to 150.
    stored = np.array([[0, 24, 424, 424 + 375, 1174, 4095]], dtype=np.uint16)
    tags = {"RescaleIntercept": -1024, "RescaleSlope": 1, "WindowCenter": -600, "WindowWidth": 1500}
    pixels = shown(tmp_path, stored, **tags)
    # −1024, −1000, −600, −225, 150, 3071 HU by PS3.3 C.11.2.1.2: ((x − c + 0.5) / (w − 1) + 0.5) · 255
    assert pixels[0, :, 0].tolist() == [55, 60, 128, 191, 255, 255]
    own = shown(tmp_path, stored, Window(40, 400), **tags)
    assert own[0, :, 0].tolist() == [0, 0, 0, 0, 198, 255]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(40, 400), (-600, 1500), (300.5, 1.5), (0, 2)])
def test_windows_agree_with_pydicom(tmp_path, function, center, width):
    tags = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function, "RescaleSlope": 2}
    tags["RescaleIntercept"] = -100
    header = dicom(HU, **tags)
    with np.errstate(over="ignore"):  # exp of large numbers
        theirs = apply_windowing(apply_modality_lut(HU, header), header)
    low, high = -(2**15) * 2 - 100, (2**15 - 1) * 2 - 100  # what they map black and white to
    expected = (theirs - low) / (high - low) * 255
    assert np.abs(shown(tmp_path, HU, **tags)[:, :, 0] - expected).max() <= 0.5 + 1e-6


def test_the_first_of_several_windows_counts(tmp_path):
    several = shown(tmp_path, HU, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    assert np.array_equal(several, shown(tmp_path, HU, WindowCenter=40, WindowWidth=400))


def test_a_window_of_width_one_is_a_threshold():
    values = np.array([99.0, 99.5, 99.6, 100.0])
    assert apply_window(values, Window(100, 1)).tolist() == [0, 0, 1, 1]


def test_a_voi_lut_comes_before_the_window(tmp_path):
    lut = DicomDataset()
    lut.add_new("LUTDescriptor", "US", [4, 10, 16])  # four entries, the first for the value 10, of 16 bits
    lut.add_new("LUTData", "OW", np.array([0, 65535, 32768, 13107], dtype="<u2").tobytes())
    stored = np.array([[0, 10, 11, 12, 13, 99]], dtype=np.uint16)
    pixels = shown(tmp_path, stored, VOILUTSequence=[lut], WindowCenter=5, WindowWidth=2)
    assert pixels[0, :, 0].tolist() == [0, 0, 255, 128, 51, 51]
    assert shown(tmp_path, stored, Window(11.5, 2), VOILUTSequence=[lut])[0, :, 0].tolist() == [
        0,
        0,
        128,
        255,
        255,
        255,
    ]


def test_colour_is_rgb_and_ybr_is_converted(tmp_path):
    rgb = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=2)
    assert np.array_equal(shown(tmp_path, rgb), rgb)
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    converted = shown(tmp_path, ybr, PhotometricInterpretation="YBR_FULL")
    assert np.abs(converted.astype(int) - rgb).max() <= 3


def test_a_palette_becomes_its_colours(tmp_path):
    tags: dict = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in (("Red", [10, 200]), ("Green", [20, 100]), ("Blue", [30, 50])):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = np.array(values, dtype="<u2").__lshift__(8).tobytes()
    assert shown(tmp_path, np.array([[0, 1]], dtype=np.uint8), **tags).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_run_length_compression_is_decoded(tmp_path):
    header = dicom(RAMP)
    header.compress(RLELossless)
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.array_equal(read_dicom_pixels(tmp_path / "a.dcm")[:, :, 0], RAMP)


# --- bad files ---


def test_without_pixel_data_it_is_refused(tmp_path):
    with pytest.raises(BadImageError, match="expected pixel data, found a DICOM file without any"):
        read_dicom_pixels(write_dicom(tmp_path / "a.dcm", None))


@pytest.mark.parametrize(
    ("pixels", "tags", "message"),
    [
        (RAMP, {"NumberOfFrames": 2}, "expected one image, found 2 frames"),
        (RAMP, {"Rows": 13}, "expected whole pixel data of 260 bytes, found 240"),
        (RAMP, {"SamplesPerPixel": 4}, "expected 1 or 3 samples per pixel, found 4"),
        (RAMP, {"Rows": 60000, "Columns": 60000}, "expected at most .* pixels, found 3600000000"),
        (RAMP, {"BitsAllocated": 7}, "expected 1, 8, 16, 32 or 64 bits per sample, found 8 of 7"),
        (RAMP, {"BitsStored": 0}, "expected 1, 8, 16, 32 or 64 bits per sample, found 0 of 8"),
        (RAMP, {"PhotometricInterpretation": "RGB"}, "expected pixels of 1 samples as MONOCHROME1"),
        (RAMP, {"PhotometricInterpretation": "DOE"}, "MONOCHROME2, PALETTE COLOR, found another interpretation"),
        (RAMP, {"PixelRepresentation": 2}, "found 8 of 8, representation 2"),
        (COLOUR, {"PlanarConfiguration": 2}, "expected the planar configuration 0 or 1, found 2"),
        (COLOUR, {"PixelRepresentation": 1}, "expected colours without a sign, found signed ones"),
        (COLOUR, {"PhotometricInterpretation": "YBR_FULL_422"}, "halved colours, found as many values as YBR_FULL"),
        (COLOUR, {"PhotometricInterpretation": "YBR_RCT"}, "found YBR_ICT or YBR_RCT outside JPEG 2000"),
        (
            COLOUR.astype(np.uint16),
            {"PhotometricInterpretation": "YBR_FULL"},
            "YBR_FULL of 8 bits, found 16",
        ),
        (HU, {"WindowCenter": 1, "WindowWidth": 0}, "a rescaling and a window that can be applied"),
        (HU, {"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "a window that can be applied"),
    ],
)
def test_what_cannot_be_shown_is_a_bad_image(tmp_path, pixels, tags, message):
    with pytest.raises(BadImageError, match=message) as caught:
        shown(tmp_path, pixels, **tags)
    assert "DOE" not in str(caught.value).upper()


def test_data_of_another_compression_is_damaged_data(tmp_path):
    header = dicom(RAMP)
    header.compress(RLELossless)
    header.file_meta.TransferSyntaxUID = JPEGLSLossless
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(BadImageError, match="a compressed frame that says how large it is, found damaged data"):
        read_dicom_pixels(tmp_path / "a.dcm")


def test_a_deflated_file_is_read_unless_it_grows_past_the_largest_image(tmp_path, monkeypatch):
    header = dicom(RAMP)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.array_equal(read_dicom_pixels(tmp_path / "a.dcm")[:, :, 0], RAMP)
    header.add_new((0x0009, 0x0010), "LO", "edgeproof")
    header.add_new((0x0009, 0x1001), "OB", bytes(4_000_000))
    header.save_as(tmp_path / "bomb.dcm", enforce_file_format=True)
    assert (tmp_path / "bomb.dcm").stat().st_size < 20_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400_000)  # 2.4 MB, and a megabyte of header
    with pytest.raises(BadImageError, match=r"expected at most 3448576 bytes, found more once inflated"):
        read_dicom_pixels(tmp_path / "bomb.dcm")


@pytest.mark.parametrize("keep", [0, 100, 140, 300, 600])
def test_truncated_files_are_refused(tmp_path, keep):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadImageError, match="expected"):
        read_dicom_pixels(path)


def test_other_content_is_refused(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(BadImageError, match="expected a DICOM file, found other content"):
        read_dicom_pixels(tmp_path / "a.png")
