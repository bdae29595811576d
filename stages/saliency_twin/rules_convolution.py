"""Gradients of convolutions with respect to their input; g is the gradient of the output."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.windows import Windows, refuse_weight_gradient, sizes, windows_of

_FEW_CHANNELS = 8
"""Below, ONNX Runtime's ConvTranspose is up to four times faster than its Conv, which works in blocks of channels."""


def conv(graph: Backward, step: Step) -> Gradients:
    """y = w ⋆ x: dx = wᵀ ⋆ g, the transposed convolution.

    With stride 1 that is a convolution again, of the kernel flipped and its two channel axes exchanged, padded by
    reach − 1 − pad. ONNX Runtime runs it faster than ConvTranspose.
    """
    refuse_weight_gradient(step)
    weight, group = step.node.input[1], step.attribute("group", 1)
    windows = windows_of(graph, step, _kernel(graph, weight, from_axis=2))
    outer = [windows.reach(a) - 1 - begin for a, begin in enumerate(windows.begins)]
    outer += [windows.reach(a) - 1 - end for a, end in enumerate(windows.ends)]
    inputs = graph.forward.size(weight, 1) * group
    if set(windows.strides) == {1} and min(outer) >= 0 and (inputs >= _FEW_CHANNELS or group > 1):
        flipped = _flipped(graph, weight, group)
        attributes = {"pads": outer, "dilations": windows.dilations, "group": group}
        return {0: graph.mapped(step.gradient, lambda g: graph.op("Conv", [g, flipped], attributes))}
    return {0: spread(graph, step, graph.real(weight), windows, group)}


def conv_integer(graph: Backward, step: Step) -> Gradients:
    """y = (w − z_w) ⋆ (x − z_x) in integers: dx as of Conv."""
    if 0 not in step.wanted or step.wanted - {0}:
        raise refusal(step.node, "a gradient of x alone", "one of the weight")
    weight = graph.real(step.node.input[1])
    if step.input(3):
        zero = graph.real(step.node.input[3])
        spatial = len(graph.forward.shape(step.node.input[1])) - 1
        if graph.forward.shape(step.node.input[3]) not in ((), (1,)):
            zero = graph.op("Reshape", [zero, graph.integers([-1, *[1] * spatial])])
        weight = graph.op("Sub", [weight, zero])
    windows = windows_of(graph, step, _kernel(graph, step.node.input[1], from_axis=2))
    return {0: spread(graph, step, weight, windows, step.attribute("group", 1))}


def conv_transpose(graph: Backward, step: Step) -> Gradients:
    """y = wᵀ ⋆ x: dx = w ⋆ g, the convolution with the same weight, strides and pads."""
    refuse_weight_gradient(step)
    weight = step.node.input[1]
    windows = _transpose_windows(graph, step)
    pads = [*windows.begins, *windows.ends]
    attributes = {
        "strides": windows.strides,
        "dilations": windows.dilations,
        "group": step.attribute("group", 1),
        "pads": [max(0, p) for p in pads],
    }
    gradient = step.gradient
    if min(pads) < 0:  # an output larger than what the windows reach: its margin is the bias alone
        half = len(pads) // 2
        cut = [0, 0, *(min(0, p) for p in pads[:half]), 0, 0, *(min(0, p) for p in pads[half:])]
        gradient = graph.mapped(gradient, lambda g: graph.op("Pad", [g, graph.integers(cut)]))
    return {0: graph.mapped(gradient, lambda g: graph.op("Conv", [g, graph.real(weight)], attributes))}


def columns_to_image(graph: Backward, step: Step) -> Gradients:
    """y = blocks laid over each other and added: each block gets g where it lay, by kernels that copy one place."""
    image, block = (graph.forward.constant(step.node.input[position]) for position in (1, 2))
    if image is None or block is None:
        raise refusal(step.node, "constant sizes of the image and its blocks", "computed ones")
    rank, places = len(image), math.prod(block.tolist())
    flat = graph.op("Reshape", [step.gradient, graph.integers([-1, 1, *image.tolist()])])
    kernel = np.eye(places, dtype=np.float32).reshape(places, 1, *block.tolist())
    attributes = {
        "strides": step.attribute("strides", [1] * rank),
        "dilations": step.attribute("dilations", [1] * rank),
        "pads": step.attribute("pads", [0] * 2 * rank),
    }
    return {0: graph.shaped_like(graph.op("Conv", [flat, graph.constant(kernel)], attributes), step.x)}


