"""One ONNX file in, one compiled ONNX file out: no training, no configuration, images without labels.

The stages do the work; here a foreign file and a folder of images become what they take, and what they made is
measured against the file it was made from.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration_data.image_folder import ImageFolder, UnlabelledImages, read_image_folder, unlabelled_data
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import read_json, sha256_of_file, write_bytes
from foundation.notes import float_layers
from foundation.progress import Observer, Progress
from foundation.settings import Settings
from foundation.typed_files import MAX_BYTES
from onnx_files.canonical import prepare_foreign_model
from onnx_files.graph import layers
from onnx_files.preprocessing import METADATA_KEY, Preprocessing
from onnx_files.reading import external_files
from pipeline.one_file.agreement import measure_agreement
from pipeline.one_file.input import file_form, form_for, preprocessing_for
from pipeline.one_file.options import CompileRequest, needs_images, settings_for
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.speed import Speed, measure_speed
from pipeline.one_file.tuned import journal_beside, search_file, share_out
from stages.compilers import COMPILERS, CompileTask
from stages.given.answering import answers_as_given, refuse_broken_answers
from stages.given.float_file import loose_answers
from stages.search.study import TunedSettings

if TYPE_CHECKING:
    from onnx import ModelProto

HELD_OUT_IMAGES = 128
_FIRST_IMAGES = 16
_RECURRENT = ("LSTM", "GRU", "RNN")
_NO_IMAGES = UnlabelledImages(np.zeros((0, 3, 1, 1), np.uint8), (), ())
_NO_PREPROCESSING = Preprocessing("uint8", (0.0,) * 3, (1.0,) * 3, 1)


def compile_file(request: CompileRequest, observer: Observer) -> CompiledFile:
    """Quantize one ONNX classifier and measure what that changed.

    The file and its record are written when everything else is done.

    Raises:
        UsageError: something is wrong with the model, the images or the options.
        NotMeasuredError: the method needs what is not installed.
        StageError: the method failed.
    """
    output = _output(request)
    needed = needs_images(request)
    planned = settings_for(request, int(needed))  # refuses what does not go together before any work is done
    if needed and request.images is None:
        raise UsageError(f"--images: expected a folder of images to calibrate {request.method} on, found none given.")
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as name:
        scratch = Path(name)
        with observer.stage(f"read {request.model.name}"):
            proto = prepare_foreign_model(request.model, scratch / "float.onnx", 21 if request.bits == 4 else 13)
        source = OnnxModel("float", scratch / "float.onnx", sha256_of_file(request.model), None)
        weighted = layers(proto, replace(source, path=request.model))
        searched = planned.scored_images if isinstance(planned, TunedSettings) else 0
        held_out = searched + HELD_OUT_IMAGES
        folder, preprocessing = _images(request, held_out, proto, scratch, observer)
        _write_source(proto, preprocessing, source.path)
        shown, others = (folder.calibration, folder.held_out) if folder else (_NO_IMAGES, _NO_IMAGES)
        scored, others = share_out(others, searched, HELD_OUT_IMAGES) if searched else (_NO_IMAGES, others)
        answers = None
        if folder and preprocessing:
            answers = loose_answers(proto, request.model, file_form(request), preprocessing)
            first = np.asarray(shown.pixels[:_FIRST_IMAGES])
            refuse_broken_answers(request.model, answers_as_given(request.model, first, preprocessing, answers))
        settings = settings_for(request, len(shown))
        with observer.stage(f"compile {request.method}") as advance, _about(request.model, source.path):
            compiled = _compiled(request, source, output, settings, shown, scored, preprocessing, scratch, advance)
        calibration_images = int(settings.model_dump().get("images", 0))
        agreement = None
        if preprocessing and answers:
            with observer.stage("compare with the float file"):
                unseen = others if calibration_images else shown
                agreement = measure_agreement(request.model, compiled.path, unseen.pixels, preprocessing, answers)
        speed = Speed(None, None, 0, "no images were given")
        if preprocessing:
            with observer.stage("time beside the float file") as advance:
                batch_size = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
                speed = measure_speed(source, compiled, np.asarray(shown.pixels[0]), batch_size, advance)
        source_bytes = sum(file.stat().st_size for file in (request.model, *external_files(request.model)))
        compiled = _deliver(compiled, output)
    in_float = float_layers(compiled.notes)
    # No method makes integers of these; their weights count all the same.
    recurrent = tuple(node.name or node.op_type for node in proto.graph.node if node.op_type in _RECURRENT)
    return CompiledFile(
        compiled=compiled,
        source=request.model,
        source_bytes=source_bytes,
        layers=len(weighted) + len(recurrent),
        float_layers=None if in_float is None else (*in_float, *recurrent),
        calibration_images=calibration_images,
        scored_images=len(scored),
        folder=folder,
        preprocessing=preprocessing,
        agreement=agreement,
        speed=speed,
    )


def _compiled(
    request: CompileRequest,
    source: OnnxModel,
    output: Path,
    settings: Settings,
    shown: UnlabelledImages,
    scored: UnlabelledImages,
    preprocessing: Preprocessing | None,
    scratch: Path,
    advance: Progress,
) -> OnnxModel:
    path = scratch / "compiled" / output.name
    if isinstance(settings, TunedSettings):
        assert preprocessing is not None
        journal = journal_beside(output)
        return search_file(source, output.stem, settings, shown, scored, preprocessing, path, journal, advance)
    data = unlabelled_data(shown, preprocessing or _NO_PREPROCESSING)
    task = CompileTask(output.stem, settings, source, data, path, progress=advance)
    return COMPILERS[request.quantizer].compile(task)


@contextmanager
def _about(model: Path, copy: Path) -> Iterator[None]:
    # Errors name the user's file, not our copy; and ONNX Runtime's writers warn by the hundred of what is in order.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except UsageError as error:
        raise UsageError(str(error).replace(str(copy), str(model))) from error
    finally:
        logging.disable(level)


def _images(
    request: CompileRequest, held_out: int, proto: ModelProto, scratch: Path, observer: Observer
) -> tuple[ImageFolder | None, Preprocessing | None]:
    if request.images is None:
        return None, None
    entry, preprocessing = preprocessing_for(proto, request)
    form = form_for(entry, preprocessing, request.fit, request.crop_share)
    with observer.stage("read images") as advance:
        folder = read_image_folder(request.images, form, request.limit, held_out, request.seed, scratch, advance)
    first = folder.calibration.pixels[0].flat[0]
    if all((image == first).all() for image in folder.calibration.pixels):
        raise UsageError(
            f"{request.images}: expected images that show something, found that every pixel of the "
            f"{len(folder.calibration)} calibration images is {first}. Give images like those that it will see."
        )
    return folder, preprocessing


def _write_source(proto: ModelProto, preprocessing: Preprocessing | None, path: Path) -> None:
    # Of what a foreign file says in our name only what was checked is kept.
    import onnx

    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    for key in (METADATA_KEY, "edgeproof.tools"):
        if key in metadata and not _is_object(metadata[key]):
            del metadata[key]
    onnx.helper.set_model_props(proto, metadata | (preprocessing.to_metadata() if preprocessing else {}))
    write_bytes(path, proto.SerializeToString(deterministic=True))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _output(request: CompileRequest) -> Path:
    """Return the file to write; refuse one whose writing would lose something, or cannot succeed."""
    model = request.model
    output = request.output or model.with_name(f"{model.stem}.{request.quantizer.replace('_', '-')}.onnx")
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"--output: expected a name that ends in .onnx, found {output}.")
    if output.exists() and model.exists() and output.samefile(model):
        raise UsageError(
            f"--output: expected another file than the model, found {output} itself. Choose another name."
        )
    if output.is_dir():
        raise UsageError(f"--output: expected a file, found the folder {output}. Name a file in it.")
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UsageError(
            f"--output: expected a folder that can be written to, found {output.parent}. Create it first."
        )
    record = output.with_suffix(".json")
    if record.exists() and not _is_record(record):
        raise UsageError(
            f"--output: the record {record} would be written beside it, and another file stands there. "
            "Choose another name."
        )
    if request.quantizer == "tuned":
        journal_beside(output)
    return output


def _is_record(path: Path) -> bool:
    if path.stat().st_size > MAX_BYTES:
        return False
    try:
        found = read_json(path)
    except UsageError:
        return False
    return isinstance(found, dict) and {"variant", "sha256", "notes"} <= found.keys()


def _deliver(compiled: OnnxModel, output: Path) -> OnnxModel:
    write_bytes(output, compiled.path.read_bytes())
    delivered = replace(compiled, path=output)
    delivered.write_record()
    return delivered
