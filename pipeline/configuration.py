"""One YAML file → frozen, strict settings of every stage; every mistake in it gets one sentence that mends it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from calibration_data.settings import DataSettings
from foundation.errors import UsageError
from foundation.files import JSON, sha256_of_json
from foundation.measurements import UNINFORMED
from foundation.settings import Settings, without_paths
from pipeline.judge.comparison import ComparisonSettings
from pipeline.judge.gates import Gate
from stages.compilers import COMPILERS
from stages.export.settings import ExportSettings, PactExportSettings
from stages.network import NETWORKS
from stages.train.settings import TrainSettings
from stages.validate.settings import ValidateSettings

MAX_BYTES = 1_000_000
VARIANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESERVED_NAMES = ("fp32", *UNINFORMED)
_PLAIN_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
_FIRST_OF_NUMBER = "-+.0123456789"

if TYPE_CHECKING:
    AnyVariant = PactExportSettings
else:  # every row of the table of quantizers is a choice, and so are PACT's own integers and the search
    AnyVariant = Annotated[
        Union[tuple(row.settings for row in COMPILERS.values())],  # noqa: UP007
        Field(discriminator="method"),
    ]


class NightlySettings(Settings):
    """The unattended job."""

    keep: int = Field(14, ge=1, le=10_000, description="run folders that stay on disk; the accepted one always does")


class Configuration(Settings):
    """Everything that one run does."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="name of the run and of its folder")
    data: DataSettings = Field(description="which images, in which size, and how they are divided")
    train: TrainSettings = Field(TrainSettings(), description="the network and how it is trained")
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
    nightly: NightlySettings = Field(NightlySettings(), description="the unattended job")

    @field_validator("variants")
    @classmethod
    def _names_are_file_names(cls, variants: dict[str, Any]) -> dict[str, Any]:
        for name in variants:
            if not VARIANT_NAME.fullmatch(name) or name in RESERVED_NAMES:
                raise ValueError(
                    f"{name!r} cannot name a variant: use lower-case letters, digits, '-' and '_', and not "
                    f"{' or '.join(RESERVED_NAMES)}"
                )
        return variants

    @model_validator(mode="after")
    def _gates_can_be_measured(self) -> Self:
        known = ("fp32", *self.variants)
        for gate in self.gates:
            if gate.variant not in known:
                raise ValueError(f"a gate names the variant {gate.variant!r}; there are {', '.join(known)}")
            methods = self.validation.saliency.methods
            if gate.method is not None and gate.method not in methods:
                raise ValueError(
                    f"a gate wants saliency by {gate.method!r}, and validation.saliency.methods has "
                    f"{', '.join(methods)}; add it there"
                )
        return self

    @model_validator(mode="after")
    def _pact_variants_need_pact_training(self) -> Self:
        names = [name for name, method in self.variants.items() if isinstance(method, PactExportSettings)]
        if names and self.train.pact is None:
            raise ValueError(
                f"the variant {names[0]!r} ships the integers that PACT trains, and train.pact is null; "
                "set train.pact, or remove the variant"
            )
        return self

    @model_validator(mode="after")
    def _images_are_large_enough(self) -> Self:
        network = NETWORKS.get(self.train.network)
        if network is not None and self.data.image_size < network.least_image_size:
            raise ValueError(
                f"the network {self.train.network!r} expects images of at least {network.least_image_size} pixels, "
                f"and data.image_size is {self.data.image_size}; raise it, or choose another network"
            )
        return self

    def as_json(self) -> dict[str, JSON]:
        """Return the whole configuration, defaults included, as JSON values."""
        return self._values("json")

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
        return sha256_of_json([gate.model_dump(mode="json") for gate in self.gates])


def read_configuration(path: Path) -> Configuration:
    """Read a YAML configuration; relative paths in it are relative to its own folder.

    Raises:
        UsageError: the file is missing, no YAML, or says something that the settings refuse.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: expected a configuration below {MAX_BYTES} bytes. Is it the right file?")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file. `edgeproof init {path}` writes one to start from.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected a readable text file ({error}). Is it the right file?") from error
    try:
        values = yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or (
            str(error) if isinstance(error, ValueError) else "nested too deeply, or no text"
        )
        raise UsageError(f"{path}: expected YAML, found a mistake{where}: {problem}. Mend that line.") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected keys and values, found {type(values).__name__}. See `edgeproof init`.")
    return parse_configuration(values, path.name, path.resolve().parent)


def parse_configuration(values: Mapping[str, Any], where: str, folder: Path) -> Configuration:
    """Return the configuration of values read from YAML.

    Args:
        values: keys and values.
        where: name of their source, for the messages.
        folder: what relative paths are relative to.

    Raises:
        UsageError: a key is unknown, a value has the wrong type or is out of bounds.
    """
    try:
        text = json.dumps(dict(values), default=_refuse)
        return Configuration.model_validate_json(text, context={"folder": folder})
    except ValidationError as error:
        raise UsageError(f"{where}: {_explain(error)}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: expected text, numbers, lists and keys, found {error}.") from error


def json_schema() -> dict[str, JSON]:
    """Return the JSON schema of the configuration."""
    schema: dict[str, JSON] = Configuration.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edgeproof configuration"}
    return {**schema, **head}


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader without the surprises: no key twice, no aliases, numbers as YAML 1.2 reads them.

    PyYAML would keep the last of two equal keys, let nine lines of aliases stand for a thousand million values, and
    read 1:30 as 90, 010 as 8 and 1e-3 as text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 # the name that PyYAML looks for
        first: [(tag, pattern) for tag, pattern in rules if tag in _PLAIN_TAGS]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node, which is no alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"found the alias '*{event.anchor}'; write out what it stands for",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        """Return a scalar, which commands no terminal that it is shown on."""
        if not str(node.value).replace("\n", " ").isprintable():
            raise yaml.MarkedYAMLError(
                problem=f"found {node.value!a}, which holds a character that cannot be shown",
                problem_mark=node.start_mark,
            )
        return super().construct_scalar(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping without repeated keys."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list(_FIRST_OF_NUMBER)
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list(_FIRST_OF_NUMBER),
)


def _refuse(value: object) -> None:
    raise TypeError(f"a {type(value).__name__} ({value})")


def _explain(error: ValidationError) -> str:
    """Return one sentence on the first mistake and how many more there are."""
    mistakes = error.errors()
    first = mistakes[0]
    key = ".".join(str(part) for part in first["loc"]) or "the configuration"
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        nearest = difflib.get_close_matches(unknown, _known_keys(), n=1, cutoff=0.0)
        mend = f"did you mean `{nearest[0]}`? `edgeproof init` writes every key with its meaning."
        sentence = f"`{key}` is no key of the configuration; {mend}"
    elif first["type"] == "missing":
        sentence = f"`{key}` is missing; add it (see `edgeproof init`)."
    else:
        found = "" if first["type"] == "value_error" and isinstance(first["input"], dict) else _shown(first["input"])
        message = first["msg"].removeprefix("Value error, ")
        sentence = f"`{key}`: {message[0].lower()}{message[1:]}{found}."
    more = len(mistakes) - 1
    return sentence + (f" ({more} more mistake{'s' if more > 1 else ''} after this one.)" if more else "")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f", found {text if len(text) <= 60 else text[:57] + '…'}"


def _known_keys() -> set[str]:
    schema = Configuration.model_json_schema()
    return {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})}
