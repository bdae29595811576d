"""Reconstruction: integers, biases and the activations' steps, learned together for the answers of the whole network.

Rounding layer by layer cannot mend what activations of few bits lose. Steps that are learned with the weights (Esser
et al., LSQ, arXiv 1902.08153) for the answers of the whole network (the largest unit of Li et al., BRECQ, arXiv
2102.05426) can. With ŷ the answers of the graph in QDQ form and y those of the float one, t̂ and t likewise what
stands between layers, this minimises by Adam, with gradients that pass through the rounding,

    E‖y − ŷ‖² / E‖y − ȳ‖² + mean over t of E‖t − t̂‖² / E‖t − t̄‖²

A calibration set is small. So every other step blends each image with another one, and all are shifted by a few
pixels: the float network says what to answer, whatever the image (Hinton et al., arXiv 1503.02531).

What is learned goes back into the float graph and the ranges. One weight for each end of a scale keeps its integer.
A quarter of the images is not learned from: where their answers come no nearer, everything stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.errors import UsageError
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import GraphIndex
from onnx_files.probes import Batches
from stages.quantize.recovery.plain_layers import LayerGraphs, StoredWeight
from stages.quantize.recovery.rounding import defines_the_scale
from stages.quantize.recovery.torch_graph import in_order, run_in_torch

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor

_BATCH_SIZE = 32
_FARTHEST_SHIFT = 2
"""Pixels."""
_MOST_BLENDED = 0.5
_RATE_OF_INTEGERS, _RATE_OF_STEPS, _RATE_OF_BIASES = 0.01, 0.01, 0.003
"""Of Adam, per step: of an integer; of a step's logarithm; of the mean magnitude of a layer's biases."""
_LEAST_POWER = 1e-12


class ReconstructionSettings(Settings):
    """Integers, biases and steps of the activations, learned for the answers of the whole network."""

    images: int = Field(128, ge=2, description="calibration images to learn from, the first of them")
    iterations: int = Field(400, ge=1, description="steps of Adam")
    seed: int = Field(0, ge=0, description="seed of the order of images and of how they are changed")


@dataclass(frozen=True)
class Reconstruction:
    """What was learned.

    Attributes:
        model: the float graph with weights that round to the learned integers, and with learned biases.
        integers: by the weight's name, in the type that the file stores.
        ranges: ONNX Runtime's `TensorsData`, with the learned steps.
        turned: how many integers are others than before.
        weights: how many there are.
        error_db: by how much the squared error of the answers fell on the images that were not learned from, in dB; 0
            where it did not, and nothing was changed.
    """

    model: ModelProto
    integers: dict[str, NDArray[np.generic]]
    ranges: Any
    turned: int
    weights: int
    error_db: float


@dataclass(frozen=True)
class _Layer:
    """A layer's integers and biases while they are learned."""

    node: NodeProto
    stored: StoredWeight
    weight_output: str
    bias_output: str
    fixed: Tensor
    integers: Tensor
    bias: Tensor | None

    def given(self) -> dict[str, Tensor]:
        import torch

        nearest = torch.from_numpy(self.stored.integers.astype(np.float32))
        free = self.integers.clamp(*self.stored.bounds)
        rounded = free + (torch.round(free) - free).detach()
        chosen = torch.where(self.fixed, nearest, rounded)
        steps = chosen - torch.from_numpy(self.stored.zero_point.astype(np.float32))
        found = {self.weight_output: steps * torch.from_numpy(self.stored.scale)}
        return found if self.bias is None else found | {self.bias_output: self.bias}

    def chosen(self) -> NDArray[np.generic]:
        found = self.integers.detach().clamp(*self.stored.bounds).round().numpy()
        fixed = self.fixed.numpy()
        return np.asarray(np.where(fixed, self.stored.integers, found).astype(self.stored.integers.dtype))


