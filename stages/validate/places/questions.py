"""What the files of a run are asked at a place, and what their answers are in our terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foundation.errors import StageError
from onnx_files.sessions import open_session, session_answers, session_preprocessing
from stages.validate.maps.queries import TARGET, image_input
from stages.validate.places.protocol import Array, Question

if TYPE_CHECKING:
    from onnx_files.answers import AnswerForm

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]

TWIN = "{}.saliency"
"""How the question to a variant's twin is called."""


@dataclass(frozen=True)
class Asked:
    """One question with what makes its answers numbers of ours.

    Attributes:
        question: as it goes to the place.
        answers: what the file answers with; None for logits.
        channels_last: whether a twin's gradient has its channels on its last axis.
        images: how many of the inputs count; the others fill a fixed batch.
    """

    question: Question
    answers: AnswerForm | None
    channels_last: bool
    images: int

    def logits(self, outputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Return the logits, float32 [n, classes], of a file's outputs."""
        values = next(iter(outputs.values()))[: self.images]
        return self.answers.to_logits(values) if self.answers else values.reshape(len(values), -1).astype(np.float32)

    def maps(self, outputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Return the gradient's magnitude, averaged over channels, float32 [n, height, width], of a twin's outputs.

        Raises:
            StageError: a value is NaN or infinite.
        """
        gradient = next(iter(outputs.values()))[: self.images]
        if not np.isfinite(gradient).all():
            raise StageError("expected a finite gradient, found NaN or infinity")
        magnitudes: NDArray[np.float32] = np.abs(gradient).mean(axis=-1 if self.channels_last else 1)
        return magnitudes


def ask_model(variant: str, path: Path, images: Images, batch_size: int) -> Asked:
    """Return the question that a file is asked about images, uint8 [n, channels, height, width].

    Raises:
        UsageError: the file is missing, or its metadata do not say how images reach it.
    """
    session = open_session(path, "cpu", 1)
    preprocessing, answers = session_preprocessing(session), session_answers(session)
    entry = session.get_inputs()[0]
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else batch_size
    inputs = {entry.name: _filled(preprocessing.to_input(images), entry.shape[0], batch)}
    output = answers.output if answers else session.get_outputs()[0].name
    return Asked(Question(variant, path, inputs, (output,), batch), answers, False, len(images))


def ask_twin(variant: str, path: Path, images: Images, targets: Indices, batch_size: int) -> Asked:
    """Return the question that a saliency twin is asked: the gradient of each image's target, int64 [n].

    Raises:
        UsageError: likewise.
    """
    session = open_session(path, "cpu", 1)
    preprocessing, entry = session_preprocessing(session), image_input(session)
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else batch_size
    inputs = {
        entry.name: _filled(preprocessing.to_input(images), entry.shape[0], batch),
        TARGET: _filled(targets, entry.shape[0], batch),
    }
    question = Question(TWIN.format(variant), path, inputs, ("saliency",), batch)
    return Asked(question, None, preprocessing.layout == "NHWC", len(images))


def _filled(rows: Array, axis: object, batch: int) -> Array:
    """Repeat the last row until fixed batches are full."""
    missing = -len(rows) % batch if isinstance(axis, int) else 0
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
