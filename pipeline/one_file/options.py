"""The options of `edgeproof quantize MODEL.onnx`, and the settings of the method that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from calibration_data.fitting import Fit
from foundation.errors import UsageError
from foundation.processor import INTEGER_TYPES, CpuTarget
from foundation.settings import Settings
from onnx_files.answers import Kind
from onnx_files.preprocessing import ChannelOrder, Layout
from stages.compilers import COMPILERS
from stages.quantize.calibration.ranges import CalibrationMethod
from stages.quantize.methods.static import StaticSettings
from stages.quantize.recovery.compensation import CompensatedRoundingSettings
from stages.quantize.recovery.steps import RecoverySettings
from stages.search.study import LEAST_SCORED_IMAGES, TunedSettings


class AutoSettings(Settings):
    """Several methods, of which measurements choose one."""

    method: Literal["auto"] = Field("auto", description="the best of static, mixed, dynamic and weight-only")
    agreement: float = Field(0.95, ge=0, le=1, description="limit: share of answers that are the model's, at least")
    calibration: CalibrationMethod = Field("minmax", description="how static chooses ranges")
    recovery: RecoverySettings = Field(RecoverySettings(), description="steps of static against lost answers")
    target: Literal["auto", CpuTarget] = Field("auto", description="processor whose integer types are used")
    images: int = Field(128, ge=1, description="calibration images")
    scored_images: int = Field(128, ge=LEAST_SCORED_IMAGES, description="other images, that each file answers")
    seed: int = Field(0, ge=0, description="of the choice of images")


METHODS: Mapping[str, type[Settings]] = {
    **{name: row.settings for name, row in COMPILERS.items() if row.starts_from == "float_file"},
    "mixed": StaticSettings,
    "auto": AutoSettings,
}
"""The settings of every `--method`: the rows of the table of compilers that start from a float file, and two more.

Mixed is static with those regions in float that integers do not speed up.
"""

RECOVERIES: Mapping[str, RecoverySettings] = {
    "none": RecoverySettings(),
    "bias": RecoverySettings(bias_correction=True),
    "rounding": RecoverySettings(compensated_rounding=CompensatedRoundingSettings()),
}
"""What `--recovery` may be, and the steps that it stands for."""

_OF_SEARCH = ("trials", "minutes", "agreement", "saliency_spearman")
_SUFFIXES = {".onnx": True, ".yaml": False, ".yml": False, ".json": False}


@dataclass(frozen=True)
class CompileRequest:
    """What the command line was asked for; None where the user left an option out.

    Attributes:
        model: the classifier in ONNX.
        images: a folder of images, without labels.
        method: a key of `METHODS`, with - or _.
        calibration: how ranges are chosen, of a method that chooses any.
        recovery: a key of `RECOVERIES`, of static and of auto, which tries it as a part of static and, where it is
            None, rounding where nothing else saves the answers of a fast file.
        limit: at most so many calibration images.
        bits: of a weight, of a method that offers a choice.
        target: processor to compile for; None for this machine's.
        trials: files that a search compiles, at most.
        minutes: time of a search, at most.
        agreement: share of the answers that must be the model's, of a search or of auto.
        saliency_spearman: rank correlation that gradient maps must have with the model's, of a search.
        mean: of the input's channels, as "0.5" or "0.485,0.456,0.406".
        std: likewise.
        scale: the largest pixel value that mean and std are given for, 1 or 255; None for 1.
        layout: order of the input's axes; None to read it off the shape.
        channel_order: of the input's colours, RGB or BGR.
        answer_output: name of the output to judge, of several.
        answers: what it holds: logits, probabilities, sigmoid or label.
        image_size: "224", or "224x320" (height, width), of a model that takes any.
        fit: how an image becomes the input's shape.
        crop_share: share of the short side that a crop keeps.
        output: the file to write; None for MODEL.METHOD.onnx beside the model.
        seed: of the choice of images.
    """

    model: Path
    images: Path | None = None
    method: str = "auto"
    calibration: str | None = None
    recovery: str | None = None
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
    channel_order: ChannelOrder = "RGB"
    answer_output: str | None = None
    answers: Kind | None = None
    image_size: str | None = None
    fit: Fit = "pad"
    crop_share: float = 1.0
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

    @property
    def title(self) -> str:
        """The method as its file is told of beside others, with the recovery that is part of it."""
        return self.method if self.recovery in (None, "none") else f"{self.method}, {self.recovery}"

    @property
    def compiler(self) -> str:
        """The row of the table of compilers that makes the file."""
        return "static" if self.quantizer == "mixed" else self.quantizer


def spelled_method(key: str) -> str:
    """Return how a key of `METHODS` is written on the command line."""
    return key.replace("_", "-")


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
    for name in ("layout", "channel_order"):
        if name in given:
            given[name] = given[name].upper()
    choices_of = {
        "layout": get_args(Layout),
        "channel_order": get_args(ChannelOrder),
        "answers": get_args(Kind),
        "fit": get_args(Fit),
        "target": tuple(INTEGER_TYPES),
    }
    for name, choices in choices_of.items():
        if name in given and given[name] not in choices:
            raise UsageError(f"{_flag(name)}: expected one of {', '.join(choices)}, found {options[name]!r}.")
    if not 0 < given.get("crop_share", 1.0) <= 1:
        raise UsageError(f"--crop-share: expected above 0 and at most 1, found {given['crop_share']}.")
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
    values: dict[str, Any] = {"float_regions": True} if request.quantizer == "mixed" else {}
    if request.calibration is not None:
        if "calibration" not in fields:
            why = "chooses the ranges itself" if settings is TunedSettings else "chooses no ranges"
            raise UsageError(f"--calibration: {request.method} {why}. Leave it out, or use --method static.")
        choices = get_args(fields["calibration"].annotation)
        chosen = request.calibration.replace("-", "_")
        if chosen not in choices:
            raise UsageError(f"--calibration: expected one of {', '.join(choices)}, found {request.calibration!r}.")
        values["calibration"] = chosen
    if request.recovery is not None:
        values["recovery"] = _recovery(request, request.recovery)
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
            if name not in fields:
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


def _recovery(request: CompileRequest, name: str) -> RecoverySettings:
    if "recovery" not in METHODS[request.quantizer].model_fields:
        why = "chooses the steps itself" if request.quantizer == "tuned" else "has no steps to take"
        raise UsageError(f"--recovery: {request.method} {why}. Leave it out, or use --method static.")
    if name not in RECOVERIES:
        raise UsageError(f"--recovery: expected one of {', '.join(RECOVERIES)}, found {name!r}.")
    return RECOVERIES[name]


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
