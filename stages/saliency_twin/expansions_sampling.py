"""GridSample as gathered pixels and their weights; the gradients of image and grid follow from those."""

from __future__ import annotations

from onnx import NodeProto, TensorProto

from onnx_files.graph import attributes_of
from stages.saliency_twin.forward_graph import ForwardGraph
from stages.saliency_twin.parts import Parts

_LINEAR, _NEAREST = (b"bilinear", b"linear"), b"nearest"


def grid_sample(node: NodeProto, forward: ForwardGraph) -> list[NodeProto]:
    """Return the pixels at a grid of places, between −1 and 1, of [batch, channels, height, width].

    Jaderberg et al., arXiv 1506.02025. Cubic weights, reflected edges, volumes and open sizes stay themselves.
    """
    attributes = attributes_of(node)
    image, grid = (forward.shapes.get(name, ()) for name in node.input[:2])
    mode, padding = attributes.get("mode", b"linear"), attributes.get("padding_mode", b"zeros")
    known = len(image) == 4 and len(grid) == 4 and all(isinstance(d, int) for d in (*image[1:], *grid[1:]))
    if not known or mode not in (*_LINEAR, _NEAREST) or padding not in (b"zeros", b"border"):
        return [node]
    channels, height, width = (int(d) for d in image[1:] if isinstance(d, int))
    parts = Parts(node)
    flat = parts.op("Reshape", [node.input[0], parts.integers([0, channels, height * width])])
    x, y = (
        _places(parts, node, number, length, padding == b"border") for number, length in enumerate((width, height))
    )
    total = ""
    for vertical in _neighbours(parts, y, height, mode):
        for horizontal in _neighbours(parts, x, width, mode):
            found = _pixels(parts, flat, (vertical[0], horizontal[0]), (channels, width))
            term = parts.op("Mul", [found, parts.op("Mul", [vertical[1], horizontal[1]])])
            total = parts.op("Add", [total, term]) if total else term
    target = parts.integers([0, channels, *(int(d) for d in grid[1:3] if isinstance(d, int))])
    return parts.done({0: parts.op("Reshape", [total, target])})


def _places(parts: Parts, node: NodeProto, number: int, length: int, bounded: bool) -> str:
    """Return the grid's x or y in pixels, [batch, 1, places]."""
    own = parts.op("Gather", [node.input[1], parts.integer(number)], {"axis": 3})
    own = parts.op("Reshape", [own, parts.integers([0, 1, -1])])
    span = (length - 1) if attributes_of(node).get("align_corners", 0) else length
    scaled = parts.op("Mul", [own, parts.real(span / 2)])
    place = parts.op("Add", [scaled, parts.real((length - 1) / 2)])
    return parts.op("Clip", [place, parts.real(0), parts.real(length - 1)]) if bounded else place


def _neighbours(parts: Parts, place: str, length: int, mode: bytes) -> list[tuple[str, str]]:
    """Return whole places within the image, int64, and their weights, 0 for those that lay outside."""
    if mode == _NEAREST:
        whole, one = parts.op("Round", [place]), parts.real(1)
        return [_within(parts, whole, one, length)]
    low = parts.op("Floor", [place])
    share = parts.op("Sub", [place, low])
    high = parts.op("Add", [low, parts.real(1)])
    rest = parts.op("Sub", [parts.real(1), share])
    return [_within(parts, low, rest, length), _within(parts, high, share, length)]


def _within(parts: Parts, whole: str, weight: str, length: int) -> tuple[str, str]:
    nearest = parts.op("Clip", [whole, parts.real(0), parts.real(length - 1)])
    inside = parts.op("Cast", [parts.op("Equal", [nearest, whole])], {"to": TensorProto.FLOAT})
    return parts.op("Cast", [nearest], {"to": TensorProto.INT64}), parts.op("Mul", [weight, inside])


def _pixels(parts: Parts, flat: str, places: tuple[str, str], sizes: tuple[int, int]) -> str:
    channels, width = sizes
    row = parts.op("Mul", [places[0], parts.integer(width)])
    index = parts.op("Add", [row, places[1]])
    index = parts.op("Expand", [index, parts.integers([1, channels, 1])])
    return parts.op("GatherElements", [flat, index], {"axis": 2})
