"""Static files of classifiers with operators that integers, or ONNX Runtime's writer and optimizer, do wrong by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign_files import write, write_images
from onnx import ModelProto, numpy_helper

from foundation.errors import StageError
from foundation.progress import Silent
from pipeline.one_file.compile_file import compile_file
from pipeline.one_file.options import request_for
from pipeline.one_file.result import CompiledFile

LEAST_DB = 25.0
SIZES: dict[str, tuple[int, ...]] = {
    "w": (8, 3, 3, 3), "b": (8,), "v": (8, 8, 3, 3), "f": (8, 24), "g": (8, 8), "stack": (3, 8, 8), "vector": (8,),
    "head": (8, 4), "bias": (4,),
}  # fmt: skip
BODIES: dict[str, str] = {
    "a layer behind an operator of ONNX Runtime": "p = GlobalAveragePool(r)  q = Flatten(p)"
    "  m = com.microsoft.FusedMatMul <alpha = 0.7> (q, g)  z = Relu(m)",
    # What the branches see is the ReLU's output, not the convolution's.
    "a branch that reads a ReLU": "n = ReduceMax <keepdims = 0> (r)  c = Greater(n, nought)"
    "  y = If <then_branch = t () => (float[N, 8, 16, 16] s) { s = Tanh(r) },"
    " else_branch = e () => (float[N, 8, 16, 16] s) { s = Neg(r) }> (c)",
    "the logarithm of probabilities": "k = Conv <pads = [1, 1, 1, 1]> (r, v)"
    "  h = Mul(k, sharp)  s = Softmax <axis = 1> (h)  y = Log(s)",
    "a pool weighed by powers of e": "h = Mul(r, sharp)  e = Exp(h)  i = Mul(e, r)"
    "  a = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (i)"
    "  d = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (e)  y = Div(a, d)",
    "probabilities shared out anew": "i = Reshape(r, rows)  j = Transpose <perm = [0, 2, 1]> (i)"
    "  k = MatMul(i, j)  h = Mul(k, more)  s = Softmax <axis = -1> (h)  t = Mul(s, left)"
    "  u = ReduceSum(t, last)  d = Div(t, u)  o = MatMul(d, i)  y = Reshape(o, map)",
    "a stack of matrices": "p = GlobalAveragePool(r)  q = Reshape(p, alone)  m = MatMul(q, stack)"
    "  z = ReduceSum <keepdims = 0> (m, middle)",
    "a product with a vector": "p = GlobalAveragePool(r)  q = Flatten(p)  m = MatMul(q, vector)"
    "  u = Unsqueeze(m, last)  s = Sigmoid(u)  z = Mul(q, s)",
    "a bicubic resize": "h = Conv <pads = [1, 1, 1, 1]> (r, v)"
    '  k = Resize <mode = "cubic"> (h, , scales)  y = Conv <pads = [1, 1, 1, 1]> (k, v)',
    "a pad of named axes": "h = Conv <pads = [1, 1, 1, 1]> (r, v)"
    '  k = Pad <mode = "wrap"> (h, ends, , named)  y = Conv <strides = [2, 2]> (k, v)',
    "a dilated average": "k = AveragePool <kernel_shape = [2, 2], dilations = [3, 2]> (r)  y = Conv(k, v)",
    "a mask that is made of a shape": "i = Reshape(r, rows)  j = Transpose <perm = [0, 2, 1]> (i)  k = MatMul(i, j)"
    "  h = Mul(k, small)  n = Shape <start = 1> (h)  c = ConstantOfShape <value = float[1] {-3.4e38}> (n)"
    "  u = Trilu <upper = 1> (c, one)  a = Add(h, u)  s = Softmax <axis = -1> (a)  o = MatMul(s, i)"
    "  y = Reshape(o, map)",
    "the first group normalisation": "k = Conv <pads = [1, 1, 1, 1]> (r, v)"
    "  y = GroupNormalization <num_groups = 2> (k, two, few)",
}
CONSTANTS = {
    "nought": np.float32(0.5), "small": np.float32(0.02), "more": np.float32(0.1), "sharp": np.float32(6),
    "one": np.int64(1), "place": np.int64(100), "rows": np.array([0, 8, -1]), "map": np.array([0, 8, 16, 16]),
    "last": np.array([-1]), "first": np.array([[0]]), "middle": np.array([1, 2]), "alone": np.array([-1, 1, 1, 8]),
    "left": np.tril(np.ones((8, 8), np.float32)), "scales": np.array([1, 1, 0.625, 1.75], np.float32),
    "ends": np.array([2, 1, 1, 2]), "named": np.array([2, 3]), "two": np.array([0.5, 2], np.float32),
    "few": np.array([0.1, -0.2], np.float32),
}  # fmt: skip


def classifier_of(body: str, outputs: str = "float[N, 4] logits") -> ModelProto:
    head = "" if "  z =" in body else "  p = GlobalAveragePool(y)  z = Flatten(p)"
    lines = f"k0 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)  r = Relu(k0)  {body}{head}"
    lines += "  logits = Gemm(z, head, bias)"
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": {18 if "GroupN" in body else 19}, "com.microsoft": 1]>'
        f" of (float[N, 3, 32, 32] x) => ({outputs}) {{ {chr(10).join(lines.split('  '))} }}"
    )
    rng = np.random.default_rng(3)
    drawn = {name: rng.normal(0, np.prod(size[1:]) ** -0.5, size) for name, size in SIZES.items()}
    given = {name: value.astype(np.float32) for name, value in drawn.items()} | CONSTANTS
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in given.items() if name in lines
    )
    return model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 24)


@pytest.fixture
def static(images: Path, tmp_path: Path) -> Callable[..., CompiledFile]:
    def compile_static(model: ModelProto, method: str = "static") -> CompiledFile:
        values = {"images": images, "mean": "0.5", "std": "0.25", "limit": 12, "method": method}
        path = write(model, tmp_path / "theirs.onnx")
        return compile_file(request_for(path, values | {"output": tmp_path / "out.onnx"}), Silent())

    return compile_static


@pytest.mark.parametrize("kind", BODIES)
def test_a_static_file_answers_like_the_float_file(kind, static, capfd):
    found = static(classifier_of(BODIES[kind]))
    assert found.agreement.outputs_db["logits"] >= LEAST_DB
    assert "onnxruntime" not in capfd.readouterr().err  # its errors are ours to tell


@pytest.mark.parametrize(
    "operator",
    [
        "Celu <alpha = 2.0> (r)",
        "MeanVarianceNormalization <axes = [1]> (r)",
        'ScatterND <reduction = "add"> (r, first, r)',
    ],
)
def test_half_precision_leaves_out_what_knows_none(operator, static):
    found = static(classifier_of(f"y = {operator}"), "fp16")
    assert found.agreement.outputs_db["logits"] >= 50


def test_a_dynamic_file_multiplies_by_a_vector(static):
    found = static(classifier_of(BODIES["a product with a vector"]), "dynamic")
    assert found.agreement.outputs_db["logits"] >= LEAST_DB


def test_class_numbers_alone_are_compared_as_classes(static):
    model = classifier_of("i = Reshape(r, rows)  z = Gather <axis = 2> (i, place)")
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["N"]))
    found = static(model)
    assert found.agreement.outputs_db == {}
    assert found.agreement.same_class > 0.7


def test_a_size_without_a_name_stays_without(static, tmp_path):
    model = classifier_of("p = GlobalAveragePool(r)  z = Flatten(p)")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    static(model)
    (logits,) = onnx.load_model(tmp_path / "out.onnx").graph.output
    assert not logits.type.tensor_type.shape.dim[0].WhichOneof("value")


def test_a_file_that_does_not_run_is_the_methods_and_not_the_models(static, monkeypatch):
    monkeypatch.setattr("stages.quantize.methods.static.with_fences", lambda proto: proto)
    with pytest.raises(StageError, match=r"theirs\.onnx: expected a file of `static` .* \(\[ONNXRuntimeError\]"):
        static(classifier_of(BODIES["a pad of named axes"]))
