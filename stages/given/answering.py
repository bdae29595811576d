"""What a file from elsewhere answers, as it lies there: without our metadata, with a batch of whatever size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from onnx_files.answers import AnswerForm
from onnx_files.preprocessing import Preprocessing
from onnx_files.sessions import open_session


def answers_as_given(
    path: Path, images: NDArray[np.uint8], preprocessing: Preprocessing, form: AnswerForm
) -> NDArray[np.float32]:
    """Run a file on images, one thread, one image at a time unless it takes nothing but more.

    Args:
        path: the file.
        images: uint8 [n, channels, height, width]; a fixed batch that they do not fill is filled up with the first.
        preprocessing: of the file.
        form: what it answers with.

    Returns:
        float32 [n, classes], the logits that its answers stand for.

    Raises:
        UsageError: it fails on them.
    """
    session = open_session(path, "cpu", 1)
    entry = session.get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    found = []
    try:
        for start in range(0, len(images), size):
            rows = np.arange(start, start + size) % len(images)
            (answer,) = session.run([form.output], {entry.name: preprocessing.to_input(images[rows])})
            found.append(np.asarray(answer).reshape(size, -1))
    except Exception as error:  # whatever ONNX Runtime raises, or what has not one answer per image
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(
            f"{path}: expected a model that answers each of {len(images)} images of shape {list(images.shape[1:])}, "
            f"found one that fails on them ({reason}). Check --image-size and --layout, or the export."
        ) from error
    return form.to_logits(np.concatenate(found)[: len(images)])


def refuse_broken_answers(path: Path, answers: NDArray[np.float32]) -> None:
    """Look at what a float file answers, before anything is made of it.

    Args:
        path: the file, for messages.
        answers: [n, classes], of different images.

    Raises:
        UsageError: answers that are not finite, or the same for all images.
    """
    if not np.isfinite(answers).all():
        raise UsageError(
            f"{path}: expected finite answers, found NaN or infinity for "
            f"{int((~np.isfinite(answers)).any(axis=1).sum())} of {len(answers)} images. "
            "Check its weights, and --mean, --std and --scale."
        )
    if len(answers) > 1 and (answers == answers[0]).all():
        raise UsageError(
            f"{path}: expected answers that depend on the image, found the same for all of {len(answers)} images. "
            "Give images that differ; check --mean, --std and --scale."
        )
