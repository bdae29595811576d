"""The twin as a file: its name, its metadata, its bytes, and the files that it is not made from."""

from __future__ import annotations

import hashlib
import itertools
import resource

import numpy as np
import onnx
import pytest
from onnx import helper

from foundation.errors import UsageError
from stages.saliency_twin.twin_file import TWIN_OF_KEY, make_twin


@pytest.fixture
def model(tmp_path):
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[batch, 3, 4, 4] image) => (float[batch, 48] logits)'
        " { r = Relu(image)\n logits = Flatten(r) }"
    )
    onnx.helper.set_model_props(proto, {"edgeproof.classes": '["a"]'})
    path = tmp_path / "fp32.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_the_twin_stands_beside_its_model_and_says_whose_it_is(model):
    twin = make_twin(model, None, None, None)
    assert twin == model.with_name("fp32.saliency.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(twin).metadata_props}
    assert metadata == {
        "edgeproof.classes": '["a"]', TWIN_OF_KEY: hashlib.sha256(model.read_bytes()).hexdigest()
    }  # fmt: skip
    onnx.checker.check_model(onnx.load(twin), full_check=True)
    assert {node.domain for node in onnx.load(twin).graph.node} == {""}


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    first, second = (make_twin(model, tmp_path / name, "image", "logits") for name in ("a.onnx", "b.onnx"))
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UsageError, match="expected another file than the model"):
        make_twin(model, model, None, None)


def test_what_is_no_self_contained_model_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "notes.onnx").write_text("no model")
    with pytest.raises(UsageError, match=r"notes\.onnx: expected an ONNX model, found something else"):
        make_twin(tmp_path / "notes.onnx", None, None, None)
    with pytest.raises(UsageError, match="found no file"):
        make_twin(tmp_path / "absent.onnx", None, None, None)

    proto = onnx.load(model)
    weight = onnx.numpy_helper.from_array(np.zeros((1,), np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "../elsewhere.bin")
    weight.ClearField("raw_data")
    proto.graph.initializer.append(weight)
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(proto.SerializeToString())
    with pytest.raises(UsageError, match="expected an ONNX model, found something else"):
        make_twin(outside, None, None, None)

    assert not list(tmp_path.glob("*.saliency.onnx"))


def test_a_vector_of_sizes_that_doubles_thirty_times_takes_no_memory_here_or_in_the_child(model):
    # 1.3 KB that shape inference would make 8 GB of.
    proto = onnx.load(model)
    proto.graph.node.append(helper.make_node("Shape", ["image"], ["d0"]))
    proto.graph.node.extend(helper.make_node("Concat", [f"d{n}"] * 2, [f"d{n + 1}"], axis=0) for n in range(30))
    proto.graph.node.append(helper.make_node("Size", ["d30"], ["unread"]))
    onnx.save(proto, model)
    before = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    make_twin(model, None, None, None)
    after = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    assert after[0] - before[0] < 50_000
    assert after[1] <= max(before[1], 400_000)


def test_a_chain_of_three_thousand_activations_has_its_twin(model):
    proto = onnx.load(model)
    (last,) = [node for node in proto.graph.node if "logits" in node.output]
    last.output[list(last.output).index("logits")] = "c0"
    names = [f"c{n}" for n in range(3000)] + ["logits"]
    proto.graph.node.extend(helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names))
    onnx.save(proto, model)
    twin = onnx.load(make_twin(model, None, None, None))
    assert len(twin.graph.node) > 6000


def test_shapes_that_a_run_shows_need_no_memory_for_all_activations(tmp_path):
    # Padding computed by way of floats, as of TensorFlow's "same": inference gives up there, and a run follows. All
    # activations together are 1.7 GB, a child for so small a file has 2.
    chain = "\n".join(f"x{i + 1} = Neg(x{i})" for i in range(24))
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 17]> g (float[1, 1, 512, 512] image) => (float[1, 64] logits)'
        " <float[1] none = {0}> {\n sizes = Shape(image)\n real = Cast <to = 1> (sizes)\n nothing = Mul(real, none)"
        "\n margin = Cast <to = 7> (nothing)\n pads = Concat <axis = 0> (margin, margin)"
        f"\n padded = Pad(image, pads)\n x0 = Conv(padded, w)\n{chain}\n pooled = GlobalAveragePool(x24)"
        "\n logits = Flatten(pooled) }"
    )
    weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(64, 1, 1, 1)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path / "fp32.onnx"
    onnx.save_model(proto, path)
    graph = onnx.load(make_twin(path, None, None, None)).graph
    assert [d.dim_value for d in graph.output[1].type.tensor_type.shape.dim] == [1, 1, 512, 512]
