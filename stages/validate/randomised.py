"""The same network with weights that know nothing: a map that does not change with them shows no network.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, arXiv 1810.03292, the model parameter
randomisation test with all layers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import StageError
from foundation.files import write_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

WEIGHTED_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE")


def write_randomised(source: Path, target: Path, seed: int) -> int:
    """Write a float classifier anew with the values of every weight tensor in a random order, and return how many.

    A permutation draws each tensor anew with its own mean, variance and extremes, so the activations stay about as
    large as they were. Weights and biases of convolutions and of matrix products are permuted, each within itself;
    what stands around them, such as the normalisation of the pixels, stays. The same seed gives the same bytes.

    Args:
        source: a float ONNX file of this project.
        target: the file to write.
        seed: of the permutations.

    Raises:
        StageError: no weight of such an operator is stored as a float, as in a quantized file.
    """
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load(source)
    wanted = _weight_names(model)
    rng = np.random.default_rng(seed)
    count = 0
    for tensor in model.graph.initializer:
        if tensor.name not in wanted or TensorProto.DataType.Name(tensor.data_type) not in _FLOATS:
            continue
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(rng.permutation(values.ravel()).reshape(values.shape), tensor.name))
        count += 1
    if not count:
        raise StageError(
            f"{source}: expected float weights of {', '.join(WEIGHTED_OPERATORS)} to randomise, found none. "
            "Make the sanity check on the float export."
        )
    write_bytes(target, model.SerializeToString(deterministic=True))
    return count


def _weight_names(model: ModelProto) -> set[str]:
    """Return what the weighted operators read beside the layer below: weights, and biases."""
    return {
        name
        for node in model.graph.node
        if node.op_type in WEIGHTED_OPERATORS
        # A matrix product may have its weights on either side; what is computed is no initializer.
        for name in (node.input if node.op_type == "MatMul" else node.input[1:])
        if name
    }