def spread(graph: Backward, step: Step, weight: str, windows: Windows, group: int) -> str:
    """Return g spread over the input's positions by ConvTranspose.

    Args:
        graph: under construction.
        step: the node whose windows these are.
        weight: [output channels, input channels / group, kernel…].
        windows: of the node.
        group: of the node.
    """
    ends = list(windows.ends)
    attributes: dict[str, Any] = {"strides": windows.strides, "dilations": windows.dilations, "group": group}
    if set(windows.strides) != {1} or step.node.op_type == "AveragePool":
        inputs, outputs = sizes(graph, step)
        missing = [
            inputs[a] - ((outputs[a] - 1) * stride + windows.reach(a) - windows.begins[a] - ends[a])
            for a, stride in enumerate(windows.strides)
        ]
        # What the last window did not reach; with ceil_mode it may reach beyond, which is cut off.
        ends = [end - min(m, 0) for end, m in zip(ends, missing, strict=True)]
        attributes["output_padding"] = [max(m, 0) for m in missing]
    attributes["pads"] = [*windows.begins, *ends]
    return graph.mapped(step.gradient, lambda g: graph.op("ConvTranspose", [g, weight], attributes))


def _kernel(graph: Backward, weight: str, from_axis: int) -> tuple[int, ...]:
    rank = len(graph.forward.shape(weight))
    return tuple(graph.forward.size(weight, axis) for axis in range(from_axis, rank))


def _flipped(graph: Backward, weight: str, group: int) -> str:
    # [out, in/group, k…] to [in, out/group, …k]. In nodes of constants, so that the file holds the weight once;
    # ONNX Runtime folds them at load.
    shape = [graph.forward.size(weight, axis) for axis in range(len(graph.forward.shape(weight)))]
    outputs, inputs, kernel = shape[0] // group, shape[1], shape[2:]
    flipped = graph.real(weight)
    if group == 1:
        flipped = graph.op("Transpose", [flipped], {"perm": [1, 0, *range(2, len(shape))]})
    elif not outputs == inputs == 1:
        flipped = graph.op("Reshape", [flipped, graph.integers([group, outputs, inputs, *kernel])])
        flipped = graph.op("Transpose", [flipped], {"perm": [0, 2, 1, *range(3, len(shape) + 1)]})
        flipped = graph.op("Reshape", [flipped, graph.integers([group * inputs, outputs, *kernel])])
    axes = [axis for axis in range(2, len(shape)) if shape[axis] > 1]
    if not axes:
        return flipped
    # From the last position backwards to before the first; INT32_MIN is "before the first" in every runtime.
    bounds = [[-1] * len(axes), [-(2**31)] * len(axes), axes, [-1] * len(axes)]
    return graph.op("Slice", [flipped, *(graph.integers(values) for values in bounds)])


def _transpose_windows(graph: Backward, step: Step) -> Windows:
    kernel = _kernel(graph, step.node.input[1], from_axis=2)
    ones = [1] * len(kernel)
    strides, dilations = step.attribute("strides", ones), step.attribute("dilations", ones)
    pads = step.attribute("pads", [0] * 2 * len(kernel))
    automatic = step.attribute("auto_pad", b"NOTSET").decode()
    if automatic in ("SAME_UPPER", "SAME_LOWER") or step.attribute("output_shape", None):
        inputs, outputs = sizes(graph, step)
        padding = step.attribute("output_padding", [0] * len(kernel))
        totals = [
            strides[a] * (inputs[a] - 1) + padding[a] + dilations[a] * (kernel[a] - 1) + 1 - outputs[a]
            for a in range(len(kernel))
        ]
        # As the operator's specification divides them.
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*less, *more] if automatic == "SAME_UPPER" else [*more, *less]
    return Windows(kernel, tuple(strides), tuple(dilations), tuple(pads[: len(kernel)]), tuple(pads[len(kernel) :]))
