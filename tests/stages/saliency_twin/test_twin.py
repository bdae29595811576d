"""What a twin is: its inputs and outputs, the class it explains, the tensors it takes, and what it refuses."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from foundation.errors import UsageError
from stages.saliency_twin.twin import build_twin

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(12, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)


def linear(body: str, inputs: str = "float[batch, 3, 2, 2] image", outputs: str = "float[batch, 4] logits", opset=18):
    """Return a model whose constants are a weight [12, 4], a bias [4] and a few scalars."""
    lines = "\n".join(body.split(";"))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "com.example": 1]> g ({inputs}) => ({outputs}) {{ {lines} }}'
    )
    constants = {"w": WEIGHT, "b": BIAS, "zero": np.float32(0)}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used
    )
    return model


PLAIN = "f = Flatten(image); logits = Gemm(f, w, b)"


def test_the_map_of_a_linear_classifier_is_its_weights(session):
    twin = build_twin(linear(PLAIN))
    image = RNG.normal(size=(3, 3, 2, 2)).astype(np.float32)

    logits, saliency, explained = session(twin).run(None, {"image": image, "target": np.array([2, -1, 9])})

    predicted = int(logits[1].argmax())
    assert explained.tolist() == [2, predicted, 9]
    assert np.array_equal(saliency[0].ravel(), WEIGHT[:, 2])
    assert np.array_equal(saliency[1].ravel(), WEIGHT[:, predicted])
    assert not saliency[2].any()  # there is no class 9


def test_a_dynamic_batch_stays_dynamic_and_a_fixed_one_fixed():
    def dimensions(model):
        return [
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        ]

    twin = build_twin(linear(PLAIN))
    assert [value.name for value in twin.graph.input] == ["image", "target"]
    assert [value.name for value in twin.graph.output] == ["logits", "saliency", "explained_class"]
    image = ["batch", 3, 2, 2]
    assert dimensions(twin) == [image, ["batch"], ["batch", 4], image, ["batch"]]
    fixed = build_twin(linear(PLAIN, "float[1, 3, 2, 2] image", "float[1, 4] logits"))
    assert dimensions(fixed) == [[1, 3, 2, 2], [1], [1, 4], [1, 3, 2, 2], [1]]


def test_pixels_get_the_gradient_with_respect_to_their_float_values(session):
    twin = build_twin(linear("p = Cast <to = 1> (image); " + PLAIN.replace("image", "p"), "uint8[1, 3, 2, 2] image"))
    image = RNG.integers(0, 256, (1, 3, 2, 2), dtype=np.uint8)
    _, saliency, _ = session(twin).run(None, {"image": image, "target": np.array([1])})
    assert saliency.dtype == np.float32
    assert np.array_equal(saliency.ravel(), WEIGHT[:, 1])


def test_the_tensor_that_is_named_is_explained(session):
    """A probability's gradient is p(1 − p) of what the logit before it has, less the others'."""
    model = linear(PLAIN + "; probabilities = Softmax(logits)", outputs="float[batch, 4] probabilities")
    image = RNG.normal(size=(1, 3, 2, 2)).astype(np.float32)
    feed = {"image": image, "target": np.array([2])}

    logits, of_logit, _ = session(build_twin(model, logits_name="logits")).run(None, feed)
    probabilities, of_probability, _ = session(build_twin(model)).run(None, feed)

    assert np.array_equal(of_logit.ravel(), WEIGHT[:, 2])
    assert np.allclose(probabilities, np.exp(logits) / np.exp(logits).sum())
    p = probabilities[0]
    expected = p[2] * (WEIGHT[:, 2] - WEIGHT @ p)
    assert np.allclose(of_probability.ravel(), expected, atol=1e-6)


def test_logits_may_keep_the_axes_of_their_pool(session):
    model = linear("logits = GlobalAveragePool(image)", "float[2, 4, 2, 2] image", "float[2, 4, 1, 1] logits")
    image = RNG.normal(size=(2, 4, 2, 2)).astype(np.float32)
    logits, saliency, explained = session(build_twin(model)).run(None, {"image": image, "target": np.array([-1, 2])})
    assert logits.shape == (2, 4, 1, 1)
    assert explained.tolist() == [logits[0].argmax(), 2]
    assert np.array_equal(saliency[1].sum(axis=(1, 2)), [0, 0, 1, 0])


def test_several_inputs_and_outputs_are_told_apart_by_name(session):
    inputs, outputs = "float[1, 3, 2, 2] image, float[1, 12] age", "float[1, 4] logits, float[1, 12] features"
    model = linear("f = Flatten(image); features = Mul(f, age); logits = Gemm(features, w, b)", inputs, outputs)
    with pytest.raises(UsageError, match=r"found the inputs image, age\. Name one of them with --input"):
        build_twin(model, None, "logits")
    with pytest.raises(UsageError, match=r"found the outputs logits, features\. Name the one to explain"):
        build_twin(model, "image", None)
    with pytest.raises(UsageError, match="expected an input `picture`"):
        build_twin(model, "picture", "logits")

    twin = build_twin(model, "image", "logits")
    age = RNG.normal(size=(1, 12)).astype(np.float32)
    image = RNG.normal(size=(1, 3, 2, 2)).astype(np.float32)
    _, saliency, _ = session(twin).run(None, {"image": image, "age": age, "target": np.array([0])})
    assert np.allclose(saliency.ravel(), age[0] * WEIGHT[:, 0], rtol=1e-6)


def test_a_tensor_with_several_readers_gets_the_sum(session):
    twin = build_twin(
        linear("f = Flatten(image); g = Mul(f, f); h = Add(g, f); s = Add(h, f); logits = Gemm(s, w, b)")
    )
    image = RNG.normal(size=(1, 3, 2, 2)).astype(np.float32)
    _, saliency, _ = session(twin).run(None, {"image": image, "target": np.array([0])})
    assert np.allclose(saliency.ravel(), (2 * image.ravel() + 2) * WEIGHT[:, 0], rtol=1e-5)


def test_the_first_of_equal_values_in_a_pools_window_gets_the_gradient(session):
    """As in torch; after a quantized ReLU half of the windows hold ties."""
    model = linear("f = MaxPool <kernel_shape = [2, 2]> (image); logits = Flatten(f)", "float[1, 4, 2, 2] image")
    image = np.array([[0, 1, 1, 1], [2, 2, 0, 2], [0, 0, 0, 0], [0, 0, 0, 1]], np.float32).reshape(1, 4, 2, 2)
    found = [session(build_twin(model)).run(None, {"image": image, "target": np.array([c])})[1] for c in range(4)]
    assert [f.reshape(4, 4)[c].argmax() for c, f in enumerate(found)] == [1, 0, 0, 3]
    assert [f.sum() for f in found] == [1, 1, 1, 1]


def test_names_that_the_twin_needs_are_freed_within_the_graph(session):
    model = linear("target = Flatten(image); saliency = Relu(target); logits = Gemm(saliency, w, b)")
    image = np.ones((1, 3, 2, 2), dtype=np.float32)
    _, saliency, _ = session(build_twin(model)).run(None, {"image": image, "target": np.array([3])})
    assert np.array_equal(saliency.ravel(), WEIGHT[:, 3])
    with pytest.raises(UsageError, match="Give the model itself, not its twin"):
        build_twin(build_twin(linear(PLAIN)))


def test_an_old_model_is_brought_to_opset_13(session):
    body = (
        "f = Flatten(image); r = ReduceSum <axes = [1], keepdims = 1> (f); c = Clip <min = -1.0, max = 1.0> (f); "
        "h = Add(c, r); logits = Gemm(h, w, b)"
    )
    model = linear(body, opset=9)
    twin = build_twin(model)
    assert {entry.domain: entry.version for entry in twin.opset_import}[""] == 13
    image = RNG.normal(size=(1, 3, 2, 2)).astype(np.float32)
    (plain,) = session(model).run(None, {"image": image})
    logits, saliency, _ = session(twin).run(None, {"image": image, "target": np.array([0])})
    assert np.array_equal(logits, plain)
    inside = np.abs(image.ravel()) < 1
    assert np.allclose(saliency.ravel(), inside * WEIGHT[:, 0] + WEIGHT[:, 0].sum(), rtol=1e-5)


def test_weights_listed_among_the_inputs_are_no_images(session):
    model = linear(PLAIN, "float[1, 3, 2, 2] image, float[12, 4] w, float[4] b", "float[1, 4] logits")
    twin = build_twin(model)
    feed = {"image": np.ones((1, 3, 2, 2), np.float32), "target": np.array([0])}
    assert np.array_equal(session(twin).run(None, feed)[1].ravel(), WEIGHT[:, 0])


def test_what_has_no_rule_is_named():
    model = linear("h = com.example.Wavelet(image); f = Flatten(h); logits = Gemm(f, w, b)")
    model.graph.node[0].name = "first"
    with pytest.raises(UsageError, match=r"found com\.example\.Wavelet \(node `first`\).*occlusion"):
        build_twin(model)


def test_an_operator_without_a_rule_beside_the_path_does_no_harm(session):
    body = (
        "s = Shape(image); n = ReduceProd <keepdims = 0> (s); c = Cast <to = 1> (n); z = Mul(c, zero); "
        "f = Flatten(image); h = Add(f, z); logits = Gemm(h, w, b)"
    )
    model = linear(body)
    feed = {"image": np.ones((1, 3, 2, 2), np.float32), "target": np.array([0])}
    assert np.array_equal(session(build_twin(model)).run(None, feed)[1].ravel(), WEIGHT[:, 0])


IMAGE, LOGITS = "float[batch, 3, 2, 2] image", "float[batch, 4] logits"
REFUSED = {
    "rounding alone": (
        "r = Round(image); f = Flatten(r); logits = Gemm(f, w, b)", IMAGE, LOGITS, "operators, found none between"
    ),
    "no classifier": (
        "logits = Relu(image)", IMAGE, "float[batch, 3, 2, 2] logits", r"expected logits \[batch, classes\]"
    ),
    "dynamic sizes": (
        "h = Conv <strides = [2, 2]> (image, k); logits = Flatten(h)",
        "float[1, 3, y, x] image, float[4, 3, 1, 1] k",
        LOGITS,
        "expected axis 2 of `image` to have a fixed length, found 'y'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_explained_is_refused(name):
    body, inputs, outputs, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        build_twin(linear(body, inputs, outputs), "image")


def test_a_model_with_functions_of_its_own_has_a_twin(session):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18, "theirs": 1]>
        g (float[batch, 3, 2, 2] image) => (float[batch, 4] logits) {
            f = Flatten(image)
            logits = theirs.Head(f, w, b)
        }
        <opset_import: ["": 18], domain: "theirs"> Head (x, w, b) => (y) { y = Gemm(x, w, b) }"""
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in (("w", WEIGHT), ("b", BIAS))
    )
    onnx.checker.check_model(model)
    twin = build_twin(model)
    assert [node.op_type for node in twin.graph.node[:2]] == ["Flatten", "Gemm"]
    saliency = session(twin).run(["saliency"], {"image": np.zeros((1, 3, 2, 2), np.float32), "target": np.array([2])})
    assert np.array_equal(saliency[0].ravel(), WEIGHT[:, 2])


