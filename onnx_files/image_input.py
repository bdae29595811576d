"""The one input of a classifier: the image, its axes, and how pixels become it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from onnx_files.preprocessing import METADATA_KEY, Layout, Preprocessing

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ImageInput:
    """The one input of a classifier.

    Attributes:
        name: of the tensor.
        element_type: what it holds.
        batch: images per run where the file fixes it; None where any number goes.
        layout: order of its axes.
        channels: 1 or 3; None where the file leaves it open.
        height: in pixels; None where the file leaves it open.
        width: likewise.
    """

    name: str
    element_type: Literal["uint8", "float32"]
    batch: int | None
    layout: Layout
    channels: int | None
    height: int | None
    width: int | None


def image_input(proto: ModelProto, path: Path, layout: Layout | None = None) -> ImageInput:
    """Return the input that takes the images.

    Args:
        proto: the model.
        path: of the file, for messages.
        layout: of the input, as its user says; None to take it from the shape, where that leaves one reading.

    Raises:
        UsageError: the model has several inputs, or one that is no image, or the layout must be told.
    """
    if len(proto.graph.input) != 1:
        names = ", ".join(value.name for value in proto.graph.input) or "none"
        raise UsageError(f"{path}: expected a model with one input, the image; found {names}. Give a classifier.")
    value = proto.graph.input[0]
    element_type = _element_type(value, path)
    if not value.type.tensor_type.HasField("shape"):
        raise UsageError(
            f"{path}: expected an input of four axes, found `{value.name}` of unknown shape. Export the model with "
            "its input's shape; axes may have names in place of numbers."
        )
    shape = value.type.tensor_type.shape.dim
    if any(dimension.HasField("dim_value") and dimension.dim_value < 1 for dimension in shape):
        found = [dimension.dim_value if dimension.HasField("dim_value") else "?" for dimension in shape]
        raise UsageError(
            f"{path}: expected axes of length 1 or more, found `{value.name}` of shape {found}. Export the model "
            "with its input's shape; axes may have names in place of numbers."
        )
    dimensions = [dimension.dim_value or None for dimension in shape]
    if len(dimensions) != 4:
        raise UsageError(
            f"{path}: expected an input of four axes (batch, channels, height and width), found `{value.name}` with "
            f"{len(dimensions)}. Give a classifier of images."
        )
    batch, *rest = dimensions
    layout = layout or _layout(rest, path, value.name)
    channels, height, width = rest if layout == "NCHW" else (rest[2], rest[0], rest[1])
    if channels not in (*_CHANNELS, None):
        raise UsageError(
            f"{path}: expected 1 channel (gray) or 3 (RGB), found {channels} in the input `{value.name}` of shape "
            f"{dimensions} read as {layout}. Give --layout if that is not its order; other images are not supported."
        )
    return ImageInput(value.name, element_type, batch, layout, channels, height, width)


def _element_type(value: ValueInfoProto, path: Path) -> Literal["uint8", "float32"]:
    from onnx import TensorProto

    kind = value.type.tensor_type.elem_type
    if kind == TensorProto.FLOAT:
        return "float32"
    if kind == TensorProto.UINT8:
        return "uint8"
    raise UsageError(
        f"{path}: expected an input of type float32 or uint8, found `{value.name}` of type "
        f"{TensorProto.DataType.Name(kind).lower()}. Export the model in float32."
    )


def _layout(dimensions: list[int | None], path: Path, name: str) -> Layout:
    fits: list[Layout] = []
    if dimensions[0] in _CHANNELS:
        fits.append("NCHW")
    if dimensions[2] in _CHANNELS:
        fits.append("NHWC")
    if len(fits) == 1:
        return fits[0]
    shown = ", ".join("?" if size is None else str(size) for size in dimensions)
    found = f"{path}: expected an input with 1 or 3 channels, found `{name}` of shape [batch, {shown}]"
    if not fits and None not in (dimensions[0], dimensions[2]):
        raise UsageError(f"{found}. Only gray and RGB images are supported.")
    raise UsageError(f"{found}, which can be read in two ways. Give --layout NCHW or --layout NHWC.")


def preprocessing_of(proto: ModelProto, model: OnnxModel) -> Preprocessing:
    """Return how images become the model's input.

    Raises:
        UsageError: the file's metadata does not say.
    """
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in metadata:
        raise UsageError(
            f"{model.path}: expected `{METADATA_KEY}` in the model's metadata, found none. "
            "Export the model with `edgeproof export`, which writes it."
        )
    try:
        return Preprocessing.from_metadata(metadata)
    except ValueError as error:
        raise UsageError(f"{model.path}: {error} in the model's metadata. Export the model anew.") from error


def input_name_of(proto: ModelProto, model: OnnxModel, image_shape: tuple[int, ...]) -> str:
    """Return the name of the model's input, which takes images of a shape (channels, height, width).

    Raises:
        UsageError: the model has several inputs, or takes images of another form.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise UsageError(
            f"{model.path}: expected a model with one input, found {len(inputs)}. Give an image classifier."
        )
    expected = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim]
    channels, height, width = image_shape
    layout = preprocessing_of(proto, model).layout
    found = [channels, height, width] if layout == "NCHW" else [height, width, channels]
    if len(expected) != 4 or any(e and e != f for e, f in zip(expected[1:], found, strict=True)):
        raise UsageError(
            f"{model.path}: expected images of shape {expected[1:]} (channels, height, width), found {found}. "
            "Prepare the data with the model's image size and channels."
        )
    name: str = inputs[0].name
    return name
