"""From values to brightness: the window of PS3.3 C.11.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset as DicomDataset

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


def first_window(elements: DicomDataset) -> Window | None:
    """Return the first window that elements hold; None where they hold none.

    Raises:
        ValueError: a window that cannot be applied.
    """
    centers, widths = elements.get("WindowCenter"), elements.get("WindowWidth")
    if centers is None or widths is None or centers == "" or widths == "":
        return None
    center, width = (float(value[0] if hasattr(value, "__getitem__") else value) for value in (centers, widths))
    function = str(elements.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or width < (1 if function == "LINEAR" else 1e-9):
        raise ValueError
    return Window(center, width, function)  # type: ignore[arg-type]
