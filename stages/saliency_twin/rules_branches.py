"""The gradient of an If: an If again, whose branches run the gradients of the branches that were taken."""

from __future__ import annotations

from onnx import GraphProto, NodeProto, helper

from onnx_files.graph import attributes_of
from stages.saliency_twin.backpropagation import propagate
from stages.saliency_twin.bodies import body_nodes
from stages.saliency_twin.builder import Backward, Gradients, Step
from stages.saliency_twin.forward_graph import continued, inputs_of


def if_(graph: Backward, step: Step) -> Gradients:
    """y = one branch's outputs: each tensor that it takes from around it gets what that branch hands back."""
    condition = graph.value(step.x)
    names = inputs_of(step.node)
    wanted = {position: names[position] for position in sorted(step.wanted)}
    arriving = [None if gradient is None else graph.materialised(gradient) for gradient in step.gradients]
    branches = {
        name: _backward_branch(graph, step.node, body, arriving, list(wanted.values()))
        for name, body in attributes_of(step.node).items()
    }
    return dict(zip(wanted, graph.outputs("If", [condition], len(wanted), branches), strict=True))


def _backward_branch(
    graph: Backward, node: NodeProto, body: GraphProto, arriving: list[str | None], wanted: list[str]
) -> GraphProto:
    nodes, outputs = body_nodes(body, f"{node.output[0]}/{body.name}", {})
    forward = continued(graph.forward, nodes, frozenset(outputs))
    inside = graph.inside(forward)
    arrived: dict[str, list[str]] = {}
    for output, gradient in zip(outputs, arriving, strict=True):
        if gradient is not None and output in forward.active:
            arrived.setdefault(output, []).append(gradient)
    found = propagate(inside, nodes, arrived)
    handed_back = [inside.op("Identity", [found[name] if name in found else _zeros(inside, name)]) for name in wanted]
    made = [helper.make_empty_tensor_value_info(name) for name in handed_back]
    return helper.make_graph(inside.nodes, "backward", [], made)


def _zeros(graph: Backward, name: str) -> str:
    return graph.op("ConstantOfShape", [graph.op("Shape", [graph.value(name)])])
