"""How a compiled file answers beside the float file it was made from, on images without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from onnx_files.answers import AnswerForm
from onnx_files.preprocessing import Preprocessing
from onnx_files.sessions import open_session
from stages.given.answering import answers_as_given
from stages.validate.intervals.proportions import wilson_interval
from stages.validate.metrics import logits_sqnr_db

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True)
class Agreement:
    """How the compiled file answers on images that it was not calibrated on.

    Attributes:
        images: how many.
        same_class: share of them with the float file's class; None where the file has fewer than two outputs.
        same_class_ci95: its interval.
        outputs_db: of each output of real numbers, energy over that of the deviation, in dB; None where equal.
        logits_sqnr_db: energy of the float file's logits over that of the deviation from them, in dB; None where the
            files answer with a class number.
    """

    images: int
    same_class: float | None
    same_class_ci95: tuple[float, float] | None
    logits_sqnr_db: float | None
    outputs_db: Mapping[str, float | None] = field(default_factory=dict)


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
        raise _overflowing(reference, f"{int((~np.isfinite(found)).any(axis=1).sum())} of {n} images")
    outputs = _outputs_db(reference, compiled, images, preprocessing)
    # Class numbers have no energy: they agree or they do not.
    sqnr = None if answers.kind == "label" else float(logits_sqnr_db(found, expected, np.ones((1, n)))[0])
    if expected.shape[1] < 2 and answers.kind != "label":
        return Agreement(n, None, None, sqnr, outputs)
    equal = found == expected if answers.kind == "label" else found.argmax(axis=1) == expected.argmax(axis=1)
    same = int(np.count_nonzero(equal))
    return Agreement(n, same / n, wilson_interval(same, n), sqnr, outputs)


def _outputs_db(
    reference: Path, compiled: Path, images: NDArray[np.uint8], preprocessing: Preprocessing
) -> dict[str, float | None]:
    sessions = [open_session(path, "cpu", 1) for path in (reference, compiled)]
    entry = sessions[0].get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    names = [value.name for value in sessions[0].get_outputs() if value.type in _FLOATS]
    if not names:
        return {}  # none asked for would be all of them
    signal, noise = np.zeros(len(names)), np.zeros(len(names))
    for start in range(0, len(images), size):
        rows = np.arange(start, start + size) % len(images)
        feed = {entry.name: preprocessing.to_input(images[rows])}
        for place, values in enumerate(zip(*(session.run(names, feed) for session in sessions), strict=True)):
            expected, found = (np.asarray(value, dtype=np.float64) for value in values)
            if not np.isfinite(found[np.isfinite(expected)]).all():
                raise _overflowing(reference, f"`{names[place]}`")
            differing = np.isfinite(expected) & np.isfinite(found)
            signal[place] += float((expected[differing] ** 2).sum())
            noise[place] += float(((expected - found)[differing] ** 2).sum())
    return {
        name: 10 * float(np.log10(signal[place] / noise[place])) if noise[place] > 0 < signal[place] else None
        for place, name in enumerate(names)
    }


def _overflowing(reference: Path, what: str) -> UsageError:
    return UsageError(
        f"{reference}: expected finite answers of what was made of it, found NaN or infinity for {what}. "
        "Its numbers overflow; try another method."
    )