def reconstruct(
    proto: ModelProto,
    quantized: ModelProto,
    ranges: Any,
    batches: Batches,
    settings: ReconstructionSettings | None,
    progress: Progress = no_progress,
    width_axis: int = 3,
    teacher: ModelProto | None = None,
) -> Reconstruction:
    """Learn integers, biases and steps, from those of a graph in QDQ form on.

    Args:
        proto: the float graph; left as it is.
        quantized: the same graph in QDQ form; left as it is.
        ranges: ONNX Runtime's `TensorsData`, with which that was written.
        batches: calibration images.
        settings: how many images and steps; None for the defaults.
        progress: called after each step with those that are done and all.
        width_axis: axis of the images from left to right, as the model takes them.
        teacher: the float graph that says what to answer, of the same tensors; None where that is `proto`, which it
            no longer is once a step before has put rounded weights there.

    Raises:
        UsageError: an operator that is not covered, a fixed batch, or no layer whose integers can be learned.
    """
    import torch

    settings = settings or ReconstructionSettings()
    floats, written, exact = in_order(proto), in_order(quantized), in_order(teacher or proto)
    index = GraphIndex.of(written.graph)
    images, held_out = _images(proto, batches, settings.images)
    layers = _layers(proto, floats, written)
    quantizers = [node for node in written.graph.node if node.op_type == "QuantizeLinear"]
    factors = {node.input[1]: torch.zeros((), requires_grad=True) for node in quantizers}
    scales = {name: torch.from_numpy(np.array(index.constant(name))) for name in factors}
    answer = proto.graph.output[0].name
    with torch.no_grad():
        wanted = run_in_torch(exact, {name: value[:_BATCH_SIZE] for name, value in images.items()}, {})
    hints = {_dequantized(node, index): node.input[0] for node in quantizers if node.input[0] in wanted}
    power = {name: _power(wanted[name].float()) for name in (answer, *hints.values())}

    def loss_on(few: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss, and the part of it that is the answers'."""
        with torch.no_grad():
            target = run_in_torch(exact, few, {})
        given = {name: scales[name] * torch.exp(factor) for name, factor in factors.items()}
        for layer in layers:
            given |= layer.given()
        found = run_in_torch(written, few, given)
        of_answers = (found[answer] - target[answer]).square().mean() / power[answer]
        of_hints = [(found[name] - target[of]).square().mean() / power[of] for name, of in hints.items()]
        return of_answers + sum(of_hints) / max(1, len(of_hints)), of_answers

    def error() -> float:
        with torch.no_grad():
            return float(np.mean([float(loss_on(few)[1]) for few in _in_batches(held_out)]))

    before = error()
    optimizer = _optimizer(layers, factors)
    rates = [group["lr"] for group in optimizer.param_groups]
    for iteration, changed in enumerate(_changed(images, settings, width_axis)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * iteration / settings.iterations))
        optimizer.zero_grad()
        loss_on(changed)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress(iteration + 1, settings.iterations)
    after = error()
    if not after < before:
        return _unchanged(proto, layers, ranges)
    by_tensor = {node.input[0]: float(np.exp(factors[node.input[1]].detach().numpy())) for node in quantizers}
    return Reconstruction(
        *_learned(proto, quantized, layers),
        ranges=_with_steps(ranges, by_tensor),
        turned=sum(int(np.count_nonzero(layer.chosen() != layer.stored.integers)) for layer in layers),
        weights=sum(layer.integers.numel() for layer in layers),
        error_db=10 * float(np.log10(before / after)) if after > 0 else 0.0,
    )


def _unchanged(proto: ModelProto, layers: list[_Layer], ranges: Any) -> Reconstruction:
    stored = {layer.node.input[1]: layer.stored.integers for layer in layers}
    return Reconstruction(proto, stored, ranges, 0, sum(value.size for value in stored.values()), 0.0)


