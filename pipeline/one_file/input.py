"""What the options of a command say about a model's input, as the settings that `stages.given` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from calibration_data.fitting import Fit, ImageForm
from foundation.errors import UsageError
from onnx_files.image_input import ImageInput
from onnx_files.preprocessing import Preprocessing
from pipeline.one_file.options import CompileRequest
from stages.given.form import preprocessing_for as preprocessing_of_form
from stages.given.settings import FileForm

if TYPE_CHECKING:
    from onnx import ModelProto


def preprocessing_for(proto: ModelProto, request: CompileRequest) -> tuple[ImageInput, Preprocessing]:
    """Return the model's input, and how images become it: as the options say, else as the model's metadata does.

    Raises:
        UsageError: neither says, or they contradict the model's shape.
    """
    size = parsed_size(request.image_size) if request.image_size is not None else None
    return preprocessing_of_form(proto, request.model, file_form(request), size, spelled)


def file_form(request: CompileRequest) -> FileForm:
    """Return what the options say about the model's input and output.

    Raises:
        UsageError: an option that cannot be read.
    """
    values = {
        "mean": _numbers("--mean", request.mean),
        "std": _numbers("--std", request.std),
        "scale": 1 if request.scale is None else request.scale,
        "layout": request.layout,
        "channel_order": request.channel_order,
        "output": request.answer_output,
        "answers": request.answers,
    }
    try:
        return FileForm.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = spelled(str(first["loc"][0]))
        if option == "--scale":
            raise UsageError(
                f"--scale: expected 1 or 255, the largest pixel value for --mean and --std; found {request.scale}."
            ) from error
        message = first["msg"][0].lower() + first["msg"][1:]
        raise UsageError(f"{option}: {message}, found {first['input']!r}.") from error


def spelled(setting: str) -> str:
    """Return how a setting is written on the command line."""
    return {"output": "--answer-output"}.get(setting, f"--{setting.replace('_', '-')}")


def form_for(entry: ImageInput, preprocessing: Preprocessing, fit: Fit, crop_share: float) -> ImageForm:
    """Return the form that images must have for an input."""
    channels = entry.channels or len(preprocessing.mean)
    return ImageForm(preprocessing.image_size, channels, fit, preprocessing.image_width, crop_share=crop_share)


def parsed_size(text: str) -> tuple[int, int]:
    """Return height and width of "224" or "224x320".

    Raises:
        UsageError: the text is neither.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(
        part.strip().isascii() and part.strip().isdigit() and int(part) > 0 for part in parts
    ):
        raise UsageError(f"--image-size: expected 224, or 224x320 (height and width), found {text!r}.")
    return int(parts[0]), int(parts[-1])


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(abs(value) < 1e6 for value in values):  # which NaN is not
        raise UsageError(f"{option}: expected numbers with commas between, as 0.485,0.456,0.406; found {text!r}.")
    return values
