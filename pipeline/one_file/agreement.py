"""How a compiled file answers beside the float file it was made from, on images without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from onnx_files.preprocessing import Preprocessing
from onnx_files.sessions import open_session
from stages.validate.metrics import logits_sqnr_db
from stages.validate.statistics import wilson_interval

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_FIRST_IMAGES = 16


@dataclass(frozen=True)
class Agreement:
    """How the compiled file answers on images that it was not calibrated on.

    Attributes:
        images: how many.
        same_class: share of them with the float file's class; None where the file has fewer than two outputs.
        same_class_ci95: its interval.
        logits_sqnr_db: energy of the float file's answers over that of the deviation from them, in dB.
    """

    images: int
    same_class: float | None
    same_class_ci95: tuple[float, float] | None
    logits_sqnr_db: float


def measure_agreement(
    reference: Path, compiled: Path, images: NDArray[np.uint8], preprocessing: Preprocessing
) -> Agreement | None:
    """Run both files on images, one thread, one image at a time unless the files take more.

    Args:
        reference: the float file.
        compiled: the file made from it.
        images: uint8 [n, channels, height, width].
        preprocessing: of both.

    Returns:
        None without images.

    Raises:
        UsageError: the compiled file answers with NaN or infinity.
    """
    n = len(images)
    if n == 0:
        return None
    expected, found = (_answers(path, images, preprocessing) for path in (reference, compiled))
    if not np.isfinite(found).all():
        raise UsageError(
            f"{reference}: expected finite answers of what was made of it, found NaN or infinity for "
            f"{int((~np.isfinite(found)).any(axis=1).sum())} of {n} images. Its numbers overflow; try another method."
        )
    sqnr = float(logits_sqnr_db(found, expected, np.ones((1, n)))[0])
    if expected.shape[1] < 2:
        return Agreement(n, None, None, sqnr)
    same = int(np.count_nonzero(found.argmax(axis=1) == expected.argmax(axis=1)))
    return Agreement(n, same / n, wilson_interval(same, n), sqnr)


def refuse_broken_answers(model: Path, images: NDArray[np.uint8], preprocessing: Preprocessing) -> None:
    """Run a float file on some images before anything is made of it.

    Raises:
        UsageError: it cannot be run on them, or its answers are not finite, or the same for different images.
    """
    first = np.asarray(images[:_FIRST_IMAGES])
    answers = _answers(model, first, preprocessing)
    if not np.isfinite(answers).all():
        raise UsageError(
            f"{model}: expected finite answers, found NaN or infinity for "
            f"{int((~np.isfinite(answers)).any(axis=1).sum())} of {len(answers)} images. "
            "Check its weights, and --mean, --std and --scale."
        )
    if len(answers) > 1 and (answers == answers[0]).all():
        raise UsageError(
            f"{model}: expected answers that depend on the image, found the same for all of {len(answers)} images. "
            "Give images that differ; check --mean, --std and --scale."
        )


def batches(
    session: InferenceSession, images: NDArray[np.uint8], preprocessing: Preprocessing
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the inputs of a file's session; a fixed batch that images do not fill is filled up with the first."""
    entry = session.get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    for start in range(0, len(images), size):
        rows = np.arange(start, start + size) % len(images)
        yield {entry.name: preprocessing.to_input(images[rows])}


def _answers(path: Path, images: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    session = open_session(path, "cpu", 1)
    name = session.get_outputs()[0].name
    found = []
    try:
        for feed in batches(session, images, preprocessing):
            (answer,) = session.run([name], feed)
            rows = len(next(iter(feed.values())))
            found.append(np.asarray(answer, dtype=np.float32).reshape(rows, -1))
    except Exception as error:  # whatever ONNX Runtime raises, or what has not one answer per image
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(
            f"{path}: expected a model that answers each of {len(images)} images of shape {list(images.shape[1:])}, "
            f"found one that fails on them ({reason}). Check --image-size and --layout, or the export."
        ) from error
    return np.concatenate(found)[: len(images)]
