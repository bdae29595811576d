"""Branches and loops: those that shapes decide, those that follow the image, and those that are refused."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from foundation.errors import UsageError
from stages.saliency_twin.grad_cam import build_grad_cam
from stages.saliency_twin.twin import build_twin

CLASSES = 3
RNG = np.random.default_rng(1)
HEAD = RNG.normal(size=(4, CLASSES)).astype(np.float32)
X = RNG.normal(size=(2, 4)).astype(np.float32)


def parsed(body: str, opset: int = 18, shape: str = "N, 4", **constants: np.ndarray) -> onnx.ModelProto:
    """Return a model from x [batch, 4] over y to logits."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>'
        f" of (float[{shape}] x) => (float[N, {CLASSES}] logits)"
        f" {{ {body} logits = MatMul(y, head) }}"
    )
    constants = {"head": HEAD} | constants
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    return model


def gradient(model: onnx.ModelProto, session, x: np.ndarray = X, target: int = 0) -> np.ndarray:
    twin = build_twin(model)
    logits, found, _ = session(twin).run(None, {"x": x, "target": np.full(len(x), target)})
    assert np.array_equal(logits, session(model).run(None, {"x": x})[0])
    return found


def branches(then: str, otherwise: str) -> str:
    return f"""If (c) <
        then_branch = one () => (float[N, 4] p, float[N, 4] q) {{ {then} }},
        else_branch = two () => (float[N, 4] p2, float[N, 4] q2) {{ {otherwise} }}
    >"""


