"""Grad-CAM as an ordinary ONNX graph: forward as in the file, back to the last convolution's maps, and their sum.

With A the last feature maps [batch, k, h', w'] and y the explained logit, the map is relu(Σ_k α_k·A_k), where α_k is
the mean of ∂y/∂A_k over the h'·w' places. Source: Selvaraju et al., arXiv 1610.02391, equations 1 and 2.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from foundation.errors import NotMeasuredError
from stages.saliency_twin.forward_graph import INTEGER_TYPES, Dimension, ForwardGraph, inputs_of
from stages.saliency_twin.twin import Drawn, extended, gradient_at_image
from stages.saliency_twin.twin_file import write_extended

_CONVOLUTIONS = ("Conv", "ConvTranspose", "ConvInteger")


def grad_cam_path(path: Path) -> Path:
    """Return where the Grad-CAM twin of a model stands: `VARIANT.gradcam.onnx` beside `VARIANT.onnx`."""
    return path.with_name(f"{path.stem}.gradcam.onnx")


def make_grad_cam(
    path: Path, output: Path | None = None, input_name: str | None = None, logits_name: str | None = None
) -> Path:
    """Write the Grad-CAM twin of any ONNX classifier and return its path; the same model gives the same bytes.

    Args and errors as in `twin_file.make_twin`; a model without feature maps that Grad-CAM could explain it by is one
    more UsageError.
    """
    return write_extended(
        "grad_cam", path, grad_cam_path(path) if output is None else output, input_name, logits_name
    )


def build_grad_cam(model: ModelProto, input_name: str | None = None, logits_name: str | None = None) -> ModelProto:
    """Return a graph that computes the logits and one of them's Grad-CAM map.

    Inputs and outputs as of `twin.build_twin`, but `saliency` is float32 [batch, 1, h', w'], 0 or more, in the
    resolution of the feature maps.

    Args:
        model: a checked classifier, self-contained. It is not changed.
        input_name: the image's input, where the model has several.
        logits_name: the tensor to explain, where the model has several outputs.

    Raises:
        UsageError: as `build_twin`.
        NotMeasuredError: no feature maps that all of the image's influence passes through.
    """
    return extended(model, input_name, logits_name, _weighted_feature_maps)


def _weighted_feature_maps(forward: ForwardGraph) -> Drawn:
    features = last_feature_maps(forward)
    back = gradient_at_image(replace(forward, image=features))
    graph = back.graph
    alpha = graph.op("GlobalAveragePool", [back.saliency])
    total = graph.op("ReduceSum", [graph.op("Mul", [alpha, graph.value(features)]), graph.integers([1])])
    batch, _, height, width = back.shape
    return Drawn(graph, back.explained, graph.op("Relu", [total]), (batch, 1, height, width))


def last_feature_maps(forward: ForwardGraph) -> str:
    """Return the last tensor of the last convolution's height and width that every path to the logits goes through.

    For a ResNet that is the last block's sum after its ReLU, for a VGG the last ReLU before the pool.

    Raises:
        NotMeasuredError: there is no convolution, or no such tensor behind it.
    """
    last, size = -1, None
    for index, node in enumerate(forward.nodes):
        if node.op_type in _CONVOLUTIONS and node.output[0] in forward.active:
            found = _size_of_maps(forward, node.output[0])
            last, size = (index, found) if found else (last, size)
    if size is None:
        raise NotMeasuredError(
            "Grad-CAM: expected a convolution between the image and the logits, with maps of a known size above one "
            "pixel, found none. Use the twin's gradients or occlusion."
        )
    on_every_path = [
        name
        for name in _necks(forward, last)
        if _size_of_maps(forward, name) == size and forward.types.get(name) not in INTEGER_TYPES
    ]
    if not on_every_path:
        raise NotMeasuredError(
            f"Grad-CAM: expected one tensor of feature maps behind the last convolution `{forward.nodes[last].name}` "
            "that every path to the logits goes through, found several side by side. Use the twin's gradients or "
            "occlusion."
        )
    return on_every_path[-1]


def _necks(forward: ForwardGraph, start: int) -> list[str]:
    """Return the tensors made from node `start` on that every differentiable path from image to logits goes through.

    Nodes stand in order, so a tensor is such a neck if, once it is made, no other one before it is still to be read.
    """
    last_reader = {forward.logits: len(forward.nodes)}
    for index, node in enumerate(forward.nodes):
        if not forward.active.isdisjoint(node.output):
            last_reader |= {name: max(index, last_reader.get(name, -1)) for name in inputs_of(node)}
    necks: list[str] = []
    open_until = {forward.image: last_reader[forward.image]}
    for index, node in enumerate(forward.nodes):
        made = {name: last_reader[name] for name in node.output if name in forward.active}
        open_until = {name: until for name, until in (open_until | made).items() if until > index}
        if index >= start and made and open_until.keys() == made.keys() and len(made) == 1:
            necks += made
    return necks


def _size_of_maps(forward: ForwardGraph, name: str) -> tuple[Dimension, ...] | None:
    """Return height and width of feature maps of more than one pixel; None where a tensor is no such thing."""
    size = forward.shapes.get(name, ())[2:]
    known = len(size) == 2 and all(isinstance(side, int) for side in size)
    return size if known and size != (1, 1) else None
