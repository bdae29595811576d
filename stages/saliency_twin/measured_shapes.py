"""Shapes that inference does not find, taken from a run.

The graph is run on two noises, in two batch sizes. What has the same length in both has it always; what follows the
batch keeps its name, and what follows the image has no known length. Tensors that are computed of the input's shape
alone and are equal in both runs are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_files.graph import reads
from stages.saliency_twin.forward_graph import INTEGER_TYPES, Dimension, ForwardGraph

_BATCHES = (2, 3)
_MOST_VALUES = 1_000_000
_OF_SHAPE = frozenset(("Shape", "Size"))
_SHAPE = "/measured_shape"
_TYPES = {f"tensor({name.lower()})": number for name, number in TensorProto.DataType.items()}
"""By ONNX Runtime's names of them; a sequence has no shape."""


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
    runs = _runs(model, forward, [(batch, *sizes[1:]) for batch in batches])
    if runs is None:
        return None
    types, (first, second) = runs
    shapes: dict[str, tuple[Dimension, ...]] = {}
    for name in types:
        a_sizes, b_sizes = (run[f"{name}{_SHAPE}"].tolist() for run in (first, second))
        if len(a_sizes) == len(b_sizes):
            shapes[name] = tuple(
                a if a == b else (sizes[0] if (a, b) == batches else None)
                for a, b in zip(a_sizes, b_sizes, strict=True)
            )
    constants = {
        name: first[name]
        for name in types
        if name in first and first[name].size <= _MOST_VALUES and np.array_equal(first[name], second[name])
    }
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


def _runs(
    model: ModelProto, forward: ForwardGraph, shapes: Sequence[tuple[Any, ...]]
) -> tuple[dict[str, int], list[dict[str, NDArray[Any]]]] | None:
    """Return the type of each tensor, and of one run for each shape its sizes and what is computed of shapes.

    Of the others only sizes are kept, since all activations together may be more than there is memory for.
    """
    names = [name for node in forward.nodes for name in node.output if name]
    try:
        noted = _session(model, list(forward.nodes), names).get_outputs()
        types = {value.name: known for value in noted if (known := _TYPES.get(value.type)) is not None}
        of_shape = _computed_of_shapes(forward)
        nodes: list[NodeProto] = []
        for node in forward.nodes:  # each size right behind its tensor, so that this need not stay until the end
            made = [name for name in node.output if name in types]
            nodes += [node, *(helper.make_node("Shape", [name], [f"{name}{_SHAPE}"]) for name in made)]
        wanted = [*(f"{name}{_SHAPE}" for name in types), *(name for name in types if name in of_shape)]
        session = _session(model, nodes, wanted)
        found = [
            session.run(wanted, {forward.image: _noise(forward, shape, seed)}) for seed, shape in enumerate(shapes)
        ]
    except Exception:  # what ONNX Runtime cannot run keeps the shapes that inference found
        return None
    return types, [dict(zip(wanted, values, strict=True)) for values in found]


def _session(model: ModelProto, nodes: Sequence[NodeProto], outputs: Sequence[str]) -> Any:
    import onnxruntime

    plain = ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:]
    plain.graph.node.extend(nodes)
    for node in plain.graph.node:
        node.name = ""  # those that stand for another one share its name
    del plain.graph.output[:]
    plain.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED  # sizes as soon as their tensor is there
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = plain.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _noise(forward: ForwardGraph, shape: tuple[Any, ...], seed: int) -> NDArray[Any]:
    dtype = helper.tensor_dtype_to_np_dtype(forward.types[forward.image])
    # Of the second, half is negative, or black.
    drawn = np.random.default_rng(seed).uniform(-seed, 1, shape).clip(-1 if dtype.kind == "f" else 0, 1)
    return (drawn * 255 if forward.types[forward.image] in INTEGER_TYPES else drawn).astype(dtype)
