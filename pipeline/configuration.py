"""Everything that one run does: frozen, strict settings of every stage, and how its parts must fit each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, cast

from pydantic import Field, model_validator

from calibration_data.settings import DataSettings
from foundation.files import JSON, sha256_of_json
from foundation.measurements import UNINFORMED
from foundation.metrics import METRICS, row_name
from foundation.settings import Settings, without_folders, without_paths
from pipeline.judge.gate import Gate
from pipeline.judge.tolerances import ComparisonSettings
from pipeline.night.notice_settings import NoticeSettings
from stages.compilers import COMPILERS
from stages.export.settings import ExportSettings, PactExportSettings
from stages.export.torch_model import TorchSettings
from stages.given.settings import GivenSettings, OnnxSettings
from stages.network import NETWORKS
from stages.train.settings import TrainSettings
from stages.validate.places import PLACES
from stages.validate.robustness import CHANGE_NAMES
from stages.validate.settings import ValidateSettings

VARIANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESERVED_NAMES = ("fp32", *UNINFORMED)

if TYPE_CHECKING:
    AnyVariant = PactExportSettings
else:  # every row of the table of quantizers is a choice, and so are PACT's own integers and the search
    AnyVariant = Annotated[
        Union[tuple(row.settings for row in COMPILERS.values())],  # noqa: UP007
        Field(discriminator="method"),
    ]


class ModelSettings(Settings):
    """Where the model comes from: exactly one of the three."""

    train: TrainSettings | None = Field(None, description="trained here: the network and how")
    torch: TorchSettings | None = Field(None, description="a PyTorch network with its weights, trained elsewhere")
    onnx: OnnxSettings | None = Field(None, description="a classifier in ONNX, from whatever exporter")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("train", "torch", "onnx") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of train, torch and onnx, found {' and '.join(given) or 'none'}")
        return self

    @property
    def network(self) -> str | None:
        """Name of the PyTorch network; None where the model is an ONNX file."""
        source = self.train or self.torch
        return source.network if source else None


class NightlySettings(Settings):
    """The unattended job."""

    keep: int = Field(14, ge=1, le=10_000, description="run folders that stay on disk; the accepted one always does")
    rerun_accepted: bool = Field(
        True,
        description="run the accepted recipe again where a night is red and its configuration is another one: does "
        "the world or the configuration make the difference?",
    )
    known_answers: bool = Field(
        False, description="require that the built-in reference model answers as known (`edgeproof doctor --deep`)"
    )
    quiet_wait_minutes: float = Field(
        2.0,
        ge=0.0,
        le=1440.0,
        description="times wait so long, at most, until other processes leave the machine alone; 0: not at all",
    )
    notices: NoticeSettings | None = Field(None, description="who is told when a night comes out otherwise")


Words = Annotated[str, Field(max_length=2000)]


class ReportSettings(Settings):
    """What the report tells: the words of whoever answers for the model; what is empty stands as "not stated"."""

    show_names: bool = Field(
        False,
        description="images by their files' names; else by the first digits of their sha256, which tell nothing",
    )
    intended_use: Words = Field("", description="what the model is for, by whom and where it is used")
    population: Words = Field("", description="whose images it is meant for, and whose these are")
    reference_standard: Words = Field("", description="how the truth of the images was found, and by whom")
    acquisition_devices: Words = Field("", description="with what the images were taken")
    contraindications: Words = Field("", description="when the model must not be used")
    author: Words = Field("", description="who answers for this run")
    reviewer: Words = Field("", description="who is to sign the report")


class Configuration(Settings):
    """Everything that one run does."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="name of the run and of its folder")
    data: DataSettings = Field(description="which images, in which size, and how they are divided")
    model: ModelSettings = Field(
        ModelSettings(train=TrainSettings()),
        description="where the model comes from: exactly one of train, torch, onnx",
    )
    export: ExportSettings = Field(ExportSettings(), description="the form of every ONNX file")
    variants: dict[str, AnyVariant] = Field(
        default_factory=dict, description="the compiled files, name: {method: …}; fp32 is always there"
    )
    validation: ValidateSettings = Field(ValidateSettings(), description="what is measured of every variant")
    gates: Annotated[tuple[Gate, ...], Field(strict=False)] = Field(
        (), description="acceptance criteria, fixed before the run"
    )
    comparison: ComparisonSettings = Field(
        ComparisonSettings(), description="how much worse than the accepted run a measurement may be"
    )
    report: ReportSettings = Field(ReportSettings(), description="what the report tells")
    nightly: NightlySettings = Field(NightlySettings(), description="the unattended job")

    @model_validator(mode="before")
    @classmethod
    def _train_alone_is_a_model(cls, values: Any) -> Any:
        # `train: …` is short for `model: {train: …}`.
        if not isinstance(values, dict) or "train" not in values:
            return values
        if "model" in values:
            raise ValueError("`train` and `model` both say where the model comes from; keep one of them")
        return {
            **{key: value for key, value in values.items() if key != "train"},
            "model": {"train": values["train"]},
        }

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> Self:
        problems = [
            *_names_of_variants(self.variants),
            *_gates_without_measurement(self),
            *_pact_without_training(self),
            *_images_too_small(self),
            *_unknown_normalisation(self),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def as_json(self) -> dict[str, JSON]:
        """Return the whole configuration, defaults included, as JSON values."""
        return self._values("json")

    def as_python(self) -> dict[str, Any]:
        """Return the whole configuration as Python values, in which a path is a `Path`."""
        return self._values("python")

    def without_folders(self) -> dict[str, JSON]:
        """Return `as_json` with the last part of each path alone, for what is handed on."""
        values: dict[str, JSON] = without_folders(self._values("json"), self._values("python"))
        return values

    def _values(self, mode: Literal["json", "python"]) -> dict[str, JSON]:
        values: dict[str, JSON] = self.model_dump(mode=mode)
        values["variants"] = {name: settings.model_dump(mode=mode) for name, settings in self.variants.items()}
        values["data"]["source"] = self.data.source.model_dump(mode=mode)
        return values

    @property
    def sha256(self) -> str:
        """Identity of the configuration; where files lie is no part of it (their content is)."""
        return sha256_of_json(without_paths(self._values("python")))

    @property
    def gates_sha256(self) -> str:
        """Identity of the acceptance criteria, recorded before the run starts."""
        return sha256_of_json([gate.identity for gate in self.gates])


def _names_of_variants(variants: Mapping[str, Any]) -> Iterator[str]:
    for name in variants:
        if not VARIANT_NAME.fullmatch(name) or name in RESERVED_NAMES:
            yield (
                f"variants: {name!r} cannot name a variant: use lower-case letters, digits, '-' and '_', and not "
                f"{' or '.join(RESERVED_NAMES)}"
            )


def _gates_without_measurement(configuration: Configuration) -> Iterator[str]:
    known = ("fp32", *configuration.variants)
    methods = configuration.validation.saliency.methods
    for number, gate in enumerate(configuration.gates):
        if gate.variant not in known:
            yield f"gates.{number}: a gate names the variant {gate.variant!r}; there are {', '.join(known)}"
        yield from (f"gates.{number}: {why}" for why in _unasked(gate, configuration.validation))
        if gate.method is not None and gate.method not in methods:
            yield (
                f"gates.{number}: a gate wants saliency by {gate.method!r}, and validation.saliency.methods has "
                f"{', '.join(methods)}; add it there"
            )


def _unasked(gate: Gate, validation: ValidateSettings) -> Iterator[str]:
    """Yield why a gate's number will not be there, of those that are measured only where they are asked for."""
    inputs, points = METRICS[row_name(gate.metric)].inputs, validation.operating_points
    if inputs == "changed" and validation.robustness is None:
        yield f"a gate wants {gate.metric}, and validation.robustness is null; set it, `{{}}` for its defaults"
    saliency = validation.saliency
    if inputs == "noise" and not saliency.sensitivity_samples:
        yield f"a gate wants {gate.metric}, and validation.saliency.sensitivity_samples is 0; set it, to 10 say"
    if inputs == "cascade" and not saliency.sanity_cascade:
        yield f"a gate wants {gate.metric}, and validation.saliency.sanity_cascade is 0; set it, to 5 say"
    if inputs == "path" and "integrated_gradients" not in saliency.methods:
        yield f"a gate wants {gate.metric}, and validation.saliency.methods lacks integrated_gradients; add it there"
    if gate.place in PLACES and gate.place not in validation.places.at:  # another name is a device's, asked later
        yield f"a gate names the place {gate.place!r}, and validation.places.at lacks it; add it there"
    if gate.change is not None and gate.change not in CHANGE_NAMES:
        yield f"a gate names the change {gate.change!r}; there are {', '.join(CHANGE_NAMES)}"
    if inputs == "threshold" and points is None:
        yield f"a gate wants {gate.metric}, and validation.operating_points is null; set it, `{{}}` for its defaults"
    of_class = gate.metric.partition("/")[2]
    if inputs == "threshold" and points is not None and points.classes and of_class not in points.classes:
        yield f"a gate wants {gate.metric}, and validation.operating_points.classes has {', '.join(points.classes)}"


def _pact_without_training(configuration: Configuration) -> Iterator[str]:
    train = configuration.model.train
    if train is not None and train.pact is not None:
        return
    why = (
        "train.pact is null; set train.pact" if train is not None else "the model comes from elsewhere; train it here"
    )
    for name, settings in configuration.variants.items():
        if COMPILERS[settings.method].starts_from == "checkpoint":
            yield f"the variant {name!r} ships the integers that PACT trains, and {why}, or remove the variant"


def _images_too_small(configuration: Configuration) -> Iterator[str]:
    network = NETWORKS.get(configuration.model.network or "")
    size = configuration.data.image_size
    if network is not None and size < network.least_image_size:
        yield (
            f"the network {configuration.model.network!r} expects images of at least {network.least_image_size} "
            f"pixels, and data.image_size is {size}; raise it, or choose another network"
        )


def _unknown_normalisation(configuration: Configuration) -> Iterator[str]:
    if configuration.model.torch is not None and configuration.data.mean is None:
        yield (
            "a network that was trained elsewhere expects its own normalisation, and data.mean and data.std are "
            "null; set them as in its training"
        )


def given_paths(configuration: Configuration) -> dict[str, Path]:
    """Return the files that variants take from elsewhere, by variant."""
    return {
        name: settings.path
        for name, settings in cast("Mapping[str, object]", configuration.variants).items()
        if isinstance(settings, GivenSettings)
    }


def json_schema() -> dict[str, JSON]:
    """Return the JSON schema of the configuration."""
    schema: dict[str, JSON] = Configuration.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edgeproof configuration"}
    return {**schema, **head}