CHAIN = 1200
"""Nodes one behind the other; Python's stack ends at 1,000 calls."""


def chain(first: str, last: str) -> list[onnx.NodeProto]:
    names = [first, *(f"r{place}" for place in range(1, CHAIN)), last]
    return [onnx.helper.make_node("Relu", [x], [y]) for x, y in itertools.pairwise(names)]


def quantizers(x: str, y: str) -> list[onnx.NodeProto]:
    quantize = onnx.helper.make_node("QuantizeLinear", [x, "scale", "point"], [f"{y}_integers"])
    return [quantize, onnx.helper.make_node("DequantizeLinear", [f"{y}_integers", "scale", "point"], [y])]


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(lambda: chain("image", "x"), id="of float values"),
        pytest.param(lambda: [*chain("image", "c"), *quantizers("c", "x")], id="that a quantizer reads"),
        pytest.param(
            lambda: [*quantizers("image", "q"), *chain("q", "c"), *quantizers("c", "x")], id="between quantizers"
        ),
        pytest.param(
            lambda: [
                *(
                    onnx.helper.make_node("Identity", [f"one_{place}" if place else "zero"], [f"one_{place + 1}"])
                    for place in range(CHAIN)
                ),
                onnx.helper.make_node("Clip", ["image", f"one_{CHAIN}"], ["x"]),
            ],
            id="of constants",
        ),
    ],
)
def test_a_network_may_be_deeper_than_pythons_stack(nodes):
    model = linear("f = Flatten(x); logits = Gemm(f, w, b)")
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes(), *rest])
    constants = {"zero": np.float32(0), "scale": np.float32(0.5), "point": np.int8(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    image = np.array([[2.0, -2.0, 5.0, 1.0] * 3], np.float32).reshape(1, 3, 2, 2)
    feed = {"image": image, "target": np.array([2])}
    options = onnxruntime.SessionOptions()
    # Its optimizations take minutes on such a chain.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = build_twin(model).SerializeToString()
    unoptimized = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (saliency,) = unoptimized.run(["saliency"], feed)
    assert np.array_equal(saliency.ravel(), np.where(image.ravel() > 0, WEIGHT[:, 2], 0))
