"""From one DICOM file to the pixels that a viewer would show."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError
from calibration_data.datasets.dicom_decoding import decode_frame
from calibration_data.datasets.dicom_display import presentation_of, shown_colour, shown_gray, shown_palette
from calibration_data.datasets.dicom_file import DicomFile, read_dicom_file, require_whole_fragments
from calibration_data.datasets.dicom_layout import PixelLayout, pixel_layout
from calibration_data.datasets.dicom_window import Window


def read_dicom_pixels(path: Path, window: Window | None = None, frame: int | None = None) -> NDArray[np.uint8]:
    """Decode one frame of a DICOM file.

    Gray values are rescaled and shown as `shown_gray` says; what an Enhanced object says of the frame itself comes
    before what it says of all. Colour is converted to RGB; a window does not apply to it.

    Args:
        path: the file.
        window: used in place of what the file says.
        frame: which, from 1 as DICOM counts; None for the only one.

    Returns:
        uint8 [height, width, 1 or 3].

    Raises:
        BadImageError: no DICOM, no pixel data, several frames and none chosen, too many pixels, an unsuitable kind,
            or a compression that no installed package decodes. No message quotes a value of the header's patient.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning quotes the value that it is about
        file = _file(path)
        layout = pixel_layout(file)
        if frame is None and layout.frames > 1:
            raise BadImageError(
                f"expected one image, found {layout.frames} frames. Set `source.frames` to first, middle or all"
            )
        index = (frame or 1) - 1
        if not 0 <= index < layout.frames:
            raise BadImageError(f"expected frame {index + 1}, found {layout.frames} frames")
        values, photometric = decode_frame(file, layout, index)
        try:
            return _shown(values, photometric, file, layout, index, window)
        except BadImageError:
            raise
        except Exception as error:  # tables and numbers of a damaged header may raise anything at all
            raise BadImageError(
                f"expected a rescaling and a window that can be applied, found others ({type(error).__name__})"
            ) from None


def _shown(
    values: NDArray[np.generic],
    photometric: str,
    file: DicomFile,
    layout: PixelLayout,
    index: int,
    window: Window | None,
) -> NDArray[np.uint8]:
    if layout.photometric == "PALETTE COLOR":
        return shown_palette(values, file)
    if layout.samples == 1:
        return shown_gray(values, layout, presentation_of(file, index), window)
    if photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        raise BadImageError("expected colours that can be shown, found YBR_ICT or YBR_RCT outside JPEG 2000")
    return shown_colour(values, layout, photometric)


def _file(path: Path) -> DicomFile:
    """Return the file's header; that of the last file is kept, for its other frames."""
    try:
        status = path.stat()
        return _read_file(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise BadImageError(f"expected a file, found none that can be read ({type(error).__name__})") from None


@lru_cache(maxsize=1)
def _read_file(path: Path, size_bytes: int, modified_ns: int) -> DicomFile:
    file = read_dicom_file(path)
    require_whole_fragments(file)
    return file
