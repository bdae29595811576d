"""Which layers of an int8 file go wrong on x86 without VNNI, by arithmetic on its own integers.

There ONNX Runtime multiplies uint8 activations a by int8 weights w with `VPMADDUBSW`, which adds two neighbouring
products in 16 bits and saturates: a₁·w₁ + a₂·w₂ is cut to −32,768…32,767, while 255·(127 + 127) = 64,770. Neighbours
are the steps 2i and 2i + 1 along the sum: of a convolution (kernel position, channel within the group) with the
channel running fastest, of a linear layer the features. Padding is the activations' zero point.

Found by running ONNX Runtime 1.31.1 under `qemu-x86_64 -cpu Haswell`, whose answers this arithmetic meets bit for
bit: depthwise convolutions (one channel in, one out per group) multiply in 32 bits and never saturate; nor do int8
activations, nor uint8 weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.note_parts import SaturatingLayerNote
from onnx_files.graph import GraphIndex, attributes_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_LOWEST, _HIGHEST = -(2**15), 2**15 - 1
_LARGEST_ACTIVATION = 255
_MOST_POSITIONS = 64
"""At which the sums of one image are counted: of a large layer all of them take longer than compiling it."""
_PAIRS_AT_ONCE = 2**14

# Of each integer operator: where its activations, their zero point and its weights stand among its inputs.
_OPERANDS = {
    "QLinearConv": (0, 2, 3),
    "QLinearMatMul": (0, 2, 3),
    "QGemm": (0, 2, 3),
    "MatMulIntegerToFloat": (0, 4, 1),
}


def saturating_layers(
    model: ModelProto, batches: Iterable[Mapping[str, NDArray[Any]]]
) -> tuple[SaturatingLayerNote, ...]:
    """Return the layers whose sums can saturate on x86 without VNNI, in the order of the graph.

    What multiplies integers is read off the graph that ONNX Runtime makes of the file, so a layer that it computes in
    float is not listed. A file without such layers is not run at all.

    Args:
        model: a QDQ or QOperator file.
        batches: inputs by name, the first axis counting images; taken one after another.

    Returns:
        One entry for each layer with a weight pair at risk; empty where the file is safe everywhere. Shares of sums
        and outputs are counted at 64 positions of each image, drawn once, where a layer has more.
    """
    fused = _fused(model)
    layers = [layer for layer in _integer_layers(fused) if layer.at_risk.any()]
    if not layers:
        return ()
    tallies = {layer.name: _Tally() for layer in layers}
    images = 0
    for tensors in _activations(fused, {layer.activation for layer in layers}, batches):
        images += len(next(iter(tensors.values())))  # the batch comes first
        for layer in layers:
            _count(layer, tensors[layer.activation], tallies[layer.name])
    return tuple(_result(layer, tallies[layer.name], images) for layer in layers)


@dataclass(frozen=True)
class _Layer:
    """A layer of uint8 by int8; `weight` is int8 [groups, pairs, 2, outputs], neighbours side by side."""

    name: str
    node: NodeProto
    activation: str
    zero_point: int
    shape: tuple[int, ...]
    weight: NDArray[np.int8]

    @cached_property
    def at_risk(self) -> NDArray[np.bool_]:
        """Whether activations exist that saturate a pair, bool [groups, pairs, outputs]."""
        highest, lowest = self.extremes
        return (highest > _HIGHEST) | (lowest < _LOWEST)

    @cached_property
    def extremes(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The largest and the least sum of a pair for activations of 0…255, int32 [groups, pairs, outputs]."""
        weight = self.weight.astype(np.int32)
        highest = np.clip(weight, 0, None).sum(axis=2, dtype=np.int32) * _LARGEST_ACTIVATION
        return highest, np.clip(weight, None, 0).sum(axis=2, dtype=np.int32) * _LARGEST_ACTIVATION


@dataclass
class _Tally:
    sums: int = 0
    saturated: int = 0
    outputs: int = 0
    changed: int = 0


def _fused(model: ModelProto) -> ModelProto:
    # QDQ and QOperator files become the same integer operators, as they do before every run.
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder, "fused.onnx"))
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load_model(options.optimized_model_filepath)


def _integer_layers(fused: ModelProto) -> Iterator[_Layer]:
    index = GraphIndex.of(fused.graph)
    for node in fused.graph.node:
        if node.op_type not in _OPERANDS:
            continue
        activation, zero_point, weight = (node.input[index] for index in _OPERANDS[node.op_type])
        values, zero = index.constant(weight), index.constant(zero_point)
        if values is None:
            continue
        zero = np.array(0, np.uint8) if zero is None else zero
        if values.dtype != np.int8 or zero.dtype != np.uint8 or _is_depthwise(node, values):
            continue
        yield _Layer(
            node.name.removesuffix("_quant"), node, activation, int(zero), values.shape, _paired(node, values)
        )


def _is_depthwise(node: NodeProto, weight: NDArray[np.int8]) -> bool:
    groups: int = attributes_of(node).get("group", 1)
    return node.op_type == "QLinearConv" and weight.shape[:2] == (groups, 1)


