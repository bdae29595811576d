"""Learned rounding: AdaRound (Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization,
arXiv 2004.10568).

Rounding each weight to the nearest integer is not what keeps a layer's answer. Layer by layer, a weight
w = s·(n + f) with n = floor(w/s) gets a variable h(V) between 0 and 1, which equation 25 pulls to the choice, down or
up, with which the layer answers on quantized inputs as the float layer does on float ones:

    minimise ‖ a(W·x + b) − a(s·clip(n + h(V))·x̂ + b) ‖² + λ·Σ (1 − |2·h(V) − 1|^β)
    h(V) = clip(σ(V)·(ζ − γ) + γ, 0, 1)

with ζ = 1.1 and γ = −0.1 (equation 23), and β falling so that h(V) first moves freely and ends at 0 or 1.

What is learned goes back into the float graph as s·q: rounded to the nearest it gives q again, so that the file's
writer need not know. Each channel's greatest weights keep their nearest integers, since they define s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import GraphIndex, attributes_of, bounds_of
from onnx_files.probes import Batches, runner
from stages.quantize.recovery.plain_layers import StoredWeight, is_plain, stored_weight

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor

_ZETA, _GAMMA = 1.1, -0.1
_BETA_FIRST, _BETA_LAST = 20.0, 2.0
_FREE_PART = 0.2
"""Share of the iterations without the regulariser, as in the authors' code."""
_LAMBDA = 0.01
_LEARNING_RATE = 1e-2
_BATCH_SIZE = 16
_MOST_BYTES = 256_000_000
"""Of one layer's inputs and outputs; a layer of large maps learns from fewer images."""


class LearnedRoundingSettings(Settings):
    """AdaRound: integers chosen so that each layer's answers stay, not by the nearest."""

    images: int = Field(32, ge=1, description="calibration images to learn from, the first of them")
    iterations: int = Field(1000, ge=1, description="steps of Adam for each layer")
    seed: int = Field(0, ge=0, description="seed of the order of images")


@dataclass(frozen=True)
class LearnedRounding:
    """A float graph whose weights round to learned integers.

    Attributes:
        model: the graph; its other constants are as they were.
        integers: the learned integers by the weight's name, in the type that the file stores.
        turned: how many of them are not the nearest.
        weights: how many there are.
        error_db: by how much the layers' mean squared errors fell, in dB, the mean over the layers.
    """

    model: ModelProto
    integers: dict[str, NDArray[np.generic]]
    turned: int
    weights: int
    error_db: float


def learn_rounding(
    proto: ModelProto,
    quantized: ModelProto,
    batches: Batches,
    settings: LearnedRoundingSettings,
    progress: Progress = no_progress,
) -> LearnedRounding:
    """Learn each layer's rounding in order, on inputs that the layers before it have already been rounded for.

    Layers are Conv of two spatial dimensions, with explicit padding, and Gemm, whose weights one node reads. A layer
    keeps its nearest integers where the learned ones don't lower its error.

    Args:
        proto: the float graph; left as it is.
        quantized: the same graph in QDQ form, its layers under the same names; left as it is.
        batches: calibration images.
        settings: how many images and steps.
        progress: called after each layer with the layers that are done and all.
    """
    import onnx
    from onnx import numpy_helper

    result, simulated = onnx.ModelProto(), onnx.ModelProto()
    result.CopyFrom(proto)
    simulated.CopyFrom(quantized)
    floats, written = GraphIndex.of(result.graph), GraphIndex.of(simulated.graph)
    twins = written.nodes
    layers = [node for node in proto.graph.node if is_plain(node, floats) and node.op_type in ("Conv", "Gemm")]
    integers: dict[str, NDArray[np.generic]] = {}
    turned = weights = 0
    gains: list[float] = []
    for index, node in enumerate(layers):
        stored = stored_weight(written, twins[node.name]) if node.name in twins else None
        if stored is not None:
            name = node.input[1]
            weight = numpy_helper.to_array(floats.initializers[name])
            bias = floats.constant(node.input[2]) if len(node.input) > 2 else None
            activation = floats.only_reader(node.output[0])
            bounds = bounds_of(activation, floats) if activation else (-np.inf, np.inf)
            given, wanted = _activations(simulated, twins[node.name].input[0], proto, node, batches, settings.images)
            learned, gain = _learn_layer(node, bounds, weight, bias, stored, given, wanted, settings, index)
            gains.append(gain)
            turned += int(np.count_nonzero(learned != stored.integers))
            weights += learned.size
            integers[name] = learned
            written.initializers[stored.initializer].CopyFrom(numpy_helper.from_array(learned, stored.initializer))
            floats.initializers[name].CopyFrom(numpy_helper.from_array(stored.on_grid(learned), name))
        progress(index + 1, len(layers))
    return LearnedRounding(result, integers, turned, weights, float(np.mean(gains)) if gains else 0.0)


def unlike_integers(compiled: ModelProto, learned: Mapping[str, NDArray[np.generic]]) -> dict[str, int]:
    """Return how many of a written file's integers are not the learned ones, by weight; empty where all are.

    Args:
        compiled: a graph by ONNX Runtime's writers, which store the weight `w` as `w_quantized`.
        learned: integers by the float weight's name.
    """
    written = GraphIndex.of(compiled.graph)
    unlike = {}
    for name, integers in learned.items():
        found = written.constant(f"{name}_quantized")
        wrong = integers.size if found is None else int(np.count_nonzero(found != integers))
        if wrong:
            unlike[name] = wrong
    return unlike


