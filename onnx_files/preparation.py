"""What exporters leave undone, done: so that twin and quantizers meet one form of a graph.

`mended` is for every file that is read; a file that needs none of it keeps its bytes. `prepared` is for the graph
that quantizers take: names that they would use themselves, biases and shared weights in forms that they take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx_files.graph import GraphIndex, attributes_of, opset_of, reads, rename_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

_OF_QUANTIZERS = (
    "_scale", "_zero_point", "_quantized", "_quantized_scale", "_QuantizeLinear", "_DequantizeLinear",
    "_QuantizeLinear_Input", "_QuantizeLinear_Output", "_DequantizeLinear_Output", "_quantized_zero_point",
    "_int8", "_cast", "_float", "_integers", "_product", "_shape", "_quant", "_output_quantized", "_MatMul", "_Add",
    "_bias_quantized", "_bias_reshape", "_scales_mul", "_output_scale_mul", "_quant_scales_mul",
    "_quant_output_scale_mul",
)  # fmt: skip
"""What they append to the name of a tensor or a node for one of their own."""
_IR_OF_PLAIN_WEIGHTS = 4
"""From which on weights need not be inputs too."""
_OPSETS_OF_GROUP_SCALES = range(18, 21)
"""In which GroupNormalization has a scale for each group and not for each channel."""


def mended(model: ModelProto) -> ModelProto:
    """Return a model with its nodes in order, its outputs' shapes noted and open sizes open, changed in place.

    Sparse weights become dense ones, which nobody behind this looks for; weights that IR 3 wants listed among the
    inputs and that are not are those of IR 4; the first GroupNormalization becomes what it stands for.

    Args:
        model: as parsed; it may break ONNX's rules in these points.
    """
    from onnx_files.publishing import sort_topologically
    from onnx_files.shapes import with_shapes

    _make_dense(model.graph)
    if model.ir_version < _IR_OF_PLAIN_WEIGHTS and not _weights_are_inputs(model.graph):
        model.ir_version = _IR_OF_PLAIN_WEIGHTS
    if opset_of(model) in _OPSETS_OF_GROUP_SCALES:
        _normalise_by_instance(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_value < 0:
                size.ClearField("dim_value")
    if not _in_order(model.graph):
        sort_topologically(model.graph)
    open_outputs = [
        value
        for value in model.graph.output
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    ]
    if open_outputs:
        found = {value.name: value for value in with_shapes(model).graph.output}
        for value in open_outputs:
            value.CopyFrom(found[value.name])
    return model


def _make_dense(graph: GraphProto) -> None:
    import numpy as np
    from onnx import numpy_helper

    for sparse in graph.sparse_initializer:
        values, places = (numpy_helper.to_array(part) for part in (sparse.values, sparse.indices))
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if places.ndim == 1:
            dense.flat[places] = values
        else:
            dense[tuple(places.T)] = values
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]


def _weights_are_inputs(graph: GraphProto) -> bool:
    listed = {value.name for value in graph.input}
    return all(tensor.name in listed for tensor in graph.initializer)


def _normalise_by_instance(graph: GraphProto) -> None:
    """Write GroupNormalization with a scale and a bias for each group as InstanceNormalization of the groups.

    ONNX took that form back, so its checker refuses it; ONNX Runtime goes on running it.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    nodes, taken = [], {name for node in graph.node for name in node.output} | {t.name for t in graph.initializer}
    for node in graph.node:
        if node.op_type != "GroupNormalization" or node.domain not in ("", "ai.onnx"):
            nodes.append(node)
            continue
        given, x = attributes_of(node), node.input[0]
        parts = {part: _unused(f"{node.output[0]}/{part}", taken) for part in ("form", "groups", "even", "shape")}
        form = np.array([0, given["num_groups"], -1], np.int64)
        graph.initializer.append(numpy_helper.from_array(form, parts["form"]))
        epsilon = given.get("epsilon", 1e-5)
        nodes += [
            helper.make_node("Shape", [x], [parts["shape"]]),
            helper.make_node("Reshape", [x, parts["form"]], [parts["groups"]]),
            helper.make_node(
                "InstanceNormalization", [parts["groups"], *node.input[1:]], [parts["even"]], epsilon=epsilon
            ),
            helper.make_node("Reshape", [parts["even"], parts["shape"]], [node.output[0]]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def prepared(model: ModelProto) -> bool:
    """Bring a graph into the form that quantizers take, in place, and return whether anything had to change."""
    changed = [_plain_gemms(model.graph), _one_weight_per_use(model.graph), _free_names(model.graph)]
    if any(changed):
        _drop_unread(model.graph)
    return any(changed)


def _in_order(graph: GraphProto) -> bool:
    made = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if not made.isdisjoint(reads(node)):
            return False
        made.difference_update(node.output)
    return True


def _plain_gemms(graph: GraphProto) -> bool:
    """Give every Gemm a bias of [N], one value or [1, N] being the same, and its factors into weight and bias."""
    import numpy as np
    from onnx import numpy_helper

    index = GraphIndex.of(graph)
    taken = set(index.initializers) | set(index.producers)
    changed = False

    def put(node: NodeProto, position: int, content: NDArray[Any]) -> None:
        name = _unused(f"{node.input[position]}/plain", taken)
        taken.add(name)
        graph.initializer.append(numpy_helper.from_array(content, name))
        node.input[position] = name

    for node in graph.node:
        weight = index.constant(node.input[1]) if node.op_type == "Gemm" else None
        bias = index.constant(node.input[2]) if weight is not None and len(node.input) > 2 else None
        if weight is None or weight.dtype != np.float32 or (bias is None and len(node.input) > 2):
            continue
        attributes = attributes_of(node)
        alpha, beta = (np.float32(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        width = weight.shape[0 if attributes.get("transB", 0) else 1]
        if bias is not None:
            is_row = bias.size in (1, width) and (bias.ndim < 2 or bias.shape[0] == 1)
            if not is_row:
                continue
            if bias.shape != (width,) or beta != 1:
                put(node, 2, (np.broadcast_to(bias.ravel(), (width,)) * beta).astype(np.float32))
                changed = True
        if alpha != 1:
            put(node, 1, (weight * alpha).astype(np.float32))
            changed = True
        for attribute in [one for one in node.attribute if one.name in ("alpha", "beta")]:
            attribute.f = 1.0
    return changed


def _one_weight_per_use(graph: GraphProto) -> bool:
    """Give a weight that layers read along different axes a copy for each: its scales lie along one axis."""
    from onnx import TensorProto

    index = GraphIndex.of(graph)
    copies: dict[tuple[str, Any], str] = {}
    taken = set(index.initializers) | set(index.producers)
    for node in graph.node:
        use = _use_of(node)
        if use is None or node.input[1] not in index.initializers:
            continue
        name = node.input[1]
        others = [use_there for key, use_there in copies if key == name]
        if not others:
            copies[name, use] = name
        elif (name, use) not in copies:
            tensor = TensorProto()
            tensor.CopyFrom(index.initializers[name])
            tensor.name = _unused(f"{name}/{len(others)}", taken)
            taken.add(tensor.name)
            graph.initializer.append(tensor)
            copies[name, use] = tensor.name
        node.input[1] = copies[name, use]
    return len(set(copies.values())) > len({name for name, _ in copies})


def _drop_unread(graph: GraphProto) -> None:
    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _use_of(node: NodeProto) -> object | None:
    # Along which axis a layer's output channels lie; None for what is no layer.
    if node.op_type == "Gemm":
        return "first" if attributes_of(node).get("transB", 0) else "last"
    return {"MatMul": "last", "Conv": "first", "ConvTranspose": "second"}.get(node.op_type)


def _free_names(graph: GraphProto) -> bool:
    """Rename what is called like a tensor or a node that a quantizer makes of another one."""
    outside = {value.name for value in (*graph.input, *graph.output)}
    tensors = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    tensors |= outside
    nodes = {node.name for node in graph.node}
    taken = tensors | nodes
    renamed: dict[str, str] = {}
    for name in sorted(tensors):
        bases = [name.removesuffix(suffix) for suffix in _OF_QUANTIZERS if name.endswith(suffix)]
        base = next((base for base in bases if base in taken), None)
        moved = name if name not in outside else base
        if base is not None and moved and moved not in outside:
            renamed[moved] = _unused(f"{moved}/of_model", taken)
            taken.add(renamed[moved])
    if renamed:
        rename_tensors(graph, lambda name: renamed.get(name, name))
    changed = bool(renamed)
    for node in graph.node:
        if node.name and any(
            node.name.endswith(suffix) and node.name.removesuffix(suffix) in taken for suffix in _OF_QUANTIZERS
        ):
            node.name = _unused(f"{node.name}/of_model", taken)
            taken.add(node.name)
            changed = True
    return changed


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