TWO = branches("p = Mul(x, x) q = Sin(x)", "p2 = Neg(x) q2 = Mul(x, three)")
BY_IMAGE = "m = ReduceSum <keepdims = 0> (x) c = Greater(m, zero) "
G = np.tile(HEAD[:, 0], (2, 1))


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("output", [0, 1], ids=["first output", "second output"])
def test_each_output_of_a_branch_hands_its_gradient_back(taken, output, session):
    body = BY_IMAGE + f"a, b = {TWO} y = Identity({'ab'[output]})"
    x = np.abs(X) if taken else -np.abs(X)
    slopes = [[2 * x, np.cos(x)], [np.full_like(x, -1), np.full_like(x, 3)]][0 if taken else 1][output]
    found = gradient(parsed(body, zero=np.float32(0), three=np.float32(3)), session, x)
    assert found == pytest.approx(G * slopes, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("taken", [True, False])
def test_both_outputs_beside_a_skip_add_up(taken, session):
    body = BY_IMAGE + f"a, b = {TWO} s = Add(a, b) y = Add(s, x)"
    x = np.abs(X) if taken else -np.abs(X)
    slopes = 2 * x + np.cos(x) if taken else np.full_like(x, 2)
    found = gradient(parsed(body, zero=np.float32(0), three=np.float32(3)), session, x)
    assert found == pytest.approx(G * (slopes + 1), rel=1e-4, abs=1e-6)


def test_the_branch_that_is_not_taken_does_no_harm(session):
    # ln of a negative number is none, and its slope times zero neither.
    body = BY_IMAGE + f"a, b = {branches('p = Log(x) q = Sqrt(x)', 'p2 = Neg(x) q2 = Identity(x)')} y = Add(a, b)"
    found = gradient(parsed(body, zero=np.float32(0)), session, -np.abs(X))
    assert not found.any()


def test_a_branch_reads_what_was_computed_before_it(session):
    then = "k = Constant <value_float = 2.0> () p = Mul(t, k) q = Mul(t, x)"
    body = "t = Exp(x) " + BY_IMAGE + f"a, b = {branches(then, 'p2 = Neg(t) q2 = Mul(t, t)')} y = Add(a, b)"
    x = np.abs(X)
    found = gradient(parsed(body, zero=np.float32(0)), session, x)
    assert found == pytest.approx(G * np.exp(x) * (3 + x), rel=1e-4)


def test_a_branch_within_a_branch(session):
    inner = f"c2 = Less(m, two) u, v = {branches('p = Exp(x) q = Neg(x)', 'p2 = Sin(x) q2 = Mul(x, x)')}"
    inner = inner.replace("If (c)", "If (c2)").replace("one ()", "three ()").replace("two ()", "four ()")
    inner = inner.replace("p2", "s2").replace("q2", "w2").replace(" p ", " s ").replace(" q ", " w ")
    inner = inner.replace("] p,", "] s,").replace("] q)", "] w)")
    body = BY_IMAGE + f"a, b = {branches(inner + ' p = Mul(u, x) q = Identity(v)', 'p2 = Neg(x) q2 = Neg(x)')}"
    model = parsed(body + " y = Add(a, b)", zero=np.float32(0), two=np.float32(2))
    small, large = np.full((2, 4), 0.1, np.float32), np.full((2, 4), 0.9, np.float32)
    assert gradient(model, session, small) == pytest.approx(G * (np.exp(0.1) * 1.1 - 1), rel=1e-4)
    assert gradient(model, session, large) == pytest.approx(G * (np.sin(0.9) + 0.9 * np.cos(0.9) + 2 * 0.9), rel=1e-4)


def test_a_condition_on_shapes_is_decided_once(session):
    # As exporters write "squeeze it if the axis has length 1".
    body = """n = Shape <start = 1, end = 2> (t) e = Equal(n, one) c = Squeeze(e)
        y = If (c) <
            then_branch = squeezed () => (float[N, 4] s) { s = Squeeze(t, one) },
            else_branch = left () => (float[N, 1, 4] i) { i = Identity(t) }
        >"""
    model = parsed("u = Unsqueeze(x, one) t = Tanh(u) " + body, one=np.array([1]))
    twin = build_twin(model)
    assert [node.op_type for node in twin.graph.node].count("If") == 1
    found = session(twin).run(["saliency"], {"x": X, "target": np.zeros(2, np.int64)})[0]
    assert found == pytest.approx(G * (1 - np.tanh(X) ** 2), rel=1e-4)


def test_a_counted_loop_is_differentiated_through_its_iterations(session):
    body = """y = Loop (n, , x) <
        body = one (int64 i, bool k, float[N, 4] h) => (bool o, float[N, 4] t) { o = Identity(k) t = Mul(h, x) }
    >"""
    found = gradient(parsed(body, n=np.int64(3)), session)
    assert found == pytest.approx(G * 4 * X**3, rel=1e-4, abs=1e-6)


REFUSED = {
    "a loop that the image ends": """y = Loop (n, , x) <
        body = one (int64 i, bool k, float[N, 4] h) => (bool o, float[N, 4] t) {
            t = Mul(h, x) m = ReduceSum <keepdims = 0> (t) o = Greater(m, zero)
        }
    >""",
    "a loop as often as the image says": """m = ReduceSum <keepdims = 0> (x) j = Cast <to = 7> (m) y = Loop (j, , x) <
        body = one (int64 i, bool k, float[N, 4] h) => (bool o, float[N, 4] t) { o = Identity(k) t = Mul(h, x) }
    >""",
    "a loop of a million times": """y = Loop (million, , x) <
        body = one (int64 i, bool k, float[N, 4] h) => (bool o, float[N, 4] t) { o = Identity(k) t = Mul(h, x) }
    >""",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loop_of_open_length_is_refused_by_name(name):
    constants = {"n": np.int64(3), "zero": np.float32(0), "million": np.int64(1_000_000)}
    body = REFUSED[name]
    with pytest.raises(UsageError, match=r"found Loop .*occlusion"):
        build_twin(parsed(body, **{key: value for key, value in constants.items() if f"{key}" in body}))


def test_an_operator_without_a_rule_within_a_branch_is_named():
    body = BY_IMAGE + f"a, b = {branches('p = Det(x) q = Sin(x)', 'p2 = Neg(x) q2 = Neg(x)')} y = Add(a, b)"
    with pytest.raises(UsageError, match=r"found Det .*occlusion"):
        build_twin(parsed(body, zero=np.float32(0)))


def test_a_power_of_the_image_beside_it(session):
    found = gradient(parsed("p = Pow(three, x) y = Add(p, x)", three=np.float32(3)), session)
    assert found == pytest.approx(G * (3.0**X * np.log(3) + 1), rel=1e-4)


def test_grad_cam_sees_what_a_branch_takes_from_before_it(session):
    body = """c1 = Conv(x, w) m = ReduceSum <keepdims = 0> (c1) c = Greater(m, zero) b = If (c) <
        then_branch = one () => (float[N, 4, 6, 6] p) { p = Mul(c1, c1) },
        else_branch = two () => (float[N, 4, 6, 6] q) { q = Sin(c1) }
    > g = GlobalAveragePool(b) y = Flatten(g)"""
    model = parsed(body, shape="N, 3, 6, 6", w=RNG.normal(size=(4, 3, 1, 1)).astype(np.float32), zero=np.float32(0))
    x = RNG.normal(size=(2, 3, 6, 6)).astype(np.float32)
    found = session(build_grad_cam(model)).run(["saliency"], {"x": x, "target": np.zeros(2, np.int64)})[0]
    # Of the branch's output, whose gradient is the head's weight over the positions.
    taken = np.einsum("nchw,kc->nkhw", x, onnx.numpy_helper.to_array(model.graph.initializer[1])[:, :, 0, 0])
    taken = taken**2 if taken.sum() > 0 else np.sin(taken)
    expected = np.maximum(np.einsum("nkhw,k->nhw", taken, HEAD[:, 0]) / 36, 0)
    assert found[:, 0] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_more_fused_products_than_rounds_of_inference(session):
    # The shape behind each is known only once it is led back to plain ones.
    names = ["u", *(f"p{number}" for number in range(40))]
    chain = " ".join(f"{y} = com.microsoft.FusedMatMul <alpha = 0.9> ({x}, e)" for x, y in itertools.pairwise(names))
    model = parsed(f"u = Tanh(x) {chain} y = Tanh({names[-1]})", e=np.eye(4, dtype=np.float32))
    x = 20 * X
    slopes = (1 - np.tanh(0.9**40 * np.tanh(x)) ** 2) * 0.9**40 * (1 - np.tanh(x) ** 2)
    assert gradient(model, session, x) == pytest.approx(G * slopes, rel=1e-3, abs=1e-7)