def _images(proto: ModelProto, batches: Batches, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the images to learn from, and those to judge by: every fourth."""
    import torch

    dimensions = next(value for value in proto.graph.input if value.name in next(iter(batches()))).type.tensor_type
    if dimensions.shape.dim[0].dim_value > 0:
        raise UsageError(
            "recovery.reconstruction: expected a network that takes any number of images at once, found one of "
            f"{dimensions.shape.dim[0].dim_value}. Export it with an open batch, or leave reconstruction out."
        )
    parts: dict[str, list[NDArray[np.generic]]] = {}
    for feeds in batches():
        for name, value in feeds.items():
            parts.setdefault(name, []).append(value)
    images = {name: torch.from_numpy(np.concatenate(found)[:count]).float() for name, found in parts.items()}
    judges = torch.arange(len(next(iter(images.values())))) % 4 == 1
    if not judges.any():
        raise UsageError(
            "recovery.reconstruction: expected two calibration images or more, found one. Give more, or leave "
            "reconstruction out."
        )
    return {name: value[~judges] for name, value in images.items()}, {
        name: value[judges] for name, value in images.items()
    }


def _in_batches(images: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(next(iter(images.values()))), _BATCH_SIZE):
        yield {name: value[start : start + _BATCH_SIZE] for name, value in images.items()}


def _changed(
    images: Mapping[str, Tensor], settings: ReconstructionSettings, width_axis: int
) -> Iterator[dict[str, Tensor]]:
    """Yield a batch for each step: shifted by a few pixels, every other one blended with itself in reverse."""
    import torch

    (name, pixels), *_ = images.items()
    generator = torch.Generator().manual_seed(settings.seed)
    for iteration in range(settings.iterations):
        few = pixels[torch.randperm(len(pixels), generator=generator)[:_BATCH_SIZE]]
        if few.ndim > width_axis:
            shift = torch.randint(-_FARTHEST_SHIFT, _FARTHEST_SHIFT + 1, (2,), generator=generator).tolist()
            few = torch.roll(few, shift, (width_axis - 1, width_axis))
        if iteration % 2:
            share = torch.rand(len(few), *[1] * (few.ndim - 1), generator=generator) * _MOST_BLENDED
            few = few * (1 - share) + few.flip(0) * share
        yield {name: few}


def _layers(proto: ModelProto, floats: ModelProto, written: ModelProto) -> list[_Layer]:
    import torch

    graphs = LayerGraphs.of(floats, written)
    layers = []
    for node, stored in graphs.stored_layers(proto):
        twin = graphs.written.nodes[node.name]
        maker = graphs.written.producers.get(twin.input[2]) if len(twin.input) > 2 else None
        kept = graphs.floats.constant(node.input[2]) if len(node.input) > 2 else None
        weight = graphs.weight(node)
        bias = None if kept is None else torch.from_numpy(np.array(kept, np.float32)).requires_grad_()
        layers.append(
            _Layer(
                node,
                stored,
                twin.input[1],
                twin.input[2] if maker is not None or kept is not None else "",
                torch.from_numpy(_ends_of_scales(weight, stored)),
                torch.from_numpy((weight / stored.scale + stored.zero_point).astype(np.float32)).requires_grad_(),
                bias,
            )
        )
    if not layers:
        raise UsageError(
            "recovery.reconstruction: expected a Conv, Gemm or MatMul with constant weights of its own that are "
            "stored as integers, found none. Leave reconstruction out."
        )
    return layers


def _optimizer(layers: list[_Layer], factors: Mapping[str, Tensor]) -> Any:
    import torch

    biases = [layer.bias for layer in layers if layer.bias is not None]
    return torch.optim.Adam(
        [
            {"params": [layer.integers for layer in layers], "lr": _RATE_OF_INTEGERS},
            {"params": list(factors.values()), "lr": _RATE_OF_STEPS},
            *({"params": [bias], "lr": _RATE_OF_BIASES * float(bias.detach().abs().mean())} for bias in biases),
        ]
    )


def _dequantized(quantizer: NodeProto, index: GraphIndex) -> str:
    """Return the name of what a QuantizeLinear's integers stand for, past a Clip of them."""
    reader = index.readers[quantizer.output[0]][0]
    return reader.output[0] if reader.op_type == "DequantizeLinear" else _dequantized(reader, index)


def _power(values: Tensor) -> float:
    return float((values - values.mean(0)).square().mean()) + _LEAST_POWER


def _ends_of_scales(weight: NDArray[np.float32], stored: StoredWeight) -> NDArray[np.bool_]:
    """Return one weight for each end of the range that a scale spans; on a grid, several lie there."""
    ends = defines_the_scale(weight, stored)
    axis = int(np.argmax(stored.scale.shape)) if stored.scale.size > 1 else None
    rows = (np.moveaxis(array, axis or 0, 0) for array in (ends, weight >= 0))
    ends_of, up = (array.reshape(-1 if axis is None else stored.scale.size, -1) for array in rows)
    if axis is None:
        ends_of, up = ends_of.reshape(1, -1), up.reshape(1, -1)
    first = np.zeros_like(ends_of)
    for side in (up, ~up):
        of_side = ends_of & side
        first |= of_side & (np.cumsum(of_side, axis=1) == 1)
    moved = np.moveaxis(weight, axis or 0, 0).shape
    return np.asarray(np.moveaxis(first.reshape(moved), 0, axis or 0))


def _learned(
    proto: ModelProto, quantized: ModelProto, layers: list[_Layer]
) -> tuple[ModelProto, dict[str, NDArray[np.generic]]]:
    """Return the float graph with what was learned, and the integers."""
    import onnx

    result, simulated = onnx.ModelProto(), onnx.ModelProto()
    result.CopyFrom(proto)
    simulated.CopyFrom(quantized)
    graphs = LayerGraphs.of(result, simulated)
    integers = {}
    for layer in layers:
        integers[layer.node.input[1]] = layer.chosen()
        bias = None if layer.bias is None else layer.bias.detach().numpy()
        graphs.replace(layer.node, layer.stored, layer.chosen(), bias)
    return graphs.without_unread(proto), integers


def _with_steps(ranges: Any, factors: Mapping[str, float]) -> Any:
    """Return ranges whose steps are so many times as long; zero stays the same integer."""
    from onnxruntime.quantization.calibrate import TensorsData

    longer = {
        name: tuple(np.float32(end * factors.get(name, 1.0)) for end in found.range_value)
        for name, found in ranges.items()
    }
    return TensorsData(ranges.calibration_method, longer)
