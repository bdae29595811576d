"""The input of a classifier that comes from elsewhere, and how images become it: by options, else by its metadata."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calibration_data.fitting import Fit, ImageForm
from foundation.errors import UsageError
from onnx_files.image_input import ImageInput, image_input
from onnx_files.preprocessing import METADATA_KEY, Preprocessing
from pipeline.one_file.options import CompileRequest

if TYPE_CHECKING:
    from onnx import ModelProto

_LEAST_STD = 1e-6
_LARGEST_IMAGE_SIZE = 4096


def preprocessing_for(proto: ModelProto, request: CompileRequest) -> tuple[ImageInput, Preprocessing]:
    """Return the model's input, and how images become it: as the options say, else as the model's metadata does.

    Raises:
        UsageError: neither says, or they contradict the model's shape.
    """
    written = _written(proto, request.model)
    entry = image_input(proto, request.model, request.layout or (written.layout if written else None))
    height, width = _size(entry, written, request)
    mean, std = _normalisation(entry, written, request)
    preprocessing = Preprocessing(
        entry.element_type, mean, std, height, None if width == height else width, entry.layout
    )
    return replace(entry, channels=entry.channels or len(mean)), preprocessing


def form_for(entry: ImageInput, preprocessing: Preprocessing, fit: Fit) -> ImageForm:
    """Return the form that images must have for an input."""
    channels = entry.channels or len(preprocessing.mean)
    return ImageForm(preprocessing.image_size, channels, fit, preprocessing.image_width)


def _written(proto: ModelProto, path: Path) -> Preprocessing | None:
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in metadata:
        return None
    try:
        return Preprocessing.from_metadata(metadata)
    except ValueError as error:
        raise UsageError(f"{path}: {error} in the model's metadata. Remove the entry and give options.") from error


def _size(entry: ImageInput, written: Preprocessing | None, request: CompileRequest) -> tuple[int, int]:
    told = _parsed_size(request.image_size) if request.image_size is not None else None
    if told is None and written is not None:
        told = written.image_size, written.width
    if told is None and (entry.height is None or entry.width is None):
        raise UsageError(
            f"{request.model}: expected an input of fixed height and width, found one that takes any. "
            "Give --image-size 224, or --image-size 224x320 (height and width)."
        )
    height, width = (fixed or said for fixed, said in zip((entry.height, entry.width), told or (0, 0), strict=True))
    if told is not None and told != (height, width):
        where = "--image-size" if request.image_size is not None else f"`{METADATA_KEY}` in the model's metadata"
        raise UsageError(
            f"{request.model}: expected images of {height} × {width} (height and width), found {told[0]} × {told[1]} "
            f"in {where}. The model takes no other size."
        )
    if max(height, width) > _LARGEST_IMAGE_SIZE:
        raise UsageError(
            f"{request.model}: expected images of at most {_LARGEST_IMAGE_SIZE} pixels a side, found "
            f"{height} × {width}."
        )
    return height, width


def _parsed_size(text: str) -> tuple[int, int]:
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(
        part.strip().isascii() and part.strip().isdigit() and int(part) > 0 for part in parts
    ):
        raise UsageError(f"--image-size: expected 224, or 224x320 (height and width), found {text!r}.")
    return int(parts[0]), int(parts[-1])


def _normalisation(
    entry: ImageInput, written: Preprocessing | None, request: CompileRequest
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    told = {"--mean": request.mean, "--std": request.std}
    given = [name for name, text in told.items() if text is not None]
    if entry.element_type == "uint8":
        if given:
            raise UsageError(
                f"{' and '.join(given)}: the model takes pixels of 0…255 (its input is uint8). Leave them out."
            )
        channels = entry.channels or (len(written.mean) if written else 3)
        return (written.mean, written.std) if written else ((0.0,) * channels, (1.0,) * channels)
    if not given and written is not None:
        return _checked_channels(written.mean, entry, request), _checked_channels(written.std, entry, request)
    if len(given) != 2:
        missing = " and ".join(name for name in told if name not in given)
        raise UsageError(
            f"{request.model}: expected to know how pixels become its float input `{entry.name}`, found nothing of "
            f"it in its metadata. Give {missing}; for pixels scaled to 0…1 --mean 0 --std 1, for the usual ImageNet "
            "model --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, for pixels of 0…255 --mean 0 --std 1 "
            "--scale 255."
        )
    scale = 1 if request.scale is None else request.scale
    if scale not in (1, 255):
        raise UsageError(f"--scale: expected 1 or 255, the largest pixel value for --mean and --std; found {scale}.")
    mean, std = (_channels(name, told[name] or "", entry, request, scale) for name in told)
    if min(std) * scale < _LEAST_STD:
        raise UsageError(f"--std: expected positive values, found {request.std}.")
    return mean, std


def _channels(name: str, text: str, entry: ImageInput, request: CompileRequest, scale: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) / scale for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(abs(value) < 1e6 for value in values):  # which NaN is not
        raise UsageError(f"{name}: expected numbers with commas between, as 0.485,0.456,0.406; found {text!r}.")
    if len(values) == 1:
        values *= entry.channels or 1
    return _checked_channels(values, entry, request)


def _checked_channels(values: tuple[float, ...], entry: ImageInput, request: CompileRequest) -> tuple[float, ...]:
    expected = (entry.channels,) if entry.channels else (1, 3)
    if len(values) not in expected:
        counts = " or ".join(str(count) for count in expected)
        raise UsageError(
            f"{request.model}: expected a mean and a std for {counts} channels of `{entry.name}`, found "
            f"{len(values)}."
        )
    return values
