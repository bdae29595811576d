"""The options of `edgeproof quantize MODEL.onnx`, and what they say together with the model's own metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from calibration_data.fitting import Fit, ImageForm
from calibration_data.preprocessing import METADATA_KEY, Layout, Preprocessing
from pipeline.errors import UsageError
from pipeline.processor import INTEGER_TYPES, CpuTarget
from pipeline.settings import Settings
from stages.quantize import QUANTIZERS
from stages.quantize.foreign_model import ImageInput, image_input
from stages.quantize.tuner import TunedSettings

if TYPE_CHECKING:
    from onnx import ModelProto

METHODS: Mapping[str, type[Settings]] = {
    **{name: row.settings for name, row in QUANTIZERS.items()},
    "tuned": TunedSettings,
}
"""The settings of every `--method`: the table of quantizers, and the search among them."""

_OF_SEARCH = ("trials", "minutes", "agreement", "saliency_spearman")
_LEAST_STD = 1e-6
_LARGEST_IMAGE_SIZE = 4096
_SUFFIXES = {".onnx": True, ".yaml": False, ".yml": False, ".json": False}


@dataclass(frozen=True)
class CompileRequest:
    """What the command line was asked for; None where the user left an option out.

    Attributes:
        model: the classifier in ONNX.
        images: a folder of images, without labels.
        method: a key of `METHODS`, with - or _.
        calibration: how ranges are chosen, of a method that chooses any.
        limit: at most so many calibration images.
        bits: of a weight, of a method that offers a choice.
        target: processor to compile for; None for this machine's.
        trials: files that a search compiles, at most.
        minutes: time of a search, at most.
        agreement: share of the answers that must be the model's, of a search.
        saliency_spearman: rank correlation that gradient maps must have with the model's, of a search.
        mean: of the input's channels, as "0.5" or "0.485,0.456,0.406".
        std: likewise.
        scale: the largest pixel value that mean and std are given for, 1 or 255; None for 1.
        layout: order of the input's axes; None to read it off the shape.
        image_size: "224", or "224x320" (height, width), of a model that takes any.
        fit: how an image becomes the input's shape.
        output: the file to write; None for MODEL.METHOD.onnx beside the model.
        seed: of the choice of images.
    """

    model: Path
    images: Path | None = None
    method: str = "static"
    calibration: str | None = None
    limit: int | None = None
    bits: int | None = None
    target: CpuTarget | None = None
    trials: int | None = None
    minutes: float | None = None
    agreement: float | None = None
    saliency_spearman: float | None = None
    mean: str | None = None
    std: str | None = None
    scale: int | None = None
    layout: Layout | None = None
    image_size: str | None = None
    fit: Fit = "pad"
    output: Path | None = None
    seed: int = 0

    @property
    def quantizer(self) -> str:
        """The method's key in `METHODS`.

        Raises:
            UsageError: there is no such method.
        """
        key = self.method.replace("-", "_")
        if key not in METHODS:
            raise UsageError(f"--method: expected one of {', '.join(METHODS)}, found {self.method!r}.")
        return key


def is_model(path: Path) -> bool:
    """Return whether what is given to `edgeproof quantize` is a model: by its suffix, else by its first bytes."""
    known = _SUFFIXES.get(path.suffix.lower())
    if known is not None or not path.is_file():
        return bool(known)
    with path.open("rb") as stream:
        start = stream.read(4096)
    return any(byte < 32 and byte not in b"\t\n\r\f" for byte in start)  # a configuration is text


def refuse_options(source: Path, expected: str, **options: object) -> None:
    """Refuse options that belong to the other kind of source.

    Args:
        source: what was given to the command.
        expected: the kind that they belong to.
        options: by name; None where not given.

    Raises:
        UsageError: one of them was given.
    """
    given = [_flag(name) for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{source}: expected {expected} with {', '.join(given)}. Leave that out, or give {expected}."
        )


def request_for(model: Path, options: Mapping[str, Any]) -> CompileRequest:
    """Return the request for a model; options that are None take their defaults.

    Raises:
        UsageError: an option has a value that it never has.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "layout" in given:
        given["layout"] = given["layout"].upper()
    for name, choices in (("layout", get_args(Layout)), ("fit", get_args(Fit)), ("target", tuple(INTEGER_TYPES))):
        if name in given and given[name] not in choices:
            raise UsageError(f"--{name}: expected one of {', '.join(choices)}, found {options[name]!r}.")
    if given.get("seed", 0) < 0:
        raise UsageError(f"--seed: expected 0 or more, found {given['seed']}.")
    return CompileRequest(model, **given)


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def settings_for(request: CompileRequest, calibration_images: int) -> Settings:
    """Return the settings of the method that was asked for.

    Args:
        request: its method and what belongs to methods, from calibration to the limits of a search, and its seed.
        calibration_images: how many there are; 0 for none.

    Raises:
        UsageError: an option that the method has no use for, or a value that it cannot have.
    """
    settings = METHODS[request.quantizer]
    fields = settings.model_fields
    values: dict[str, Any] = {}
    if request.calibration is not None:
        if "calibration" not in fields:
            why = "chooses the ranges itself" if settings is TunedSettings else "chooses no ranges"
            raise UsageError(f"--calibration: {request.method} {why}. Leave it out, or use --method static.")
        choices = get_args(fields["calibration"].annotation)
        chosen = request.calibration.replace("-", "_")
        if chosen not in choices:
            raise UsageError(f"--calibration: expected one of {', '.join(choices)}, found {request.calibration!r}.")
        values["calibration"] = chosen
    if request.target is not None:
        values |= _values_of_target(request, request.target)
    if request.bits is not None:
        if "bits" not in fields:
            raise UsageError(f"--bits: {request.method} has no choice of bits. Leave it out, or use weight-only.")
        if request.bits not in (choices := get_args(fields["bits"].annotation)):
            raise UsageError(f"--bits: expected {' or '.join(map(str, choices))}, found {request.bits}.")
        values["bits"] = request.bits
    for name in _OF_SEARCH:
        if (value := getattr(request, name)) is not None:
            if settings is not TunedSettings:
                raise UsageError(
                    f"{_flag(name)}: {request.method} makes no search. Leave it out, or use --method tuned."
                )
            values[name] = value
    if "images" in fields:
        # A method that can do without images is content with the few of its default.
        enough = calibration_images if needs_images(request) else fields["images"].default
        values |= {"images": min(calibration_images, enough), "seed": request.seed}
    if request.quantizer == "neural_compressor":
        values["mode"] = "static"  # its tuning needs an accuracy, and so labels
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise UsageError(_refusal(error, request)) from error


def _refusal(error: ValidationError, request: CompileRequest) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return f"--method {request.method}: {first['msg']}."
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{_flag(str(first['loc'][0]))}: {message}, found {first['input']}."


def needs_images(request: CompileRequest) -> bool:
    """Return whether the method cannot do without images."""
    settings = METHODS[request.quantizer]
    if "images" not in settings.model_fields:
        return False
    try:
        settings.model_validate({"images": 0})
    except ValidationError:
        return True
    return False


def _values_of_target(request: CompileRequest, target: CpuTarget) -> dict[str, Any]:
    fields = METHODS[request.quantizer].model_fields
    if "target" in fields:
        return {"target": target}
    if "reduce_range" in fields:
        return {"reduce_range": INTEGER_TYPES[target].reduce_range}
    raise UsageError(f"--target: what {request.method} writes is the same for every processor. Leave it out.")


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
