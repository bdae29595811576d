"""Shape inference on graphs from elsewhere: an error is a sentence, and no list of sizes grows at will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.errors import UsageError

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto

MOST_SIZES = 1_000_000
"""Numbers whose values are followed, 100 MB of them; what a network computes of shapes has some thousand."""
_LARGEST_RANK = 64
_PASSING = frozenset((
    "Add", "Cast", "Div", "Expand", "Floor", "Gather", "Identity", "Max", "Min", "Mod", "Mul", "Neg", "Range",
    "Reshape", "Slice", "Squeeze", "Sub", "Tile", "Unsqueeze", "Where",
))  # fmt: skip
"""Whose results, as far as they are followed, are no longer than what they read."""


def with_shapes(proto: ModelProto, values: bool = False) -> ModelProto:
    """Return a copy of a model with the types and shapes of its tensors noted in it, as far as they can be inferred.

    Args:
        proto: the model; left as it is.
        values: whether to follow the numbers that shapes are computed of, too. That is left out where there could be
            more than `MOST_SIZES`: thirty Concat nodes make a thousand million of two.

    Raises:
        UsageError: the graph contradicts itself.
    """
    from onnx import shape_inference

    try:
        found = shape_inference.infer_shapes(proto, data_prop=values and _sizes_in(proto) <= MOST_SIZES)
    except Exception as error:  # InferenceError, and whatever else its C++ raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(
            f"expected a graph whose tensors' types can be inferred, found one that contradicts itself ({reason}). "
            "Export the model again."
        ) from error
    return found


def _sizes_in(proto: ModelProto) -> int:
    """Return how many numbers would be followed at most."""
    from onnx import TensorProto

    whole = (TensorProto.INT32, TensorProto.INT64)
    constants = [tensor for tensor in proto.graph.initializer if tensor.data_type in whole and len(tensor.dims) < 2]
    lengths = {tensor.name: tensor.dims[0] if tensor.dims else 1 for tensor in constants}
    total = 0
    for node in proto.graph.node:
        read = [lengths.get(name, 0) for name in node.input]
        length = 0
        if node.op_type == "Shape":
            length = _LARGEST_RANK
        elif node.op_type == "Constant":
            length = max((_length_of(attribute) for attribute in node.attribute), default=0)
        elif node.op_type == "Concat":
            length = sum(read)
        elif node.op_type in _PASSING:
            length = max(read, default=0)
        lengths |= dict.fromkeys(node.output, length)
        total += length
    return total


def _length_of(attribute: AttributeProto) -> int:
    if attribute.HasField("t"):
        return attribute.t.dims[0] if len(attribute.t.dims) == 1 else 1
    return max(1, len(attribute.ints))
