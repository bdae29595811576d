"""One ONNX file in, one compiled ONNX file out: no training, no configuration, images without labels.

The stages do the work; here a foreign file and a folder of images become what they take, and what they made is
measured against the file it was made from.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration_data.image_folder import UnlabelledImages, unlabelled_data
from foundation.artifacts import OnnxModel
from foundation.errors import StageError, UsageError
from foundation.files import read_json, write_bytes
from foundation.host_lock import alone_on_host, computing
from foundation.notes import float_layers
from foundation.progress import Observer, Progress
from foundation.settings import Settings
from foundation.typed_files import MAX_BYTES
from onnx_files.preprocessing import Preprocessing
from pipeline.one_file.agreement import Agreement, measure_agreement
from pipeline.one_file.auto import Measures, best_method, requests_of
from pipeline.one_file.job import Job, read_job
from pipeline.one_file.options import AutoSettings, CompileRequest, needs_images, settings_for
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.speed import Speed, measure_speed
from pipeline.one_file.tuned import journal_beside, search_file
from stages.compilers import COMPILERS, CompileTask
from stages.search.study import TunedSettings

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
        raise UsageError(f"--images: expected a folder of images to {_use_of_images(request)}, found none given.")
    scored_images = planned.scored_images if isinstance(planned, TunedSettings | AutoSettings) else 0
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as name:
        job = read_job(request, scored_images, Path(name), observer)
        settings = settings_for(request, len(job.shown))
        if isinstance(settings, AutoSettings):
            compiled, speed = _best(job, settings, output)
        else:
            compiled = _compiled(job, request, settings, output)
            speed = None
        looked_at = bool(settings.model_dump().get("images", 0))
        agreement = None
        if job.preprocessing:
            with observer.stage("compare with the float file"):
                agreement = _agreement(job, compiled, job.others if looked_at else job.shown)
        speed = speed or _speeds(job, (compiled,))[0]
        compiled = _deliver(compiled, output)
    in_float = float_layers(compiled.notes)
    return CompiledFile(
        compiled=compiled,
        source=request.model,
        source_bytes=job.source_bytes,
        layers=job.layers,
        # No method makes integers of the recurrent ones; their weights count all the same.
        float_layers=None if in_float is None else (*in_float, *job.recurrent_layers),
        calibration_images=_number_of_images(compiled),
        scored_images=len(job.scored),
        folder=job.folder,
        preprocessing=job.preprocessing,
        agreement=agreement,
        speed=speed,
    )


def _use_of_images(request: CompileRequest) -> str:
    if request.quantizer == "auto":
        return "choose a method by (of those named by --method, dynamic and weight-only need none)"
    return f"calibrate {request.method} on"


def _number_of_images(compiled: OnnxModel) -> int:
    """Return how many images a file was calibrated on, as its settings say."""
    images = compiled.settings.get("images", 0)
    assert isinstance(images, int)
    return images


def _best(job: Job, settings: AutoSettings, output: Path) -> tuple[OnnxModel, Speed]:
    """Return the file of the method that measurements choose, and its speed."""
    if not job.scored:
        raise UsageError(
            f"{job.request.images}: expected images to compare the methods on, beside those to calibrate on; found "
            f"none beside {len(job.shown)}. Give more images, calibrate on fewer (--limit), or name a --method."
        )

    def make(request: CompileRequest) -> OnnxModel:
        return _compiled(job, request, settings_for(request, len(job.shown)), output)

    def agree(request: CompileRequest, model: OnnxModel) -> Agreement:
        with job.observer.stage(f"compare {request.title} with the float file"):
            found = _agreement(job, model, job.scored)
        assert found is not None
        return found

    measures = Measures(make, agree, lambda models: _speeds(job, models))
    return best_method(requests_of(job.request), measures, job.source_bytes, settings.agreement)


def _compiled(job: Job, request: CompileRequest, settings: Settings, output: Path) -> OnnxModel:
    """Return the file of one method, in a folder of its own."""
    path = job.scratch / request.title / output.name
    stage = job.observer.stage(f"compile {request.title}")
    lock = alone_on_host if isinstance(settings, TunedSettings) else computing
    with lock(job.observer.say), stage as advance, _about(request.model, job.source.path):
        if isinstance(settings, TunedSettings):
            return _searched(job, settings, path, output, advance)
        data = unlabelled_data(job.shown, job.preprocessing or _NO_PREPROCESSING)
        task = CompileTask(output.stem, settings, job.source, data, path, progress=advance)
        return COMPILERS[request.compiler].compile(task)


def _searched(job: Job, settings: TunedSettings, path: Path, output: Path, advance: Progress) -> OnnxModel:
    assert job.preprocessing is not None
    return search_file(
        job.source,
        output.stem,
        settings,
        job.shown,
        job.scored,
        job.preprocessing,
        path,
        journal_beside(output),
        advance,
    )


def _agreement(job: Job, compiled: OnnxModel, images: UnlabelledImages) -> Agreement | None:
    assert job.preprocessing is not None
    assert job.answers is not None
    try:
        return measure_agreement(job.request.model, compiled.path, images.pixels, job.preprocessing, job.answers)
    except UsageError as error:
        if str(compiled.path) not in str(error):
            raise
        reason = str(error).partition("(")[2].rpartition(")")[0]
        raise StageError(
            f"{job.request.model}: expected a file of `{compiled.settings['method']}` that ONNX Runtime runs, found "
            f"one that it refuses ({reason}). Try another --method, and report this with the model."
        ) from error


def _speeds(job: Job, compiled: Sequence[OnnxModel]) -> tuple[Speed, ...]:
    if job.preprocessing is None:
        return (Speed(None, None, 0, "no images were given"),) * len(compiled)
    with alone_on_host(job.observer.say), job.observer.stage("time beside the float file") as advance:
        return measure_speed(job.source, compiled, np.asarray(job.shown.pixels[0]), job.batch_size, advance)


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
