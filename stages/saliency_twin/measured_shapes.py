"""Shapes that inference does not find, taken from a run.

The graph is run on two noises, in two batch sizes. What has the same length in both has it always; what follows the
batch keeps its name, and what follows the image has no known length. Tensors that are computed of the input's shape
alone and are equal in both runs are constants.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto, helper

from onnx_files.graph import reads
from stages.saliency_twin.forward_graph import INTEGER_TYPES, Dimension, ForwardGraph

_BATCHES = (2, 3)
_MOST_VALUES = 1_000_000
_OF_SHAPE = frozenset(("Shape", "Size"))


def measured_graph(model: ModelProto, forward: ForwardGraph) -> ForwardGraph | None:
    """Return a graph whose shapes are those of a run; None where it cannot be run, since a size is open.

    Args:
        model: the file's graph.
        forward: what inference found of it.
    """
    sizes = forward.shapes.get(forward.image, ())
    inputs = [value for value in model.graph.input if value.name not in forward.index.initializers]
    if len(inputs) != 1 or not sizes or not all(isinstance(size, int) for size in sizes[1:]):
        return None
    batches = _BATCHES if not isinstance(sizes[0], int) else (sizes[0], sizes[0])
    first, second = (_run(model, forward, (batch, *sizes[1:]), seed) for seed, batch in enumerate(batches))
    if first is None or second is None:
        return None
    shapes: dict[str, tuple[Dimension, ...]] = {}
    for name in first.keys() & second.keys():
        if first[name].ndim == second[name].ndim:
            shapes[name] = tuple(
                a if a == b else (sizes[0] if (a, b) == batches else None)
                for a, b in zip(first[name].shape, second[name].shape, strict=True)
            )
    of_shape = _computed_of_shapes(forward)
    constants = {
        name: value
        for name, value in first.items()
        if name in of_shape and value.size <= _MOST_VALUES and name in second and np.array_equal(value, second[name])
    }
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in first.items()}
    return replace(forward, shapes=forward.shapes | shapes, types=types | forward.types, measured=constants)


def _computed_of_shapes(forward: ForwardGraph) -> set[str]:
    """Return the tensors that follow the image's shape and nothing of what it shows."""
    shown = {forward.image}
    found: set[str] = set()
    for node in forward.nodes:
        if node.op_type in _OF_SHAPE or shown.isdisjoint(reads(node)):
            found.update(node.output)
        else:
            shown.update(node.output)
    return found


def _run(
    model: ModelProto, forward: ForwardGraph, shape: tuple[Any, ...], seed: int
) -> dict[str, NDArray[Any]] | None:
    import onnxruntime

    plain = ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:]
    plain.graph.node.extend(forward.nodes)
    for node in plain.graph.node:
        node.name = ""  # those that stand for another one share its name
    del plain.graph.output[:]
    names = [name for node in forward.nodes for name in node.output if name]
    plain.graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    dtype = helper.tensor_dtype_to_np_dtype(forward.types[forward.image])
    # Of the second, half is negative, or black.
    drawn = np.random.default_rng(seed).uniform(-seed, 1, shape).clip(-1 if dtype.kind == "f" else 0, 1)
    noise = (drawn * 255 if forward.types[forward.image] in INTEGER_TYPES else drawn).astype(dtype)
    try:
        content = plain.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = session.run(names, {forward.image: noise})
    except Exception:  # what ONNX Runtime cannot run keeps the shapes that inference found
        return None
    return {name: value for name, value in zip(names, found, strict=True) if isinstance(value, np.ndarray)}
