"""Classifiers that this project did not export: those in onnx's own package, opset 9, from Caffe2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from foundation.errors import UsageError
from stages.saliency_twin.twin import build_twin

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LARGE = ("inception_v1", "resnet50")
# vgg19 and alexnet take seconds for their gigabyte of weights.
NETWORKS = ["squeezenet", "shufflenet", *(pytest.param(n, marks=pytest.mark.long) for n in LARGE)]


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put random weights where the package, to be small, makes constants of one value; explain the logits."""
    rng = np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = shapes[node.input[0]]
        spread = (2 / max(1, np.prod(shape[1:]))) ** 0.5
        weight = rng.normal(0, spread, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 8
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_foreign_classifier_has_a_twin_with_its_own_logits(name, session):
    path = FOLDER / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this onnx package has no light models")
    model = with_random_weights(onnx.load(path))
    softmax = next(node for node in reversed(model.graph.node) if node.op_type == "Softmax")
    shape = [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(softmax.input[0], 1, shape))
    model.graph.node.remove(softmax)
    plain, twin = session(model), session(build_twin(model))
    name_of_input = twin.get_inputs()[0].name
    image = np.random.default_rng(1).normal(size=twin.get_inputs()[0].shape).astype(np.float32)

    (expected,) = plain.run(None, {name_of_input: image})
    logits, saliency, explained = twin.run(None, {name_of_input: image, "target": np.array([-1])})

    assert np.array_equal(logits, expected)
    assert explained[0] == expected.argmax()
    # Along its own direction the gradient's length is the slope.
    length = np.linalg.norm(saliency)
    step = 1e-2 * saliency / length
    above, below = (plain.run(None, {name_of_input: image + s})[0].ravel()[explained[0]] for s in (step, -step))
    assert (float(above) - float(below)) / 2e-2 == pytest.approx(length, rel=0.02)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("length", [0, -1])
def test_an_image_without_pixels_is_refused(axis: int, length: int) -> None:
    # Exporters before 2019 wrote such numbers for axes of any length.
    shape: list[str | int] = ["batch", 1, 8, 8]
    shape[axis] = length
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[batch, 1, 8, 8] image) => (float[batch, 1] logits) {
            pooled = GlobalAveragePool (image)
            logits = Flatten (pooled)
        }
        """
    )
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape))
    with pytest.raises(UsageError, match=f"expected an image whose axes .*, found {length} in `image`"):
        build_twin(model)
