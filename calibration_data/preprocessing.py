"""From a uint8 image to a model's input, and what an ONNX file's metadata says about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

METADATA_KEY = "edgeproof.preprocessing"


@dataclass(frozen=True)
class Preprocessing:
    """How an image of 0…255 becomes a model's input; stored in each ONNX file's `metadata_props`.

    Attributes:
        input_type: "uint8": the graph takes the pixels and normalises inside; "float32": the caller normalises.
        mean: one float per channel, of pixels scaled to 0…1.
        std: one float per channel, likewise.
        image_size: height and width in pixels.
    """

    input_type: Literal["uint8", "float32"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int

    def to_input(self, images: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Return images (uint8 [n, c, h, w]) as the model's input tensor of the same shape."""
        if self.input_type == "uint8":
            return images
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None, None]
        scaled = images.astype(np.float32) / np.float32(255.0)
        return cast("NDArray[np.float32]", (scaled - mean) / std)

    def to_metadata(self) -> dict[str, str]:
        """Return the entry for an ONNX file's `metadata_props`."""
        return {METADATA_KEY: json.dumps(asdict(self), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Preprocessing:
        """Return what `to_metadata` wrote; `metadata` may come from onnx or from a session's model meta."""
        values = json.loads(metadata[METADATA_KEY])
        return cls(values["input_type"], tuple(values["mean"]), tuple(values["std"]), values["image_size"])