def _activations(
    simulated: ModelProto, given: str, proto: ModelProto, node: NodeProto, batches: Batches, images: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a layer's quantized inputs and its float outputs on the first images."""
    run_given, run_wanted = runner(simulated, [given]), runner(proto, [node.output[0]])
    inputs, outputs, count, size = [], [], 0, 0
    for feeds in batches():
        inputs.append(run_given(feeds)[given][: images - count].astype(np.float32))
        outputs.append(run_wanted(feeds)[node.output[0]][: images - count].astype(np.float32))
        count += len(inputs[-1])
        size += inputs[-1].nbytes + outputs[-1].nbytes
        if count >= images or size >= _MOST_BYTES:
            break
    return np.concatenate(inputs), np.concatenate(outputs)


def _learn_layer(
    node: NodeProto,
    bounds: tuple[float, float],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    stored: StoredWeight,
    given: NDArray[np.float32],
    wanted: NDArray[np.float32],
    settings: LearnedRoundingSettings,
    index: int,
) -> tuple[NDArray[np.generic], float]:
    """Return a layer's integers, and by how many dB its error fell against the nearest ones (0 where it did not)."""
    import torch

    steps = weight / stored.scale + stored.zero_point
    below = np.floor(steps)
    low, high = stored.bounds
    scale, zero, floor = (
        torch.from_numpy(np.asarray(v, dtype=np.float32)) for v in (stored.scale, stored.zero_point, below)
    )
    x, y = torch.from_numpy(given), torch.from_numpy(wanted)
    b = None if bias is None else torch.from_numpy(bias.astype(np.float32))
    fixed = torch.from_numpy(defines_the_scale(weight, stored))
    nearest = torch.from_numpy(stored.integers.astype(np.float32))

    def answer(integers: Tensor, x: Tensor) -> Tensor:
        return _apply(node, x, scale * (integers - zero), b).clamp(*bounds)

    def error(integers: Tensor) -> float:
        with torch.no_grad():
            parts = [
                ((answer(integers, x[i : i + _BATCH_SIZE]) - y[i : i + _BATCH_SIZE].clamp(*bounds)) ** 2).sum().item()
                for i in range(0, len(x), _BATCH_SIZE)
            ]
        return float(sum(parts))

    fraction = torch.from_numpy((steps - below).astype(np.float32)).clamp(1e-4, 1 - 1e-4)
    v = torch.logit((fraction - _GAMMA) / (_ZETA - _GAMMA)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=_LEARNING_RATE)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + index)
    free = int(_FREE_PART * settings.iterations)
    for iteration in range(settings.iterations):
        chosen = torch.randperm(len(x), generator=generator)[:_BATCH_SIZE]
        h = (torch.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
        soft = torch.where(fixed, nearest, (floor + h).clamp(low, high))
        # The authors' scaling: a sum over channels, a mean over images and pixels.
        loss = ((answer(soft, x[chosen]) - y[chosen].clamp(*bounds)) ** 2).sum(1).mean()
        if iteration >= free:
            part = (iteration - free) / max(1, settings.iterations - free)
            beta = _BETA_FIRST + (_BETA_LAST - _BETA_FIRST) * part
            loss = loss + _LAMBDA * (1 - (2 * h - 1).abs() ** beta).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        h = (torch.sigmoid(v) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
        hard = torch.where(fixed, nearest, (floor + (h >= 0.5)).clamp(low, high))
    before, after = error(nearest), error(hard)
    if not after < before:
        return stored.integers, 0.0
    gain = 10 * float(np.log10(before / after)) if after > 0 else 0.0
    return cast("NDArray[np.generic]", hard.numpy().astype(stored.integers.dtype)), gain


def defines_the_scale(weight: NDArray[np.float32], stored: StoredWeight) -> NDArray[np.bool_]:
    """Return which weights are the ends of the range that a scale spans."""
    shared = stored.scale.shape
    axes = tuple(axis for axis in range(weight.ndim) if shared[axis] == 1) if stored.scale.size > 1 else None
    if np.issubdtype(stored.integers.dtype, np.signedinteger):  # symmetric about zero
        return np.asarray(np.abs(weight) == np.max(np.abs(weight), axis=axes, keepdims=True))
    low, high = (extreme(weight, axis=axes, keepdims=True) for extreme in (np.min, np.max))
    return np.asarray((weight == np.minimum(low, 0)) | (weight == np.maximum(high, 0)))


def _apply(node: NodeProto, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a Conv or Gemm answers."""
    from torch.nn import functional

    given = attributes_of(node)
    if node.op_type == "Gemm":
        return functional.linear(x, weight if given.get("transB", 0) else weight.T, bias)
    top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
    x = functional.pad(x, (left, right, top, bottom))
    strides, dilations, groups = given.get("strides", 1), given.get("dilations", 1), given.get("group", 1)
    return functional.conv2d(x, weight, bias, strides, 0, dilations, groups)
