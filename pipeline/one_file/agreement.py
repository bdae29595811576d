"""How a compiled file answers beside the float file it was made from, on images without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from onnx_files.answers import AnswerForm
from onnx_files.preprocessing import Preprocessing
from stages.given.answering import answers_as_given
from stages.validate.intervals.proportions import wilson_interval
from stages.validate.metrics import logits_sqnr_db


@dataclass(frozen=True)
class Agreement:
    """How the compiled file answers on images that it was not calibrated on.

    Attributes:
        images: how many.
        same_class: share of them with the float file's class; None where the file has fewer than two outputs.
        same_class_ci95: its interval.
        logits_sqnr_db: energy of the float file's logits over that of the deviation from them, in dB; None where the
            files answer with a class number.
    """

    images: int
    same_class: float | None
    same_class_ci95: tuple[float, float] | None
    logits_sqnr_db: float | None


def measure_agreement(
    reference: Path, compiled: Path, images: NDArray[np.uint8], preprocessing: Preprocessing, answers: AnswerForm
) -> Agreement | None:
    """Run both files on images, one thread, one image at a time unless the files take more.

    Args:
        reference: the float file.
        compiled: the file made from it.
        images: uint8 [n, channels, height, width].
        preprocessing: of both.
        answers: what both answer with.

    Returns:
        None without images.

    Raises:
        UsageError: the compiled file answers with NaN or infinity.
    """
    n = len(images)
    if n == 0:
        return None
    expected, found = (answers_as_given(path, images, preprocessing, answers) for path in (reference, compiled))
    if not np.isfinite(found).all():
        raise UsageError(
            f"{reference}: expected finite answers of what was made of it, found NaN or infinity for "
            f"{int((~np.isfinite(found)).any(axis=1).sum())} of {n} images. Its numbers overflow; try another method."
        )
    # Class numbers have no energy: they agree or they do not.
    sqnr = None if answers.kind == "label" else float(logits_sqnr_db(found, expected, np.ones((1, n)))[0])
    if expected.shape[1] < 2 and answers.kind != "label":
        return Agreement(n, None, None, sqnr)
    equal = found == expected if answers.kind == "label" else found.argmax(axis=1) == expected.argmax(axis=1)
    same = int(np.count_nonzero(equal))
    return Agreement(n, same / n, wilson_interval(same, n), sqnr)
