"""From a uint8 image to a model's input, and what an ONNX file's metadata says about it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

METADATA_KEY = "edgeproof.preprocessing"

Layout = Literal["NCHW", "NHWC"]
"""The order of a model's input: batch, channels, height, width, or batch, height, width, channels."""

ChannelOrder = Literal["RGB", "BGR"]
"""The order of the colours in a model's input; BGR is OpenCV's and Caffe's."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image of 0…255 becomes a model's input; stored in each ONNX file's `metadata_props`.

    Attributes:
        input_type: "uint8": the graph takes the pixels and normalises inside; "float32": the caller normalises.
        mean: one float per channel, of pixels scaled to 0…1.
        std: one float per channel, likewise.
        image_size: height in pixels, and the width where `image_width` is None.
        image_width: width in pixels; None where the images are square.
        layout: order of the input's axes.
        channel_order: order of its colours; mean and std are in the same order.
    """

    input_type: Literal["uint8", "float32"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    image_width: int | None = None
    layout: Layout = "NCHW"
    channel_order: ChannelOrder = "RGB"

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.image_width or self.image_size

    def to_input(self, images: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Return images (uint8 [n, c, h, w], RGB where there are colours) as the model's input tensor."""
        if self.channel_order == "BGR":
            images = np.ascontiguousarray(images[:, ::-1])
        if self.input_type == "uint8":
            return np.ascontiguousarray(np.moveaxis(images, 1, -1)) if self.layout == "NHWC" else images
        mean = np.asarray(self.mean, dtype=np.float32)[:, None, None]
        std = np.asarray(self.std, dtype=np.float32)[:, None, None]
        scaled = images.astype(np.float32) / np.float32(255.0)
        normalised = cast("NDArray[np.float32]", (scaled - mean) / std)
        return np.ascontiguousarray(np.moveaxis(normalised, 1, -1)) if self.layout == "NHWC" else normalised

    def to_metadata(self) -> dict[str, str]:
        """Return the entry for an ONNX file's `metadata_props`; square RGB images in NCHW are not spelled out."""
        values = asdict(self)
        if self.image_width is None:
            del values["image_width"]
        if self.layout == "NCHW":
            del values["layout"]
        if self.channel_order == "RGB":
            del values["channel_order"]
        return {METADATA_KEY: json.dumps(values, sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Preprocessing:
        """Return what `to_metadata` wrote; `metadata` may come from onnx or from a session's model meta.

        Raises:
            KeyError: there is no such entry.
            ValueError: the entry is none that `to_metadata` could have written.
        """
        text = metadata[METADATA_KEY]
        try:
            return _checked(json.loads(text))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"expected what edgeproof writes into `{METADATA_KEY}`, found {text[:200]!r}") from error


def _checked(values: Any) -> Preprocessing:
    input_type, layout = values["input_type"], values.get("layout", "NCHW")
    order = values.get("channel_order", "RGB")
    mean, std = (tuple(float(value) for value in values[key]) for key in ("mean", "std"))
    height, width = values["image_size"], values.get("image_width")
    finite = all(math.isfinite(value) for value in (*mean, *std))
    sized = all(type(size) is int and size > 0 for size in (height, width) if size is not None)
    named = input_type in ("uint8", "float32") and layout in ("NCHW", "NHWC") and order in ("RGB", "BGR")
    if not (finite and sized and named and height and len(mean) == len(std) > 0 and min(std) > 0):
        raise ValueError("a value that makes no sense")
    return Preprocessing(input_type, mean, std, height, width, layout, order)
