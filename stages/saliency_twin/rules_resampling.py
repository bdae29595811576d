"""Gradients of Pad and Resize: linear maps along single axes, y = A·x along each, so dx = Aᵀ·g.

The matrix of an axis is read off the operator itself, run once on the unit vectors, so that every mode and every
convention of coordinates is right by construction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_files.graph import attributes_of
from stages.saliency_twin.builder import Backward, Gradients, Step, refusal


def pad(graph: Backward, step: Step) -> Gradients:
    """Padding with a constant: g without the margin. Reflected or repeated edges: dx = Aᵀ·g along each axis."""
    rank = len(graph.forward.shape(step.x))
    given = None if step.input(1) is None else graph.forward.constant(step.node.input[1])
    if given is None:
        raise refusal(step.node, "constant pads", "computed ones")
    named = None if step.input(3) is None else graph.forward.constant(step.node.input[3])
    axes = [int(axis) % rank for axis in (range(rank) if named is None else named)]
    margins = np.zeros((2, rank), dtype=np.int64)
    margins[:, axes] = given.reshape(2, -1)
    if step.attribute("mode", b"constant") == b"constant":
        cut = graph.integers([int(v) for v in -margins.ravel()])
        return {0: graph.mapped(step.gradient, lambda g: graph.op("Pad", [g, cut]))}
    gradient = step.gradient
    for axis in (axis for axis in range(rank) if margins[:, axis].any()):
        length = graph.forward.size(step.x, axis)
        own = np.zeros((2, 2), dtype=np.int64)
        own[:, 1] = margins[:, axis]
        matrix = _response(graph, step.node, [None, own.ravel()], length)
        gradient = _transposed_along(graph, gradient, matrix, axis, rank)
    return {0: gradient}


def resize(graph: Backward, step: Step) -> Gradients:
    """y = A_h·x·A_wᵀ with the interpolation's matrices: dx = A_hᵀ·g·A_w."""
    if step.attribute("coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        raise refusal(step.node, "a resize of the whole image", "tf_crop_and_resize")
    rank = len(graph.forward.shape(step.x))
    gradient = step.gradient
    changed = step.attribute("axes", range(rank))
    scales = None if step.input(2) is None else graph.forward.constant(step.node.input[2])
    by_axis = dict(zip((axis % rank for axis in changed), [] if scales is None else scales.tolist(), strict=False))
    for axis in range(rank):
        if graph.forward.shape(step.x)[axis] == graph.forward.shape(step.y)[axis] and by_axis.get(axis, 1) == 1:
            continue  # the batch, whose size may be open
        before, after = graph.forward.size(step.x, axis), graph.forward.size(step.y, axis)
        if before == after and by_axis.get(axis, 1) == 1:
            continue
        scale = np.array([1, by_axis[axis]], dtype=np.float32) if axis in by_axis else None
        target = None if scale is not None else np.array([before, after], dtype=np.int64)
        matrix = _response(graph, step.node, [None, None, scale, target], before)
        gradient = _transposed_along(graph, gradient, matrix, axis, rank)
    return {0: gradient}


def _response(
    graph: Backward, node: NodeProto, inputs: Sequence[NDArray[np.generic] | None], length: int
) -> NDArray[np.float32]:
    """Return the operator's matrix along one axis: row i is what unit vector i becomes, [length, new length]."""
    import onnxruntime

    names = ["x", *("" if value is None else f"input_{number}" for number, value in enumerate(inputs) if number)]
    plain = helper.make_node(node.op_type, names, ["y"])
    plain.attribute.extend(
        helper.make_attribute(name, value)
        for name, value in attributes_of(node).items()
        if name not in ("axes", "keep_aspect_ratio_policy")
    )
    constants = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in zip(names, inputs, strict=True)
        if value is not None
    ]
    model = helper.make_model(
        helper.make_graph(
            [plain],
            "response",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [length, length])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [length, None])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", graph.forward.opset)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(length, dtype=np.float32)})[0]  # type: ignore[no-any-return]


def _transposed_along(graph: Backward, gradient: str, matrix: NDArray[np.float32], axis: int, rank: int) -> str:
    # matrix [before, after]: dx[…, i, …] = Σ_o matrix[i, o]·g[…, o, …].
    if axis == rank - 2:
        return graph.op("MatMul", [graph.constant(matrix), gradient])
    order = [*(a for a in range(rank) if a != axis), axis]
    back = [int(a) for a in np.argsort(order)]
    last = gradient if axis == rank - 1 else graph.op("Transpose", [gradient], {"perm": order})
    product = graph.op("MatMul", [last, graph.constant(np.ascontiguousarray(matrix.T))])
    return product if axis == rank - 1 else graph.op("Transpose", [product], {"perm": back})