def _paired(node: NodeProto, weight: NDArray[np.int8]) -> NDArray[np.int8]:
    # int8 [groups, steps, outputs], a zero appended to an odd number of steps, then split into neighbours.
    if node.op_type == "QLinearConv":
        groups = attributes_of(node).get("group", 1)
        by_group = weight.reshape(groups, -1, *weight.shape[1:])
        steps = np.moveaxis(by_group, 2, -1).reshape(groups, by_group.shape[1], -1).transpose(0, 2, 1)
    else:
        matrix = weight.T if attributes_of(node).get("transB", 0) else weight
        steps = matrix.reshape(-1, *matrix.shape[-2:])
    even = np.pad(steps, ((0, 0), (0, steps.shape[1] % 2), (0, 0)))
    return even.reshape(len(even), -1, 2, even.shape[2])


def _activations(
    fused: ModelProto, names: Iterable[str], batches: Iterable[Mapping[str, NDArray[Any]]]
) -> Iterator[dict[str, NDArray[np.uint8]]]:
    import onnxruntime
    from onnx import TensorProto, helper

    fed = {value.name for value in fused.graph.input}
    listed = {value.name for value in fused.graph.output}
    wanted = sorted(set(names) - fed)
    fused.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in wanted if name not in listed
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(fused.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for batch in batches:
        found = session.run(wanted, dict(batch)) if wanted else []
        yield {**batch, **dict(zip(wanted, found, strict=True))}


def _count(layer: _Layer, activation: NDArray[np.uint8], tally: _Tally) -> None:
    _, pairs, _, outputs = layer.weight.shape
    at_risk = layer.at_risk
    # One image at a time where a convolution's rows repeat each pixel. A linear layer's first axis may count the
    # parts of an image, hundreds of them.
    one = 1 if layer.node.op_type == "QLinearConv" else len(activation)
    for image in range(0, len(activation), one):
        for group, rows in enumerate(_steps(layer, activation[image : image + one])):
            steps, weight = _few_of(rows), layer.weight[group].astype(np.int32)
            changed = np.zeros((outputs, steps.shape[1]), dtype=np.bool_)
            risky_outputs, risky_pairs = np.nonzero(at_risk[group].T)
            for start in range(0, len(risky_pairs), _PAIRS_AT_ONCE):
                output, pair = (found[start : start + _PAIRS_AT_ONCE] for found in (risky_outputs, risky_pairs))
                sums = weight[pair, 0, output][:, None] * steps[2 * pair]
                sums += weight[pair, 1, output][:, None] * steps[2 * pair + 1]
                saturated = (sums > _HIGHEST) | (sums < _LOWEST)
                tally.saturated += int(np.count_nonzero(saturated))
                firsts = np.flatnonzero(np.diff(output, prepend=-1))
                changed[output[firsts]] |= np.logical_or.reduceat(saturated, firsts, axis=0)
            tally.changed += int(np.count_nonzero(changed))
            tally.outputs += changed.size
            tally.sums += changed.size * pairs


def _few_of(steps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return some positions, the same ones each time; drawn, because even steps may all meet one column."""
    positions = steps.shape[1]
    if positions <= _MOST_POSITIONS:
        return steps
    return steps[:, np.random.default_rng(0).choice(positions, _MOST_POSITIONS, replace=False)]


def _steps(layer: _Layer, activation: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield for each group what meets the weights, uint8 [steps, outputs' positions], steps ordered as `weight`'s."""
    given = attributes_of(layer.node)
    if layer.node.op_type != "QLinearConv":
        rows = activation.T if given.get("transA", 0) else activation
        for _ in range(len(layer.weight)):
            yield rows.reshape(-1, rows.shape[-1]).T
        return
    kernel = layer.shape[2:]
    strides = given.get("strides", [1] * len(kernel))
    dilations = given.get("dilations", [1] * len(kernel))
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    padding = _padding(given, activation.shape[2:], extents, strides)
    padded = np.pad(activation, [(0, 0), (0, 0), *padding], constant_values=layer.zero_point)
    axes = tuple(range(2, 2 + len(kernel)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(extents), axis=axes)
    taken = (slice(None), slice(None), *(slice(None, None, stride) for stride in strides))
    windows = windows[(*taken, *(slice(None, None, dilation) for dilation in dilations))]
    kernel_first = (*range(2 + len(kernel), windows.ndim), 1, 0, *axes)
    channels = layer.shape[1]
    for group in range(len(layer.weight)):
        of_group = windows[:, group * channels : (group + 1) * channels]
        yield of_group.transpose(kernel_first).reshape(channels * int(np.prod(kernel)), -1)


def _padding(
    given: Mapping[str, Any], size: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    automatic = given.get("auto_pad", b"NOTSET").decode()
    if automatic == "NOTSET":
        pads = given.get("pads", [0] * (2 * len(size)))
        return list(zip(pads[: len(size)], pads[len(size) :], strict=True))
    if automatic == "VALID":
        return [(0, 0)] * len(size)
    padding = []
    for length, extent, stride in zip(size, extents, strides, strict=True):
        total = max((-(-length // stride) - 1) * stride + extent - length, 0)
        less, more = total // 2, total - total // 2
        padding.append((less, more) if automatic == "SAME_UPPER" else (more, less))
    return padding


def _result(layer: _Layer, tally: _Tally, images: int) -> SaturatingLayerNote:
    highest, lowest = layer.extremes
    largest = max(int(highest.max()), int(lowest.min()), key=abs)
    return SaturatingLayerNote(
        layer=layer.name,
        weight_pairs_at_risk=float(layer.at_risk.mean()),
        largest_sum=largest,
        saturated_sums=tally.saturated / max(tally.sums, 1),
        changed_outputs=tally.changed / max(tally.outputs, 1),
        images=images,
    )
