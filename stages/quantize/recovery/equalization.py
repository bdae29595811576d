"""Cross-layer equalization (Nagel et al., Data-free quantization through weight equalization and bias correction,
arXiv 1906.04721, section 4.1).

For a positive s, relu(s·x) = s·relu(x): a channel between two layers can be divided by s where it is made and
multiplied by s where it is read, and the network stays the same function. With s as in equation 11 both layers'
weights take equal ranges there, so that one scale per tensor suits all channels.

A Clip with an upper bound, such as ReLU6, is no such function: dividing the channel moves its bound. The paper turns
ReLU6 into ReLU, which changes the network where the bound was reached. Here that is the choice `replace`. By default
(`keep`) the Clip stays, a channel that reaches its bound on the calibration images stays unscaled, and any other is
scaled no further than leaves it below the bound, so that nothing changes on those images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_files.graph import GraphIndex, attributes_of, bounds_of
from onnx_files.probes import Batches, Memory, channel_peaks

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Clips = Literal["keep", "replace"]

_MOST_ROUNDS = 100
_SETTLED = 1e-3
"""Rounds end when no channel moves by more than this part; triples of layers need several."""
_HEADROOM = 1.5
"""How far a channel's peak on the calibration images stays below its clip's bound, at least, if it is scaled up."""
_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}
)
"""f(s·x) = s·f(x) for s > 0, channel by channel."""
_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})


@dataclass(frozen=True)
class Pair:
    """Two layers with nothing between them but what scales along.

    Attributes:
        first: name of the Conv whose output channels are divided.
        second: name of the Conv or Gemm whose input channels are multiplied.
        clip: name of the Clip between them, "" where there is none.
        bound: its upper bound; infinite where there is none.
    """

    first: str
    second: str
    clip: str
    bound: float


@dataclass(frozen=True)
class Equalized:
    """A graph with equalized weights.

    Attributes:
        model: the same function with other weights.
        pairs: the layers that were balanced.
        kept_channels: channels that stayed as they were, because they reach the bound of a Clip.
        largest_factor: by which a channel was scaled up or down, 1 or more.
    """

    model: ModelProto
    pairs: tuple[Pair, ...]
    kept_channels: int
    largest_factor: float


def equalize(proto: ModelProto, clips: Clips, batches: Batches, memory: Memory | None = None) -> Equalized:
    """Balance the weights' ranges between all pairs of layers, round after round until they settle.

    Args:
        proto: a float graph with names on its nodes; left as it is.
        clips: what to do with a Clip from zero to a bound between two layers; see the module.
        batches: calibration images; read once, and only where a Clip is kept.
        memory: what graphs gave before, on the same images.

    Returns:
        The equalized graph. With `keep` its answers on the calibration images are the old ones up to float32's
        rounding, without a Clip on any image.
    """
    import onnx
    from onnx import numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(proto)
    pairs = find_pairs(result.graph)
    if clips == "replace":
        _replace_clips(result.graph, {pair.clip for pair in pairs if pair.clip})
        pairs = find_pairs(result.graph)
    index = GraphIndex.of(result.graph)
    nodes, initializers = index.nodes, index.initializers
    clipped = [nodes[pair.first].output[0] for pair in pairs if pair.clip]
    peaks = channel_peaks(result, clipped, batches, memory)
    weights = {
        name: numpy_helper.to_array(initializers[nodes[name].input[1]]).astype(np.float64)
        for pair in pairs
        for name in (pair.first, pair.second)
    }
    floors = [_least_factors(pair, peaks.get(nodes[pair.first].output[0])) for pair in pairs]
    factors = _balance(pairs, floors, nodes, weights)
    for pair, factor in zip(pairs, factors, strict=True):
        node = nodes[pair.first]
        if len(node.input) > 2 and node.input[2]:
            bias = numpy_helper.to_array(initializers[node.input[2]]).astype(np.float64) / factor
            initializers[node.input[2]].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), node.input[2]))
    for name, weight in weights.items():
        stored = nodes[name].input[1]
        initializers[stored].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), stored))
    everything = np.concatenate([np.ones(1), *factors])
    return Equalized(
        result,
        tuple(pairs),
        sum(int(np.count_nonzero(floor >= np.inf)) for floor in floors),
        float(np.max(np.maximum(everything, 1 / everything))),
    )


def find_pairs(graph: GraphProto) -> list[Pair]:
    """Return the pairs of a float graph in its order: a Conv, what scales along, and a Conv or Gemm.

    Each value between them has one reader and is no output of the graph, and their weights and the first one's bias
    are float32 constants that nothing else reads.
    """
    index = GraphIndex.of(graph)
    own = _constants_of_one_reader(graph, index)
    pairs = []
    for first in graph.node:
        if first.op_type != "Conv" or first.input[1] not in own or any(b and b not in own for b in first.input[2:]):
            continue
        if len(own[first.input[1]]) != 4:
            continue
        channels, node, clip, bound, flattened = own[first.input[1]][0], first, "", float("inf"), False
        while (reader := index.only_reader(node.output[0])) is not None:
            value, node = node.output[0], reader
            if node.input[0] != value:
                break
            if _reads(node, own, channels, flattened=flattened):
                pairs.append(Pair(first.name, node.name, clip, bound))
                break
            if node.op_type == "Clip" and not clip and (upper := _upper_bound(node, index)) is not None:
                clip, bound = node.name, upper
            elif node.op_type in _FLATTENING:
                flattened = True
            elif node.op_type not in _HOMOGENEOUS or len(node.output) > 1 or not _spatial(node, index):
                break
    return pairs


def _constants_of_one_reader(graph: GraphProto, index: GraphIndex) -> dict[str, list[int]]:
    # Shapes by name. An initializer that is an input as well may be fed, so it is no constant.
    from onnx import TensorProto

    fed = {value.name for value in graph.input}
    return {
        name: list(tensor.dims)
        for name, tensor in index.initializers.items()
        if tensor.data_type == TensorProto.FLOAT and index.only_reader(name) is not None and name not in fed
    }


def _reads(node: NodeProto, own: Mapping[str, list[int]], channels: int, *, flattened: bool) -> bool:
    shape = own.get(node.input[1]) if len(node.input) > 1 else None
    if shape is None:
        return False
    if node.op_type == "Conv" and not flattened:
        return shape[1] * int(attributes_of(node).get("group", 1)) == channels
    if node.op_type == "Gemm" and not attributes_of(node).get("transA", 0):
        # As many inputs as channels: what was flattened had one pixel.
        return shape[1 if attributes_of(node).get("transB", 0) else 0] == channels
    return False


def _upper_bound(node: NodeProto, index: GraphIndex) -> float | None:
    """Return the upper bound of a Clip whose lower bound is zero, None for any other Clip."""
    if any(name and index.constant(name) is None for name in node.input[1:]):
        return None
    low, high = bounds_of(node, index)
    return high if low == 0 and high > 0 else None


def _spatial(node: NodeProto, index: GraphIndex) -> bool:
    """Say whether a node leaves the channels apart: any but a ReduceMean over other axes than height and width."""
    if node.op_type != "ReduceMean":
        return True
    given = index.constant(node.input[1]) if len(node.input) > 1 else None
    axes = attributes_of(node).get("axes", []) if given is None else given.ravel().tolist()
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _replace_clips(graph: GraphProto, names: set[str]) -> None:
    for node in graph.node:
        if node.name in names:
            node.op_type = "Relu"
            del node.input[1:]
            del node.attribute[:]


def _least_factors(pair: Pair, peaks: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return what each channel must at least be divided by; infinite where it must stay as it is."""
    if peaks is None:
        return np.zeros(1)
    floor = np.maximum(peaks, 0) * _HEADROOM / pair.bound
    return np.where(peaks >= pair.bound, np.inf, np.minimum(floor, 1))


