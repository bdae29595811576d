"""What every single map is worth, on disk: variants are paired with fp32 by it, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.arrays import read_arrays, write_arrays
from foundation.errors import UsageError

Floats = NDArray[np.float64]


def write_map_values(path: Path, values: Mapping[str, Floats]) -> None:
    """Write by metric the value of each map, float64 [m], NaN where an image does not count."""
    stacked = np.stack([*values.values()]) if values else np.empty((0, 0))
    write_arrays(path, {"metrics": np.array([*values], dtype=np.str_), "values": stacked})


def read_map_values(path: Path) -> dict[str, Floats]:
    """Return what `write_map_values` wrote.

    Raises:
        UsageError: the file is missing, or holds something else.
    """
    metrics, values = read_arrays(path, ("metrics", "values"))
    if (
        metrics.dtype.kind != "U"
        or values.dtype != np.float64
        or values.ndim != 2
        or metrics.shape != values.shape[:1]
    ):
        raise UsageError(
            f"{path}: expected metrics [k] of texts and values [k, m] of float64, found {metrics.dtype} "
            f"{metrics.shape} and {values.dtype} {values.shape}. Delete it and run `edgeproof validate` again."
        )
    return dict(zip(metrics.tolist(), values, strict=True))
