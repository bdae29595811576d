"""From one DICOM file to the pixels that a viewer would show."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError

if TYPE_CHECKING:
    from pydicom import Dataset as DicomDataset

_PIXEL_KEYS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PREAMBLE, _GROUP_LENGTH = 132, 12  # bytes before what the group length counts: PS3.10, 7.1
_GRAY = ("MONOCHROME1", "MONOCHROME2")

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True)
class Window:
    """The range of values that is shown.

    Attributes:
        center: its middle, after rescaling.
        width: from black to white, at least 1 (above 0 for LINEAR_EXACT and SIGMOID).
        function: how values become brightness, by the standard's names.
    """

    center: float
    width: float
    function: Function = "LINEAR"


def read_dicom_pixels(path: Path, window: Window | None = None) -> NDArray[np.uint8]:
    """Decode a DICOM file of one frame.

    Gray values are rescaled to the modality's unit, then shown by the first of: `window`, the file's VOI LUT, the
    file's first window, the stored values as they are where these have 8 bits, the range from the image's least to
    its largest value. MONOCHROME1 is inverted at the end. Colour is converted to RGB; a window does not apply to it.

    Args:
        path: the file.
        window: used in place of what the file says.

    Returns:
        uint8 [height, width, 1 or 3].

    Raises:
        BadImageError: no DICOM, no pixel data, several frames, too many pixels, an unsuitable kind, or a
            compression that no installed package decodes. No message quotes a value of the header's patient.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning quotes the value that it is about
        try:
            _check_inflated_size(path)
            header = dcmread(path)
        except BadImageError:
            raise
        except InvalidDicomError as error:
            raise BadImageError("expected a DICOM file, found other content") from error
        except Exception as error:  # a parser may raise anything at all on damaged bytes
            raise BadImageError(
                f"expected a whole DICOM file, found a damaged one ({type(error).__name__})"
            ) from None
        _check_header(header)
        values = _decode(header)
        try:
            if values.ndim == 3:
                return _colour(values)
            return _shown(header, values, window)[:, :, None]
        except (ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
            raise BadImageError(
                f"expected a rescaling and a window that can be applied, found others ({type(error).__name__})"
            ) from None


def apply_window(values: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Return brightness from 0 to 1, by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -500, 500)
        return np.asarray(1 / (1 + np.exp(exponent)), dtype=np.float64)
    if window.function == "LINEAR":
        if width == 1:  # a threshold
            return np.asarray(values > center - 0.5, dtype=np.float64)
        center, width = center - 0.5, width - 1
    return np.asarray(np.clip((values - center) / width + 0.5, 0, 1), dtype=np.float64)


def _check_inflated_size(path: Path) -> None:
    """Refuse a deflated file that grows past the largest image there may be; pydicom inflates it whole, unasked."""
    from PIL import Image
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    limit, meta = Image.MAX_IMAGE_PIXELS, read_file_meta_info(path)
    if limit is None or meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    most = limit * 3 * 2 + (1 << 20)  # three samples of two bytes, and a header
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(_PREAMBLE + _GROUP_LENGTH + int(meta.FileMetaInformationGroupLength))
        while block := inflater.unconsumed_tail or file.read(1 << 16):
            inflated += len(inflater.decompress(block, 1 << 20))
            if inflated > most:
                raise BadImageError(f"expected at most {most} bytes, found more once inflated (a bomb?)")


def _check_header(header: DicomDataset) -> None:
    from PIL import Image

    if not any(key in header for key in _PIXEL_KEYS):
        raise BadImageError("expected pixel data, found a DICOM file without any (a report or a directory?)")
    try:
        frames, rows, columns = (int(header.get(key, 1) or 1) for key in ("NumberOfFrames", "Rows", "Columns"))
        samples = int(header.get("SamplesPerPixel", 1))
    except (TypeError, ValueError):
        raise BadImageError("expected rows, columns and frames as whole numbers, found other values") from None
    if frames > 1:
        raise BadImageError(f"expected one image, found {frames} frames. Save each frame as a file of its own")
    if samples not in (1, 3):
        raise BadImageError(f"expected 1 or 3 samples per pixel, found {samples}")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and rows * columns > limit:
        raise BadImageError(f"expected at most {limit} pixels, found {rows * columns} (a decompression bomb?)")


def _decode(header: DicomDataset) -> NDArray[np.generic]:
    """Return gray [height, width] or RGB [height, width, 3] as stored, after decompression."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    try:
        values = pixel_array(header)  # RGB, whatever the compression made of it
        if header.get("PhotometricInterpretation") == "PALETTE COLOR":
            values = _high_byte(apply_color_lut(values, header))
    except Exception as error:  # a decoder may raise anything at all on damaged bytes
        if syntax is not None and syntax.is_compressed:
            raise BadImageError(
                f"expected a compression that can be decoded here, found {syntax.name}, or damaged data in it. "
                "Install pylibjpeg with its plug-ins, or save the file uncompressed"
            ) from None
        raise BadImageError(f"expected whole pixel data, found damaged ({type(error).__name__})") from None
    is_gray = header.get("PhotometricInterpretation") in _GRAY
    if (values.ndim == 2 and is_gray) or (values.ndim == 3 and values.shape[2] == 3 and not is_gray):
        return values
    raise BadImageError(f"expected a gray or a colour image, found pixels of shape {list(values.shape)}")


def _colour(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(_high_byte(values))


def _high_byte(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values.astype(np.uint8)  # type: ignore[operator]


def _shown(header: DicomDataset, stored: NDArray[np.generic], window: Window | None) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = np.asarray(apply_modality_lut(stored, header))
    window = window or (None if "VOILUTSequence" in header else _window_of(header))
    if window is not None:
        brightness = apply_window(values.astype(np.float64), window)
    elif "VOILUTSequence" in header:
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        brightness = apply_voi(values.astype(np.int64), header) / (2**bits - 1)
    elif stored.dtype == np.uint8 and np.array_equal(values, stored):
        brightness = values / 255
    else:
        least, largest = float(values.min()), float(values.max())
        brightness = (values - least) / ((largest - least) or 1)
    if header.PhotometricInterpretation == "MONOCHROME1":
        brightness = 1 - brightness
    if not np.isfinite(brightness).all():
        raise ValueError
    return np.rint(np.clip(brightness, 0, 1) * 255).astype(np.uint8)


def _window_of(header: DicomDataset) -> Window | None:
    """Return the file's first window; None where it has none."""
    centers, widths = header.get("WindowCenter"), header.get("WindowWidth")
    if centers is None or widths is None or centers == "" or widths == "":
        return None
    center, width = (float(value[0] if hasattr(value, "__getitem__") else value) for value in (centers, widths))
    function = str(header.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or width < (1 if function == "LINEAR" else 1e-9):
        raise ValueError
    return Window(center, width, function)  # type: ignore[arg-type]
