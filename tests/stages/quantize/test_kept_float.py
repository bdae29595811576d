"""What integers would answer something else for stays in float, by name; an ordinary network keeps nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from stages.quantize.kept_float import nodes_kept_float


def parsed(body: str, outputs: str = "float[N, 3, 6, 6] y", **constants: np.ndarray) -> ModelProto:
    lines = "\n".join(body.split("  "))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> of (float[N, 3, 6, 6] x) => ({outputs}) {{ {lines} }}'
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{number}"
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def kept(model: ModelProto) -> tuple[str, ...]:
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 6, 6)).astype(np.float32)
    return nodes_kept_float(model, lambda: [{"x": images}])


def test_an_ordinary_network_keeps_nothing() -> None:
    body = (
        "c = Conv(x, w)  r = Relu(c)  k = Clip(r, low, high)  m = MaxPool <kernel_shape = [1, 1]> (k)  y = Add(m, x)"
    )
    model = parsed(body, w=np.ones((3, 3, 1, 1), np.float32), low=np.float32(0), high=np.float32(6))
    assert kept(model) == ()


@pytest.mark.parametrize("masked", [-np.inf, np.finfo(np.float32).min, -1e4])
def test_a_mask_and_the_softmax_behind_it(masked: float) -> None:
    mask = np.where(np.eye(6) > 0, 0, masked).astype(np.float32)
    model = parsed("s = Mul(x, half)  a = Add(s, m)  p = Softmax(a)  y = MatMul(p, x)", m=mask, half=np.float32(0.5))
    assert kept(model) == ("Add1", "Softmax2", "MatMul3")


def test_a_pad_of_the_smallest_float_before_a_maximum() -> None:
    body = "p = Pad(x, k, v)  y = MaxPool <kernel_shape = [3, 3]> (p)"
    pads, least = np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(np.finfo(np.float32).min)
    assert kept(parsed(body, k=pads, v=least)) == ("Pad0", "MaxPool1")


def test_a_clip_whose_interval_leaves_out_zero() -> None:
    model = parsed("c = Clip(x, low, high)  y = Relu(c)", low=np.float32(1), high=np.float32(3))
    assert kept(model) == ("Clip0",)


def test_a_relu_before_which_somebody_else_looks() -> None:
    model = parsed("f = Add(x, x)  y = Relu(f)", "float[N, 3, 6, 6] y, float[N, 3, 6, 6] f")
    assert kept(model) == ("Relu1",)


def test_the_average_of_powers_and_what_a_step_reads() -> None:
    body = "p = Pow(x, three)  g = GlobalAveragePool(p)  r = Pow(g, third)  a = Add(r, x)  s = Sign(a)  y = Mul(s, x)"
    assert kept(parsed(body, three=np.float32(3), third=np.float32(1 / 3))) == ("GlobalAveragePool1", "Add3")


def test_what_is_computed_of_shapes() -> None:
    body = "n = Shape(x)  f = Cast <to = 1> (n)  h = Mul(f, half)  i = Cast <to = 7> (h)  r = Cast <to = 1> (i)"
    model = parsed(body + "  m = ReduceMean <keepdims = 0> (r)  y = Mul(x, m)", half=np.float32(0.5))
    assert kept(model) == ("Shape0", "Cast1", "Mul2", "Cast3", "Cast4", "ReduceMean5")


def test_a_relu_that_a_branch_reads() -> None:
    branches = [
        f"{name} () => (float[N, 3, 6, 6] s) {{ s = {node}(r) }}" for name, node in (("t", "Tanh"), ("e", "Neg"))
    ]
    body = f"n = ReduceMax <keepdims = 0> (x)  c = Greater(n, k)  r = Relu(x)  y = If <then_branch = {branches[0]},"
    assert kept(parsed(f"{body} else_branch = {branches[1]}> (c)", k=np.float32(1))) == ("Relu2",)


def test_a_mask_that_is_made_of_a_shape() -> None:
    body = "n = Shape <start = 2> (x)  c = ConstantOfShape <value = float[1] {-3.4e38}> (n)  u = Trilu(c, one)"
    model = parsed(body + "  a = Add(x, u)  p = Softmax(a)  y = MatMul(p, x)", one=np.int64(1))
    assert kept(model) == ("Shape0", "ConstantOfShape1", "Trilu2", "Add3", "Softmax4", "MatMul5")


def test_what_a_quotient_or_a_logarithm_is_taken_of() -> None:
    body = "s = Sigmoid(x)  l = Log(s)  p = Softmax(x)  m = Mul(p, k)  a = Add(m, x)  d = Div(m, a)  h = Div(x, two)"
    model = parsed(body + "  y = Sum(l, d, h)", k=np.ones(6, np.float32), two=np.float32(2))
    assert kept(model) == ("Sigmoid0", "Softmax2", "Mul3", "Add4")


def test_powers_of_e_until_a_quotient_brings_them_back() -> None:
    pool = "AveragePool <kernel_shape = [1, 1]>"
    body = f"e = Exp(x)  m = Mul(e, x)  a = {pool} (m)  b = {pool} (e)  d = Div(a, b)  y = Add(d, x)"
    assert kept(parsed(body)) == ("Mul1", "AveragePool2", "AveragePool3", "Div4")


def test_a_product_with_one_vector_but_none_with_a_matrix() -> None:
    model = parsed("m = MatMul(x, w)  v = MatMul(m, u)  q = Unsqueeze(v, last)  y = Mul(q, x)",
                   w=np.eye(6, dtype=np.float32), u=np.ones(6, np.float32), last=np.array([-1]))  # fmt: skip
    assert kept(model) == ("MatMul1",)
