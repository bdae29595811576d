"""A commented configuration, written from the settings classes themselves, so that it can never lag behind them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from calibration_data.datasets import DATASETS
from foundation.errors import UsageError
from foundation.files import write_text
from pipeline.configuration import json_schema
from pipeline.configuration_file import parse_configuration
from stages.compilers import COMPILERS

WIDTH = 100
_VARIANTS: dict[str, dict[str, Any]] = {
    "fp16": {"method": "fp16"},
    "dynamic-int8": {"method": "dynamic"},
    "static-int8": {"method": "static"},
    "inc-int8": {"method": "neural_compressor"},
    "pact-int8": {"method": "pact"},
}
_GATES: list[dict[str, Any]] = [
    {"metric": "balanced_accuracy", "variant": "fp32", "at_least": 0.8, "confidence": "lower_bound"},
    *(
        {"variant": variant, **criterion}
        for variant in ("static-int8", "pact-int8")
        for criterion in (
            {"metric": "balanced_accuracy", "noninferior_to": "fp32", "margin": 0.02},
            {"metric": "size_bytes", "at_most": 0.3, "relative_to_fp32": "ratio"},
        )
    ),
]


def starting_text(name: str, dataset: str, root: str | None, schema: bool) -> str:
    """Return what `edgeproof init` prints: a commented configuration, or the JSON schema of all of them.

    Raises:
        UsageError: there is no such data set.
    """
    if schema:
        return json.dumps(json_schema(), indent=2) + "\n"
    if dataset not in DATASETS:
        raise UsageError(f"--dataset: expected one of {', '.join(DATASETS)}, found {dataset!r}.")
    return commented_configuration(name, dataset, root)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        UsageError: it is there; nothing is overwritten.
    """
    if path.exists():
        raise UsageError(f"{path}: there is already a file of this name. Choose another, or delete it first.")
    write_text(path, text)


def commented_configuration(name: str, dataset: str, root: str | None) -> str:
    """Return YAML with every key, its default and its meaning.

    Args:
        name: of the run.
        dataset: a row of `DATASETS`.
        root: the folder of the images, for a data set that reads one.

    The result parses into a valid configuration.
    """
    kind = DATASETS[dataset]
    source = {"name": dataset}
    for key, field in kind.settings.model_fields.items():
        if key == "root" and (root is not None or field.is_required()):
            source[key] = root or "path/to/images"
        elif field.is_required():
            source[key] = (field.examples or [""])[0]
    start = parse_configuration(
        {"name": name, "data": {"source": source}, "variants": _VARIANTS, "gates": _GATES}, "init", Path.cwd()
    )
    head = [
        "# A configuration of edgeproof. What is left out keeps the value that stands here.",
        *_comment(f"Data set {dataset}: {kind.description}", 0),
        *_comment(f"Methods of variants: {', '.join(COMPILERS)}", 0),
        "",
    ]
    lines = _fields(start, {f"data.source.{key}": value for key, value in source.items()}, "", 0)
    return "\n".join(head + lines) + "\n"


def _fields(settings: BaseModel, given: dict[str, Any], prefix: str, depth: int) -> list[str]:
    lines: list[str] = []
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        path = f"{prefix}{key}"
        value = given.get(path) or value
        lines += _comment(field.description or "", depth)
        lines += _entry(key, value, given, path, depth)
        if depth == 0:
            lines.append("")
    return lines


def _entry(key: str, value: Any, given: dict[str, Any], path: str, depth: int) -> list[str]:
    indent = "  " * depth
    if isinstance(value, BaseModel):
        return [f"{indent}{key}:", *_fields(value, given, f"{path}.", depth + 1)]
    if isinstance(value, dict) and value and all(isinstance(item, BaseModel) for item in value.values()):
        entries = [f"{indent}  {name}: {_flow({'method': item.method})}" for name, item in value.items()]
        return [f"{indent}{key}:", *entries]
    if isinstance(value, tuple) and value and all(isinstance(item, BaseModel) for item in value):
        items = [item.model_dump(mode="json", exclude_none=True, exclude_unset=True) for item in value]
        return [f"{indent}{key}:", *(f"{indent}  - {_flow(item)}" for item in items)]
    return [f"{indent}{key}: {_flow(value)}"]


def _flow(value: Any) -> str:
    # JSON is YAML; strings that need no quotes go without.
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and value.replace("_", "").replace("-", "").isalnum() and not value.isnumeric():
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _comment(text: str, depth: int) -> list[str]:
    indent = "  " * depth
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - len(indent) - 2)]
