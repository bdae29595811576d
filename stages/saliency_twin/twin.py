"""Build the twin: forward as in the file, then the rules from the logits back to the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from foundation.errors import StageError, UsageError
from onnx_files.graph import opset_of, reads, rename_tensors, without_functions
from stages.saliency_twin.backpropagation import propagate
from stages.saliency_twin.builder import PREFIX, Backward
from stages.saliency_twin.expansions import expanded
from stages.saliency_twin.forward_graph import Dimension, ForwardGraph, read_graph
from stages.saliency_twin.measured_shapes import measured_graph
from stages.saliency_twin.rules import RULES

TARGET = "target"
SALIENCY = "saliency"
EXPLAINED_CLASS = "explained_class"
LEAST_IR = 8
_LAST_IR_OF_INPUTS = 3
LEAST_OPSET = 13
"""From here on axes of reductions and squeezes are inputs; older models are converted up to it."""


def build_twin(model: ModelProto, input_name: str | None = None, logits_name: str | None = None) -> ModelProto:
    """Return a graph that computes the logits and the gradient of one of them with respect to the image.

    Inputs: the model's own, and `target`, int64 [batch]: the class to explain, −1 for the predicted one; a number
    beyond the classes gives a map of zeros. Outputs: the tensor that was explained, under its own name; `saliency`,
    float32 in the image's shape, for a uint8 image the gradient with respect to its float values; `explained_class`,
    int64 [batch]. The forward half keeps the file's nodes and weights; the backward half is ordinary ONNX.

    What is explained is the tensor named, also where it is a probability behind a Softmax, whose gradient vanishes as
    it nears 1. Name the tensor before the Softmax to explain the logit; it then becomes the output.

    Args:
        model: a checked classifier, self-contained. It is not changed. Below opset 13 it is converted up.
        input_name: the image's input, where the model has several.
        logits_name: the tensor to explain, float [batch, classes] or [batch, classes, 1, 1], an output or one within
            the graph. Not needed where the model has one output.

    Raises:
        UsageError: a name is missing or ambiguous, an operator has no rule, or a shape is unknown.
        StageError: the result breaks ONNX's rules.
    """
    return extended(model, input_name, logits_name, gradient_at_image)


@dataclass(frozen=True)
class Drawn:
    """A map under construction: what is appended to a model, and the names of what that makes.

    Attributes:
        graph: the new nodes and constants.
        explained: the classes that are explained, int64 [batch].
        saliency: the map, float32.
        shape: the map's.
    """

    graph: Backward
    explained: str
    saliency: str
    shape: tuple[Dimension, ...]


def gradient_at_image(forward: ForwardGraph) -> Drawn:
    """Draw the gradient of the explained logit with respect to `forward.image`, any tensor before the logits."""
    _, classes = _logits_shape(forward)
    graph = Backward(forward, RULES)
    explained, seed = _seed(graph, forward.logits, classes)
    return Drawn(graph, explained, _differentiate(graph, seed), forward.shape(forward.image))


def extended(
    model: ModelProto, input_name: str | None, logits_name: str | None, draw: Callable[[ForwardGraph], Drawn]
) -> ModelProto:
    """Return a model with the input `target`, and the outputs `saliency` and `explained_class` as `draw` makes them.

    Args and errors as in `build_twin`.
    """
    twin = _prepared(model)
    image, logits = _image(twin, input_name), _logits(twin, logits_name)
    forward, drawn = _drawn(twin, expanded(twin, read_graph(twin, image.name, logits)), draw)
    graph, (batch, _) = drawn.graph, _logits_shape(forward)
    outputs = [
        next((value for value in twin.graph.output if value.name == logits), None)
        or helper.make_tensor_value_info(logits, forward.types[logits], forward.shape(logits)),
        helper.make_tensor_value_info(SALIENCY, TensorProto.FLOAT, drawn.shape),
        helper.make_tensor_value_info(EXPLAINED_CLASS, TensorProto.INT64, [batch]),
    ]
    graph.name_output(drawn.saliency, SALIENCY)
    graph.name_output(drawn.explained, EXPLAINED_CLASS)
    twin.graph.node.extend(graph.nodes)
    twin.graph.initializer.extend(graph.constants)
    twin.graph.input.append(helper.make_tensor_value_info(TARGET, TensorProto.INT64, [batch]))
    del twin.graph.output[:]
    twin.graph.output.extend(outputs)
    _keep_what_is_read(twin)
    try:
        onnx.checker.check_model(twin, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StageError(
            f"expected a twin that onnx.checker accepts, found one that it refuses ({error}). Report this with the "
            "model; explain it by occlusion meanwhile."
        ) from error
    return twin


def _drawn(
    model: ModelProto, forward: ForwardGraph, draw: Callable[[ForwardGraph], Drawn]
) -> tuple[ForwardGraph, Drawn]:
    try:
        return forward, draw(forward)
    except UsageError:
        # Where inference gives up, a run shows the shapes; with them more operators may be led back to simpler ones,
        # whose shapes another run shows.
        last: ForwardGraph | None = None
        while forward is not last:
            last = measured_graph(model, forward)
            if last is None:
                raise
            forward = expanded(model, last)
        return forward, draw(forward)


def _prepared(model: ModelProto) -> ModelProto:
    # A copy of opset 13 or more, without functions of its own, whose tensors leave the twin's names free.
    twin = ModelProto()
    twin.CopyFrom(without_functions(model))
    opset = opset_of(twin)
    if opset < LEAST_OPSET:
        try:
            twin = onnx.version_converter.convert_version(twin, LEAST_OPSET)
        except Exception as error:  # the converter raises whatever its C++ raises
            raise UsageError(
                f"expected a model of opset {LEAST_OPSET} or one that onnx.version_converter can bring there, found "
                f"opset {opset} ({error}). Export the model anew with opset {LEAST_OPSET} or more."
            ) from error
    del twin.graph.value_info[:]
    outside = {value.name for value in (*twin.graph.input, *twin.graph.output)}
    taken = {TARGET, SALIENCY, EXPLAINED_CLASS}
    if outside & taken:
        raise UsageError(
            f"expected a classifier without inputs or outputs called {', '.join(sorted(taken))}, found "
            f"{', '.join(sorted(outside & taken))}. Give the model itself, not its twin, or rename them."
        )

    def renamed(name: str) -> str:
        ours = name in taken or (name.startswith(PREFIX) and name not in outside)
        return f"of_model/{name}" if ours else name

    rename_tensors(twin.graph, renamed)
    # Up to IR 3, constants had to be inputs too.
    twin.ir_version = twin.ir_version if twin.ir_version > _LAST_IR_OF_INPUTS else LEAST_IR
    return twin


def _image(model: ModelProto, name: str | None) -> ValueInfoProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in weights}
    if name is None and len(inputs) == 1:
        name = next(iter(inputs))
    if name not in inputs:
        raise UsageError(
            f"expected {'the name of the image input' if name is None else f'an input `{name}`'}, found the inputs "
            f"{', '.join(inputs) or 'none'}. Name one of them with --input."
        )
    empty = [
        axis for axis in inputs[name].type.tensor_type.shape.dim if axis.HasField("dim_value") and axis.dim_value < 1
    ]
    if empty:
        raise UsageError(
            f"expected an image whose axes have a length of 1 or more, found {empty[0].dim_value} in `{name}`. "
            "Export the model with its input's shape; the batch may have a name in place of a number."
        )
    return inputs[name]


def _logits(model: ModelProto, name: str | None) -> str:
    outputs = [value.name for value in model.graph.output]
    if name is None and len(outputs) == 1:
        return str(outputs[0])
    made = {output for node in model.graph.node for output in node.output}
    if name is None or name not in made:
        raise UsageError(
            f"expected {'the name of the logits' if name is None else f'a tensor `{name}`'}, found the outputs "
            f"{', '.join(outputs)}. Name the one to explain with --logits."
        )
    return name


def _logits_shape(forward: ForwardGraph) -> tuple[int | str | None, int]:
    shape = forward.shape(forward.logits)
    if len(shape) < 2 or any(d != 1 for d in shape[2:]):
        raise UsageError(
            f"expected logits [batch, classes], found `{forward.logits}` of shape {list(shape)}. Name the logits of "
            "a classifier with --logits."
        )
    return shape[0], forward.size(forward.logits, 1)


def _seed(graph: Backward, logits: str, classes: int) -> tuple[str, str]:
    """Return the class explained and the gradient that starts the way back: 1 at that class, 0 elsewhere."""
    flat = logits
    if len(graph.forward.shape(logits)) > 2:
        flat = graph.op("Reshape", [logits, graph.integers([-1, classes])])
    predicted = graph.op("ArgMax", [flat], {"axis": 1, "keepdims": 0})
    asked = graph.op("Less", [TARGET, graph.constant(np.array(0, dtype=np.int64))])
    explained = graph.op("Where", [asked, predicted, TARGET])
    depth, values = graph.integers([classes]), graph.constant(np.array([0, 1], dtype=np.float32))
    seed = graph.op("OneHot", [explained, depth, values])
    return explained, seed if flat == logits else graph.shaped_like(seed, logits)


def _differentiate(graph: Backward, seed: str) -> str:
    forward, saliency = graph.forward, None
    if forward.image in forward.active and forward.logits in forward.active:
        saliency = propagate(graph, forward.nodes, {forward.logits: [seed]}).get(forward.image)
    if saliency is None:
        raise UsageError(
            f"expected logits that follow the image through differentiable operators, found none between "
            f"`{forward.image}` and `{forward.logits}`. Name the image with --input and the logits with --logits."
        )
    return saliency


def _keep_what_is_read(model: ModelProto) -> None:
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(reads(node))
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    constants = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    # Models of IR version 3 list their weights among the inputs.
    inputs = [value for value in model.graph.input if value.name in needed or value.name == TARGET]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
