"""The way back: each node's rule, in reverse order, from the gradients that have arrived to those of its inputs."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

from foundation.errors import UsageError
from stages.saliency_twin.builder import Backward, Step, refusal
from stages.saliency_twin.decompositions import operator_key
from stages.saliency_twin.forward_graph import inputs_of

_SEVERAL_OUTPUTS = ("Split", "If")
"""Whose rules take the gradient of each output."""


def propagate(graph: Backward, nodes: Iterable[NodeProto], arrived: dict[str, list[str]]) -> dict[str, str]:
    """Append the rules of nodes and return the gradients of the tensors that none of them makes, by name.

    Args:
        graph: under construction.
        nodes: of its forward graph, in order.
        arrived: gradients of tensors that these nodes make, or read. It is emptied.

    Raises:
        UsageError: an operator has no rule, or one that does not cover a node.
    """
    in_order = list(nodes)
    _check_rules(graph, in_order)
    for node in reversed(in_order):
        names = inputs_of(node)
        wanted = frozenset(p for p, name in enumerate(names) if name in graph.forward.active)
        if not wanted:
            continue
        gradients = tuple(gathered(graph, arrived.pop(name, [])) for name in node.output)
        if any(gradient is not None for gradient in gradients):
            _check_outputs(node, gradients)
            found = graph.rules[operator_key(node)](graph, Step(node, gradients, wanted))
            if missed := sorted(wanted - found.keys()):
                there = f"`{names[missed[0]]}`, which follows the image"
                raise refusal(node, "a constant in each input but the data", there)
            for position, gradient in sorted(found.items()):
                if position in wanted and gradient:
                    arrived.setdefault(names[position], []).append(gradient)
    found_there = {name: gathered(graph, gradients) for name, gradients in arrived.items()}
    return {name: gradient for name, gradient in found_there.items() if gradient is not None}


def gathered(graph: Backward, gradients: list[str]) -> str | None:
    """Return the sum of what the readers of a tensor hand back; None where none does."""
    if not gradients:
        return None
    return gradients[0] if len(gradients) == 1 else graph.op("Sum", gradients)


def _check_outputs(node: NodeProto, gradients: tuple[str | None, ...]) -> None:
    if operator_key(node) not in _SEVERAL_OUTPUTS and any(gradient is not None for gradient in gradients[1:]):
        position = next(p for p, gradient in enumerate(gradients) if p and gradient is not None)
        raise refusal(node, "only its first output on the way to the logits", f"`{node.output[position]}` there too")


def _check_rules(graph: Backward, nodes: list[NodeProto]) -> None:
    missing = {
        operator_key(node): node.name
        for node in reversed(nodes)
        if not graph.forward.active.isdisjoint(node.output) and operator_key(node) not in graph.rules
    }
    if missing:
        found = ", ".join(f"{operator} (node `{name}`)" for operator, name in sorted(missing.items()))
        raise UsageError(
            f"expected operators with a rule for their gradient, found {found} between the image and the logits. "
            "Explain this file by occlusion, which needs no gradient."
        )
