"""What a kit measures with: the files, the golden images, what was reviewed of them, and `kit.json` that tells it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.errors import UsageError
from foundation.progress import Observer
from foundation.record import RunRecord, VariantRecord
from foundation.run_folder import RunFolder
from foundation.versions import versions_of
from pipeline.device import golden
from pipeline.device.kit.files import IMAGES, MAPS, MODEL, TWIN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from foundation.artifacts import Task

FORMAT_VERSION = 1


@dataclass(frozen=True)
class BundleRequest:
    """What is asked for.

    Attributes:
        run: a finished run.
        variant: which of its files.
        output: the zip; None for `VARIANT.kit.zip` here.
        images: the golden ones: the run's test images, or generated ones where no image may leave the house.
        golden: how many.
    """

    run: RunFolder
    variant: str
    output: Path | None = None
    images: golden.Which = "test"
    golden: int = 12


@dataclass(frozen=True)
class _Pictures:
    """Images, what they are called, and what the run recorded that the variant decided; None where it did not."""

    images: NDArray[np.uint8]
    names: list[str]
    reviewed: NDArray[np.int64] | None


def contents_of(
    request: BundleRequest, record: RunRecord, variant: VariantRecord, observer: Observer, remarks: list[str]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return name → content of what is measured with, and what `kit.json` says of it.

    Args:
        request: what is asked for.
        record: of the run, whose files are as recorded.
        variant: of the record.
        observer: who watches.
        remarks: sentences for the kit's maker are added here.

    Raises:
        UsageError: the run lacks something, or the file takes several images at once.
        StageError: this machine does not answer as the run recorded.
    """
    from stages.saliency_twin.twin_file import twin_path

    path = request.run.root / variant.path
    twin = twin_path(path)
    files = golden.Files(path.read_bytes(), twin.read_bytes() if twin.is_file() else None)
    if files.twin is None:
        remarks.append("The run has no saliency twin of this variant, so the kit shows no maps.")
    asked, answers = _asked(path)
    pictures = _pictures(request, record, asked)
    task = record.task or "multi_class"
    with observer.stage("golden answers") as progress:
        pictures = _answered_as_reviewed(pictures, files, asked, task, answers["kind"], variant.variant, remarks)
        found = golden.golden_of(files, asked, pictures.images, progress)
    contents = {MODEL: files.model, IMAGES: _npy(pictures.images)}
    if files.twin is not None and found.answered.maps is not None:
        contents |= {TWIN: files.twin, MAPS: _npy(found.answered.maps)}
    decided = golden.decisions(found.answered.outputs, answers["kind"], task)
    facts = {
        **_told_of_run(request, record, variant),
        "input": asked.image,
        "output": asked.output,
        "answers": answers,
        "preprocessing": _preprocessing(record, asked),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            for name, content in sorted(contents.items())
        },
        "golden": golden.golden_entries(pictures.names, found, decided),
        "bounds": {**asdict(found.bounds), "derivation": golden.DERIVATION},
        "timing": _timing(record),
        "made_with": versions_of(("edgeproof", "onnxruntime")),
    }
    return contents, facts


def _answered_as_reviewed(
    pictures: _Pictures,
    files: golden.Files,
    asked: golden.Asked,
    task: Task,
    kind: str,
    variant: str,
    remarks: list[str],
) -> _Pictures:
    """Return the images that are answered here, one at a time, as the run recorded; all of them where it did not."""
    if pictures.reviewed is None:
        return pictures
    first = golden.evaluate(files, asked, pictures.images, None).outputs
    kept = golden.same_as_reviewed(golden.decisions(first, kind, task), pictures.reviewed, variant)
    if not kept.all():
        remarks.append(
            f"{int((~kept).sum())} of {len(kept)} golden images are left out: one at a time, as a device asks, they "
            "are answered otherwise than the run recorded."
        )
    names = [name for name, keep in zip(pictures.names, kept, strict=True) if keep]
    return _Pictures(pictures.images[kept], names, pictures.reviewed[kept])


def _told_of_run(request: BundleRequest, record: RunRecord, variant: VariantRecord) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "run": record.name,
        "variant": variant.variant,
        "method": variant.method,
        "task": record.task or "multi_class",
        "classes": list(record.classes),
        "synthetic": request.images == "generated" or record.synthetic,
        "images": request.images,
    }


def _preprocessing(record: RunRecord, asked: golden.Asked) -> dict[str, Any]:
    """Return how an image becomes the input, how the run fits larger ones included."""
    data = record.configuration.get("data")
    fitting = data if isinstance(data, dict) else {}
    return {
        **asdict(asked.preprocessing),
        "image_width": asked.preprocessing.width,
        "channels": len(asked.preprocessing.mean),
        "fit": fitting.get("fit", "stretch"),
        "crop_share": fitting.get("crop_share", 1.0),
    }


def _timing(record: RunRecord) -> Mapping[str, int]:
    """Return the rules by which the run timed its files."""
    from stages.validate.latency_settings import LatencySettings

    validation = record.configuration.get("validation")
    told = validation.get("latency") if isinstance(validation, dict) else None
    defaults = LatencySettings().model_dump(mode="json")
    rules = {**defaults, **(told if isinstance(told, dict) else {})}
    return {name: rules[name] for name in ("processes", "rounds", "queries_per_round", "warmup_queries", "seed")}


def _asked(path: Path) -> tuple[golden.Asked, dict[str, Any]]:
    """Return how a file is asked, and what it answers with."""
    from onnx_files.sessions import open_session, session_answers, session_preprocessing

    session = open_session(path, "cpu", 1)
    (entry,) = session.get_inputs()
    if isinstance(entry.shape[0], int) and entry.shape[0] != 1:
        raise UsageError(
            f"{path}: expected a file that takes one image, found one that takes {entry.shape[0]} at once. "
            "Export it with an open batch."
        )
    answers = session_answers(session)
    output = answers.output if answers else session.get_outputs()[0].name
    told = (
        {"kind": answers.kind, "width": answers.width, "classes": answers.classes} if answers else {"kind": "logits"}
    )
    return golden.Asked(entry.name, output, session_preprocessing(session)), told


def _pictures(request: BundleRequest, record: RunRecord, asked: golden.Asked) -> _Pictures:
    form = asked.preprocessing
    if request.images == "generated":
        images = golden.generated_images(request.golden, len(form.mean), form.image_size, form.width)
        return _Pictures(images, [f"generated {k + 1}" for k in range(len(images))], None)
    from calibration_data.prepared_folder import read_prepared
    from stages.validate.answers import Predictions, decided

    split = read_prepared(request.run.data).test
    index = golden.chosen_test_images(split, request.golden)
    logits = Predictions.read(request.variant, request.run.predictions(request.variant)).logits[index]
    names = [split.handle(int(one)) for one in index]
    return _Pictures(np.array(split.images[index]), names, decided(logits, record.task or "multi_class"))


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
