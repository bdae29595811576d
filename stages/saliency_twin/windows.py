"""Where the windows of convolutions and pools lie: strides, dilations, and padding resolved to numbers."""

from __future__ import annotations

from dataclasses import dataclass

from stages.saliency_twin.builder import Backward, Step, refusal


@dataclass(frozen=True)
class Windows:
    """The windows of one node, one entry per spatial axis.

    Output position o reads the input positions o·stride − begin + k·dilation, k = 0 … kernel − 1.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    def reach(self, axis: int) -> int:
        """Return how many input positions a window spans."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1


def windows_of(graph: Backward, step: Step, kernel: tuple[int, ...]) -> Windows:
    """Return the windows of a Conv or a pool; `auto_pad` takes fixed image sizes.

    Args:
        graph: knows the shapes.
        step: the node.
        kernel: size of a window per spatial axis.
    """
    ones = [1] * len(kernel)
    strides = tuple(step.attribute("strides", ones))
    dilations = tuple(step.attribute("dilations", ones))
    automatic = step.attribute("auto_pad", b"NOTSET").decode()
    pads = step.attribute("pads", [0] * 2 * len(kernel))
    begins, ends = tuple(pads[: len(kernel)]), tuple(pads[len(kernel) :])
    if automatic == "VALID":
        begins = ends = tuple(0 for _ in kernel)
    elif automatic != "NOTSET":
        totals = [
            max(0, (outputs - 1) * strides[a] + dilations[a] * (kernel[a] - 1) + 1 - inputs)
            for a, (inputs, outputs) in enumerate(zip(*sizes(graph, step), strict=True))
        ]
        less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        begins, ends = (less, more) if automatic == "SAME_UPPER" else (more, less)
    return Windows(kernel, strides, dilations, begins, ends)


def sizes(graph: Backward, step: Step) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the spatial sizes of a node's first input and first output."""
    rank = len(graph.forward.shape(step.x))
    axes = range(2, rank)
    return (
        tuple(graph.forward.size(step.x, axis) for axis in axes),
        tuple(graph.forward.size(step.y, axis) for axis in axes),
    )


def channels(graph: Backward, step: Step) -> int:
    """Return the number of channels of a node's first input."""
    return graph.forward.size(step.x, 1)


def refuse_weight_gradient(step: Step) -> None:
    """Stop where a weight itself follows the image.

    Raises:
        UsageError: it does.
    """
    if step.wanted - {0}:
        raise refusal(step.node, "weights that are constants", "weights that depend on the image")
