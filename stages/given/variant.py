"""A variant that another tool compiled: copied as it is, but for the entries that say how to run and read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import sha256_of_file, write_bytes
from foundation.notes import GivenNotes
from onnx_files.answers import AnswerForm
from onnx_files.image_input import image_input
from onnx_files.preprocessing import METADATA_KEY, Preprocessing
from onnx_files.reading import read_foreign_model, read_model
from stages.given.float_file import CLASSES_KEY, answers_of, describe, given_sha256, tools_of
from stages.given.form import preprocessing_for
from stages.given.settings import GivenSettings

if TYPE_CHECKING:
    from onnx import ModelProto


def take_given(float_file: OnnxModel, variant: str, settings: GivenSettings, path: Path) -> OnnxModel:
    """Take in a compiled file; its nodes and weights stay as they are.

    What it leaves open about its input is read off the float file, where that has an input of the same kind.

    Args:
        float_file: the baseline that it is held against.
        variant: its name in the run.
        settings: where it lies, and what it leaves open.
        path: the file to write; its record goes beside it.

    Raises:
        UsageError: no such model, another input or another number of answers than the baseline's, or something that
            nobody tells.
    """
    proto = read_foreign_model(settings.path)
    baseline = {entry.key: entry.value for entry in read_model(float_file.path).metadata_props}
    reference = Preprocessing.from_metadata(baseline)
    form = settings if _says_itself(proto, settings) else _with_inputs_of(reference, proto, settings)
    size = (reference.image_size, reference.width)
    _, preprocessing = preprocessing_for(proto, settings.path, form, size, lambda key: f"`variants.{variant}.{key}`")
    classes = tuple(json.loads(baseline[CLASSES_KEY])) if CLASSES_KEY in baseline else None
    answers = answers_of(proto, settings.path, settings, preprocessing, classes)
    judged = AnswerForm.from_metadata(baseline)
    expected = judged.classes if judged else len(classes or ())
    if answers.classes != expected:
        raise UsageError(
            f"{settings.path}: expected {expected} classes as {float_file.path.name} answers, found "
            f"{answers.classes}. Give a file compiled from the same model, or name another output."
        )
    describe(proto, preprocessing, answers, classes)
    write_bytes(path, proto.SerializeToString(deterministic=True))
    given = given_sha256(settings.path)
    model = OnnxModel(
        variant,
        path,
        sha256_of_file(path),
        float_file.sha256,
        settings.model_dump(mode="json", exclude={"path"}),
        GivenNotes(given_sha256=given, tools=tools_of(proto)),
    )
    model.write_record()
    return model


def _says_itself(proto: ModelProto, settings: GivenSettings) -> bool:
    written = any(entry.key == METADATA_KEY for entry in proto.metadata_props)
    return written or settings.mean is not None or settings.std is not None


def _with_inputs_of(reference: Preprocessing, proto: ModelProto, settings: GivenSettings) -> GivenSettings:
    """Return settings whose input is normalised as the baseline's, where both take normalised pixels."""
    layout = settings.layout or reference.layout
    takes_floats = image_input(proto, settings.path, layout).element_type == "float32"
    if not takes_floats or reference.input_type == "uint8":
        return settings
    update = {"mean": reference.mean, "std": reference.std, "scale": 1, "channel_order": reference.channel_order}
    return settings.model_copy(update=update)
