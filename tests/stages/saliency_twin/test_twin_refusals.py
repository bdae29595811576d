"""What has no rule is refused by name before a map is written; names, old files and open shapes are no reason to."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from foundation.errors import UsageError
from stages.saliency_twin.twin import build_twin

CLASSES = 3


def parsed(body: str, shape: str = "N, 4", opset: int = 17, ir: int = 8, **constants: np.ndarray) -> ModelProto:
    """Return a model from x to logits."""
    lines = "\n".join(body.split("  "))
    model = onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["": {opset}]> of (float[{shape}] x) => (float[N, {CLASSES}] logits)'
        f" {{ {lines} }}"
    )
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype(np.float32)


def gradient(twin: ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(twin.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["saliency"], {"x": x, "target": np.zeros(len(x), np.int64)})[0]
    assert isinstance(found, np.ndarray)
    return found


def test_a_recurrent_layers_last_state_beside_a_skip_is_no_reason_to_leave_the_layer_out() -> None:
    body = "t = Unsqueeze(x, zero)  y, h = GRU <hidden_size = 4> (t, w, r)  s = Squeeze(h, zero)  a = Add(s, x)"
    constants = {"zero": np.array([0]), "w": weights(1, 12, 4), "r": weights(1, 12, 4), "v": weights(4, CLASSES)}
    model = parsed(body + "  logits = MatMul(a, v)", **constants)
    x = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
    # One step from the state zero: h = (1 − σ(z))·tanh(c).
    z, _, c = np.split(weights(1, 12, 4)[0].astype(np.float64), 3)
    gate, candidate = 1 / (1 + np.exp(x @ z.T)), np.tanh(x @ c.T)
    g = weights(4, CLASSES)[:, 0]
    expected = g + (g * gate * (1 - candidate**2)) @ c - (g * candidate * gate * (1 - gate)) @ z
    assert gradient(build_twin(model), x) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_bound_that_follows_the_image_is_refused_with_the_clip() -> None:
    body = "m = ReduceMean <keepdims = 0> (x)  c = Clip(x, , m)  logits = MatMul(c, v)"
    with pytest.raises(UsageError, match=r"saliency of Clip .* found `m`, which follows the image"):
        build_twin(parsed(body, v=weights(4, CLASSES)))


def test_statistics_that_a_normalisation_hands_out_are_refused_with_it() -> None:
    body = "y, m = LayerNormalization(x, s)  a = Add(y, m)  logits = MatMul(a, v)"
    with pytest.raises(UsageError, match=r"saliency of LayerNormalization .* found `m` there too"):
        build_twin(parsed(body, s=weights(4), v=weights(4, CLASSES)))


def test_a_file_of_ir_version_3_has_a_twin() -> None:
    model = parsed("t = Tanh(x)  logits = MatMul(t, v)", opset=9, ir=3, v=weights(4, CLASSES))
    model.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [4, CLASSES]))
    x = np.ones((2, 4), np.float32)
    assert gradient(build_twin(model), x) == pytest.approx(
        np.tile((1 - np.tanh(1) ** 2) * weights(4, CLASSES)[:, 0], (2, 1)), rel=1e-5
    )


def test_tensors_may_be_called_like_the_twins_own() -> None:
    model = parsed("t = Tanh(x)  logits = MatMul(t, v)", v=weights(4, CLASSES))
    for names in (model.graph.node[0].output, model.graph.node[1].input):
        names[:] = ["twin/OneHot_1" if name == "t" else "twin/constant_0" if name == "v" else name for name in names]
    model.graph.initializer[0].name = "twin/constant_0"
    x = np.full((1, 4), 0.5, np.float32)
    expected = (1 - np.tanh(0.5) ** 2) * weights(4, CLASSES)[:, 0]
    assert gradient(build_twin(model), x)[0] == pytest.approx(expected, rel=1e-5)


def test_shapes_that_inference_does_not_find_are_taken_from_a_run() -> None:
    # The size of the second axis is computed in a way that inference does not follow.
    body = "n = Shape(x)  f = Cast <to = 1> (n)  h = Mul(f, half)  i = Cast <to = 7> (h)  c = Slice(i, one, two)"
    body += "  b = Slice(n, zero, one)  s = Concat <axis = 0> (b, two, c)  y = Reshape(x, s)"
    body += "  m = ReduceL2 <axes = [2]> (y)  q = Squeeze(m, two)  logits = MatMul(q, v)"
    model = parsed(body, half=np.array([1, 0.5], np.float32), zero=np.array([0]), one=np.array([1]),
                   two=np.array([2]), v=weights(2, CLASSES))  # fmt: skip
    x = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
    parts = x.reshape(3, 2, 2)
    expected = parts / np.linalg.norm(parts, axis=2, keepdims=True) * weights(2, CLASSES)[:, 0][None, :, None]
    assert gradient(build_twin(model), x) == pytest.approx(expected.reshape(3, 4), rel=1e-4)


def test_a_softmax_from_before_opset_13_over_all_axes() -> None:
    body = "s = Softmax <axis = 1> (x)  m = Mul(s, x)  p = GlobalAveragePool(m)  f = Flatten(p)"
    model = parsed(body + "  logits = MatMul(f, v)", "N, 2, 3, 3", opset=11, ir=6, v=weights(2, CLASSES))
    x = np.random.default_rng(0).normal(0, 1, (2, 2, 3, 3)).astype(np.float32)
    shares = np.exp(x) / np.exp(x).sum(axis=(1, 2, 3), keepdims=True)
    g = np.broadcast_to(weights(2, CLASSES)[:, 0][None, :, None, None] / 9, x.shape)
    through = shares * (g * x - (g * x * shares).sum(axis=(1, 2, 3), keepdims=True))
    assert gradient(build_twin(model), x) == pytest.approx(g * shares + through, rel=1e-4, abs=1e-6)


def test_numbers_that_a_range_or_a_one_hot_code_hands_on_are_refused_with_it() -> None:
    body = "m = ReduceMean <axes = [1], keepdims = 0> (x)  f = Squeeze(m)  r = Range(f, five, one)"
    body += "  s = ReduceSum <keepdims = 0> (r)  a = Add(s, x)  logits = MatMul(a, v)"
    scalars = {"five": np.array(5, np.float32), "one": np.array(1, np.float32), "v": weights(4, CLASSES)}
    with pytest.raises(UsageError, match=r"found Range .*occlusion"):
        build_twin(parsed(body, "1, 4", **scalars))
    body = "i = ArgMax <axis = 1, keepdims = 0> (x)  m = ReduceMean <axes = [0, 1]> (x)  f = Flatten <axis = 0> (m)"
    body += "  u = Squeeze(f, zero)  p = Concat <axis = 0> (u, u)  h = OneHot(i, four, p)  a = Add(h, x)"
    constants = {"zero": np.array([0]), "four": np.array(4), "v": weights(4, CLASSES)}
    with pytest.raises(UsageError, match=r"found OneHot .*occlusion"):
        build_twin(parsed(body + "  logits = MatMul(a, v)", **constants))


def test_a_dropout_that_trains_is_refused() -> None:
    constants = {"r": np.array(0.5, np.float32), "t": np.array(True), "v": weights(4, CLASSES)}
    with pytest.raises(UsageError, match=r"saliency of Dropout .* expected inference, found training_mode"):
        build_twin(parsed("d = Dropout(x, r, t)  logits = MatMul(d, v)", **constants))


def test_a_length_that_follows_the_image_is_no_measured_one() -> None:
    # As many values as are above 0: in one run all, in another half.
    body = "t = Greater(x, zero)  n = NonZero(t)  i = Transpose(n)  g = GatherND(x, i)  m = ReduceMean <keepdims = 0>"
    model = parsed(body + " (g)  a = Add(m, x)  logits = MatMul(a, v)", "2, 4", zero=np.array(0, np.float32),
                   v=weights(4, CLASSES))  # fmt: skip
    with pytest.raises(
        UsageError, match=r"expected axis 0 of `g` .* to have a fixed length.* The image's own sizes are fixed"
    ):
        build_twin(model)


def test_sizes_that_may_broadcast_or_not_are_refused() -> None:
    model = parsed("a = Add(x, k)  logits = MatMul(a, v)", "N, M", k=weights(1, 4), v=weights(4, CLASSES))
    with pytest.raises(UsageError, match=r"expected tensors of known sizes where they broadcast"):
        build_twin(model)
