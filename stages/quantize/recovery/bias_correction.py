"""Bias correction (Nagel et al., arXiv 1906.04721, section 4.2; the empirical variant of its appendix D).

Rounding weights and activations shifts the mean of what a layer answers, channel by channel. The shift, measured on
calibration images, is subtracted from the layer's bias, layer by layer from the first, since what corrects one layer
changes what the next one sees.

Correcting one layer, running all images, correcting the next takes as many passes as there are layers. Here the
quantized graph corrects itself while it runs: behind each layer, the batch's mean moves to the float graph's mean on
the same batch, so that later layers see corrected ones, and the shifts of the batches are averaged. That is one pass
through each graph, and one batch in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnx_files.graph import GraphIndex, attributes_of
from onnx_files.probes import Batches, Memory, recalling, reduction, runner

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_AXES = {"Conv": (0, 2, 3), "ConvTranspose": (0, 2, 3), "Gemm": (0,)}


@dataclass(frozen=True)
class CorrectedBiases:
    """A float graph whose biases make up for what quantization shifts.

    Attributes:
        model: the graph.
        shifts: what was subtracted, float64 [output channels] by the layer's name.
    """

    model: ModelProto
    shifts: dict[str, NDArray[np.float64]]


def correct_biases(
    proto: ModelProto, quantized: ModelProto, batches: Batches, memory: Memory | None = None
) -> CorrectedBiases:
    """Subtract from each layer's bias the shift of its output's mean, quantized against float.

    Args:
        proto: the float graph; left as it is. Layers are its Conv, ConvTranspose and Gemm of two spatial dimensions
            with constant weights; one without a bias gets one.
        quantized: the same graph in QDQ form, its layers under the same names.
        batches: calibration images.
        memory: what float graphs gave before, on the same images.

    Returns:
        The corrected float graph, to be quantized anew with the same ranges.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(proto)
    names = _correctable(proto, quantized)
    if not names:
        return CorrectedBiases(result, {})
    means = {name: _mean_name(name) for name in names}
    recall = recalling(_with_means(proto, names), list(means.values()), memory)
    run_quantized = runner(_with_moved_means(quantized, names), list(means.values()))
    sums: dict[str, NDArray[np.float64]] = {name: np.zeros(1) for name in names}
    images = 0
    for number, feeds in enumerate(batches()):
        n = len(next(iter(feeds.values())))
        expected = recall(number, feeds)
        found = run_quantized({**feeds, **{_expected_name(name): expected[mean] for name, mean in means.items()}})
        for name, mean in means.items():
            shift = found[mean].astype(np.float64) - expected[mean].astype(np.float64)
            sums[name] = sums[name] + n * shift.ravel()
        images += n
    shifts = {name: total / images for name, total in sums.items()}
    for node in result.graph.node:
        if node.name in shifts:
            _subtract_from_bias(result, node, shifts[node.name])
    return CorrectedBiases(result, shifts)


def _mean_name(layer: str) -> str:
    return f"{layer}/mean"


def _expected_name(layer: str) -> str:
    return f"{layer}/expected_mean"


def _correctable(proto: ModelProto, quantized: ModelProto) -> list[str]:
    """Return the names of the layers that both graphs have and whose bias is missing or one constant per channel."""
    constants = {name: list(tensor.dims) for name, tensor in GraphIndex.of(proto.graph).initializers.items()}
    present = {node.name for node in quantized.graph.node if node.op_type in _AXES}
    names = []
    for node in proto.graph.node:
        if node.op_type not in _AXES or node.name not in present or node.input[1] not in constants:
            continue
        rank = 2 if node.op_type == "Gemm" else 4
        bias = node.input[2] if len(node.input) > 2 else ""
        per_channel = not bias or (bias in constants and len(constants[bias]) == 1)
        unscaled = attributes_of(node).get("beta", 1.0) == 1.0
        if len(constants[node.input[1]]) == rank and per_channel and unscaled:
            names.append(node.name)
    return names


def _with_means(proto: ModelProto, names: list[str]) -> ModelProto:
    """Return the graph with the mean of each layer's output, over images, height and width."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    for node in proto.graph.node:
        if node.name in names:
            nodes, constants = reduction(
                proto, "ReduceMean", node.output[0], _mean_name(node.name), _AXES[node.op_type]
            )
            probe.graph.node.extend(nodes)
            probe.graph.initializer.extend(constants)
    return probe


def _with_moved_means(quantized: ModelProto, names: list[str]) -> ModelProto:
    """Return the graph with each layer's mean, and the layer's output moved to the mean that is fed."""
    import onnx
    from onnx import TensorProto, helper

    probe = onnx.ModelProto()
    probe.CopyFrom(quantized)
    del probe.graph.node[:]
    for node in quantized.graph.node:
        copy = probe.graph.node.add()
        copy.CopyFrom(node)
        if node.name not in names:
            continue
        output, mean, expected = node.output[0], _mean_name(node.name), _expected_name(node.name)
        copy.output[0] = f"{node.name}/raw"
        nodes, constants = reduction(quantized, "ReduceMean", copy.output[0], mean, _AXES[node.op_type])
        probe.graph.node.extend(nodes)
        probe.graph.initializer.extend(constants)
        probe.graph.node.append(helper.make_node("Sub", [expected, mean], [f"{node.name}/move"]))
        probe.graph.node.append(helper.make_node("Add", [copy.output[0], f"{node.name}/move"], [output]))
        probe.graph.input.append(helper.make_tensor_value_info(expected, TensorProto.FLOAT, None))
    return probe


def _subtract_from_bias(proto: ModelProto, node: NodeProto, shift: NDArray[np.float64]) -> None:
    # A new constant: another layer may read the old one.
    from onnx import numpy_helper

    index = GraphIndex.of(proto.graph)
    old = np.zeros(1)
    if len(node.input) > 2 and node.input[2]:
        stored = index.initializers[node.input[2]]
        old = numpy_helper.to_array(stored).astype(np.float64)
        if index.only_reader(stored.name) is not None:
            proto.graph.initializer.remove(stored)
    name = f"{node.name}/corrected_bias"
    proto.graph.initializer.append(numpy_helper.from_array((old - shift).astype(np.float32), name))
    del node.input[2:]
    node.input.append(name)
