"""Calibration images the way ONNX Runtime's quantizers read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration_data.preprocessing import Preprocessing
from pipeline.errors import UsageError


class ArrayCalibrationReader:
    """Feeds uint8 images batch by batch; ONNX Runtime takes it for a `CalibrationDataReader`.

    Args:
        images: uint8 [n, channels, height, width], 0 to 255.
        preprocessing: what the model's input expects.
        batch_size: images per batch; the last batch may be smaller.
        input_name: name of the model's input.

    Raises:
        UsageError: no images, or a batch size below 1.
    """

    def __init__(
        self, images: NDArray[np.uint8], preprocessing: Preprocessing, batch_size: int = 1, input_name: str = "image"
    ) -> None:
        if len(images) == 0 or batch_size < 1:
            raise UsageError(
                f"expected calibration images and a batch size of 1 or more, found {len(images)} images and a batch "
                f"size of {batch_size}. Raise the number of calibration images or the batch size."
            )
        self._images = images
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._input_name = input_name
        self._next = 0

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self._images) // self._batch_size)

    def get_next(self) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]] | None:
        """Return the next batch by the input's name, None after the last."""
        if self._next >= len(self._images):
            return None
        batch = self._images[self._next : self._next + self._batch_size]
        self._next += self._batch_size
        return {self._input_name: self._preprocessing.to_input(batch)}

    def rewind(self) -> None:
        """Start again from the first image."""
        self._next = 0
