"""Gradient of a max pool: each window's gradient goes to the first of its greatest values, as in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_files.graph import attributes_of
from stages.saliency_twin.builder import Backward, Gradients, Step, refusal
from stages.saliency_twin.windows import Windows, channels, sizes, windows_of

MOST_VALUES_BY_INDEX = 2_000
"""Of a pool's input, counting one image where the batch is dynamic; above, it goes axis by axis.

Fewer nodes are faster until the search for an index, which no branch predictor can foresee, costs more than passes
over all values. Twins of a 2 × 2 pool alone on images that change, axis by axis over by index, on one core with
AVX-512: 1.35 at 600 values, 1.14 at 1,600, 1.03 at 2,304, 0.83 at 4,704, 0.78 at 6,400, 0.26 at 16,384.
"""


def max_pool(graph: Backward, step: Step) -> Gradients:
    """y = max over a window: g goes to the first value of the window that is as great as any, row by row.

    A small pool without overlaps is run once more for its indices, which takes the fewest nodes. Any other goes axis
    by axis: the greatest of a window is the greatest of its rows' greatest, and the first such row holds the first.
    """
    if len(step.node.output) > 1 and step.node.output[1] in graph.forward.index.readers:
        raise refusal(step.node, "a pool without readers of its indices", f"readers of `{step.node.output[1]}`")
    windows = windows_of(graph, step, tuple(step.attribute("kernel_shape", [])))
    rule = _by_index if _is_small_and_apart(graph, step, windows) else _by_axis
    behind_relu = _is_behind_relu(graph, step)

    def spread(gradient: str) -> str:
        found = rule(graph, step, windows, gradient, behind_relu)
        if behind_relu:
            graph.note_rectified(found, step.x)
        return found

    return {0: graph.mapped(step.gradient, spread)}


def _is_behind_relu(graph: Backward, step: Step) -> bool:
    """Return whether x comes from a ReLU and goes nowhere else, whose mask is then taken at y: fewer values."""
    relu = graph.forward.index.producers.get(step.x)
    if relu is None or relu.op_type != "Relu" or len(graph.forward.index.readers[step.x]) > 1:
        return False
    # A map of x itself, as Grad-CAM's, is that before the mask.
    return relu.input[0] in graph.forward.active


def _is_small_and_apart(graph: Backward, step: Step, windows: Windows) -> bool:
    # Overlapping windows may meet in one value, where MaxUnpool writes and doesn't add.
    apart = all(stride >= windows.reach(axis) for axis, stride in enumerate(windows.strides))
    batch = graph.forward.shape(step.x)[0]
    images = batch if isinstance(batch, int) else 1
    return apart and images * channels(graph, step) * math.prod(sizes(graph, step)[0]) <= MOST_VALUES_BY_INDEX


def _by_index(graph: Backward, step: Step, windows: Windows, gradient: str, behind_relu: bool) -> str:
    # A pool of its own: one output more at the file's node would change how the forward half runs.
    x = graph.real(step.x)
    # Indices row by row, as MaxUnpool takes them, whatever order the file asked for those that nobody reads.
    y, indices = graph.outputs("MaxPool", [x], 2, attributes_of(step.node) | {"storage_order": 0})
    if behind_relu:
        gradient = graph.where_positive(y, gradient)
    inputs, outputs = sizes(graph, step)
    reach = [windows.reach(axis) for axis in range(len(inputs))]
    # What lies beyond the last window's end; negative where positions behind it are read by none.
    ends = [
        (o - 1) * s + r - b - i
        for i, o, s, r, b in zip(inputs, outputs, windows.strides, reach, windows.begins, strict=True)
    ]
    attributes = {
        "kernel_shape": reach,
        "strides": windows.strides,
        "pads": [*windows.begins, *(max(end, 0) for end in ends)],
    }
    shape = [graph.op("Shape", [x])] if min(ends) < 0 else []
    return graph.op("MaxUnpool", [gradient, indices, *shape], attributes)


def _by_axis(graph: Backward, step: Step, windows: Windows, gradient: str, behind_relu: bool) -> str:
    inputs, outputs = sizes(graph, step)
    lines = [
        _Line(windows.kernel[a], windows.strides[a], windows.dilations[a], outputs[a], math.prod(outputs[a + 1 :]))
        for a in range(len(outputs))
    ]
    after = [line.inputs - i - b for line, i, b in zip(lines, inputs, windows.begins, strict=True)]
    whole = [-1, channels(graph, step), *(line.inputs for line in lines)]
    lines = [line for line in lines if line.kernel > 1 or line.stride > 1]
    value, seen = _padded(graph, graph.real(step.x), windows.begins, after, -math.inf), []
    for line in reversed(lines):
        pieces = line.pieces(graph, value)
        value = graph.op("Max", pieces) if len(pieces) > 1 else pieces[0]
        seen.append((line, pieces, value))
    shapes = [graph.integers(shape) for shape in (*(line.shape for line in lines), whole)]
    gradient = graph.op("Reshape", [gradient, shapes[0]])
    if behind_relu:
        gradient = graph.where_positive(value, gradient)
    for (line, pieces, greatest), shape in zip(reversed(seen), shapes[1:], strict=True):
        gradient = line.to_input(graph, _first_of(graph, pieces, greatest, gradient))
        gradient = graph.op("Reshape", [gradient, shape])
    return _padded(graph, gradient, [-b for b in windows.begins], [-a for a in after], 0)


def _padded(graph: Backward, x: str, before: Sequence[int], after: Sequence[int], value: float) -> str:
    # A negative number cuts off as many.
    if not any(before) and not any(after):
        return x
    return graph.op("Pad", [x, graph.integers([0, 0, *before, 0, 0, *after]), graph.scalar(value)])


def _first_of(graph: Backward, pieces: list[str], greatest: str, gradient: str) -> list[str]:
    """Return the gradient of each piece: that of the maximum where no piece before it is as great."""
    taken, left = [], gradient
    for piece in pieces[:-1]:
        first = graph.op("GreaterOrEqual", pieces) if len(pieces) == 2 else graph.op("Equal", [piece, greatest])
        taken.append(graph.masked(first, left))
        left = graph.op("Sub", [left, taken[-1]])
    return [*taken, left]


@dataclass(frozen=True)
class _Line:
    """The windows along one axis. Axes before it count as the batch; those behind it, pooled already, as `values`.

    Position o·stride + r is position o of phase r. A window's k-th value lies in phase k·dilation mod stride, shifted
    by k·dilation div stride: for each k one contiguous piece [batch, outputs, values].
    """

    kernel: int
    stride: int
    dilation: int
    outputs: int
    values: int

    @property
    def reach(self) -> int:
        """How many positions of its phase a window's last value lies behind its first."""
        return self.dilation * (self.kernel - 1) // self.stride

    @property
    def inputs(self) -> int:
        """How many positions the phases hold together; the input is padded or cut to as many."""
        return self.stride * (self.outputs + self.reach)

    @property
    def shape(self) -> list[int]:
        """Of each piece."""
        return [-1, self.outputs, self.values]

    def pieces(self, graph: Backward, x: str) -> list[str]:
        """Return a window's k-th value for each k."""
        # The phases of a position side by side, so that none needs a dimension of its own.
        shape = graph.integers([-1, self.outputs + self.reach, self.stride * self.values])
        phases = [graph.op("Reshape", [x, shape])]
        if self.stride > 1:
            lengths = graph.integers([self.values] * self.stride)
            phases = graph.outputs("Split", [*phases, lengths], self.stride, {"axis": 2})
        return [self._cut(graph, phases[phase], shift) for phase, shift in self._places()]

    def to_input(self, graph: Backward, gradients: list[str]) -> str:
        """Return the pieces' gradients put together, in the order of the input."""
        phases: list[list[str]] = [[] for _ in range(self.stride)]
        for (phase, shift), gradient in zip(self._places(), gradients, strict=True):
            phases[phase].append(self._uncut(graph, gradient, shift))
        # Strides beyond the kernel leave positions that no window reads.
        none = "" if all(phases) else graph.op("Mul", [phases[0][0], graph.scalar(0)])
        sums = [(graph.op("Sum", found) if len(found) > 1 else found[0]) if found else none for found in phases]
        return graph.op("Concat", sums, {"axis": 2}) if self.stride > 1 else sums[0]

    def _places(self) -> list[tuple[int, int]]:
        offsets = [k * self.dilation for k in range(self.kernel)]
        return [(offset % self.stride, offset // self.stride) for offset in offsets]

    def _cut(self, graph: Backward, phase: str, shift: int) -> str:
        if not self.reach:
            return phase
        bounds = [graph.integers([value]) for value in (shift, shift + self.outputs, 1)]
        return graph.op("Slice", [phase, *bounds])

    def _uncut(self, graph: Backward, piece: str, shift: int) -> str:
        if not self.reach:
            return piece
        return graph.op("Pad", [piece, graph.integers([0, shift, 0, 0, self.reach - shift, 0])])