def _balance(
    pairs: list[Pair],
    floors: list[NDArray[np.float64]],
    nodes: Mapping[str, NodeProto],
    weights: dict[str, NDArray[np.float64]],
) -> list[NDArray[np.float64]]:
    """Scale the weights in place and return what each pair's channels were divided by, float64 [channels] each."""
    factors = [np.ones(weights[pair.first].shape[0]) for pair in pairs]
    for _ in range(_MOST_ROUNDS):
        moved = 0.0
        for index, (pair, floor) in enumerate(zip(pairs, floors, strict=True)):
            first, second = weights[pair.first], weights[pair.second]
            made = np.max(np.abs(first), axis=tuple(range(1, first.ndim)))
            read = _input_ranges(nodes[pair.second], second)
            alive = (made > 0) & (read > 0)
            # Equation 11: s = sqrt(r₁·r₂) / r₂.
            wanted = factors[index] * np.sqrt(np.where(alive, made, 1) / np.where(alive, read, 1))
            wanted = np.where(np.isinf(floor) | ~alive, factors[index], np.maximum(wanted, floor))
            step = wanted / factors[index]
            weights[pair.first] = first / step.reshape(-1, *[1] * (first.ndim - 1))
            weights[pair.second] = second * _over_inputs(nodes[pair.second], second, step)
            factors[index] = wanted
            moved = max(moved, float(np.max(np.abs(np.log(step)))))
        if moved < _SETTLED:
            break
    return factors


def _input_ranges(node: NodeProto, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the greatest magnitude of the weights that read each input channel, float64 [channels]."""
    if node.op_type == "Gemm":
        return np.asarray(np.max(np.abs(weight), axis=0 if attributes_of(node).get("transB", 0) else 1))
    grouped = np.abs(weight).reshape(attributes_of(node).get("group", 1), -1, weight.shape[1], weight[0, 0].size)
    return np.asarray(grouped.max(axis=(1, 3))).ravel()


def _over_inputs(node: NodeProto, weight: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one factor per input channel in a form that multiplies the weight."""
    if node.op_type == "Gemm":
        return step[None, :] if attributes_of(node).get("transB", 0) else step[:, None]
    groups = attributes_of(node).get("group", 1)
    per_output = step.reshape(groups, weight.shape[1]).repeat(weight.shape[0] // groups, axis=0)
    return per_output.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
