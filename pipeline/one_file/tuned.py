"""The search behind `edgeproof quantize MODEL.onnx --method tuned`, on images without labels.

The calibration images calibrate; of the images held out some score every file, so the accuracy is no limit. What is
told of the chosen file is measured on the others, since a choice flatters the images that it was made by.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from calibration_data.image_folder import UnlabelledImages, unlabelled_data
from calibration_data.prepared import PreparedData
from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json
from foundation.progress import Progress
from onnx_files.preprocessing import Preprocessing
from pipeline.run.stage import Stage
from stages.compilers import COMPILERS
from stages.search.study import LEAST_SCORED_IMAGES, TunedSettings
from stages.search.tuned import tune

_BUDGET = {"trials", "minutes"}
"""Settings that say how long to search, not what a file is worth: under others the search goes on."""
_LONGEST_ENTRY = 10_000


def journal_beside(output: Path) -> Path:
    """Return where the search for an output file keeps its journal.

    Raises:
        UsageError: another file stands there.
    """
    journal = output.with_suffix(".search.jsonl")
    if journal.exists() and not _is_journal(journal):
        raise UsageError(
            f"--output: the journal of the search would be written to {journal}, and something else stands there. "
            "Choose another name."
        )
    return journal


def share_out(held_out: UnlabelledImages, scored: int, compared: int) -> tuple[UnlabelledImages, UnlabelledImages]:
    """Return the images that a search scores on, and those that its choice is compared with the model on.

    Args:
        held_out: in random order.
        scored: at most so many for the search; of few, two thirds.
        compared: at most so many for the comparison.

    Returns:
        Two parts without a common image; twice all of them where a third would be too few to say anything.
    """
    others = max(len(held_out) - scored, len(held_out) // 3)
    if others < LEAST_SCORED_IMAGES:
        return held_out, held_out
    first = len(held_out) - others
    return held_out.part(slice(first)), held_out.part(slice(first, first + compared))


def search_file(
    source: OnnxModel,
    variant: str,
    settings: TunedSettings,
    calibration: UnlabelledImages,
    scored: UnlabelledImages,
    preprocessing: Preprocessing,
    path: Path,
    journal: Path,
    progress: Progress,
) -> OnnxModel:
    """Find the fastest static int8 file of a foreign model that answers, and looks, like it.

    Args:
        source: the float file, with its preprocessing in the metadata.
        variant: name of the result.
        settings: limits and budget.
        calibration: images to calibrate on.
        scored: others, to score with.
        preprocessing: from these to the model's input.
        path: the file to write.
        journal: of the search; one of the same model, images and settings goes on, whatever its budget was.
        progress: called with steps done and in all: one for each layer, one for each trial.

    Raises:
        UsageError: too few images to score with, or a model that has one answer only or fails on two images at once.
        StageError: no file could be measured.
    """
    _refuse_few_images(calibration, scored)
    _refuse_unfit_answers(source, scored)
    data = _searched_data(calibration, scored, preprocessing)
    identity = _identity(source, settings, data)
    return tune(source, variant, settings, data, path, identity, progress, labelled=False, journal=journal)


def _searched_data(
    calibration: UnlabelledImages, scored: UnlabelledImages, preprocessing: Preprocessing
) -> PreparedData:
    """Return the images as a search takes them: what calibrates in the training split, the others in validation."""
    train, validation = (unlabelled_data(images, preprocessing) for images in (calibration, scored))
    return replace(train, validation=validation.train, sha256=sha256_of_json([train.sha256, validation.sha256]))


def _identity(source: OnnxModel, settings: TunedSettings, data: PreparedData) -> str:
    """Return what tells one search from another: model, preprocessing, images, settings, processor and versions."""
    values = settings.model_dump(mode="json", exclude=_BUDGET)
    return Stage(
        kind="quantize",
        subject="tuned",
        # The file itself, since its weights may have lain beside the user's and its metadata says the preprocessing.
        inputs={"parent": sha256_of_file(source.path), "data": data.sha256},
        settings={"method": values, **COMPILERS["tuned"].depends_on()},
        modules=COMPILERS["tuned"].modules,
        outputs=(),
    ).key


def _refuse_few_images(calibration: UnlabelledImages, scored: UnlabelledImages) -> None:
    found = len(scored)
    if found < LEAST_SCORED_IMAGES:
        total = len(calibration) + found
        mend = (
            f"Give more images, or calibrate on fewer (--limit {total - LEAST_SCORED_IMAGES})."
            if total > LEAST_SCORED_IMAGES
            else f"Give {4 * LEAST_SCORED_IMAGES} images or more."
        )
        raise UsageError(
            f"--images: expected at least {LEAST_SCORED_IMAGES} images to score files with, beside those to "
            f"calibrate on; found {found} beside {len(calibration)}. {mend}"
        )


def _refuse_unfit_answers(source: OnnxModel, scored: UnlabelledImages) -> None:
    from onnx_files.sessions import open_session, predict

    session = open_session(source.path, "cpu", 1)
    try:
        answers = predict(session, np.asarray(scored.pixels[:2]), 2)
    except Exception as error:  # whatever ONNX Runtime raises; one image at a time has gone well before
        raise UsageError(
            f"{source.path}: expected a model that answers two images at once, since it leaves its batch open; found "
            "one that fails on them. Export it with a batch of 1, or use --method static."
        ) from error
    if answers.shape[1] < 2:
        raise UsageError(
            f"{source.path}: expected two answers per image or more, found one: no file would disagree on the class. "
            "Use --method static."
        )


def _is_journal(path: Path) -> bool:
    """Return whether a file is empty, or begins as a search's journal does."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        first = stream.readline(_LONGEST_ENTRY)
    if not first.endswith(b"\n"):  # empty, or cut off within its first entry
        return first == b"" or first.startswith(b'{"op_code"')
    try:
        entry = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and {"op_code", "worker_id"} <= entry.keys()
