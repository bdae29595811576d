"""From one frame's stored values to what a viewer would show, some rows at a time: large frames stay small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration_data.datasets.dicom_file import DicomFile
from calibration_data.datasets.dicom_layout import PixelLayout
from calibration_data.datasets.dicom_window import Window, apply_window, first_window

if TYPE_CHECKING:
    from pydicom import Dataset as DicomDataset

_SAMPLES_AT_ONCE = 1 << 20
_RESCALING = ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept")
_WINDOWING = ("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction")
_MACROS = {"PixelValueTransformationSequence": _RESCALING, "FrameVOILUTSequence": _WINDOWING}
"""What an Enhanced object says per frame, or once for all frames, in place of the elements of its header."""


def presentation_of(file: DicomFile, index: int) -> DicomDataset:
    """Return the rescaling and the window that hold for a frame: its own, else all frames', else the header's.

    Args:
        file: the file.
        index: the frame, from 0.
    """
    from pydicom import Dataset as DicomDataset

    header = file.header
    per_frame, shared = (
        header.get(keyword) or []
        for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
    )
    groups = [*per_frame[index : index + 1], *shared[:1]]
    elements = DicomDataset()
    elements.file_meta = header.file_meta  # pydicom looks there for the order of a table's bytes
    for macro, keywords in _MACROS.items():
        level = next((group[macro].value[0] for group in groups if group.get(macro)), header)
        for keyword in keywords:
            if keyword in level:
                elements[keyword] = level[keyword]
    return elements


def shown_gray(
    values: NDArray[np.generic], layout: PixelLayout, presentation: DicomDataset, window: Window | None
) -> NDArray[np.uint8]:
    """Return gray values as they are shown.

    They are rescaled to the modality's unit, then shown by the first of: `window`, the VOI LUT, the first window, the
    stored values as they are where these have up to 8 bits, the range from the least to the largest value of the
    frame. MONOCHROME1 is inverted at the end.

    Args:
        values: as stored [height, width].
        layout: how they are stored.
        presentation: of `presentation_of`.
        window: used in place of what the file says.

    Raises:
        Exception: a rescaling or a window that cannot be applied; pydicom may raise anything at all.
    """
    brightness = _brightness(values, layout, presentation, window)

    def show(rows: NDArray[np.generic]) -> NDArray[np.uint8]:
        shown = brightness(_rescaled(rows, presentation))
        if layout.photometric == "MONOCHROME1":
            shown = 1 - shown
        if not np.isfinite(shown).all():
            raise ValueError
        return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)[:, :, None]

    return _by_rows(values, 1, show)


def shown_colour(values: NDArray[np.generic], layout: PixelLayout, photometric: str) -> NDArray[np.uint8]:
    """Return colours as RGB of 8 bits.

    Args:
        values: as stored [height, width, 3].
        layout: how they are stored.
        photometric: what the samples mean after decompression.
    """
    from pydicom.pixels.processing import convert_color_space

    def show(rows: NDArray[np.generic]) -> NDArray[np.uint8]:
        if photometric != "RGB":
            rows = convert_color_space(rows, "YBR_FULL", "RGB")
        return _eight_bits(rows, layout.bits_stored)

    return _by_rows(values, 3, show)


def shown_palette(values: NDArray[np.generic], file: DicomFile) -> NDArray[np.uint8]:
    """Return palette indices [height, width] as RGB of 8 bits."""
    from pydicom.pixels.processing import apply_color_lut

    bits = int(file.header["RedPaletteColorLookupTableDescriptor"].value[2])
    return _by_rows(values, 3, lambda rows: _eight_bits(apply_color_lut(rows, file.header)[:, :, :3], bits))


def _brightness(
    values: NDArray[np.generic], layout: PixelLayout, presentation: DicomDataset, window: Window | None
) -> Callable[[NDArray[np.generic]], NDArray[np.float64]]:
    from pydicom.pixels.processing import apply_voi

    has_table = bool(presentation.get("VOILUTSequence"))
    chosen = window or (None if has_table else first_window(presentation))
    if chosen is not None:
        return lambda rescaled: apply_window(rescaled.astype(np.float64), chosen)
    if has_table:
        white = 2 ** int(presentation["VOILUTSequence"].value[0].LUTDescriptor[2]) - 1
        return lambda rescaled: apply_voi(rescaled.astype(np.int64), presentation) / white
    if layout.bits_stored <= 8 and not layout.signed and _is_identity(presentation):
        most = 2**layout.bits_stored - 1
        return lambda rescaled: rescaled.astype(np.float64) / most
    ranges = [_range(_rescaled(rows, presentation)) for rows in _blocks(values)]
    least, largest = min(low for low, _ in ranges), max(high for _, high in ranges)
    return lambda rescaled: (rescaled.astype(np.float64) - least) / ((largest - least) or 1)


def _is_identity(presentation: DicomDataset) -> bool:
    if presentation.get("ModalityLUTSequence"):
        return False
    if "RescaleSlope" not in presentation or "RescaleIntercept" not in presentation:
        return True
    return float(presentation.RescaleSlope) == 1 and float(presentation.RescaleIntercept) == 0


def _rescaled(rows: NDArray[np.generic], presentation: DicomDataset) -> NDArray[np.generic]:
    from pydicom.pixels.processing import apply_modality_lut

    wide = rows.astype(np.int64) if rows.dtype.kind in "iu" else rows
    return np.asarray(apply_modality_lut(wide, presentation))


def _range(rescaled: NDArray[np.generic]) -> tuple[float, float]:
    return float(rescaled.min()), float(rescaled.max())


def _eight_bits(values: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Return the high byte of unsigned values; fewer than 8 bits are stretched to 255."""
    if bits < 8:
        stretched: NDArray[np.float64] = np.clip(values.astype(np.float64) / (2**bits - 1), 0, 1) * 255
        return np.rint(stretched).astype(np.uint8)
    high: NDArray[np.uint8] = np.right_shift(values, bits - 8).astype(np.uint8)
    return high


def _blocks(values: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    step = max(1, _SAMPLES_AT_ONCE // (values.size // len(values)))
    for start in range(0, len(values), step):
        yield values[start : start + step]


def _by_rows(
    values: NDArray[np.generic], channels: int, show: Callable[[NDArray[np.generic]], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    shown = np.empty((*values.shape[:2], channels), dtype=np.uint8)
    done = 0
    for rows in _blocks(values):
        shown[done : done + len(rows)] = show(rows)
        done += len(rows)
    return shown
