"""What a classifier answers with: which output is judged, what its numbers are, and how they become logits.

Everything downstream works on logits. A file that gives probabilities, sigmoids or a class number is not changed for
that: its metadata says what it gives, and whoever runs it turns the numbers into logits here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UsageError
from onnx_files.graph import GraphIndex

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

METADATA_KEY = "edgeproof.answers"

Kind = Literal["logits", "probabilities", "sigmoid", "label"]
"""logits: any real number; probabilities: of one choice, they sum to 1; sigmoid: one probability per class; label:
the number of the class alone."""

_SQUASHING = frozenset(("Softmax", "LogSoftmax", "Sigmoid"))
_KIND_OF: Mapping[str, Kind] = {"Softmax": "probabilities", "Sigmoid": "sigmoid", "ArgMax": "label"}
_PASSING = frozenset(("Identity", "Reshape", "Flatten", "Squeeze", "Cast", "QuantizeLinear", "DequantizeLinear"))
_FLOATS = (1, 10, 11)  # onnx.TensorProto's FLOAT, FLOAT16 and DOUBLE
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
        """
        if self.kind == "label":
            labels = np.asarray(values).reshape(len(values), -1)[:, 0].astype(np.int64)
            if self.classes == 1:
                return labels[:, None].astype(np.float32)
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


def answer_form(
    proto: ModelProto, path: Path, output: str | None, kind: Kind | None, classes: int | None, found_width: int
) -> AnswerForm:
    """Return which output of a classifier is judged and what it holds, as its user says, else as its graph shows.

    Args:
        proto: the model.
        path: of the file, for messages.
        output: the user's choice; None where the model leaves none.
        kind: what it holds, by the user's word; None to read it off the graph: a Softmax gives probabilities, a
            Sigmoid sigmoids, an ArgMax or a whole number a label, anything else logits.
        classes: how many names of classes there are; None where nobody gave any.
        found_width: numbers per image that the chosen output gave in a run; see `chosen_output`.

    Raises:
        UsageError: the output holds fewer or more classes than there are names.
    """
    value = chosen_output(proto, path, output)
    kind = kind or kind_of(proto, value)
    if kind == "label":
        if classes is None:
            raise UsageError(
                f"{path}: expected names of the classes, since `{value.name}` gives the number of one; found none. "
                "Give a file with one name a line, in the order of the numbers."
            )
        return AnswerForm(value.name, kind, 1, classes)
    pair = found_width == 1 and classes == 2 and kind in ("sigmoid", "logits")
    if not pair and (found_width < 2 or classes not in (None, found_width)):
        named = "two or more" if classes is None else str(classes)
        raise UsageError(
            f"{path}: expected `{value.name}` to answer {named} classes, found {found_width} "
            f"number{'' if found_width == 1 else 's'} per image. Give the names of the model's own classes, one per "
            "output and in its order, or name another output."
        )
    return AnswerForm(value.name, kind, found_width, 2 if pair else found_width)


def chosen_output(proto: ModelProto, path: Path, output: str | None) -> ValueInfoProto:
    """Return the output to judge: the one that is named, else the only one, else the only one of real numbers.

    Raises:
        UsageError: there is none of that name, or several to choose from.
    """
    by_name = {value.name: value for value in proto.graph.output}
    if output is not None:
        if output not in by_name:
            raise UsageError(
                f"{path}: expected an output `{output}`, found {', '.join(by_name) or 'none'}. Name one of these."
            )
        return by_name[output]
    real = [value for value in by_name.values() if value.type.tensor_type.elem_type in _FLOATS]
    candidates = list(by_name.values()) if len(by_name) == 1 else real
    if len(candidates) != 1:
        raise UsageError(
            f"{path}: expected one output to judge, found {', '.join(by_name) or 'none'}. Name the one with the "
            "classes' answers (`output`)."
        )
    return candidates[0]


def explained_tensor(proto: ModelProto, output: str) -> str:
    """Return the tensor whose gradient explains an output: itself, or what a Softmax or Sigmoid before it reads.

    The gradient of a probability vanishes as it nears 1.
    """
    makers = GraphIndex.of(proto.graph).producers
    name = output
    while name in makers and makers[name].op_type in _SQUASHING | {"Identity"}:
        name = makers[name].input[0]
    return name


def kind_of(proto: ModelProto, value: ValueInfoProto) -> Kind:
    """Return what the graph shows that an output holds; see `answer_form`."""
    makers = GraphIndex.of(proto.graph).producers
    node = makers.get(value.name)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is not None and node.op_type in _KIND_OF:
        return _KIND_OF[node.op_type]
    return "logits" if value.type.tensor_type.elem_type in _FLOATS else "label"
