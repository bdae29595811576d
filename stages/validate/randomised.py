"""The same network with weights that know nothing: a map that does not change with them shows no network.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, arXiv 1810.03292, the model parameter
randomisation test: with all layers at once, or cascading, from the answer down.
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


def weighted_layers(source: Path) -> int:
    """Return how many nodes of a float classifier carry weights."""
    import onnx

    return len(_layers(onnx.load(source)))


def write_randomised(source: Path, target: Path, seed: int, topmost: int | None = None) -> int:
    """Write a float classifier anew with the values of its weight tensors in a random order, and return how many.

    A permutation draws each tensor anew with its own mean, variance and extremes, so the activations stay about as
    large as they were. Weights and biases of convolutions and of matrix products are permuted, each within itself;
    what stands around them, such as the normalisation of the pixels, stays. The same seed gives the same bytes, and
    a tensor the same order however many layers are asked for, so that steps of a cascade build on each other.

    Args:
        source: a float ONNX file of this project.
        target: the file to write.
        seed: of the permutations.
        topmost: how many layers, counted from the answer down; None: all of them.

    Raises:
        StageError: no weight of such an operator is stored as a float, as in a quantized file.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    layers = _layers(model)
    wanted = set().union(*layers[-topmost if topmost is not None else None :])
    count = 0
    for place, tensor in enumerate(model.graph.initializer):
        if tensor.name not in wanted:
            continue
        values, rng = numpy_helper.to_array(tensor), np.random.default_rng((seed, place))
        tensor.CopyFrom(numpy_helper.from_array(rng.permutation(values.ravel()).reshape(values.shape), tensor.name))
        count += 1
    if not count:
        raise StageError(
            f"{source}: expected float weights of {', '.join(WEIGHTED_OPERATORS)} to randomise, found none. "
            "Make the sanity check on the float export."
        )
    write_bytes(target, model.SerializeToString(deterministic=True))
    return count


def _layers(model: ModelProto) -> list[set[str]]:
    """Return, for each weighted node in the order of the graph, which float weights and biases it reads."""
    from onnx import TensorProto

    floats = {
        tensor.name for tensor in model.graph.initializer if TensorProto.DataType.Name(tensor.data_type) in _FLOATS
    }
    layers = [
        # A matrix product may have its weights on either side; what is computed is no initializer.
        set(node.input if node.op_type == "MatMul" else node.input[1:]) & floats
        for node in model.graph.node
        if node.op_type in WEIGHTED_OPERATORS
    ]
    return [layer for layer in layers if layer]
