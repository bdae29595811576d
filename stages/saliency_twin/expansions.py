"""Operators that other, simpler ones stand for once the shapes around them are known.

As with `decompositions`, the file's own nodes stay as they are; only the differentiation looks at this form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from foundation.errors import UsageError
from onnx_files.graph import content_of, rename_tensors
from stages.saliency_twin import expansions_attention as attention
from stages.saliency_twin import expansions_control as control
from stages.saliency_twin import expansions_plain as plain
from stages.saliency_twin.decompositions import operator_key
from stages.saliency_twin.expansions_recurrent import recurrent
from stages.saliency_twin.expansions_sampling import grid_sample
from stages.saliency_twin.forward_graph import ForwardGraph, inferred
from stages.saliency_twin.parts import Parts

Expansion = Callable[[NodeProto, ForwardGraph], list[NodeProto]]
"""From one node and what is known around it to nodes that make its outputs, or to itself where it is not covered."""

_MICROSOFT = "com.microsoft"
_MOST_ROUNDS = 16
"""Of shape inference, each of which may show the next operator's shape; after them, a run shows them all at once."""
_MOST_NODES = 50_000
_FROM_VERSION = 18
"""Before, the standard's own definitions use operators in forms that changed since."""


def _cast_like(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """The second input's type alone matters."""
    target = forward.types.get(node.input[1])
    if not target:
        return [node]
    return [helper.make_node("Cast", [node.input[0]], list(node.output), name=node.name, to=target)]


def _mean(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    parts = Parts(node)
    return parts.finished("Mul", [parts.op("Sum", list(node.input)), parts.real(1 / len(node.input))])


EXPANSIONS: Mapping[str, Expansion] = {
    "CastLike": _cast_like,
    "Compress": plain.compress,
    "GRU": recurrent,
    "GlobalLpPool": plain.global_lp_pool,
    "GridSample": grid_sample,
    "If": control.if_,
    "LSTM": recurrent,
    "Loop": control.loop,
    "LpNormalization": plain.lp_normalization,
    "MatMul": attention.vector_matmul,
    "Mean": _mean,
    "MeanVarianceNormalization": plain.mean_variance_normalization,
    "Mod": plain.modulo,
    "RNN": recurrent,
    "ReduceLogSum": plain.reduce_log_sum,
    "ReverseSequence": plain.reverse_sequence,
    "Scan": control.scan,
    "Shrink": plain.shrink,
    f"{_MICROSOFT}.Attention": attention.attention,
    f"{_MICROSOFT}.FusedMatMul": attention.fused_matmul,
    f"{_MICROSOFT}.MultiHeadAttention": attention.multi_head_attention,
}
"""By domain and operator."""

DEFINED_BY_THE_STANDARD = frozenset((
    "Attention", "CenterCropPad", "RotaryEmbedding",
))  # fmt: skip
"""What ONNX's package holds definitions of, by operators that have rules."""


def expanded(model: ModelProto, forward: ForwardGraph) -> ForwardGraph:
    """Return a graph in which simpler nodes stand for what can be led back to them; the same one where nothing can.

    Args:
        model: whose graph it is.
        forward: what is known of it.

    Raises:
        UsageError: the graph contradicts itself, or loops within loops become more nodes than can be looked at.
    """
    for _ in range(_MOST_ROUNDS):
        nodes = [part for node in forward.nodes for part in _expanded(node, forward)]
        if len(nodes) == len(forward.nodes) and all(a is b for a, b in zip(nodes, forward.nodes, strict=True)):
            break
        if len(nodes) > _MOST_NODES:
            raise UsageError(
                f"expected loops that become no more than {_MOST_NODES} nodes, found {len(nodes)}. Export the model "
                "without loops within each other, or explain it by occlusion, which needs no gradient."
            )
        further = inferred(model, nodes, forward.image, forward.logits)
        forward = replace(
            further,
            types=further.types | forward.types,
            shapes=further.shapes | forward.shapes,
            measured=forward.measured,
        )
    return forward


def _expanded(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    key = operator_key(node)
    if key in EXPANSIONS:
        return EXPANSIONS[key](node, forward)
    return _as_the_standard_defines_it(node, forward) if key in DEFINED_BY_THE_STANDARD else [node]


def _as_the_standard_defines_it(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """Return the nodes of an operator's definition in ONNX's standard; the node itself where it has none."""
    import onnx.inliner

    if forward.opset < _FROM_VERSION or not _has_definition(node.op_type, forward.opset):
        return [node]
    if any(name and name not in forward.types for name in node.input):
        return [node]
    values = [
        helper.make_tensor_value_info(name, forward.types[name], forward.shapes.get(name))
        for name in dict.fromkeys(node.input)
        if name
    ]
    made = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    model = helper.make_model(
        helper.make_graph([_with_defaults(node, forward.opset)], "definition", values, made),
        opset_imports=[helper.make_opsetid("", forward.opset)],
    )
    within = onnx.inliner.inline_selected_functions(model, [("", node.op_type)], inline_schema_functions=True)
    own, prefix = {*node.input, *node.output}, Parts(node).prefix
    nodes = list(within.graph.node)
    if len(nodes) == 1 and nodes[0].op_type == node.op_type:
        return [node]
    rename_tensors(within.graph, lambda name: name if name in own else f"{prefix}/definition/{name}")
    for part in nodes:
        part.name = node.name
        if part.op_type == "Constant" and (content := content_of(part)) is not None:
            # Shape inference reads numbers from tensors alone.
            del part.attribute[:]
            part.attribute.append(helper.make_attribute("value", numpy_helper.from_array(content)))
    return nodes


def _with_defaults(node: NodeProto, version: int) -> NodeProto:
    # A definition that refers to an attribute which is left out loses it.
    full = NodeProto()
    full.CopyFrom(node)
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, version).attributes.items():
        if name not in given and attribute.default_value.name:
            full.attribute.append(attribute.default_value)
    return full


def _has_definition(operator: str, version: int) -> bool:
    if not onnx.defs.has(operator, version):
        return False
    schema = onnx.defs.get_schema(operator, version)
    return bool(schema.has_function or schema.has_context_dependent_function)
