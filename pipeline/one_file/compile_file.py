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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration_data.image_folder import ImageFolder, UnlabelledImages, read_image_folder, unlabelled_data
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import JSON, read_json, sha256_of_file, write_bytes
from foundation.notes import float_layers
from foundation.progress import Observer, Progress
from foundation.settings import Settings
from foundation.typed_files import MAX_BYTES
from onnx_files.canonical import prepare_foreign_model
from onnx_files.graph import layers
from onnx_files.preprocessing import METADATA_KEY, Preprocessing
from onnx_files.reading import external_files
from pipeline.one_file.agreement import Agreement, measure_agreement
from pipeline.one_file.input import file_form, form_for, preprocessing_for
from pipeline.one_file.options import CompileRequest, needs_images, settings_for
from pipeline.one_file.tuned import journal_beside, search_file, share_out
from stages.compilers import COMPILERS, CompileTask
from stages.given.answering import answers_as_given, refuse_broken_answers
from stages.given.float_file import loose_answers
from stages.search.study import TunedSettings

if TYPE_CHECKING:
    from onnx import ModelProto

HELD_OUT_IMAGES = 128
LEAST_AGREEMENT = 0.95
"""Share of the float file's classes below which a file counts as worse, beyond chance."""
LEAST_DB = 10.0
"""Energy of an output over its deviation's below which the same."""
_FIRST_IMAGES = 16
_RECURRENT = ("LSTM", "GRU", "RNN")
_NO_IMAGES = UnlabelledImages(np.zeros((0, 3, 1, 1), np.uint8), (), ())
_NO_PREPROCESSING = Preprocessing("uint8", (0.0,) * 3, (1.0,) * 3, 1)


@dataclass(frozen=True)
class CompiledFile:
    """A compiled file and what is known of it.

    Attributes:
        compiled: the file and its record.
        source: the model it was made from.
        source_bytes: its size, with its weights.
        layers: how many have weights.
        float_layers: names of those that compute in float; None for a method that does not say.
        calibration_images: how many the method saw; 0 where it needs none.
        scored_images: how many a search scored its files on; 0 without one.
        folder: all images; None where none were given.
        preprocessing: how they reach the model; None likewise.
        agreement: None where no image is left to measure on.
    """

    compiled: OnnxModel
    source: Path
    source_bytes: int
    layers: int
    float_layers: tuple[str, ...] | None
    calibration_images: int
    scored_images: int
    folder: ImageFolder | None
    preprocessing: Preprocessing | None
    agreement: Agreement | None

    @property
    def worse(self) -> tuple[str, ...]:
        """Return in what the file is worse than the one it was made from, a sentence each."""
        told = []
        if self.compiled.size_bytes > self.source_bytes:
            told.append(
                f"It is larger than the float file: {self.compiled.size_bytes:,} bytes after {self.source_bytes:,}. "
                "Its weights are few beside what integers need besides; keep the float file."
            )
        found = self.agreement
        if found and found.same_class_ci95 and found.same_class_ci95[1] < LEAST_AGREEMENT:
            told.append(
                f"It gives the float file's class for {found.same_class:.1%} of {found.images} images, less than "
                f"{LEAST_AGREEMENT:.0%}. Try --method weight-only or fp16, which round no activation."
            )
        outputs_db = found.outputs_db if found else {}
        broken = [name for name, decibels in outputs_db.items() if decibels is not None and decibels < LEAST_DB]
        if broken:
            told.append(
                f"{', '.join(broken)}: less than {LEAST_DB:g} dB lie between the float file's answers and the "
                "deviation from them. Try --method weight-only or fp16."
            )
        return tuple(told)

    def as_json(self) -> dict[str, JSON]:
        """Return what `--json` prints."""
        return {
            "output": str(self.compiled.path),
            "source": str(self.source),
            "method": self.compiled.notes.method,
            "sha256": self.compiled.sha256,
            "size_bytes": {"before": self.source_bytes, "after": self.compiled.size_bytes},
            "layers": {"total": self.layers, "float": None if self.float_layers is None else list(self.float_layers)},
            "images": {
                "calibration": self.calibration_images,
                "scored": self.scored_images,
                "skipped": list(self.folder.skipped) if self.folder else [],
                "duplicates": self.folder.duplicates if self.folder else 0,
            },
            "preprocessing": asdict(self.preprocessing) if self.preprocessing else None,
            "worse": list(self.worse),
            "agreement": asdict(self.agreement) if self.agreement else None,
            "settings": dict(self.compiled.settings),
            "notes": self.compiled.notes.model_dump(mode="json"),
        }


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
