"""The saliency maps of a variant on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.arrays import read_arrays, write_arrays
from foundation.errors import UsageError

Maps = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Explanations:
    """The maps of a variant by one method.

    Attributes:
        variant: its name.
        maps: float32 [m, h, w], higher = more important.
        image_index: int64 [m], into the test split.
        target: int64 [m], the class that is explained.
        path: the `.npz` that holds the three.
    """

    variant: str
    maps: Maps
    image_index: Indices
    target: Indices
    path: Path

    def write(self) -> None:
        """Write the maps to their path."""
        write_arrays(self.path, {"maps": self.maps, "image_index": self.image_index, "target": self.target})

    @classmethod
    def read(cls, variant: str, path: Path) -> Explanations:
        """Return what `write` wrote.

        Raises:
            UsageError: the file is missing, or holds something else.
        """
        maps, image_index, target = read_arrays(path, ("maps", "image_index", "target"))
        kinds = maps.dtype.kind + image_index.dtype.kind + target.dtype.kind
        if (
            maps.ndim != 3
            or image_index.shape != maps.shape[:1]
            or target.shape != maps.shape[:1]
            or kinds not in ("fii", "fiu")
        ):
            raise UsageError(
                f"{path}: expected maps [m, h, w] of floats, image_index [m] and target [m] of whole numbers, found "
                f"{maps.dtype} {maps.shape}, {image_index.dtype} {image_index.shape} and {target.dtype} "
                f"{target.shape}. Delete it and run `edgeproof validate` again."
            )
        return cls(variant, maps, image_index, target, path)

    def of_image(self, index: int) -> Maps | None:
        """Return the map of a test image, float32 [h, w]; None where there is none."""
        positions = np.flatnonzero(self.image_index == index)
        return self.maps[positions[0]] if len(positions) else None
