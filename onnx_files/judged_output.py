"""Which output of a graph is judged, what the graph shows that it holds, and which tensor explains it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from onnx_files.answers import AnswerForm, Kind
from onnx_files.graph import GraphIndex

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_SQUASHING = frozenset(("Softmax", "LogSoftmax", "Sigmoid"))
_KIND_OF: Mapping[str, Kind] = {"Softmax": "probabilities", "Sigmoid": "sigmoid", "ArgMax": "label"}
_PASSING = frozenset(("Identity", "Reshape", "Flatten", "Squeeze", "Cast", "QuantizeLinear", "DequantizeLinear"))
_FLOATS = (1, 10, 11)  # onnx.TensorProto's FLOAT, FLOAT16 and DOUBLE


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
