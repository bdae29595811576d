"""An If whose condition is known, a Loop and a Scan of known length: their bodies' nodes, one after the other."""

from __future__ import annotations

from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_files.graph import attributes_of, content_of
from stages.saliency_twin.bodies import body_nodes
from stages.saliency_twin.forward_graph import ForwardGraph
from stages.saliency_twin.parts import Parts, input_of

MOST_ITERATIONS = 128
"""Iterations that are written out."""
_MOST_NODES = 20_000
"""Nodes that a loop may become."""


def if_(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """Return the branch that is taken; the node itself where that follows the image."""
    condition = forward.constant(node.input[0])
    if condition is None or condition.size != 1:
        return [node]
    body = attributes_of(node)["then_branch" if bool(condition.item()) else "else_branch"]
    parts = Parts(node)
    nodes, outputs = body_nodes(body, f"{parts.prefix}/branch", {})
    parts.nodes += nodes
    return parts.done(dict(enumerate(outputs)))


def loop(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """Return a counted loop's iterations; the node itself where one may end it, or there are too many."""
    body: GraphProto = attributes_of(node)["body"]
    count = forward.constant(node.input[0]) if input_of(node, 0) else None
    start = forward.constant(node.input[1]) if input_of(node, 1) else None
    goes_on = (not input_of(node, 1) or (start is not None and bool(start.item()))) and _never_ends(body, forward)
    times = -1 if count is None else int(count.item())
    if not goes_on or not _may_be_written_out(body, times):
        return [node]
    parts, state = Parts(node), list(node.input[2:])
    collected: list[list[str]] = [[] for _ in body.output[1 + len(state) :]]
    condition = parts.op("Constant", [], {"value": helper.make_tensor("content", TensorProto.BOOL, [], [True])})
    for number in range(times):
        given = [parts.integer(number), condition, *state]
        outputs = _iteration(parts, body, number, given)[1:]
        state = outputs[: len(state)]
        for rows, output in zip(collected, outputs[len(state) :], strict=True):
            rows.append(output)
    stacks = [_stacked(parts, rows, 0) for rows in collected]
    return parts.done(dict(enumerate([*state, *stacks])))


def scan(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """Return a scan's iterations over its inputs; the node itself where their number is open, or too large."""
    attributes = attributes_of(node)
    body: GraphProto = attributes["body"]
    number = attributes["num_scan_inputs"]
    state, scanned = list(node.input[: len(node.input) - number]), list(node.input[len(node.input) - number :])
    axes = attributes.get("scan_input_axes", [0] * number)
    backwards = attributes.get("scan_input_directions", [0] * number)
    shapes = [forward.shapes.get(name, ()) for name in scanned]
    lengths = {
        shape[axis] if -len(shape) <= axis < len(shape) else None for shape, axis in zip(shapes, axes, strict=True)
    }
    times = lengths.pop() if len(lengths) == 1 else None
    if not isinstance(times, int) or not _may_be_written_out(body, times):
        return [node]
    parts = Parts(node)
    slices = [
        _slices(parts, name, times, axis % len(shape), back)
        for name, axis, shape, back in zip(scanned, axes, shapes, backwards, strict=True)
    ]
    collected: list[list[str]] = [[] for _ in body.output[len(state) :]]
    for iteration in range(times):
        outputs = _iteration(parts, body, iteration, [*state, *(rows[iteration] for rows in slices)])
        state = outputs[: len(state)]
        for rows, output in zip(collected, outputs[len(state) :], strict=True):
            rows.append(output)
    out_axes = attributes.get("scan_output_axes", [0] * len(collected))
    out_backwards = attributes.get("scan_output_directions", [0] * len(collected))
    stacks = [
        _stacked(parts, rows[::-1] if back else rows, axis)
        for rows, axis, back in zip(collected, out_axes, out_backwards, strict=True)
    ]
    return parts.done(dict(enumerate([*state, *stacks])))


def _may_be_written_out(body: GraphProto, times: int) -> bool:
    return 0 < times <= MOST_ITERATIONS and times * len(body.node) <= _MOST_NODES


def _iteration(parts: Parts, body: GraphProto, number: int, given: list[str]) -> list[str]:
    inputs = {value.name: name for value, name in zip(body.input, given, strict=True)}
    nodes, outputs = body_nodes(body, f"{parts.prefix}/iteration/{number}", inputs)
    parts.nodes += nodes
    return outputs


def _never_ends(body: GraphProto, forward: ForwardGraph) -> bool:
    """Whether the condition that a loop's body hands on is the one that it was given, or always true."""
    producers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    if name == body.input[1].name:
        return True
    if name in producers and producers[name].op_type == "Constant":
        found = content_of(producers[name])
    elif inner := [tensor for tensor in body.initializer if tensor.name == name]:
        found = numpy_helper.to_array(inner[0])
    else:
        found = None if name in producers else forward.constant(name)
    return found is not None and bool(found.all())


def _slices(parts: Parts, name: str, times: int, axis: int, back: int) -> list[str]:
    pieces = parts.split(name, [1] * times, axis)
    axes = parts.integers([axis])
    flat = [parts.op("Squeeze", [piece, axes]) for piece in pieces]
    return flat[::-1] if back else flat


def _stacked(parts: Parts, rows: list[str], axis: int) -> str:
    axes = parts.integers([axis])
    return parts.op("Concat", [parts.op("Unsqueeze", [row, axes]) for row in rows], {"axis": axis})
