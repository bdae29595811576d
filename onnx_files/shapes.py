"""Shape inference on graphs from elsewhere: an error is a sentence, and no list of sizes grows at will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.errors import UsageError

if TYPE_CHECKING:
    from onnx import ModelProto

LONGEST_SIZES = 4096
"""Whole numbers in one vector up to which their values are inferred; what is computed of shapes has a rank's."""


def with_shapes(proto: ModelProto, values: bool = False) -> ModelProto:
    """Return a copy of a model with the types and shapes of its tensors noted in it, as far as they can be inferred.

    Args:
        proto: the model; left as it is.
        values: whether to follow the numbers that shapes are computed of, too. That is left out where a vector of
            them is longer than `LONGEST_SIZES`: thirty Concat nodes make a thousand million of two, one by one.

    Raises:
        UsageError: the graph contradicts itself.
    """
    from onnx import shape_inference

    try:
        found = shape_inference.infer_shapes(proto)
        if values and not _has_long_vectors(found):
            found = shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # InferenceError, and whatever else its C++ raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(
            f"expected a graph whose tensors' types can be inferred, found one that contradicts itself ({reason}). "
            "Export the model again."
        ) from error
    return found


def _has_long_vectors(proto: ModelProto) -> bool:
    from onnx import TensorProto

    made = {name for node in proto.graph.node for name in node.output}
    for value in proto.graph.value_info:
        kind = value.type.tensor_type
        if (
            value.name in made
            and kind.elem_type in (TensorProto.INT32, TensorProto.INT64)
            and len(kind.shape.dim) == 1
        ):
            length = kind.shape.dim[0]
            if not length.HasField("dim_value") or length.dim_value > LONGEST_SIZES:
                return True
    return False
