"""Gradients of max pools against torch.autograd, on both ways that the twin has: by index, and axis by axis."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from stages.saliency_twin.grad_cam import build_grad_cam
from stages.saliency_twin.rules_max_pool import MOST_VALUES_BY_INDEX
from stages.saliency_twin.twin import build_twin

SMALL, LARGE = (3, 2, 9, 7), (3, 20, 15, 11)
WINDOWS = {
    "2 by 2": ({"kernel_shape": [2, 2], "strides": [2, 2]}, True),
    "3 by 2, ends left over": ({"kernel_shape": [3, 2], "strides": [4, 3]}, True),
    "padded": ({"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1]}, True),
    "ceil_mode": ({"kernel_shape": [2, 3], "strides": [2, 3], "ceil_mode": 1}, True),
    "dilated": ({"kernel_shape": [2, 2], "strides": [3, 4], "dilations": [1, 3]}, True),
    "one axis": ({"kernel_shape": [1, 3], "strides": [1, 3]}, True),
    "single values": ({"kernel_shape": [1, 1], "strides": [1, 1]}, True),
    "overlapping": ({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, False),
    "overlapping along one axis": ({"kernel_shape": [2, 3], "strides": [2, 1]}, False),
    "overlapping, dilated": ({"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 3]}, False),
}


def of_torch(x: torch.Tensor, attributes) -> torch.Tensor:
    pads = attributes.get("pads", [0, 0])[:2]
    dilations, ceil = attributes.get("dilations", [1, 1]), bool(attributes.get("ceil_mode", 0))
    return F.max_pool2d(x, attributes["kernel_shape"], attributes["strides"], pads, dilations, ceil)


def classifier(nodes, shape, pooled, element=TensorProto.FLOAT, opset=18):
    """Return a model of the nodes from `image` to `y`, and a linear map to two logits with weights [values, 2]."""
    values = int(np.prod(pooled))
    weights = np.random.default_rng(3).normal(size=(values, 2))
    head = [helper.make_node("Flatten", ["y"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    model = helper.make_model(
        helper.make_graph(
            [*nodes, *head],
            "pools",
            [helper.make_tensor_value_info("image", element, ["batch", *shape[1:]])],
            [helper.make_tensor_value_info("logits", element, ["batch", 2])],
            [numpy_helper.from_array(weights.astype(helper.tensor_dtype_to_np_dtype(element)), "w")],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )  # fmt: skip
    return model, torch.from_numpy(weights.astype(helper.tensor_dtype_to_np_dtype(element))).float()


def few_values(shape) -> np.ndarray:
    """Draw −1, 0, 1 and 2, so that most windows hold ties."""
    return np.random.default_rng(4).integers(-1, 3, shape).astype(np.float32)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("behind_relu", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_the_gradient_goes_to_the_first_of_the_greatest_values(name, behind_relu, shape, session):
    attributes, apart = WINDOWS[name]
    image = few_values(shape)
    leaf = torch.from_numpy(image).requires_grad_()
    x = torch.relu(leaf) if behind_relu else leaf
    pooled = of_torch(x, attributes)
    nodes = [
        helper.make_node("Relu" if behind_relu else "Identity", ["image"], ["x"]),
        helper.make_node("MaxPool", ["x"], ["y"], **attributes),
    ]
    model, weights = classifier(nodes, shape, pooled.shape[1:])
    (expected,) = torch.autograd.grad((pooled.flatten(1) @ weights)[:, 1].sum(), leaf)
    twin = build_twin(model)
    # One image decides, the batch is dynamic.
    assert ("MaxUnpool" in operators(twin)) == (apart and np.prod(shape[1:]) <= MOST_VALUES_BY_INDEX)

    running, plain = session(twin), session(model)
    for batch in (3, 1):
        logits, saliency, _ = running.run(None, {"image": image[:batch], "target": np.ones(batch, np.int64)})
        assert np.array_equal(logits, plain.run(None, {"image": image[:batch]})[0])
        assert np.allclose(saliency, expected.numpy()[:batch], rtol=0, atol=1e-6)


@pytest.mark.parametrize("opset", [13, 18, 22])
@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_that_the_operator_works_out_itself(automatic, opset, session):
    image, attributes = few_values((2, 2, 7, 6)), {"kernel_shape": [2, 4], "strides": [2, 4], "auto_pad": automatic}
    leaf = torch.from_numpy(image).requires_grad_()
    begins, ends = {"SAME_UPPER": ((0, 1), (1, 1)), "SAME_LOWER": ((1, 1), (0, 1)), "VALID": ((0, 0), (0, 0))}[
        automatic
    ]
    padded = F.pad(leaf, (begins[1], ends[1], begins[0], ends[0]), value=-torch.inf)
    pooled = F.max_pool2d(padded, (2, 4))
    nodes = [helper.make_node("MaxPool", ["image"], ["y"], **attributes)]
    model, weights = classifier(nodes, image.shape, pooled.shape[1:], opset=opset)
    (expected,) = torch.autograd.grad((pooled.flatten(1) @ weights)[:, 0].sum(), leaf)
    twin = build_twin(model)
    assert "MaxUnpool" in operators(twin)
    saliency = session(twin).run(["saliency"], {"image": image, "target": np.zeros(2, np.int64)})[0]
    assert np.allclose(saliency, expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
def test_float16_has_the_gradient_of_its_own_values(shape, session):
    """Values that differ by less than a step of float16 tie."""
    rng = np.random.default_rng(5)
    image = (few_values(shape) + rng.uniform(0, 1e-3, shape)).astype(np.float16)
    leaf = torch.from_numpy(image.astype(np.float32)).requires_grad_()
    pooled = F.max_pool2d(torch.relu(leaf), 2)
    nodes = [
        helper.make_node("Relu", ["image"], ["x"]),
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model, weights = classifier(nodes, shape, pooled.shape[1:], TensorProto.FLOAT16)
    (expected,) = torch.autograd.grad((pooled.flatten(1) @ weights)[:, 0].sum(), leaf)
    feed = {"image": image}
    logits, saliency, _ = session(build_twin(model)).run(None, feed | {"target": np.zeros(3, np.int64)})
    assert np.array_equal(logits, session(model).run(None, feed)[0])
    assert saliency.dtype == np.float32
    assert np.allclose(saliency, expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("integer", [np.uint8, np.int8])
def test_a_pool_of_integers_has_the_gradient_of_what_they_stand_for(integer, shape, session):
    image = few_values(shape)
    zero = np.array(3, integer)
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "step", "zero"], ["q"]),
        helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("DequantizeLinear", ["p", "step", "zero"], ["y"]),
    ]
    leaf = torch.from_numpy(image).requires_grad_()
    pooled = F.max_pool2d(leaf, 2)
    model, weights = classifier(nodes, shape, pooled.shape[1:])
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(0.5, np.float32), "step"), numpy_helper.from_array(zero, "zero")]
    )
    (expected,) = torch.autograd.grad((pooled.flatten(1) @ weights)[:, 0].sum(), leaf)
    feed = {"image": image}
    logits, saliency, _ = session(build_twin(model)).run(None, feed | {"target": np.zeros(3, np.int64)})
    assert np.array_equal(logits, session(model).run(None, feed)[0])
    assert np.allclose(saliency, expected.numpy(), rtol=0, atol=1e-6)


def test_a_relu_with_another_reader_keeps_its_own_mask(session):
    """The pool's gradient is 0 where the ReLU is, the other's is not."""
    image = few_values((3, 2, 4, 4))
    leaf = torch.from_numpy(image).requires_grad_()
    x = torch.relu(leaf)
    pooled = torch.cat([F.max_pool2d(x, 2), x[:, :, ::2, ::2] + 1], dim=1)
    nodes = [
        helper.make_node("Relu", ["image"], ["x"]),
        helper.make_node("MaxPool", ["x"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxPool", ["x"], ["c"], kernel_shape=[1, 1], strides=[2, 2]),
        helper.make_node("Concat", ["m", "c"], ["y"], axis=1),
    ]
    model, weights = classifier(nodes, image.shape, pooled.shape[1:])
    (expected,) = torch.autograd.grad((pooled.flatten(1) @ weights)[:, 0].sum(), leaf)
    saliency = session(build_twin(model)).run(["saliency"], {"image": image, "target": np.zeros(3, np.int64)})[0]
    assert np.allclose(saliency, expected.numpy(), rtol=0, atol=1e-6)


def test_grad_cam_at_the_relu_before_a_pool_is_not_masked(session):
    """Where all of a window is 0 its first value still gets the gradient, which counts in the channel's weight."""
    image = few_values((3, 2, 4, 4))
    x = torch.relu(torch.from_numpy(image)).requires_grad_()
    pooled = F.max_pool2d(x, 2)
    nodes = [
        helper.make_node("Conv", ["image", "same"], ["c"]),
        helper.make_node("Relu", ["c"], ["x"]),
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model, weights = classifier(nodes, image.shape, pooled.shape[1:])
    same = np.eye(2, dtype=np.float32)[:, :, None, None]
    model.graph.initializer.append(numpy_helper.from_array(same, "same"))
    (gradient,) = torch.autograd.grad((pooled.flatten(1) @ weights)[:, 0].sum(), x)
    assert float(gradient[x == 0].abs().sum()) > 0
    expected = torch.relu((gradient.mean((2, 3), keepdim=True) * x).sum(1, keepdim=True)).detach().numpy()
    saliency = session(build_grad_cam(model)).run(["saliency"], {"image": image, "target": np.zeros(3, np.int64)})[0]
    assert np.allclose(saliency, expected, rtol=0, atol=1e-6)
