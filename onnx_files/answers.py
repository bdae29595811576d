"""What a classifier answers with: what its numbers are and how they become logits.

Everything downstream works on logits. A file that gives probabilities, sigmoids or a class number is not changed for
that: its metadata says what it gives, and whoever runs it turns the numbers into logits here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError

METADATA_KEY = "edgeproof.answers"

Kind = Literal["logits", "probabilities", "sigmoid", "label"]
"""logits: any real number; probabilities: of one choice, they sum to 1; sigmoid: one probability per class; label:
the number of the class alone."""

_SMALLEST = float(np.finfo(np.float32).tiny)
_NEAREST_TO_ONE = 1 - 2.0**-24


@dataclass(frozen=True)
class AnswerForm:
    """The output that is judged.

    Attributes:
        output: its name.
        kind: what its numbers are.
        width: how many there are per image; 1 for a label.
        classes: how many classes they stand for: as many, but two where one sigmoid decides, and as many as were told
            of a label; 1 of a label that nobody told anything of.
    """

    output: str
    kind: Kind
    width: int
    classes: int

    def to_logits(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return the logits that an output stands for.

        Args:
            values: [n, …], the output of n images.

        Returns:
            float32 [n, classes]: log p of probabilities, log p/(1−p) of sigmoids, 1 and 0 of a label; one sigmoid of
            two classes gives 0 and log p/(1−p). A label whose classes nobody counted gives its number.

        Raises:
            UsageError: a label is the number of no class.
        """
        if self.kind == "label":
            labels = np.asarray(values).reshape(len(values), -1)[:, 0].astype(np.int64)
            if self.classes == 1:
                return labels[:, None].astype(np.float32)
            strange = labels[(labels < 0) | (labels >= self.classes)]
            if len(strange):
                raise UsageError(
                    f"`{self.output}`: expected the number of a class, 0 to {self.classes - 1}, found {strange[0]}. "
                    "Give the names of all classes of the model, in the order of their numbers from 0 on."
                )
            one_hot: NDArray[np.float32] = (labels[:, None] == np.arange(self.classes)).astype(np.float32)
            return one_hot
        numbers: NDArray[np.float32] = np.asarray(values, dtype=np.float32).reshape(len(values), -1)
        if self.kind == "logits":
            logits = numbers
        else:
            p = np.clip(numbers.astype(np.float64), _SMALLEST, _NEAREST_TO_ONE)
            logits = (np.log(p) if self.kind == "probabilities" else np.log(p) - np.log1p(-p)).astype(np.float32)
            logits = np.where(np.isfinite(numbers), logits, numbers)  # what is broken stays broken
        if self.width == 1 and self.classes == 2:
            return np.concatenate([np.zeros_like(logits), logits], axis=1)
        return logits

    def to_metadata(self) -> dict[str, str]:
        """Return the entry for an ONNX file's `metadata_props`."""
        return {METADATA_KEY: json.dumps(asdict(self), sort_keys=True)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> AnswerForm | None:
        """Return what `to_metadata` wrote; None where there is no such entry: the only output holds logits.

        Raises:
            ValueError: the entry is none that `to_metadata` could have written.
        """
        if METADATA_KEY not in metadata:
            return None
        text = metadata[METADATA_KEY]
        try:
            values = json.loads(text)
            form = cls(str(values["output"]), values["kind"], int(values["width"]), int(values["classes"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"expected what edgeproof writes into `{METADATA_KEY}`, found {text[:200]!r}") from error
        if form.kind not in get_args(Kind) or not 1 <= form.width <= form.classes:
            raise ValueError(f"expected what edgeproof writes into `{METADATA_KEY}`, found {text[:200]!r}")
        return form
