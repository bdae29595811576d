"""A foreign model in our form, beside the images that it is compiled and compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration_data.image_folder import ImageFolder, UnlabelledImages, read_image_folder
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import sha256_of_file, write_bytes
from foundation.progress import Observer
from onnx_files.answers import AnswerForm
from onnx_files.canonical import prepare_foreign_model
from onnx_files.graph import layers
from onnx_files.preprocessing import METADATA_KEY, Preprocessing
from onnx_files.reading import external_files
from pipeline.one_file.input import file_form, form_for, preprocessing_for
from pipeline.one_file.options import CompileRequest
from pipeline.one_file.tuned import share_out
from stages.given.answering import answers_as_given, refuse_broken_answers
from stages.given.float_file import loose_answers

if TYPE_CHECKING:
    from onnx import ModelProto

HELD_OUT_IMAGES = 128
_FIRST_IMAGES = 16
_RECURRENT = ("LSTM", "GRU", "RNN")
_NO_IMAGES = UnlabelledImages(np.zeros((0, 3, 1, 1), np.uint8), (), ())


@dataclass(frozen=True)
class Job:
    """A foreign model and its images, read and found good.

    Attributes:
        request: what was asked for.
        source: the model in our form, with its preprocessing in the metadata.
        source_bytes: size of the foreign file, with its weights.
        layers: how many have weights.
        recurrent_layers: names of those among them that no method makes integers of.
        batch_size: images that the model takes at once.
        folder: all images; None where none were given.
        preprocessing: how they reach the model; None likewise.
        answers: what the model answers with; None likewise.
        shown: images to calibrate on.
        scored: others, to choose a file by; none where nothing is chosen.
        others: images to compare the file on.
        scratch: a folder for what is made on the way.
        observer: watches.
    """

    request: CompileRequest
    source: OnnxModel
    source_bytes: int
    layers: int
    recurrent_layers: tuple[str, ...]
    batch_size: int
    folder: ImageFolder | None
    preprocessing: Preprocessing | None
    answers: AnswerForm | None
    shown: UnlabelledImages
    scored: UnlabelledImages
    others: UnlabelledImages
    scratch: Path
    observer: Observer


def read_job(request: CompileRequest, scored_images: int, scratch: Path, observer: Observer) -> Job:
    """Read a foreign model and the folder of images, and look at its first answers.

    Args:
        request: what was asked for.
        scored_images: to choose a file by, at most; 0 where nothing is chosen.
        scratch: a folder for what is made on the way.
        observer: watches.

    Raises:
        UsageError: something is wrong with the model or the images.
    """
    with observer.stage(f"read {request.model.name}"):
        proto = prepare_foreign_model(request.model, scratch / "float.onnx", 21 if request.bits == 4 else 13)
    source = OnnxModel("float", scratch / "float.onnx", sha256_of_file(request.model), None)
    weighted = layers(proto, replace(source, path=request.model))
    recurrent = tuple(node.name or node.op_type for node in proto.graph.node if node.op_type in _RECURRENT)
    folder, preprocessing = _images(request, scored_images + HELD_OUT_IMAGES, proto, scratch, observer)
    _write_source(proto, preprocessing, source.path)
    shown, others = (folder.calibration, folder.held_out) if folder else (_NO_IMAGES, _NO_IMAGES)
    scored, others = share_out(others, scored_images, HELD_OUT_IMAGES) if scored_images else (_NO_IMAGES, others)
    answers = None
    if folder and preprocessing:
        answers = loose_answers(proto, request.model, file_form(request), preprocessing)
        first = np.asarray(shown.pixels[:_FIRST_IMAGES])
        refuse_broken_answers(request.model, answers_as_given(request.model, first, preprocessing, answers))
    return Job(
        request=request,
        source=source,
        source_bytes=sum(file.stat().st_size for file in (request.model, *external_files(request.model))),
        layers=len(weighted) + len(recurrent),
        recurrent_layers=recurrent,
        batch_size=proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1,
        folder=folder,
        preprocessing=preprocessing,
        answers=answers,
        shown=shown,
        scored=scored,
        others=others,
        scratch=scratch,
        observer=observer,
    )


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
