"""A float classifier from elsewhere as the baseline of everything: brought into one form, described in its metadata.

What is compiled and compared is the file in the quantizers' form (opset, folded constants, batch norms in their
convolutions), so it is held against the user's own file on images before anything is made of it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json, write_bytes
from foundation.notes import GivenNotes
from onnx_files.answers import METADATA_KEY as ANSWERS_KEY
from onnx_files.answers import AnswerForm
from onnx_files.canonical import prepare_foreign_model
from onnx_files.judged_output import answer_form, chosen_output, kind_of
from onnx_files.preprocessing import Preprocessing
from onnx_files.reading import external_files, read_model
from onnx_files.trial_run import run_guarded_once
from stages.given.answering import answers_as_given, refuse_broken_answers
from stages.given.form import Spelling, preprocessing_for
from stages.given.settings import FileForm, OnnxSettings

if TYPE_CHECKING:
    from onnx import ModelProto

CLASSES_KEY = "edgeproof.classes"
_TOOLS_KEY = "edgeproof.tools"
_MAX_CLASSES = 100_000
_MAX_LABELS_BYTES = 4_000_000


@dataclass(frozen=True)
class ReadModel:
    """A foreign classifier in the quantizers' form, of which nothing is written yet.

    Attributes:
        settings: where it lies and what it leaves open.
        proto: the model, described in its metadata.
        preprocessing: how images become its input.
        answers: what it answers with.
        classes: names of its outputs in their order; None where nobody told any.
    """

    settings: OnnxSettings
    proto: ModelProto
    preprocessing: Preprocessing
    answers: AnswerForm
    classes: tuple[str, ...] | None


@dataclass(frozen=True)
class GivenModel:
    """A float file that was taken in.

    Attributes:
        model: the file of the run, with its record.
        preprocessing: how images become its input.
        answers: what it answers with.
        classes: names of its outputs in their order; None where nobody told any.
    """

    model: OnnxModel
    preprocessing: Preprocessing
    answers: AnswerForm
    classes: tuple[str, ...] | None


def read_given_file(settings: OnnxSettings, image_size: tuple[int, int] | None, spelled: Spelling) -> ReadModel:
    """Read a foreign classifier, bring it into the quantizers' form and describe it.

    Args:
        settings: where it lies and what it leaves open.
        image_size: height and width where the file takes any; None where nobody said.
        spelled: how the user writes settings, for messages.

    Raises:
        UsageError: no such model, none that can be run, or something that it leaves open and nobody tells.
    """
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as scratch:
        proto = prepare_foreign_model(settings.path, Path(scratch) / "float.onnx")
    _, preprocessing = preprocessing_for(proto, settings.path, settings, image_size, spelled)
    told = class_names(settings) or _written_classes(proto)
    answers = answers_of(proto, settings.path, settings, preprocessing, told)
    describe(proto, preprocessing, answers, told)
    return ReadModel(settings, proto, preprocessing, answers, told)


def write_float_file(read: ReadModel, path: Path) -> GivenModel:
    """Write a foreign classifier as the run's float file; its record goes beside it."""
    write_bytes(path, read.proto.SerializeToString(deterministic=True))
    model = OnnxModel(
        "fp32",
        path,
        sha256_of_file(path),
        None,
        read.settings.model_dump(mode="json", exclude={"path"}),
        GivenNotes(given_sha256=given_sha256(read.settings.path), tools=tools_of(read.proto)),
    )
    model.write_record()
    return GivenModel(model, read.preprocessing, read.answers, read.classes)


def read_float_file(path: Path) -> GivenModel:
    """Return what `write_float_file` wrote."""
    metadata = {entry.key: entry.value for entry in read_model(path).metadata_props}
    answers = AnswerForm.from_metadata(metadata)
    if answers is None:
        raise UsageError(f"{path}: expected `{ANSWERS_KEY}` in its metadata, found none. Delete it and run again.")
    classes = tuple(json.loads(metadata[CLASSES_KEY])) if CLASSES_KEY in metadata else None
    return GivenModel(OnnxModel.read(path), Preprocessing.from_metadata(metadata), answers, classes)


def refuse_changed_answers(settings: OnnxSettings, given: GivenModel, images: NDArray[np.uint8]) -> None:
    """Run the user's file and the one that was made of it on images, before anything else is made of it.

    Args:
        settings: where the user's file lies.
        given: what was made of it.
        images: uint8 [n, channels, height, width], a few.

    Raises:
        UsageError: the answers differ, are not finite, or are the same for different images.
    """
    from onnx_files.sessions import open_session, predict

    theirs = answers_as_given(settings.path, images, given.preprocessing, given.answers)
    if given.answers.kind != "label":
        refuse_broken_answers(settings.path, theirs)
    ours = predict(open_session(given.model.path, "cpu", 1), images, 1)
    largest = float(np.abs(theirs).max())
    difference = float(np.abs(ours - theirs).max())
    if difference > 1e-3 * max(largest, 1e-6):
        raise UsageError(
            f"{settings.path}: expected a model whose answers stay when its constants are folded, found that they "
            f"move by {difference:.3g} (the largest is {largest:.3g}). Export it with constants folded."
        )


