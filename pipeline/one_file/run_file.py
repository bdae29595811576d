"""One ONNX file and labelled images, judged without a configuration: the one that it stands for is written out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from calibration_data.datasets.folder import holds_official_splits
from calibration_data.datasets.table_columns import usual_columns
from foundation.errors import UsageError
from foundation.files import write_text
from foundation.progress import Observer, Silent
from onnx_files.reading import read_foreign_model
from pipeline.configuration import RESERVED_NAMES, VARIANT_NAME, Configuration
from pipeline.configuration_file import parse_configuration
from pipeline.one_file.input import file_form, preprocessing_for
from pipeline.one_file.options import CompileRequest

CONFIGURATION_NAME = "configuration.yaml"
_VARIANTS: Mapping[str, Mapping[str, str]] = {
    "fp16": {"method": "fp16"},
    "dynamic-int8": {"method": "dynamic"},
    "static-int8": {"method": "static"},
}
_SPLIT = {"train": 0.2, "validation": 0.1, "test": 0.7}
"""Nothing is trained: a few images calibrate, most are measured on."""
_EXPLAINED_IMAGES = 16
"""A map of a large network takes many passes; the configuration that is written out says where to ask for more."""
_TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class RunRequest:
    """What the command line was asked for.

    Attributes:
        file: the model and what it leaves open.
        images: a folder with one folder per class, or a table (CSV), whose columns are told by their usual names.
        labels: a file with one output's name a line.
        given: files that other tools compiled from the model.
    """

    file: CompileRequest
    images: Path
    labels: Path | None
    given: Sequence[Path]


def configuration_of(request: RunRequest, observer: Observer | None = None) -> Configuration:
    """Return the configuration that the options stand for.

    Args:
        request: the options.
        observer: is told which columns of a table cannot be used; None: nobody is.

    Raises:
        UsageError: no such model, one whose input is no square image, or an option that cannot be read.
    """
    model = request.file.model
    if not request.images.exists():
        raise UsageError(
            "--images: expected a folder with one folder per class, or a CSV table, found nothing at "
            f"{request.images}. Mend the path."
        )
    _, preprocessing = preprocessing_for(read_foreign_model(model), request.file)
    if preprocessing.image_size != preprocessing.width:
        raise UsageError(
            f"{model}: expected a square input, found {preprocessing.image_size} × {preprocessing.width}. "
            "`edgeproof quantize` takes other shapes."
        )
    source, left_out = _source(request.images)
    for sentence in left_out:
        (observer or Silent()).say(f"{request.images}: {sentence}")
    values = _values(request, source, preprocessing.image_size, len(preprocessing.mean))
    return parse_configuration(values, model.name, Path.cwd())


def write_configuration(configuration: Configuration, folder: Path) -> Path:
    """Write a configuration into a run's folder, as YAML, and return its path."""
    path = folder / CONFIGURATION_NAME
    head = "# What `edgeproof run MODEL.onnx` stood for; run it again, or change it and run it: edgeproof run FILE.\n"
    write_text(path, head + yaml.safe_dump(configuration.as_json(), sort_keys=False, allow_unicode=True))
    return path


def _values(request: RunRequest, source: Mapping[str, Any], size: int, channels: int) -> dict[str, Any]:
    form = file_form(request.file).model_dump(mode="json", exclude_none=True)
    onnx = {"path": str(request.file.model.resolve()), **form}
    if request.labels is not None:
        onnx["classes"] = str(request.labels.resolve())
    given = {_variant_name(path): {"method": "given", "path": str(path.resolve())} for path in request.given}
    if len(given) < len(request.given):
        raise UsageError("--given: expected files of different names, found two of one name. Rename one.")
    variants = {**_VARIANTS, **given}
    return {
        "name": _run_name(request.file.model),
        "data": {
            "source": source,
            "image_size": size,
            "channels": channels,
            "fit": request.file.fit,
            "crop_share": request.file.crop_share,
            "split": {**_SPLIT, "seed": request.file.seed},
            "duplicates": "drop",  # merges, and where the authors fixed a test set, keeps it whole
            "bad_images": "skip",
        },
        "model": {"onnx": onnx},
        "variants": variants,
        "validation": {"saliency": {"images": _EXPLAINED_IMAGES}},
        "gates": _gates(variants),
    }


def _gates(variants: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"metric": "accuracy", "variant": name, "at_least": -0.02, "relative_to_fp32": "difference"}
        for name in variants
    ] + [{"metric": "agreement", "variant": name, "at_least": 0.9} for name in variants]


def _source(images: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings of a source, and a sentence for each column of a table that cannot be used."""
    if images.suffix.lower() in _TABLE_SUFFIXES:
        columns = usual_columns(images)
        return {"name": "table", "table": str(images.resolve()), **columns.settings}, columns.left_out
    official = {"official_splits": True} if holds_official_splits(images) else {}
    return {"name": "folder", "root": str(images.resolve()), **official}, ()


def _variant_name(path: Path) -> str:
    name = re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")[:64] or "given"
    return f"{name}-given" if name in (*RESERVED_NAMES, *_VARIANTS) or not VARIANT_NAME.fullmatch(name) else name


def _run_name(model: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model.stem).lstrip("._-")[:100] or "model"
