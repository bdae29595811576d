"""How the pixels of a DICOM file are stored, checked before any of them is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom_file import DicomFile

MOST_FRAMES = 10_000
"""More is a damaged header, or a whole slide cut into tiles, which are no images of their own."""
MOST_SAMPLES_PER_FILE = 1 << 31
"""Samples of all frames together: 8192 CT slices of 512 × 512."""
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
_NEEDED_OF_INTEGERS = ("BitsStored", "PixelRepresentation")


@dataclass(frozen=True)
class PixelLayout:
    """The Image Pixel module of a file, PS3.3 C.7.6.3.

    Attributes:
        rows: height in pixels.
        columns: width in pixels.
        samples: per pixel, 1 or 3.
        frames: at least 1.
        photometric: what the samples mean, by the standard's names.
        planar: 1 where the colours lie one after the other rather than pixel by pixel.
        bits_allocated: per sample, 1 or a multiple of 8.
        bits_stored: how many of them count.
        signed: whether the samples are two's complement.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    def frame_bytes(self) -> int:
        """Return the size of an uncompressed frame, its last bits rounded up."""
        samples = self.rows * self.columns * self.samples
        if self.photometric == "YBR_FULL_422":
            samples = samples // 3 * 2
        return -(-samples * self.bits_allocated // 8)


def number_of_frames(file: DicomFile) -> int:
    """Return how many frames the header promises; 1 where it says nothing.

    Raises:
        BadImageError: no number, or more than `MOST_FRAMES`.
    """
    try:
        frames = int(file.header.get("NumberOfFrames") or 1)
    except Exception:  # a damaged value may raise anything at all
        raise BadImageError("expected a whole number of frames, found another value") from None
    if not 1 <= frames <= MOST_FRAMES:
        raise BadImageError(f"expected 1 to {MOST_FRAMES} frames, found {frames}")
    return frames


def pixel_layout(file: DicomFile) -> PixelLayout:
    """Return how the pixels are stored.

    Raises:
        BadImageError: no pixels, an element missing or out of range, or more pixels than an image may have.
    """
    if not file.pixel_keyword:
        raise BadImageError("expected pixel data, found a DICOM file without any (cut off, or a report?)")
    is_integer = file.pixel_keyword == "PixelData"
    needed = (*_NEEDED, *_NEEDED_OF_INTEGERS) if is_integer else _NEEDED
    try:
        missing = [keyword for keyword in needed if file.header.get(keyword) in (None, "")]
        if missing:
            raise BadImageError(f"expected an image's header, found no {', '.join(missing)} in it")
        rows, columns, samples, allocated = (
            int(file.header[keyword].value) for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
        )
        stored = int(file.header["BitsStored"].value) if is_integer else allocated
        sign = int(file.header["PixelRepresentation"].value) if is_integer else 1
        planar = int(file.header.get("PlanarConfiguration") or 0)
        photometric = str(file.header["PhotometricInterpretation"].value).strip()
    except BadImageError:
        raise
    except Exception:  # a damaged value may raise anything at all
        raise BadImageError("expected rows, columns and depth as whole numbers, found other values") from None
    layout = PixelLayout(
        rows, columns, samples, number_of_frames(file), photometric, planar, allocated, stored, sign == 1
    )
    _check_size(layout)
    _check_depth(layout, sign)
    return layout


def _check_size(layout: PixelLayout) -> None:
    from PIL import Image

    rows, columns, samples = layout.rows, layout.columns, layout.samples
    if rows < 1 or columns < 1:
        raise BadImageError(f"expected an image of pixels, found {columns} × {rows}")
    if samples not in (1, 3):
        raise BadImageError(f"expected 1 or 3 samples per pixel, found {samples}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and rows * columns > limit:
        raise BadImageError(f"expected at most {limit} pixels, found {rows * columns} (a decompression bomb?)")
    if limit is not None and rows * columns * samples > limit:
        raise BadImageError(
            f"expected at most {limit} samples in a frame, found {rows * columns * samples} (a decompression bomb?)"
        )
    if (total := layout.frames * rows * columns * samples) > MOST_SAMPLES_PER_FILE:
        raise BadImageError(
            f"expected at most {MOST_SAMPLES_PER_FILE} samples in all frames, found {total} (a decompression bomb?)"
        )


def _check_depth(layout: PixelLayout, sign: int) -> None:
    allocated, stored = layout.bits_allocated, layout.bits_stored
    if not (allocated == 1 or allocated in (8, 16, 32, 64)) or not 1 <= stored <= allocated or sign not in (0, 1):
        raise BadImageError(
            f"expected 1, 8, 16, 32 or 64 bits per sample, found {stored} of {allocated}, representation {sign}"
        )
    known = _ONE_SAMPLE if layout.samples == 1 else _COLOURS
    if layout.photometric not in known:
        raise BadImageError(
            f"expected pixels of {layout.samples} samples as {', '.join(known)}, found another interpretation"
        )
    if layout.planar not in (0, 1):
        raise BadImageError(f"expected the planar configuration 0 or 1, found {layout.planar}")
    if layout.samples == 3 and layout.signed:
        raise BadImageError("expected colours without a sign, found signed ones")
    if layout.photometric.startswith("YBR") and stored != 8:
        raise BadImageError(f"expected {layout.photometric} of 8 bits, found {stored}")
