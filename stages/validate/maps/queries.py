"""What methods ask of a file beside its logits: its image input, its mean colour, the gradient at an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from foundation.errors import StageError, UsageError
from onnx_files.preprocessing import Preprocessing
from onnx_files.sessions import session_preprocessing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

TARGET = "target"
"""The twin's second input: the class to explain."""


def image_input(session: InferenceSession) -> Any:
    """Return the image's entry among a session's inputs.

    Raises:
        UsageError: there are several.
    """
    entries = [entry for entry in session.get_inputs() if entry.name != TARGET]
    if len(entries) != 1:
        raise UsageError(
            f"expected a model with one input, the image, found {', '.join(entry.name for entry in entries)}. "
            "Fix the other inputs to constants before you explain it."
        )
    return entries[0]


def mean_colour(session: InferenceSession) -> Images:
    """Return the mean colour of the model's normalisation, which its first layer sees as 0: uint8 [channels]."""
    gray = 255.0 * np.asarray(session_preprocessing(session).mean)
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Twin:
    """A saliency twin, ready to be asked; all that varies between files of uint8 and of float input stands here.

    A float input takes any value. A uint8 input takes whole gray values from 0 to 255, so what lies between or beyond
    them is rounded and clipped before it is asked.

    Attributes:
        session: of a file with the inputs image and target, and the output saliency.
        batch_size: inputs per query, where the file leaves that open.
    """

    session: InferenceSession
    batch_size: int

    @property
    def preprocessing(self) -> Preprocessing:
        """How images reach the file."""
        return session_preprocessing(self.session)

    @property
    def zero(self) -> Floats:
        """The input that the first layer sees as 0, in the input's own unit: float32 [channels, 1, 1]."""
        mean = np.asarray(self.preprocessing.mean, dtype=np.float32)[:, None, None]
        return 255 * mean if self.preprocessing.input_type == "uint8" else np.zeros_like(mean)

    @property
    def gray_value(self) -> Floats:
        """One gray value in the input's own unit: float32 [channels, 1, 1]."""
        std = np.asarray(self.preprocessing.std, dtype=np.float32)[:, None, None]
        return np.ones_like(std) if self.preprocessing.input_type == "uint8" else np.float32(1 / 255) / std

    def inputs_of(self, images: Images) -> Floats:
        """Return images uint8 [n, channels, height, width] as inputs, float32 in the file's layout."""
        return self.preprocessing.to_input(images).astype(np.float32)

    def saliency(self, inputs: Floats, targets: Indices) -> Floats:
        """Return the file's saliency output.

        Args:
            inputs: float32 [n, channels, height, width], or in the file's layout, in the input's own unit.
            targets: int64 [n].

        Returns:
            float32 [n, …]: the gradient at the input, of its shape, or Grad-CAM's map, [n, 1, h', w'].

        Raises:
            StageError: a value is NaN or infinite.
        """
        found = self._output("saliency", inputs, targets)
        if not np.isfinite(found).all():
            raise StageError(
                "expected a finite gradient, found NaN or infinity. The file's numbers overflow; leave more of it in "
                "float, or explain it by occlusion."
            )
        return found

    def logits(self, inputs: Floats, targets: Indices) -> Floats:
        """Return the targets' logits, float32 [n], of inputs as in `saliency`."""
        of_all = self._output(self.session.get_outputs()[0].name, inputs, targets)
        chosen: Floats = of_all[np.arange(len(targets)), targets]
        return chosen

    def _output(self, output: str, inputs: Floats, targets: Indices) -> Floats:
        if self.preprocessing.input_type == "uint8":
            ready: NDArray[Any] = np.clip(np.rint(inputs), 0, 255).astype(np.uint8)
        else:
            ready = inputs
        name, batch = image_input(self.session).name, _batch_of(self.session, self.batch_size)
        parts = []
        for start in range(0, len(ready), batch):
            feed = {name: ready[start : start + batch], TARGET: targets[start : start + batch]}
            if _is_fixed(self.session):
                feed = {key: _padded(value, batch) for key, value in feed.items()}
            parts.append(self.session.run([output], feed)[0])
        return cast("Floats", np.concatenate(parts)[: len(inputs)])


def _is_fixed(session: InferenceSession) -> bool:
    return isinstance(image_input(session).shape[0], int)


def _batch_of(session: InferenceSession, batch_size: int) -> int:
    return int(image_input(session).shape[0]) if _is_fixed(session) else batch_size


def _padded(rows: NDArray[Any], batch: int) -> NDArray[Any]:
    """Repeat the last row until the batches are full."""
    missing = -len(rows) % batch
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows
