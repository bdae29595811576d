"""Gradients of pools and of reductions; g is the gradient of the pooled value y."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.rules_convolution import spread
from stages.saliency_twin.windows import Windows, channels, sizes, windows_of


def max_pool(graph: Backward, step: Step) -> Gradients:
    """y = max over a window: g goes to the first value of the window that equals y.

    Every window position in turn: those of its values that equal y take g, and what is taken is gone for the others.
    ONNX Runtime's MaxPool with `Indices` and a scatter behind it takes several times as long, and an output more
    would change the forward half.
    """
    if len(step.node.output) > 1 and step.node.output[1] in graph.forward.readers:
        raise refusal(step.node, "a pool without readers of its indices", f"readers of `{step.node.output[1]}`")
    if step.attribute("storage_order", 0):
        raise refusal(step.node, "storage_order 0", "1")
    windows = windows_of(graph, step, tuple(step.attribute("kernel_shape", [])))
    inputs, outputs = sizes(graph, step)
    phases = _Phases(graph, windows, channels(graph, step), inputs, outputs)
    parts = phases.of_input(graph.real(step.x))
    base, factor = graph.peeled(step.gradient)
    y, left = graph.real(step.y), base
    taken: list[list[str]] = [[] for _ in parts]
    offsets = list(itertools.product(*map(range, windows.kernel)))
    for offset in offsets:
        phase, shifts = phases.place(offset)
        equal = graph.op("Equal", [phases.cut(parts[phase], shifts), y])
        hit = graph.op("Where", [equal, left, graph.scalar(0)])
        taken[phase].append(phases.uncut(hit, shifts))
        if offset != offsets[-1]:
            left = graph.op("Sub", [left, hit])
    return {0: graph.times(phases.to_input(taken), factor)}


class _Phases:
    """The input of a strided pool, taken apart so that each window position is one contiguous piece.

    Input position o·s + r (padding counted) is position o of phase r; a window's k-th value lies in phase k·d mod s,
    shifted by k·d div s.
    """

    def __init__(
        self, graph: Backward, windows: Windows, channels: int, inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> None:
        self.graph = graph
        self.windows = windows
        self.outputs = outputs
        self.front = [-1, channels]
        sizes_of_windows = zip(windows.kernel, windows.dilations, windows.strides, strict=True)
        self.reach = [d * (k - 1) // s for k, d, s in sizes_of_windows]
        self.lengths = [o + r for o, r in zip(outputs, self.reach, strict=True)]
        self.whole = [s * length for s, length in zip(windows.strides, self.lengths, strict=True)]
        self.after = [w - i - b for w, i, b in zip(self.whole, inputs, windows.begins, strict=True)]

    def of_input(self, x: str) -> list[str]:
        padding = [0, 0, *self.windows.begins, 0, 0, *self.after]
        if any(padding):
            x = self.graph.op("Pad", [x, self.graph.integers(padding), self.graph.scalar(-math.inf)])
        parts = [x]
        # Axis by axis, the last first. A transposition would do the same at ten times the cost.
        for axis, stride in reversed(list(enumerate(self.windows.strides))):
            if stride > 1:
                shape = [*self.whole[:axis], self.lengths[axis], stride, *self.lengths[axis + 1 :]]
                paired = [self._reshaped(part, shape) for part in parts]
                parts = [
                    self.graph.op("Gather", [pair, self.graph.constant(np.array(phase))], {"axis": 3 + axis})
                    for phase in range(stride)
                    for pair in paired
                ]
        return parts

    def place(self, offset: tuple[int, ...]) -> tuple[int, list[int]]:
        phase, shifts = 0, []
        for position, dilation, stride in zip(offset, self.windows.dilations, self.windows.strides, strict=True):
            phase = phase * stride + position * dilation % stride
            shifts.append(position * dilation // stride)
        return phase, shifts

    def cut(self, part: str, shifts: list[int]) -> str:
        if not any(self.reach):
            return part
        ends = [shift + size for shift, size in zip(shifts, self.outputs, strict=True)]
        axes = [2 + axis for axis in range(len(shifts))]
        return self.graph.op("Slice", [part, *(self.graph.integers(values) for values in (shifts, ends, axes))])

    def uncut(self, piece: str, shifts: list[int]) -> str:
        if not any(self.reach):
            return piece
        after = [reach - shift for reach, shift in zip(self.reach, shifts, strict=True)]
        return self.graph.op("Pad", [piece, self.graph.integers([0, 0, *shifts, 0, 0, *after])])

    def to_input(self, taken: list[list[str]]) -> str:
        graph, none = self.graph, ""
        if not all(taken):  # strides beyond the kernel leave positions that no window reads
            none = graph.op("Mul", [next(pieces[0] for pieces in taken if pieces), graph.scalar(0)])
        parts = [(graph.op("Sum", pieces) if len(pieces) > 1 else pieces[0]) if pieces else none for pieces in taken]
        for axis, stride in enumerate(self.windows.strides):
            if stride > 1:
                shape = [*self.whole[:axis], self.lengths[axis], 1, *self.lengths[axis + 1 :]]
                apart = [self._reshaped(part, shape) for part in parts]
                count = len(apart) // stride
                joined = [graph.op("Concat", apart[first::count], {"axis": 3 + axis}) for first in range(count)]
                parts = [
                    self._reshaped(part, [*self.whole[: axis + 1], *self.lengths[axis + 1 :]]) for part in joined
                ]
        cut = [0, 0, *(-b for b in self.windows.begins), 0, 0, *(-a for a in self.after)]
        return graph.op("Pad", [parts[0], graph.integers(cut)]) if any(cut) else parts[0]

    def _reshaped(self, part: str, shape: list[int]) -> str:
        return self.graph.op("Reshape", [part, self.graph.integers([*self.front, *shape])])


def average_pool(graph: Backward, step: Step) -> Gradients:
    """y = Σ over a window / its count: every value of the window gets g / count."""
    windows = windows_of(graph, step, tuple(step.attribute("kernel_shape", [])))
    counts = _counts(graph, step, windows)
    number = channels(graph, step)
    if counts.min() == counts.max():
        gradient = graph.times(step.gradient, 1 / float(counts.max()))
    else:
        gradient = graph.op("Mul", [step.gradient, graph.constant((1 / counts).astype(np.float32))])
    ones = graph.constant(np.ones((1, 1, *windows.kernel), dtype=np.float32))
    weight = graph.op("Expand", [ones, graph.integers([number, 1, *windows.kernel])])
    return {0: spread(graph, Step(step.node, (gradient,), step.wanted), weight, windows, number)}


def _counts(graph: Backward, step: Step, windows: Windows) -> NDArray[np.float64]:
    inputs, outputs = sizes(graph, step)
    counts = np.ones(1)
    for axis, (length, number) in enumerate(zip(inputs, outputs, strict=True)):
        starts = np.arange(number) * windows.strides[axis] - windows.begins[axis]
        positions = starts[:, None] + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        padded = step.attribute("count_include_pad", 0)
        least = -windows.begins[axis] if padded else 0
        # With ceil_mode a window may reach beyond the padding, which never counts.
        most = length + windows.ends[axis] if padded else length
        inside = ((positions >= least) & (positions < most)).sum(axis=1)
        counts = counts[..., None] * inside
    return counts.reshape(outputs)


def global_average_pool(graph: Backward, step: Step) -> Gradients:
    """y = mean over all positions: each gets g / count."""
    inputs, _ = sizes(graph, step)
    shape = graph.integers([1, 1, *inputs])
    gradient = graph.times(step.gradient, 1 / math.prod(inputs))
    return {0: graph.mapped(gradient, lambda g: graph.op("Expand", [g, shape]))}


def global_max_pool(graph: Backward, step: Step) -> Gradients:
    """y = max over all positions: g goes to the first that equals y."""
    inputs, _ = sizes(graph, step)
    count, number = math.prod(inputs), channels(graph, step)
    flat = graph.op("Reshape", [graph.real(step.x), graph.integers([-1, number, count])])
    first = graph.op(
        "ArgMax",
        [
            flat,
        ],
        {"axis": 2, "keepdims": 1},
    )
    chosen = graph.op("Equal", [first, graph.constant(np.arange(count, dtype=np.int64))])
    gradient = graph.op("Reshape", [step.gradient, graph.integers([-1, number, 1])])
    return {0: graph.shaped_like(graph.masked(chosen, gradient), step.x)}


def reduce_sum(graph: Backward, step: Step) -> Gradients:
    """y = Σx: every summand gets g."""
    return {0: _repeated(graph, step, mean=False)}


def reduce_mean(graph: Backward, step: Step) -> Gradients:
    """y = Σx / n: every summand gets g / n."""
    return {0: _repeated(graph, step, mean=True)}


def _repeated(graph: Backward, step: Step, mean: bool) -> str:
    rank = len(graph.forward.shape(step.x))
    given = step.attribute("axes", None)
    if step.input(1):
        constant = graph.forward.constant(step.node.input[1])
        if constant is None:
            raise refusal(step.node, "constant axes", f"computed ones in `{step.node.input[1]}`")
        given = constant.tolist()
    if not given and step.attribute("noop_with_empty_axes", 0):
        return step.gradient
    axes = sorted(axis % rank for axis in given) if given else list(range(rank))
    lengths = {axis: graph.forward.size(step.x, axis) for axis in axes}
    gradient = graph.times(step.gradient, 1 / math.prod(lengths.values())) if mean else step.gradient
    shape = graph.integers([lengths.get(axis, 1) for axis in range(rank)])

    def repeated(g: str) -> str:
        if not step.attribute("keepdims", 1):
            g = graph.op("Unsqueeze", [g, graph.integers(axes)])
        return graph.op("Expand", [g, shape])

    return graph.mapped(gradient, repeated)