def class_names(settings: OnnxSettings) -> tuple[str, ...] | None:
    """Return the names of the outputs that the user gives, one a line in a file, or listed.

    Raises:
        UsageError: no such file, no text, an empty or repeated name.
    """
    if settings.classes is None or isinstance(settings.classes, tuple):
        names = settings.classes
        where = "classes"
    else:
        where = str(settings.classes)
        try:
            if settings.classes.stat().st_size > _MAX_LABELS_BYTES:
                raise UsageError(
                    f"{where}: expected at most {_MAX_LABELS_BYTES} bytes of names. Is it the right file?"
                )
            lines = settings.classes.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError as error:
            raise UsageError(f"{where}: expected the names of the classes, found no file. Mend the path.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{where}: expected a text file with one name a line ({error}).") from error
        names = tuple(line.strip() for line in lines)
        while names and not names[-1]:
            names = names[:-1]
    if names is None:
        return None
    for number, name in enumerate(names, start=1):
        if not name or not name.isprintable():
            raise UsageError(f"{where}: expected a name in every line, found {name!a} in line {number}.")
        if name in names[: number - 1]:
            first = names.index(name) + 1
            raise UsageError(f"{where}: expected each name once, found {name!r} in lines {first} and {number}.")
    if not 2 <= len(names) <= _MAX_CLASSES:
        raise UsageError(f"{where}: expected names of two classes or more, found {len(names)}.")
    return names


def answers_of(
    proto: ModelProto, path: Path, form: FileForm, preprocessing: Preprocessing, classes: tuple[str, ...] | None
) -> AnswerForm:
    """Return what a model answers with; it is run once on a blank image for the number of its answers.

    Raises:
        UsageError: it cannot be run on one image, or its answers do not fit the names.
    """
    output = chosen_output(proto, path, form.output).name
    width = _width(proto, path, output, preprocessing)
    return answer_form(proto, path, form.output, form.answers, None if classes is None else len(classes), width)


def loose_answers(proto: ModelProto, path: Path, form: FileForm, preprocessing: Preprocessing) -> AnswerForm:
    """Return what a model answers with where nobody needs the names of classes: it is only compared with its likes.

    Raises:
        UsageError: it cannot be run on one image, or has several outputs to choose from.
    """
    output = chosen_output(proto, path, form.output)
    kind = form.answers or kind_of(proto, output)
    width = 1 if kind == "label" else _width(proto, path, output.name, preprocessing)
    return AnswerForm(output.name, kind, width, width)


def describe(
    proto: ModelProto, preprocessing: Preprocessing, answers: AnswerForm, classes: tuple[str, ...] | None
) -> None:
    """Write into a model's metadata how it is to be run and read.

    Of what a foreign file says in our name only what was checked is kept.
    """
    import onnx

    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if _TOOLS_KEY in metadata and not _is_object(metadata[_TOOLS_KEY]):
        del metadata[_TOOLS_KEY]
    metadata.pop(CLASSES_KEY, None)
    named = {CLASSES_KEY: json.dumps(classes)} if classes else {}
    described = metadata | preprocessing.to_metadata() | answers.to_metadata() | named
    proto.ClearField("metadata_props")
    onnx.helper.set_model_props(proto, dict(sorted(described.items())))


def given_sha256(path: Path) -> str:
    """Return a digest over a model's file and the weights beside it; of a file without any, simply its own."""
    beside = external_files(path)
    own = sha256_of_file(path)
    return sha256_of_json([own, *(sha256_of_file(file) for file in beside)]) if beside else own


def tools_of(proto: ModelProto) -> dict[str, str]:
    """Return what a model says that it was made with, and which version, as far as it can be shown."""
    name, version = proto.producer_name[:100], proto.producer_version[:100]
    return {name: version} if name and (name + version).isprintable() else {}


def _written_classes(proto: ModelProto) -> tuple[str, ...] | None:
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    try:
        names = json.loads(metadata[CLASSES_KEY])
    except (KeyError, ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isprintable() for name in names):
        return None
    return tuple(names) if 2 <= len(names) == len(set(names)) <= _MAX_CLASSES else None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _width(proto: ModelProto, path: Path, output: str, preprocessing: Preprocessing) -> int:
    import onnxruntime

    axes = proto.graph.input[0].type.tensor_type.shape.dim
    batch = axes[0].dim_value or 1
    shape = (batch, len(preprocessing.mean), preprocessing.image_size, preprocessing.width)
    blank = preprocessing.to_input(np.zeros(shape, np.uint8))
    if any(not axis.dim_value for axis in axes[1:]):  # of fixed sizes, it was run as it was read
        run_guarded_once(proto, path, blank.shape)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (found,) = session.run([output], {session.get_inputs()[0].name: blank})
        values = np.asarray(found)
        return int(values.reshape(batch, -1).shape[1])
    except Exception as error:  # whatever ONNX Runtime raises, or what has not one answer per image
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(
            f"{path}: expected a model that answers an image of shape {list(shape[1:])}, found one that fails on it "
            f"({reason}). Check the image size and the layout, or the export."
        ) from error
